"""Tests of whole realms in which things break: a few of the runs that `make sim` makes."""

from __future__ import annotations

import dataclasses
import operator
import random
import zlib
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lab import invariants
from lab.chaos import Chaos, run
from lab.scenario import (
    AGENTS,
    CONNECTORS,
    Fault,
    FaultKind,
    Peer,
    Scenario,
    generate,
    simpler,
)
from lab.voices import Listener, text
from p2pnet.testing.network import Link

SEEDS = range(1, 17)


class ChaosTests(SynchronousTestCase):
    """Seeds, and what a run of one notices."""

    def test_nothing_is_lost_whatever_breaks(self) -> None:
        """Each seed is another realm with other mishaps; `make sim SEED=N` repeats one."""
        for seed in SEEDS:
            self.assertEqual((), run(generate(seed)).problems, f"seed {seed}")

    def test_regression_a_new_session_owes_nothing_to_the_time_before(self) -> None:
        """The agent comes back while there is no Intermediate, so that it can speak to nobody; the
        direct path that it has as soon as there is one again has no silence to answer for."""
        faults = (
            Fault(17.0, FaultKind.CRASH, "alice", seconds=10.0),
            Fault(26.0, FaultKind.STOP, "relay1", seconds=45.0),
        )
        connectors = (Peer("office", "symmetric", ("office",)),)
        agents = (Peer("alice", "open", ("office",)),)
        link = Link(delay=0.05)
        scenario = Scenario(2, ("relay1",), connectors, agents, link, "prefer-direct", faults)
        self.assertEqual((), run(scenario).problems)

    def test_regression_a_session_that_was_declined_is_not_begun(self) -> None:
        """Three requests come late and are answered with one session: to the first answer the
        agent, which had given that request up, said no; then it used the session for 30 s."""
        faults = (
            Fault(8.09, FaultKind.CRASH, "office", seconds=25.04),
            Fault(13.26, FaultKind.CRASH, "relay1", seconds=29.76),
            Fault(33.4, FaultKind.LOSS, seconds=22.72),
        )
        connectors = (Peer("office", "port-restricted", ("office",)),)
        agents = (Peer("alice", "symmetric", ("office",)),)
        link = Link(delay=0.025, loss=0.08)
        scenario = Scenario(31427, ("relay1",), connectors, agents, link, "prefer-direct", faults)
        self.assertEqual((), run(scenario).problems)

    def test_regression_a_session_may_be_idle_for_as_long_as_quic_says(self) -> None:
        """That was a few seconds longer than was allowed for: the loss of the last relay makes QUIC
        ask once more, and wait for the answer."""
        faults = (
            Fault(7.35, FaultKind.REBIND, "office"),
            Fault(30.51, FaultKind.MOVE, "office"),
            Fault(33.12, FaultKind.CRASH, "office", seconds=9.13),
        )
        connectors = (Peer("office", "full-cone", ("office",)),)
        agents = (Peer("alice", "full-cone", ("office",)),)
        link, relays = Link(delay=0.002, loss=0.08), ("relay1", "relay2")
        scenario = Scenario(47965, relays, connectors, agents, link, "prefer-direct", faults)
        self.assertEqual((), run(scenario).problems)

    def digest(self, seed: int) -> int:
        """A number that stands for every packet of a run."""
        chaos = Chaos(generate(seed))
        digest = 0

        def note(data: bytes, *ends: Any) -> None:
            nonlocal digest
            digest = zlib.crc32(repr((chaos.now, len(data), ends)).encode(), digest)

        chaos.network.tap = note
        chaos.run()
        return digest

    def test_a_seed_gives_the_same_run_each_time(self) -> None:
        """The same packets at the same times."""
        self.assertEqual(self.digest(5), self.digest(5))
        self.assertNotEqual(self.digest(5), self.digest(6))

    def test_every_kind_of_fault_happens(self) -> None:
        """And every size of a realm."""
        scenarios = [generate(seed) for seed in range(300)]
        self.assertEqual(set(FaultKind), {f.kind for s in scenarios for f in s.faults})
        for side, most in (("intermediates", 3), ("connectors", 3), ("agents", 4)):
            sizes = {len(getattr(scenario, side)) for scenario in scenarios}
            self.assertEqual(set(range(1, most + 1)), sizes)


class NoticeTests(SynchronousTestCase):
    """What should not be is noticed."""

    # The NAT that forgets is none; it keeps the run going.
    PLAIN = Scenario(1, faults=(Fault(70.0, FaultKind.REBIND, "alice"),))

    def problems(self, chaos: Chaos) -> str:
        """Those of a run."""
        chaos.run()
        return "\n".join(chaos.watch.problems)

    def test_a_plain_run_has_no_problem(self) -> None:
        """Or what follows would mean nothing."""
        self.assertEqual("", self.problems(Chaos(self.PLAIN)))

    def test_a_changed_byte_is_noticed(self) -> None:
        """In what a Connector's end hears."""
        hear = Listener.dataReceived

        def mishear(listener: Listener, data: bytes) -> None:
            hear(listener, data if listener.heard < 100 else data[:-1] + bytes([data[-1] ^ 1]))

        self.patch(Listener, "dataReceived", mishear)
        self.assertIn(
            "the connector heard something else at byte", self.problems(Chaos(self.PLAIN))
        )

    def test_regression_much_is_compared_at_once(self) -> None:
        """What waited for a lost packet comes in one piece, longer than the text's period."""
        said = text(4, True, 200_000, 150_000)
        for changed in (None, 0, 65_521, 149_999):
            heard = bytearray(said)
            if changed is not None:
                heard[changed] ^= 1
            listener = Listener(Clock(), random.Random(0), lambda _: None)
            listener.number, listener.heard = 4, 200_000
            listener.dataReceived(bytes(heard))
            self.assertEqual(changed is None, not listener.wrong, changed)

    def test_silence_is_noticed(self) -> None:
        """Nobody announced that these ways are cut."""
        self.patch(invariants, "NOTICED_WITHIN", 100.0)
        self.assertIn("has heard nothing for 3", self.problems(self.cut_off()))

    def cut_off(self) -> Chaos:
        """A run in which all ways are cut, of which nobody was told."""
        chaos = Chaos(self.PLAIN)
        chaos.network.clock.callLater(10.0, chaos.network.cuts.append, frozenset(("alice", "")))
        return chaos

    def test_the_loss_of_an_intermediate_without_a_cause_is_noticed(self) -> None:
        """At the first try to connect again that fails, half a minute after the beginning."""
        self.assertIn("alice lost 192.0.2.1:4433 without a cause", self.problems(self.cut_off()))

    def test_a_session_that_does_not_become_direct_is_noticed(self) -> None:
        """Although it could."""
        chaos = Chaos(self.PLAIN)
        chaos.network.cuts.append(frozenset(("alice", "office")))
        self.assertIn("not direct within 60 s", self.problems(chaos))

    def test_a_failure_without_a_cause_is_noticed(self) -> None:
        """Once the beginning cannot be blamed any more."""
        self.patch(invariants, "BLAMED_FOR", 3.0)
        chaos = Chaos(self.PLAIN)
        (office,) = chaos.connectors

        def restart() -> None:
            office.stop()
            office.start()

        chaos.network.clock.callLater(10.0, restart)
        self.assertIn("failed without a cause", self.problems(chaos))

    def test_a_leak_is_noticed(self) -> None:
        """In a table of a core, or of a part of it."""
        for part in ("core", "core.sessions"):
            chaos = Chaos(self.PLAIN)

            def leak(chaos: Chaos = chaos, part: str = part) -> None:
                operator.attrgetter(part)(chaos.connectors[0].node)._table = [1]

            chaos.network.clock.callLater(50.0, leak)
            self.assertIn("_table has leaked: 0 before, 1 after", self.problems(chaos))

    def test_a_logged_error_is_noticed(self) -> None:
        """It is what a node does with an exception."""

        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        self.patch(Listener, "connectionMade", fail)
        self.assertIn("ZeroDivisionError", "\n".join(run(self.PLAIN).problems))
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))


class ScenarioTests(SynchronousTestCase):
    """What is asked of a run depends on what was broken."""

    SCENARIO = Scenario(
        1, ("relay1", "relay2"), (Peer("office"), Peer("annex", "symmetric")),
        (Peer("alice", "symmetric"), Peer("bob")),
        faults=(
            Fault(10.0, FaultKind.CUT, "alice", "relay1", 5.0),
            Fault(20.0, FaultKind.CRASH, "office", seconds=10.0),
            Fault(50.0, FaultKind.LOSS, seconds=1.0),
        ),
    )  # fmt: skip

    def test_calm_begins_when_the_last_fault_of_any_of_them_ends(self) -> None:
        """A cut concerns two that are both asked for, loss everybody."""
        for names, now, since in (
            ({"alice", "relay1"}, 12.0, 12.0), ({"alice", "relay1"}, 18.0, 15.0),
            ({"alice", "relay2"}, 18.0, 0.0), ({"alice", "office"}, 40.0, 30.0),
            ({"bob"}, 52.0, 51.0),
        ):  # fmt: skip
            self.assertEqual(since, self.SCENARIO.calm_since(now, names), names)

    def test_what_can_be_direct_depends_on_the_nats_and_the_policy(self) -> None:
        """As lab.expectations has it."""
        can = [
            self.SCENARIO.can_be_direct(agent, connector)
            for agent in AGENTS[:2]
            for connector in CONNECTORS[:2]
        ]
        self.assertEqual([True, False, True, True], can)
        relayed = dataclasses.replace(self.SCENARIO, policy="relay-only")
        self.assertFalse(relayed.can_be_direct("alice", "office"))

    def test_every_simpler_scenario_is_whole(self) -> None:
        """No fault of somebody who is not there, no agent without a service, and all end."""
        for seed in range(100):
            for scenario in simpler(generate(seed)):
                names = {p.name for p in (*scenario.agents, *scenario.connectors)}
                names |= {*scenario.intermediates, ""}
                self.assertTrue(all({f.who, f.other} <= names for f in scenario.faults))
                served = {s for peer in scenario.connectors for s in peer.services}
                self.assertTrue(all(served >= {*a.services} != set() for a in scenario.agents))

    def test_a_scenario_can_be_written_down(self) -> None:
        """As Python, to be kept as a test, and for people."""
        scenario = generate(11)
        names: dict[str, Any] = vars(__import__("lab.scenario", fromlist=["Scenario"]))
        self.assertEqual(scenario, eval(repr(scenario), dict(names)))
        self.assertIn("Agents: alice", str(scenario))
