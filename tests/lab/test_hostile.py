"""Tests of realms with an attacker among their members."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab import invariants
from lab.chaos import Chaos, run
from lab.commands.sim import shrink
from lab.scenario import Fault, FaultKind, HostileKind, Peer, Scenario, generate, simpler
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.peer import agent, connector, ends
from p2pnet.wire.codes import ErrorCode

SEEDS = (2, 3, 14)


def beside(seed: int, kind: HostileKind) -> Scenario:
    """The scenario of a seed, with that attacker."""
    return dataclasses.replace(generate(seed), hostile=kind)


class HostileTests(SynchronousTestCase):
    """Attackers that bounds hold."""

    def test_nothing_is_lost_beside_any_attacker(self) -> None:
        """Whatever breaks meanwhile; each seed is another realm."""
        for kind in HostileKind:
            for seed in SEEDS:
                self.assertEqual((), run(beside(seed, kind)).problems, f"seed {seed}, {kind}")

    def digest(self, kind: HostileKind) -> int:
        """A number that stands for every packet of a run, the stranger's forged ones too."""
        chaos = Chaos(beside(2, kind))
        digest = 0
        deliver = chaos.network.deliver

        def note(data: bytes, *ends: Any) -> None:
            nonlocal digest
            digest = zlib.crc32(repr((chaos.now, len(data), ends)).encode(), digest)
            deliver(data, *ends)

        self.patch(chaos.network, "deliver", note)
        chaos.run()
        return digest

    def test_a_seed_with_an_attacker_gives_the_same_run_each_time(self) -> None:
        """The same packets at the same times; each kind sends others."""
        kinds = (HostileKind.STRANGER, HostileKind.INSIDER)
        digests = [self.digest(kind) for kind in kinds]
        self.assertEqual(digests, [self.digest(kind) for kind in kinds])
        self.assertNotEqual(*digests)

    def test_a_third_of_the_seeds_has_an_attacker_of_any_kind(self) -> None:
        """The other seeds mean what they meant before there were attackers."""
        kinds = [generate(seed).hostile for seed in range(600)]
        self.assertEqual({None, *HostileKind}, set(kinds))
        self.assertIn(kinds.count(None), range(380, 420))

    def test_the_attacker_is_left_out_of_a_failure_that_needs_none(self) -> None:
        """The least of a scenario that fails has an attacker only if the attacker matters."""
        self.assertIsNone(next(simpler(beside(2, HostileKind.INSIDER))).hostile)
        self.patch(invariants, "SILENT_FOR", 0.0)
        least, verdict = shrink(Scenario(1, hostile=HostileKind.BLACK_HOLE))
        self.assertIn("has heard nothing", verdict.problems[0])
        self.assertIsNone(least.hostile)


class NoticeTests(SynchronousTestCase):
    """A bound that is missing is noticed."""

    def problems(self, kind: HostileKind, connectors: int = 1) -> str:
        """Those of a run without a fault beside that attacker, a minute long."""
        # The NAT that forgets is none; it keeps the run going.
        faults = (Fault(60.0, FaultKind.REBIND, "alice"),)
        peers = (Peer("office"), Peer("annex"))[:connectors]
        return "\n".join(run(Scenario(1, connectors=peers, faults=faults, hostile=kind)).problems)

    def test_without_any_of_them_nothing_is_noticed(self) -> None:
        """Or what follows would mean nothing."""
        for kind in HostileKind:
            self.assertEqual("", self.problems(kind), kind)

    def test_sessions_without_handshake(self) -> None:
        """Of an agent, or of an Intermediate that makes them up."""
        self.patch(connector, "MAX_UNPROVEN", 1 << 20)
        for kind in (HostileKind.INSIDER, HostileKind.FORGER):
            self.assertIn("sessions without handshake of", self.problems(kind))

    def test_streams_without_a_header(self) -> None:
        """They stayed for ever once."""
        self.patch(ends, "HEADER_TIMEOUT", 1000.0)
        self.assertIn("headers of all agents, the cap is 0", self.problems(HostileKind.INSIDER))

    def test_packets_to_victims(self) -> None:
        """An agent names them as its candidates."""
        self.patch(invariants, "VICTIM_PACKETS", 20)
        self.assertIn("that it never answered", self.problems(HostileKind.INSIDER))

    def test_a_connector_that_keeps_agents_from_a_good_one(self) -> None:
        """Without the race, and with an Intermediate that believes the first refusal."""

        def believe(self: Any, introduction: Any, request: Any, answer: Any, _: float) -> None:
            self._refuse(introduction.agent, request.request, ErrorCode.of(answer.code), "no")

        self.patch(Introductions, "_refused", believe)
        self.patch(agent, "RACE_AFTER", 1000.0)
        self.assertNotEqual("", self.problems(HostileKind.BLACK_HOLE))
