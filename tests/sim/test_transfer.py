"""Tests of handshake and transfer over bad links, which are the same each time for one seed."""

from __future__ import annotations

from hashlib import sha256
from math import sqrt
from typing import Any

from p2pnet import reports
from p2pnet.core.peer import agent
from p2pnet.core.peer.finder import Request, ServiceFinder
from p2pnet.errors import UnknownService
from p2pnet.quic.engine import Engine
from p2pnet.quic.multiplexer import prepare
from p2pnet.testing.network import Link, Packet
from p2pnet.testing.realm import Simulation
from tests.sim.support import Echo, SimulationCase, leftovers

MEBIBYTE = 1 << 20
QUARTER = MEBIBYTE // 4


def lossy(loss: float, **options: Any) -> Link:
    """A link of which two in a row lose that part of the packets."""
    return Link(loss=1 - sqrt(1 - loss), **options)


class TransferTests(SimulationCase):
    """A stream through the real nodes of all three roles."""

    def transfer(self, seed: int, link: Link, within: float, size: int = MEBIBYTE) -> Simulation:
        """Have `size` bytes echoed and compare them at both ends; all is stopped afterwards."""
        simulation = self.simulate(seed, link, keep_trace=True)
        agent, _, served = self.trio(simulation, Echo)
        talk = self.talk(simulation, agent)
        data = simulation.network.random.randbytes(size)
        talk.transport.write(data)
        talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: talk.why, within)
        self.assertEqual(sha256(data).digest(), sha256(served.made[0].heard).digest())
        self.assertEqual(sha256(data).digest(), sha256(talk.heard).digest())
        simulation.stop()
        return simulation

    def fates(self, simulation: Simulation) -> set[str]:
        """What became of the packets."""
        return {packet.fate for packet in simulation.network.trace}

    def test_without_loss_a_mebibyte_goes_there_and_back_in_seconds(self) -> None:
        """The plain case, over 40 ms from end to end."""
        self.assertEqual({"delivered"}, self.fates(self.transfer(1, lossy(0.0), within=3.0)))

    def test_at_10_percent_loss_every_byte_arrives(self) -> None:
        """End to end, each way, handshakes included."""
        self.transfer(2, lossy(0.1), within=120.0)

    def test_at_30_percent_loss_every_byte_arrives(self) -> None:
        """The same; the control connections live through it too."""
        self.transfer(3, lossy(0.3), within=600.0)

    def test_jitter_that_reorders_most_packets_costs_no_byte(self) -> None:
        """Up to 50 ms on top of 20, so that hardly two packets arrive in order."""
        self.transfer(4, Link(jitter=0.05), within=120.0, size=QUARTER)

    def test_duplicates_do_no_harm(self) -> None:
        """Every fifth packet twice on each hop, and not at the same time."""
        self.transfer(5, Link(duplication=0.2, jitter=0.02), within=120.0, size=QUARTER)

    def test_a_small_queue_before_a_slow_link_is_found_and_respected(self) -> None:
        """10 Mbit/s and 20 packets of queue: much is lost, all of it arrives, at a fair rate."""
        simulation = self.transfer(6, Link(rate=1_250_000, queue=24_000), within=20.0, size=QUARTER)
        self.assertEqual({"delivered", "queue"}, self.fates(simulation))

    def trace(self, seed: int) -> list[Packet]:
        """Every packet of a short life under loss, jitter and duplication."""
        link = lossy(0.1, jitter=0.01, duplication=0.05)
        return list(self.transfer(seed, link, within=60.0, size=MEBIBYTE // 8).network.trace)

    def test_the_same_seed_gives_the_same_packets_at_the_same_times(self) -> None:
        """Sizes, times, addresses and fates, from the first packet to the last."""
        self.assertEqual(self.trace(7), self.trace(7))

    def test_another_seed_gives_another_run(self) -> None:
        """Or the seed would not be used."""
        self.assertNotEqual(self.trace(7), self.trace(8))


class PreparationTests(SimulationCase):
    """An agent makes its connection while the Intermediate looks for the connector."""

    def setUp(self) -> None:
        """Count what is prepared before an answer, and after it."""
        self.early: list[Engine] = []
        self.late: list[Engine] = []
        prepare_early = ServiceFinder._prepare

        def note_early(finder: ServiceFinder, request: Request, now: float) -> None:
            prepare_early(finder, request, now)
            if request.engine is not None:
                self.early.append(self.late.pop())

        def note(*args: Any) -> Engine:
            self.late.append(prepare(*args))
            return self.late[-1]

        self.patch(ServiceFinder, "_prepare", note_early)
        self.patch(agent, "prepare", note)

    def test_what_was_prepared_is_used(self) -> None:
        """For the session that was asked for."""
        simulation = self.simulate()
        node, _, _ = self.trio(simulation)
        self.talk(simulation, node)
        (session,) = node.core.sessions
        self.assertEqual([session.connection.engine], self.early)
        self.assertEqual([], self.late)

    def test_what_was_prepared_in_vain_is_dropped(self) -> None:
        """Nobody serves that."""
        simulation = self.simulate()
        node, _, _ = self.trio(simulation)
        self.refused(simulation, node, UnknownService, "printer")
        self.assertEqual(1, len(self.early))
        self.assertEqual({}, leftovers(node.core, "links", "_mux", "timers"))

    def test_another_session_than_was_asked_for_has_a_connection_of_its_own(self) -> None:
        """The Intermediate has one already, which this agent does not know."""
        simulation = self.simulate()
        node, _, _ = self.trio(simulation)
        self.patch(Request, "session_id", property(lambda _: bytes(16), lambda *_: None))
        self.talk(simulation, node)
        self.assertEqual((1, 1), (len(self.early), len(self.late)))


class LifeTests(SimulationCase):
    """What is left when something is over."""

    def test_nothing_is_left_over_after_a_stop(self) -> None:
        """No table of any core has an entry of a node, a session or a stream that is gone."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        intermediate = simulation.nodes[0]
        for _ in range(3):
            self.talk(simulation, agent).transport.write(b"hello")
        simulation.network.run(1.0)
        for node in (agent, connector):
            node.stopService()
            # The last words have nobody to time them any more; the process is about to end.
            expected = ("links", "paths", "_ended", "_mux", "_relayed_at", "timers")
            self.assertEqual({}, leftovers(node.core, *expected))
        simulation.network.run(30.0)
        self.assertEqual({}, leftovers(intermediate.core))

    def test_a_session_that_is_not_used_any_more_is_ended_by_both_ends(self) -> None:
        """After five minutes; the Intermediate forgets it too."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        talk = self.talk(simulation, agent)
        talk.transport.loseConnection()
        simulation.network.run(330.0)
        self.assertEqual(0, len(simulation.nodes[0].core.introductions))
        for node in (agent, connector):
            self.assertEqual(1, len(simulation.reported(node, reports.SessionClosed)))
            left = leftovers(node.core, "_ended", "_relayed_at")
            self.assertEqual({"links": 1, "_mux": 1, "timers": 1}, left)

    def test_regression_a_service_can_be_used_again_after_its_session_was_ended(self) -> None:
        """The Intermediate handed out the ended session, which the connector had forgotten."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        self.talk(simulation, agent).transport.loseConnection()
        simulation.network.run(330.0)
        talk = self.talk(simulation, agent)
        talk.transport.write(b"hello again")
        self.run_until(simulation, lambda: talk.heard == b"hello again", 2.0)
        self.assertEqual(2, len(simulation.reported(agent, reports.HandshakeCompleted)))
