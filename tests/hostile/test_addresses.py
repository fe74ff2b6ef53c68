"""Attacks with addresses that nobody proved, on the simulated network."""

from __future__ import annotations

import functools
from typing import Any

from p2pnet import reports
from p2pnet.interfaces import Datagrams
from p2pnet.node.agent import AgentNode
from p2pnet.testing.network import Link
from p2pnet.testing.realm import Simulation
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify
from tests.sim.support import SimulationCase, Socket

ATTACKER: Address = ("192.0.2.66", 6666)
VICTIM: Address = ("192.0.2.77", 7777)
LINK = Link(delay=0.02)


def has_heard(talk: Any, size: int) -> bool:
    """Whether a talk has received so many bytes."""
    return len(talk.heard) >= size


class AddressTestCase(SimulationCase):
    """An agent and a connector with a relayed session through one Intermediate."""

    def begin(self) -> tuple[Simulation, Any, Any]:
        """The simulation, the agent's talk and the connector's."""
        simulation = self.simulate(link=LINK)
        agent, _, served = self.trio(simulation)
        talk = self.talk(simulation, agent)
        talk.transport.write(b"x")
        self.run_until(simulation, lambda: talk.heard == b"x")
        return simulation, talk, served.made[0]

    def listen(self, simulation: Simulation, address: Address) -> list[bytes]:
        """What arrives at an address."""
        arrived: list[bytes] = []
        simulation.network.bind(address, lambda data, _: arrived.append(data))
        return arrived

    def addresses(self, simulation: Simulation) -> tuple[Address, Address]:
        """Of the agent and of the Intermediate."""
        intermediate, _, agent = simulation.nodes
        return agent.transport.get_address(), intermediate.transport.get_address()

    def agent(self, simulation: Simulation) -> AgentNode:
        """The agent."""
        agent = simulation.nodes[2]
        assert isinstance(agent, AgentNode)
        return agent

    def assert_stays(self, simulation: Simulation) -> None:
        """The Intermediate followed nobody, and the agent lost nothing."""
        intermediate, agent = simulation.nodes[0], self.agent(simulation)
        self.assertEqual([], simulation.reported(intermediate, reports.NodeMoved))
        self.assertEqual(1, len(simulation.reported(agent, reports.AddressObserved)))
        self.assertEqual([], simulation.reported(agent, reports.ControlLost))
        self.assertEqual([], simulation.reported(agent, reports.SessionClosed))


class SpoofTests(AddressTestCase):
    """A member that sends control packets with the source address of a victim."""

    def test_the_relay_sends_a_victim_three_times_what_was_spoofed(self) -> None:
        """29 bytes moved all circuits of the member there: 77 kB of a download, and more."""
        simulation, talk, serving = self.begin()
        network, agent = simulation.network, self.agent(simulation)
        _, relay = self.addresses(simulation)
        arrived = self.listen(simulation, VICTIM)
        spoofed: list[bytes] = []
        send = agent.transport.send

        def spoof(datagrams: Datagrams, ttl: int | None = None) -> None:
            for data, address in datagrams:
                if address == relay and classify(data) is Kind.QUIC:
                    spoofed.append(data)
                    network.send(data, VICTIM, relay)
                else:
                    send([(data, address)], ttl)

        self.patch(agent.transport, "send", spoof)
        for _ in range(10):
            agent.core.links[0].probe(network.clock.seconds())
            serving.transport.write(bytes(100_000))
            network.run(0.5)
        self.assertGreater(len(spoofed), 5)
        self.assertLessEqual(sum(map(len, arrived)), 3 * sum(map(len, spoofed)))
        self.assertNotIn(Kind.RELAY, [classify(data) for data in arrived])
        self.assertEqual(1 + 1_000_000, len(talk.heard))
        self.assert_stays(simulation)


class RaceTests(AddressTestCase):
    """An observer whose copies of an agent's packets arrive first (RFC 9000 section 9.3.3)."""

    def race(self, simulation: Simulation, *, forwards: bool) -> list[bytes]:
        """Copy all control packets of the agent. Returns what the observer gets of the answers.

        :param forwards: whether the observer passes the answers on.
        """
        network, clock = simulation.network, simulation.network.clock
        member, relay = self.addresses(simulation)
        arrived = []

        def take(data: bytes, _: Address) -> None:
            arrived.append(data)
            if forwards:
                clock.callLater(LINK.delay, network.deliver, data, relay, member)

        def copy(data: bytes, source: Address, target: Address) -> None:
            if source == member and target == relay and classify(data) is Kind.QUIC:
                clock.callLater(LINK.delay - 0.001, network.deliver, data, ATTACKER, relay)

        network.bind(ATTACKER, take)
        network.tap = copy
        return arrived

    def outlive(self, simulation: Simulation, talk: Any) -> None:
        """Echo for a minute, ten times a second."""
        for _ in range(600):
            before = len(talk.heard)
            talk.transport.write(b"p" * 50)
            simulation.network.run(0.1)
            self.assertEqual(before + 50, len(talk.heard))
        self.assert_stays(simulation)

    def test_regression_copies_that_arrive_first_do_not_end_a_session(self) -> None:
        """After 46 s both ends gave the session up: the Intermediate relayed to the observer."""
        simulation, talk, _ = self.begin()
        arrived = self.race(simulation, forwards=False)
        self.outlive(simulation, talk)
        self.assertNotIn(Kind.RELAY, [classify(data) for data in arrived])

    def test_an_observer_that_forwards_challenges_is_not_followed(self) -> None:
        """The response comes to the Intermediate, but so do the agent's own packets."""
        simulation, talk, _ = self.begin()
        arrived = self.race(simulation, forwards=True)
        self.outlive(simulation, talk)
        self.assertNotIn(Kind.RELAY, [classify(data) for data in arrived])


class RebindingTests(AddressTestCase):
    """What is no attack: a NAT that gives an agent another address."""

    def test_a_rebound_agent_is_followed_within_a_second(self) -> None:
        """One round trip after its first packet to the Intermediate, which the silence causes."""
        simulation, talk, _ = self.begin()
        agent = self.agent(simulation)
        assert isinstance(agent.transport, Socket)
        for number in range(5):
            before, start = len(talk.heard), simulation.network.clock.seconds()
            agent.transport.move("203.0.113.99", 1024 + number)
            talk.transport.write(b"p" * 50)
            self.run_until(simulation, functools.partial(has_heard, talk, before + 50), 1.0)
            simulation.network.run(start + 5.0 - simulation.network.clock.seconds())
        moved = [r.address for r in simulation.reported(simulation.nodes[0], reports.NodeMoved)]
        self.assertEqual([f"203.0.113.99:{1024 + number}" for number in range(5)], moved)
