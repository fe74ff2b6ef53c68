"""Whole nodes: from the relay to a direct path and back, and no byte of it lost."""

from __future__ import annotations

import functools
import itertools
from hashlib import sha256
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import LoopingCall

from p2pnet import reports
from p2pnet.testing.nat import Filtering, Mapping, NATBox
from p2pnet.testing.network import Link
from p2pnet.traversal.exchange import HEAD_START
from p2pnet.traversal.health import DEAD_AFTER
from p2pnet.traversal.paths import FAREWELL
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.demux import Kind
from tests.traversal.nodes import AGENT, CONNECTOR, LINK, LOST, DirectCase, Packet

SIZE = 1 << 19


class TransferCase(DirectCase):
    """Talks that are echoed, so that both directions are under load."""

    loop: LoopingCall | None = None

    def write(self, talk: Any, every: float = 0.02, size: int = 400) -> bytearray:
        """Have the agent write regularly, until stop(); what it wrote."""
        written = bytearray()

        def write() -> None:
            data = self.net.random.randbytes(size)
            written.extend(data)
            talk.transport.write(data)

        self.loop = self.every(every, write)
        return written

    def finish(self, talk: Any, written: bytes | bytearray) -> None:
        """Write no more, and compare what came back; the stream must end well on both sides."""
        if self.loop is not None:
            self.loop.stop()
        talk.transport.loseWriteConnection()
        self.until(lambda: talk.why)
        self.assertEqual(sha256(written).digest(), sha256(talk.heard).digest())
        self.assertTrue(talk.why.check(ConnectionDone))
        for node in (self.agent, self.connector):
            (finished,) = self.simulation.reported(node, reports.StreamFinished)
            self.assertEqual("no_error", finished.code)

    def listen(self, talk: Any) -> list[float]:
        """When something was heard."""
        times: list[float] = []
        hear = talk.dataReceived

        def note(data: bytes) -> None:
            times.append(self.now)
            hear(data)

        talk.dataReceived = note
        return times


class BeginningTests(DirectCase):
    """When the ends begin to check."""

    def test_regression_both_ends_begin_together_on_a_long_way(self) -> None:
        """Beyond 200 ms QUIC sends the handshake's packets twice, and has no round trip of them:
        the agent waited 50 ms."""
        self.ready(link=Link(delay=0.06))
        talk = self.talk(self.simulation, self.agent)
        talk.transport.write(b"hello")
        self.until(self.is_direct)
        delays = [
            self.simulation.reported(node, reports.ChecksStarted)[0].delay
            for node in (self.agent, self.connector)
        ]
        self.assertAlmostEqual(HEAD_START, delays[0])
        self.assertAlmostEqual(0.12 + HEAD_START, delays[1], 2)


class SwitchTests(TransferCase):
    """Under load, in both directions."""

    def test_a_session_starts_relayed_and_is_direct_soon_after_its_first_byte(self) -> None:
        """Then nothing takes the relay any more; the path is that of the Agent's nomination."""
        self.ready()
        start = self.now
        talk = self.talk(self.simulation, self.agent)
        talk.transport.write(b"hello")
        self.until(lambda: talk.heard and self.is_direct())
        self.assertLess(self.now - start, 1.0)
        for node in (self.agent, self.connector):
            self.assertEqual(["relayed", "direct"], self.ways(node))
        self.net.run(1.0)
        quiet = self.now
        talk.transport.write(b"hello again")
        self.until(lambda: talk.heard == b"hellohello again")
        self.assertEqual([], self.net.relayed(since=quiet))

    def test_a_transfer_becomes_direct_in_its_midst(self) -> None:
        """There was no direct way when it began."""
        slow = Link(delay=0.025, rate=200_000)
        self.realm(link=slow).intermediate()
        self.net.disturb(LOST)
        self.place()
        talk = self.talk(self.simulation, self.agent)
        data = self.net.random.randbytes(SIZE)
        talk.transport.write(data)
        self.until(lambda: len(talk.heard) > SIZE // 8)
        self.assertTrue(self.is_relayed())
        self.net.disturb(slow)
        self.until(self.is_direct)
        heard = len(talk.heard)
        self.assertLess(heard, SIZE // 2)
        self.net.run(1.0)
        moved = self.now
        self.until(lambda: len(talk.heard) == SIZE)
        self.assertEqual([], self.net.relayed(since=moved))
        self.finish(talk, data)

    def test_a_cut_without_notice_is_bridged_by_the_relay_and_healed(self) -> None:
        """Doubted after less than 0.4 s, used together with the relay, after a second no more but
        for checks; given up after ten, found again when it is back."""
        self.ready()
        talk = self.talk(self.simulation, self.agent)
        written, times = self.write(talk), self.listen(talk)
        self.until(self.is_direct)
        self.net.run(1.0)
        cut = self.now
        self.net.disturb(LOST)
        self.net.run(15.0)
        for node in (self.agent, self.connector):
            self.assertEqual(["relayed", "direct", "both", "relayed"], self.ways(node))
            self.assertApproximates(0.3, self.went(node, "both", since=cut) - cut, 0.1)
            self.assertApproximates(1.2, self.went(node, "relayed", since=cut) - cut, 0.4)
        self.net.disturb(LINK)
        self.until(self.is_direct, 5.0)
        self.net.run(1.0)
        self.finish(talk, written)
        gaps = [b - a for a, b in itertools.pairwise(times)]
        self.assertLess(max(gaps), 0.4)

    def test_a_path_that_was_given_up_is_used_again_soon_after_it_works(self) -> None:
        """However long that took; the next round of checks may be two minutes away."""
        for outage in (17.0, 50.0, 300.0):
            self.ready()
            talk = self.talk(self.simulation, self.agent)
            written = self.write(talk, every=0.5)
            self.until(self.is_direct)
            self.net.run(1.0)
            self.net.disturb(LOST)
            self.net.run(outage)
            self.assertTrue(self.is_relayed())
            self.net.disturb(LINK)
            self.until(self.is_direct, 6.0)
            self.finish(talk, written)

    def test_regression_repeated_packets_do_not_keep_a_dead_path_alive(self) -> None:
        """Old ones, and ones that nobody can decrypt, say nothing of the way: both ends stayed on
        it until the session was lost."""
        for damage in (False, True):
            self.ready()
            talk = self.talk(self.simulation, self.agent)
            written = self.write(talk)
            self.until(self.is_direct)
            self.net.run(1.0)
            old = {p.source: p for p in self.net.between_nodes() if p.kind is Kind.QUIC}
            self.net.disturb(LOST)

            def repeat(packets: list[Packet], damage: bool) -> None:
                for packet in packets:
                    data = packet.data[:9] + bytes(len(packet.data) - 9)
                    self.net.deliver(
                        data if damage else packet.data, packet.source, packet.destination
                    )

            loop = self.every(0.08, functools.partial(repeat, list(old.values()), damage))
            self.until(self.is_relayed, 15.0)
            self.net.run(30.0)
            loop.stop()
            self.net.disturb(LINK)
            self.finish(talk, written)

    def test_a_short_interruption_ends_in_the_same_path(self) -> None:
        """It answers again: nothing is lost, and no round of checks is needed."""
        self.ready()
        talk = self.talk(self.simulation, self.agent)
        written = self.write(talk)
        self.until(self.is_direct)
        self.net.run(1.0)
        self.net.disturb(LOST)
        self.net.run(2.0)
        self.net.disturb(LINK)
        self.until(self.is_direct, 2.0)
        self.net.run(1.0)
        self.assertEqual(["relayed", "direct", "both", "relayed", "direct"], self.ways(self.agent))
        self.assertEqual([], self.simulation.reported(self.agent, reports.ChecksFailed))
        self.finish(talk, written)

    def test_ten_switches_between_relay_and_direct_lose_nothing(self) -> None:
        """Bytes flow both ways all the time."""
        self.ready()
        talk = self.talk(self.simulation, self.agent)
        written = self.write(talk, size=800)
        self.until(self.is_direct)
        for _ in range(5):
            self.net.disturb(LOST)
            self.until(self.is_relayed, 20.0)
            self.net.run(0.5)
            self.net.disturb(LINK)
            self.until(self.is_direct, 20.0)
            self.net.run(0.5)
        for node in (self.agent, self.connector):
            settled = [way for way in self.ways(node) if way != "both"]
            self.assertEqual(["relayed", "direct"] * 6, settled)
        self.finish(talk, written)

    def test_loss_on_all_links_does_not_keep_a_session_from_being_direct(self) -> None:
        """A tenth of all packets: of checks, of signaling, of the handshake and of the data."""
        for seed in range(3):
            bad = Link(delay=0.025, jitter=0.01, loss=0.1)
            self.ready(seed=seed, link=bad)
            talk = self.talk(self.simulation, self.agent)
            data = self.net.random.randbytes(SIZE // 8)
            talk.transport.write(data)
            self.until(self.is_direct, 10.0)
            self.finish(talk, data)

    def test_without_a_direct_way_it_is_sought_ever_less_often(self) -> None:
        """After 5, 15, 45 and 120 seconds, and from then on every 120; and found in the end."""
        self.realm().intermediate()
        self.net.disturb(LOST)
        self.place()
        self.talk(self.simulation, self.agent)
        self.net.run(350.0)
        failures = self.simulation.reported(self.agent, reports.ChecksFailed)
        ours = [failure.retry_in for failure in failures if failure.retry_in is not None]
        self.assertEqual([5.0, 15.0, 45.0, 120.0, 120.0], ours)
        self.net.disturb(LINK)
        self.until(self.is_direct, 125.0)


class RebindingTests(TransferCase):
    """A NAT that forgets its mappings while a path through it is in use."""

    def rebind(self, side: int, filtering: Filtering) -> None:
        """Restart one of the boxes under load."""
        self.realm().intermediate()
        boxes = [
            NATBox(self.net, address, Mapping.EIM, filtering) for address in (AGENT, CONNECTOR)
        ]
        for host, box in zip(("10.0.1.2", "10.0.2.2"), boxes, strict=True):
            self.net.behind(host, box)
        self.place(agent_host="10.0.1.2", connector_host="10.0.2.2")
        talk = self.talk(self.simulation, self.agent)
        written, times = self.write(talk), self.listen(talk)
        self.until(self.is_direct)
        self.net.run(2.0)
        moved = self.now
        boxes[side].rebind()
        self.net.run(1.0)
        self.until(self.is_direct, 1.0)
        self.net.run(2.0)
        direct = [p for p in self.net.between_nodes(since=moved + 2) if p.kind is Kind.QUIC]
        self.assertEqual([], self.net.relayed(since=moved + 2))
        self.assertEqual({"10.0.1.2", "10.0.2.2"}, {packet.source[0] for packet in direct})
        self.finish(talk, written)
        gaps = [b - a for a, b in itertools.pairwise(times)]
        self.assertLess(max(gaps), 0.6)

    def test_regression_a_node_that_a_nat_moved_is_found_again(self) -> None:
        """Its frames were dropped by the Intermediate as well, which did not know where it was
        now: both ways were dead for ten seconds."""
        for side, filtering in itertools.product((0, 1), (Filtering.EIF, Filtering.APDF)):
            self.rebind(side, filtering)


class FarewellTests(TransferCase):
    """There is word that the peer is gone."""

    def test_regression_a_session_that_ended_amid_doubt_has_no_timer_any_more(self) -> None:
        """Another word came when the first had just been proved right; what was left of the
        session was then due for ever."""
        self.ready()
        self.talk(self.simulation, self.agent)
        self.until(self.is_direct)
        self.net.run(1.0)
        self.net.disturb(LOST)
        core = self.connector.core
        (session,) = core.sessions

        def report() -> None:
            if session in core.sessions:
                core.paths_of(session).farewell(ErrorCode.PEER_LOST, "its agent vanished", self.now)
                core.sessions.follow(session, self.now)

        loop = self.every(0.01, report)
        self.net.run(FAREWELL)
        loop.stop()
        self.net.run(DEAD_AFTER)
        self.assertNotIn(session, core.sessions)
        self.assertGreater(core.get_timer() or 0.0, self.now)


class PolicyTests(TransferCase):
    """What the Agent's configuration says."""

    def exchange(self, size: int = 20_000) -> None:
        """An echo of so many bytes."""
        talk = self.talk(self.simulation, self.agent)
        talk.transport.write(bytes(size))
        self.until(lambda: len(talk.heard) == size)
        self.net.run(5.0)

    def test_relay_only_offers_nothing_and_tells_no_address(self) -> None:
        """No candidates, no checks, no packet from one node to the other."""
        self.ready("relay-only")
        self.exchange()
        for node in (self.agent, self.connector):
            self.assertEqual(["relayed"], self.ways(node))
            for kind in (reports.CandidatesExchanged, reports.ChecksStarted, reports.ChecksFailed):
                self.assertEqual([], self.simulation.reported(node, kind))
        self.assertEqual([], self.net.between_nodes())
        self.assertNotIn(Kind.STUN, {packet.kind for packet in self.net.sent})

    def test_direct_only_relays_no_user_data(self) -> None:
        """Relays carry what finds the path again, which is little; the data waits."""
        self.ready("direct-only")
        self.exchange()
        talk = self.talk(self.simulation, self.agent)
        self.net.disturb(LOST)
        before, data = len(self.net.relayed()), bytes(50_000)
        talk.transport.write(data)
        self.net.run(12.0)
        frames = self.net.relayed()[before:]
        self.assertGreater(len(frames), 0)
        self.assertLess(sum(len(frame.data) for frame in frames), 10_000)
        self.net.disturb(LINK)
        self.until(lambda: talk.heard == data)

    def test_lowest_rtt_takes_a_direct_path_that_is_faster(self) -> None:
        """20 ms against 100."""
        self.realm().intermediate()
        self.net.disturb(Link(delay=0.01))
        self.place("lowest-rtt")
        self.exchange()
        self.assertEqual("direct", self.ways(self.agent)[-1])
        self.assertIn("30 % faster", self.paths[self.agent][-1][1].reason)

    def test_lowest_rtt_leaves_a_direct_path_that_is_slower(self) -> None:
        """400 ms against 100: the Agent's packets go on the relay."""
        self.realm().intermediate()
        self.net.disturb(Link(delay=0.2))
        self.place("lowest-rtt")
        self.exchange()
        self.assertEqual("relayed", self.ways(self.agent)[-1])

    def test_lowest_rtt_holds_for_the_way_back(self) -> None:
        """The Connector's packets take the way that the Agent's policy says."""
        self.test_lowest_rtt_leaves_a_direct_path_that_is_slower()
        self.assertEqual("relayed", self.ways(self.connector)[-1])
