"""Places on the simulated network where nodes run, die and are started again."""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable, Iterable
from typing import Any

from lab.nat import BEHAVIORS
from lab.scenario import AGENTS, HostileKind, Peer, Scenario
from lab.voices import HARDLY_ANY, PAUSES, Listener, Listeners
from p2pnet import reports
from p2pnet.identity import Credentials, Role
from p2pnet.node.base import Node
from p2pnet.testing.clock import ProcessClock
from p2pnet.testing.nat import NATBox
from p2pnet.testing.network import Link, SimulatedNetwork, SimulatedTransport
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify

PORT = 4433
HOSTILE = "mallory"  # the name of whoever is hostile and has a certificate
HOSTILE_NUMBER = 66  # of its site
ALLOWED = (*AGENTS, HOSTILE)  # agents that may use every service
VICTIMS = tuple(f"203.0.113.{number}" for number in range(1, 9))  # hosts without a node
CUT = Link(loss=1.0)
BURST_LOSS = 0.5  # of the packets on a link, in a burst of loss
NARROW_MTU = 1232  # bytes of UDP payload: the least of IPv6


def address_of(number: int) -> str:
    """The address of an Intermediate, as nodes are configured."""
    return f"192.0.2.{number}:{PORT}"


class FrugalRealm(Realm):
    """A certificate authority that makes each certificate once, for many runs."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[Any, ...], Credentials] = {}

    def credentials(self, role: Role, name: str, **options: Any) -> Credentials:
        """Those of a node, the same for the same arguments."""
        key = role, name, *((option, tuple(value)) for option, value in options.items())
        if key not in self._made:
            self._made[key] = super().credentials(role, name, **options)
        return self._made[key]


class Weather(SimulatedNetwork):
    """A network of named nodes between which ways can be cut.

    :ivar cuts: pairs of nodes that reach each other no more; "" stands for everybody.
    :ivar storms: how many bursts of loss there are now.
    :ivar bottlenecks: how many that large packets do not pass.
    :ivar onlooker: called with (data, source, destination) for every packet of a node that comes
        out of its link, with the addresses outside.
    :ivar struck: checks, and other packets than QUIC's, that reached each of VICTIMS, by sender.
    :ivar owed: bytes of QUIC packets that reached it, less three times the bytes that were sent
        in its name (RFC 9000 section 8.1).
    """

    def __init__(self, seed: int, link: Link) -> None:
        super().__init__(seed, link)
        self.cuts: list[frozenset[str]] = []
        self.storms = self.bottlenecks = 0
        self.struck: collections.Counter[tuple[str, str]] = collections.Counter()
        self.owed: collections.Counter[str] = collections.Counter()
        self.onlooker: Callable[[bytes, Address, Address], Any] | None = None
        self._names: dict[str, str] = {}  # by address outside

    def locate(self, name: str, host: str) -> None:
        """The node has this address outside from now on."""
        self._names[host] = name

    def deliver(self, data: bytes, source: Address, destination: Address) -> None:
        """Deliver a packet of a node now."""
        if destination[0] in VICTIMS:
            if classify(data) is Kind.QUIC:
                self.owed[destination[0]] += len(data)
            else:
                self.struck[destination[0], source[0]] += 1
        elif self.onlooker is not None:
            self.onlooker(data, source, destination)
        super().deliver(data, source, destination)

    def forge(self, data: bytes, source: Address, destination: Address) -> None:
        """Send a packet of a stranger with any source address."""
        if source[0] in VICTIMS:
            self.owed[source[0]] -= 3 * len(data)
        self.clock.callLater(self.link.delay, super().deliver, data, source, destination)

    def link_between(self, source: str, destination: str) -> Link:
        """What packets from one host to another meet now."""
        if self.cuts:
            ends = {self._names.get(source, source), self._names.get(destination, destination), ""}
            if any(cut <= ends for cut in self.cuts):
                return CUT
        link = self.link
        if self.storms:
            link = dataclasses.replace(link, loss=max(link.loss, BURST_LOSS))
        if self.bottlenecks:
            link = dataclasses.replace(link, mtu=NARROW_MTU)
        return link


class ProcessSimulation(Simulation):
    """A simulation in which each node is a process of its own.

    :ivar latest: what the node that was made last runs on.
    """

    latest: tuple[ProcessClock, SimulatedTransport]

    def process(self, host: str, port: int = 0) -> tuple[ProcessClock, SimulatedTransport]:
        """What a node runs on: a clock, and a socket on `host`; port 0 for any."""
        self.latest = ProcessClock(self.network.clock), self.network.transport(host, port)
        return self.latest


class SimulatedSite:
    """One place: a host, the NAT it is behind, and the node that runs there, if one does.

    :ivar node: the running node, None while there is none.
    :ivar downs: for how many reasons it must not run now.
    """

    def __init__(self, simulation: ProcessSimulation, name: str, number: int) -> None:
        self.name = name
        self.node: Node | None = None
        self.downs = 0
        self._simulation = simulation
        self._network = simulation.network
        self._number = number
        self._moves = 0
        self._process: tuple[ProcessClock, SimulatedTransport]

    @property
    def clock(self) -> ProcessClock:
        """The clock of the process that runs here, or ran last."""
        return self._process[0]

    def reported(self, kind: type[reports.Report]) -> list[Any]:
        """The reports of one kind that the running node made."""
        return self._simulation.reported(self.node, kind) if self.node is not None else []

    def make(self) -> Node:
        """Start a node of this site's kind."""
        raise NotImplementedError

    def start(self) -> None:
        """Run a new process, unless one runs or must not."""
        if self.node is None and not self.downs:
            self.node = self.make()
            self._process = self._simulation.latest

    def crash(self) -> None:
        """The process is gone without a word."""
        if self.node is not None:
            clock, transport = self._process
            clock.kill()
            transport.stop()
            self.node = None

    def stop(self) -> Any:
        """Stop in order. Returns what stopService() does; the node is not there any more at once,
        although an Intermediate takes its time."""
        node, self.node = self.node, None
        return node.stopService() if node is not None else None


class IntermediateSite(SimulatedSite):
    """Where an Intermediate runs."""

    @property
    def address(self) -> str:
        """As nodes are configured."""
        return address_of(self._number)

    def make(self) -> Node:
        """Start an Intermediate."""
        host = f"192.0.2.{self._number}"
        assert isinstance(self._network, Weather)
        self._network.locate(self.name, host)
        return self._simulation.intermediate(host, self.name)


class NodeSite(SimulatedSite):
    """Where an Agent or a Connector runs.

    :ivar pauses: of those who speak here.
    """

    pauses = PAUSES

    def __init__(
        self, simulation: ProcessSimulation, peer: Peer, number: int, intermediates: Iterable[str]
    ) -> None:
        super().__init__(simulation, peer.name, number)
        self.peer = peer
        self.intermediates = tuple(intermediates)
        self.box: NATBox | None = None
        self._inside = self._new_address()
        if peer.behavior != "open":
            self._build_nat()

    def _build_nat(self) -> None:
        behavior, network = BEHAVIORS[self.peer.behavior], self._network
        outside, self._inside = self._inside, f"10.0.{self._number}.2"
        self.box = NATBox(network, outside, behavior.mapping, behavior.filtering)
        if behavior.carrier is None:
            network.behind(self._inside, self.box)
        else:
            home = NATBox(network, f"100.64.{self._number}.2", behavior.mapping, behavior.filtering)
            network.behind(self._inside, home)
            network.behind(home.address, self.box)

    def _new_address(self) -> str:
        self._moves += 1
        address = f"198.51.{self._number}.{self._moves}"
        assert isinstance(self._network, Weather)
        self._network.locate(self.name, address)
        return address

    def rebind(self) -> None:
        """The NAT forgets its mappings, if there is one."""
        if self.box is not None:
            self.box.rebind()

    def move(self) -> None:
        """The outside address is another one from now on."""
        address = self._new_address()
        if self.box is not None:
            self._network.renumber(self.box, address)
            return
        self._inside = address
        if self.node is not None:
            self._process[1].rehost(address)


class ConnectorSite(NodeSite):
    """Where a Connector runs, whose services are spoken by listeners.

    :ivar joined: called with (listener, this site) when one learns its conversation.
    """

    joined: Any = None

    def make(self) -> Node:
        """Start a Connector."""
        services = dict.fromkeys(self.peer.services, ALLOWED)
        node = self._simulation.connector(
            services, self._inside, self.name, self.intermediates, self.peer.services
        )
        clock, draw = self._simulation.latest[0], self._network.random

        def listener() -> Listener:
            listener = Listener(clock, draw, lambda one: self.joined(one, self))
            listener.pauses = self.pauses
            return listener

        for service in self.peer.services:
            node.serve_protocol(service, Listeners(listener))
        return node


class AgentSite(NodeSite):
    """Where an Agent runs."""

    policy = "prefer-direct"

    def make(self) -> Node:
        """Start an Agent."""
        return self._simulation.agent(self._inside, self.name, self.intermediates, self.policy)


def build(
    scenario: Scenario, simulation: ProcessSimulation
) -> tuple[list[IntermediateSite], list[ConnectorSite], list[AgentSite]]:
    """The sites of a scenario, nothing running yet. Each node prefers other Intermediates."""
    draw = random.Random(scenario.seed)
    relays = [
        IntermediateSite(simulation, name, number)
        for number, name in enumerate(scenario.intermediates, 1)
    ]
    addresses = [site.address for site in relays]
    if scenario.hostile is HostileKind.FORGER:
        addresses.append(address_of(HOSTILE_NUMBER))

    def shuffled() -> list[str]:
        return draw.sample(addresses, len(addresses))

    connectors = [
        ConnectorSite(simulation, peer, number, shuffled())
        for number, peer in enumerate(scenario.connectors, 101)
    ]
    agents = [
        AgentSite(simulation, peer, number, shuffled())
        for number, peer in enumerate(scenario.agents, 201)
    ]
    for agent in agents:
        agent.policy = scenario.policy
    if scenario.talkative:
        for site in (*agents, *connectors):
            site.pauses = HARDLY_ANY
    return relays, connectors, agents
