"""Which pairings of NAT behaviors become direct: all that can without guessing ports, no others."""

from __future__ import annotations

import itertools
from hashlib import sha256

from lab.expectations import Outcome, expected_outcome
from lab.nat import BEHAVIORS, Behavior
from p2pnet import reports
from p2pnet.testing.nat import Filtering, Mapping, NATBox
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.traversal.candidate import CandidateType
from p2pnet.traversal.pair_table import MAX_PAIRS
from tests.sim.support import Echo, SimulationCase
from tests.traversal.support import CheckListCase, Internet, Peer, begin, introduce

EVERY = [
    *itertools.product(
        (Mapping.EIM, Mapping.ADM, Mapping.APDM), (Filtering.EIF, Filtering.ADF, Filtering.APDF)
    )
]
NAMES = ("open", "full-cone", "address-restricted", "port-restricted", "cgnat", "symmetric")
SIZE = 1 << 16


def can_be_direct(*sides: tuple[Mapping, Filtering]) -> bool:
    """Whether two NATs let their hosts meet, if nobody guesses ports.

    What a mapping that depends on the destination shows to the peer, only a packet from there can
    tell. So one side must let such a packet in unasked, in answer to which the other side's check
    must get in from a port that was not announced. Two mappings that depend on the port never
    settle: each answer comes from yet another one.
    """
    dependent = [mapping is not Mapping.EIM for mapping, _ in sides]
    filters = [filtering for _, filtering in sides]
    if not any(dependent):
        return True
    if not all(dependent):
        return filters[dependent.index(False)] is not Filtering.APDF
    if all(mapping is Mapping.APDM for mapping, _ in sides):
        return False
    return Filtering.EIF in filters and Filtering.APDF not in filters


class EveryBehaviorTests(CheckListCase):
    """Check lists behind all combinations of mapping and filtering."""

    def pairing(self, *sides: tuple[Mapping, Filtering], seed: int = 1) -> tuple[Peer, Peer]:
        """Two peers behind two boxes that have checked each other for a second."""
        self.net = Internet(seed, Link(delay=0.025))
        boxes = [
            NATBox(self.net, address, *side)
            for address, side in zip(("198.51.100.1", "203.0.113.1"), sides, strict=True)
        ]
        one = Peer(self.net, "10.0.1.2", controlling=True, box=boxes[0])
        other = Peer(self.net, "10.0.2.2", box=boxes[1])
        introduce(one, other)
        begin(one, other)
        self.net.run(1.0)
        return one, other

    def test_every_pairing_that_can_be_direct_is_and_no_other(self) -> None:
        """81 pairings of the three mappings with the three filters on either side."""
        for one_side, other_side in itertools.product(EVERY, EVERY):
            where = f"{one_side} with {other_side}"
            one, other = self.pairing(one_side, other_side)
            direct = [peer.checks.selected is not None for peer in (one, other)]
            self.assertEqual([can_be_direct(one_side, other_side)] * 2, direct, where)
            for peer in (one, other):
                valid = {p.address for p in peer.checks.pairs.values() if p.is_valid}
                self.assertEqual(peer.answered, valid, where)

    def test_a_pairing_that_cannot_be_direct_becomes_quiet(self) -> None:
        """Also two NATs that show new ports all the time: the cap on pairs ends it."""
        for side in ((Mapping.APDM, Filtering.EIF), (Mapping.APDM, Filtering.APDF)):
            one, other = self.pairing(side, side)
            self.net.run(60.0)
            self.assert_quiet(one, other)
            for peer in (one, other):
                self.assertIsNone(peer.checks.best_valid())
                self.assertLessEqual(len(peer.checks.pairs), MAX_PAIRS)
                self.assertLess(len(peer.sent), 1000)

    def test_a_symmetric_nat_is_met_by_a_peer_reflexive_pair(self) -> None:
        """Its port for the peer was in no candidate; the peer learnt it from a check."""
        symmetric = Mapping.APDM, Filtering.APDF
        for filtering in (Filtering.EIF, Filtering.ADF):
            one, other = self.pairing(symmetric, (Mapping.EIM, filtering))
            mine, theirs = one.checks.selected, other.checks.selected
            assert mine is not None and theirs is not None
            self.assertIs(CandidateType.SERVER_REFLEXIVE, mine.remote.type)
            self.assertIs(CandidateType.PEER_REFLEXIVE, theirs.remote.type)
            self.assertEqual("198.51.100.1", theirs.address[0])

    def test_hosts_behind_one_nat_meet_inside(self) -> None:
        """By their host candidates; the box need not hairpin."""
        self.net = Internet(1, Link(delay=0.025))
        box = NATBox(self.net, "198.51.100.1")
        one = Peer(self.net, "10.0.0.2", controlling=True, box=box)
        other = Peer(self.net, "10.0.0.3", box=box)
        introduce(one, other)
        begin(one, other)
        self.net.run(1.0)
        self.assert_settled(one, other)

    def test_the_expectations_of_the_laboratory_agree(self) -> None:
        """They are about the same behaviors, by name."""
        known = [behavior for behavior in BEHAVIORS.values() if not behavior.is_blocked]
        for agent, connector in itertools.product(known, known):
            sides = [
                (Mapping.EIM if b.mapping is Mapping.NONE else b.mapping, b.filtering)
                for b in (agent, connector)
            ]
            direct = expected_outcome(agent, connector) is Outcome.DIRECT
            self.assertEqual(can_be_direct(*sides), direct, f"{agent.name} {connector.name}")


class NodeTests(SimulationCase):
    """Whole nodes behind the behaviors that have a name, with a transfer."""

    def place(self, network: SimulatedNetwork, behavior: Behavior, site: int) -> str:
        """The address of a host behind such a NAT."""
        public, home, inside = f"198.51.100.{site}", f"100.64.0.{site}", f"10.0.{site}.2"
        if behavior.mapping is Mapping.NONE:
            return public
        outside = home if behavior.carrier else public
        box = NATBox(
            network, outside, behavior.mapping, behavior.filtering, preserves=behavior.preserves
        )
        network.behind(inside, box)
        if behavior.carrier:
            network.behind(home, NATBox(network, public))
        return inside

    def transfer(self, agent_side: Behavior, connector_side: Behavior) -> None:
        """Bytes there and back, and the path at the end."""
        simulation = self.simulate(1, Link(delay=0.025))
        network = simulation.network
        simulation.intermediate()
        connector, _ = self.serve(simulation, Echo, host=self.place(network, connector_side, 2))
        agent = simulation.agent(self.place(network, agent_side, 1), policy="prefer-direct")
        self.run_until(simulation, lambda: agent.core.links[0].is_ready)
        talk = self.talk(simulation, agent)
        data = network.random.randbytes(SIZE)
        talk.transport.write(data)
        self.run_until(simulation, lambda: len(talk.heard) >= SIZE)
        self.assertEqual(sha256(data).digest(), sha256(talk.heard).digest())
        network.run(1.0)
        direct = expected_outcome(agent_side, connector_side) is Outcome.DIRECT
        for node in (agent, connector):
            path = simulation.reported(node, reports.PathSelected)[-1].path
            names = f"agent {agent_side.name}, connector {connector_side.name}"
            self.assertEqual("direct" if direct else "relayed", path, names)

    def test_pairings_by_name_are_direct_or_relayed_and_carry_a_transfer_intact(self) -> None:
        """36 pairings; one that cannot be direct loses nothing by the attempt."""
        for agent_side, connector_side in itertools.product(NAMES, NAMES):
            self.transfer(BEHAVIORS[agent_side], BEHAVIORS[connector_side])
