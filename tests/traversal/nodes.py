"""Whole nodes on the simulated network, and a record of which way their packets take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall

from p2pnet import reports
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node
from p2pnet.node.connector import ConnectorNode
from p2pnet.testing.network import Link
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify
from tests.sim.support import Echo, Network, SimulationCase

AGENT, CONNECTOR, RELAY = "203.0.113.1", "198.51.100.1", "192.0.2.1"
LINK = Link(delay=0.025)
LOST = Link(loss=1.0)
STUN_REQUEST, STUN_SUCCESS = b"\x00\x01", b"\x01\x01"


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet that was sent."""

    at: float
    kind: Kind
    source: Address
    destination: Address
    data: bytes


class Record(Network):
    """A network that remembers what was sent and what arrived, in order.

    :ivar sent: every packet. `arrived`: (data, source, destination) and how many were sent before.
    """

    def __init__(self, seed: int, link: Link) -> None:
        super().__init__(seed, link)
        self.sent: list[Packet] = []
        self.arrived: list[tuple[int, bytes, Address, Address]] = []
        self.tap = self._remember

    def _remember(self, data: bytes, source: Address, destination: Address) -> None:
        at = float(self.clock.seconds())
        self.sent.append(Packet(at, classify(data), source, destination, data))

    def bind(self, address: Address, receive: Callable[[bytes, Address], Any]) -> None:
        """Deliver packets for `address`, and remember them."""

        def remember(data: bytes, source: Address) -> None:
            self.arrived.append((len(self.sent), data, source, address))
            receive(data, source)

        super().bind(address, remember)

    def between_nodes(self, since: float = 0.0) -> list[Packet]:
        """What was sent to anybody but the Intermediate, and not by it."""
        return [
            packet
            for packet in self.sent
            if packet.at >= since and RELAY not in (packet.source[0], packet.destination[0])
        ]

    def relayed(self, since: float = 0.0) -> list[Packet]:
        """The relay frames that nodes sent."""
        return [
            packet
            for packet in self.sent
            if packet.kind is Kind.RELAY and packet.at >= since and packet.source[0] != RELAY
        ]

    def disturb(self, link: Link) -> None:
        """Let what the two nodes send each other directly meet another link."""
        self.connect(AGENT, CONNECTOR, link)


class DirectCase(SimulationCase):
    """An agent and a connector with public addresses, and an Intermediate."""

    def realm(self, *, seed: int = 1, link: Link = LINK) -> Simulation:
        """An empty one, on a network that keeps a record."""
        self.net = Record(seed, link)
        self.simulation = Simulation(self.net, Realm())
        self.addCleanup(self._end, self.simulation)
        self.paths: dict[Node, list[tuple[float, reports.PathSelected]]] = {}
        return self.simulation

    def place(
        self,
        policy: str = "prefer-direct",
        kind: Callable[[], Protocol] = Echo,
        agent_host: str = AGENT,
        connector_host: str = CONNECTOR,
    ) -> tuple[AgentNode, ConnectorNode]:
        """The two nodes, ready, in a realm that has an Intermediate."""
        self.connector, self.served = self.serve(self.simulation, kind, host=connector_host)
        self.agent = self.simulation.agent(host=agent_host, policy=policy)
        self.until(lambda: self.agent.core.links[0].is_ready)
        for node in (self.agent, self.connector):
            self.watch(node)
        return self.agent, self.connector

    def ready(
        self, policy: str = "prefer-direct", kind: Callable[[], Protocol] = Echo, **options: Any
    ) -> tuple[AgentNode, ConnectorNode]:
        """A realm with all three."""
        self.realm(**options).intermediate()
        return self.place(policy, kind)

    def watch(self, node: Node) -> None:
        """Note when a node selects which path."""
        paths = self.paths[node] = []

        def observe(report: reports.Report) -> None:
            if isinstance(report, reports.PathSelected):
                paths.append((self.now, report))

        node.observers.append(observe)

    @property
    def now(self) -> float:
        """The virtual time."""
        return float(self.net.clock.seconds())

    def until(self, done: Callable[[], Any], seconds: float = 60.0) -> None:
        """Let time pass until `done()`."""
        self.run_until(self.simulation, done, seconds)

    def ways(self, node: Node) -> list[str]:
        """The paths that a node selected, in order: relayed, direct, both, or none."""
        return [
            "both" if " and " in report.address else report.path for _, report in self.paths[node]
        ]

    def went(self, node: Node, way: str, since: float = 0.0) -> float:
        """When a node first selected that path after a moment."""
        return next(
            when
            for (when, _), selected in zip(self.paths[node], self.ways(node), strict=True)
            if selected == way and when >= since
        )

    def is_direct(self) -> bool:
        """Whether both send directly, and only so."""
        return all(self.ways(node)[-1:] == ["direct"] for node in (self.agent, self.connector))

    def is_relayed(self) -> bool:
        """Whether both send through the relay only."""
        return all(self.ways(node)[-1:] == ["relayed"] for node in (self.agent, self.connector))

    def every(self, seconds: float, call: Callable[[], Any]) -> LoopingCall:
        """Do something regularly, until stopped."""
        loop = LoopingCall(call)
        loop.clock = self.net.clock
        loop.start(seconds)
        return loop

    def _end(self, simulation: Simulation) -> None:
        """Also: nobody sent data to an address that had not answered a check of its own."""
        super()._end(simulation)
        if isinstance(simulation.network, Record):
            self.assertEqual([], unproven(simulation.network))


def unproven(net: Record) -> list[Packet]:
    """The QUIC packets that went straight to an address before it had proven itself."""
    asked: set[tuple[bytes, Address, Address]] = set()
    proven: set[tuple[Address, Address]] = set()
    arrivals = iter([*net.arrived, (len(net.sent), b"", ("", 0), ("", 0))])
    sent_before, data, source, destination = next(arrivals)
    bad = []
    for number, packet in enumerate(net.sent):
        while sent_before <= number:
            if data[:2] == STUN_SUCCESS and (data[8:20], destination, source) in asked:
                proven.add((destination, source))
            sent_before, data, source, destination = next(arrivals)
        ends = packet.source, packet.destination
        if packet.kind is Kind.STUN and packet.data[:2] == STUN_REQUEST:
            asked.add((packet.data[8:20], packet.source, packet.destination))
        if packet.kind is Kind.QUIC and RELAY not in (ends[0][0], ends[1][0]):
            bad += [packet] * (ends not in proven)
    return bad
