"""Attackers of a simulated realm: hostile members, and a stranger.

All that lab.invariants demands for honest nodes must hold beside them. Their rates are low, for the
sake of the time that a seed takes, but high enough to reach the caps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lab.scenario import HostileKind, Peer, Scenario
from lab.site import (
    HOSTILE,
    HOSTILE_NUMBER,
    VICTIMS,
    AgentSite,
    ConnectorSite,
    IntermediateSite,
    ProcessSimulation,
    SimulatedSite,
    Weather,
    address_of,
)
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.session import Session
from p2pnet.node.agent import AgentNode
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message, encode_message
from p2pnet.wire.path_messages import PATHS_STREAM, CandidateInfo, CandidateUpdate
from p2pnet.wire.stream import StreamHeader, StreamKind

PERIOD = 3.0  # seconds between two attacks
FORGED = 1 << 30  # number of the first request that the core of the node knows nothing of
REQUESTS = (300, 36)  # by an agent at first, and in each period: above REQUEST_BURST, _RATE
SESSIONS = 6  # made-up ones that an agent requests by the name of a connector, in each period
STREAMS = 8  # without a header, in each period
UPDATES = 3  # of candidates, in each period
OFFERS = 12  # made-up ones of an Intermediate for a connector, in each period
PACKETS = 24  # of a stranger, in each period
INITIALS = 0.3  # of these packets
SEEN = 64  # packets that a stranger remembers


class Hostile:
    """An attacker that acts once in a PERIOD. Its draws leave those of the network alone.

    :ivar site: where its node runs, None for a stranger.
    :ivar services: all services of the realm.
    """

    log = Logger()
    site: SimulatedSite | None = None

    def __init__(self, scenario: Scenario, simulation: ProcessSimulation) -> None:
        assert isinstance(simulation.network, Weather)
        self.scenario = scenario
        self.network = simulation.network
        self.draw = random.Random(f"{scenario.hostile} {scenario.seed}")
        services = {service for peer in scenario.connectors for service in peer.services}
        self.services = tuple(sorted(services))
        self.relays = [address_of(n) for n, _ in enumerate(scenario.intermediates, 1)]
        self._turns = 0
        self._loop = LoopingCall(self._turn)
        self._loop.clock = self.network.clock
        self._place(simulation)

    def _place(self, simulation: ProcessSimulation) -> None:
        """Make the site."""

    def appear(self) -> None:
        """Start the node with the Intermediates, if agents must find it there."""

    def start(self) -> None:
        """Begin to attack."""
        if self.site is not None and self.site.node is None:
            self._run(self.site)
        self._loop.start(PERIOD, now=False).addErrback(
            lambda failure: self.log.failure("an attack failed", failure)
        )

    def _run(self, site: SimulatedSite) -> None:
        """Start the node, with this attacker's handling of messages."""
        site.start()
        take = self._core.take_message
        self._core.take_message = lambda *said: self._takes(*said) or take(*said)

    def _takes(self, link: ControlLink, message: Message, now: float) -> bool:
        """Whether the attacker handled a message, which the core does not get then."""
        return False

    def stop(self) -> None:
        """Vanish without a word."""
        if self._loop.running:
            self._loop.stop()
        if self.site is not None:
            self.site.crash()

    def _turn(self) -> None:
        self._turns += 1
        self._attack()
        if self.site is not None and self.site.node is not None:
            self.site.node.driver.wake()

    def _attack(self) -> None:
        """Do what this kind does in one period."""
        raise NotImplementedError

    @property
    def _core(self) -> Any:
        """The core of the node."""
        assert self.site is not None and self.site.node is not None
        return self.site.node.core

    def _links(self) -> list[ControlLink]:
        """The links of the node to Intermediates that take requests."""
        return [link for link in self._core.links if link.is_ready]

    def _victim(self) -> Address:
        """An address of a host without a node."""
        return self.draw.choice(VICTIMS), self.draw.randrange(1024, 1 << 16)


class Stranger(Hostile):
    """An observer of all packets sends copies and junk from addresses of nodes and victims."""

    def _place(self, simulation: ProcessSimulation) -> None:
        # The packets seen last, by whether they are Initials, which make connections.
        self._seen: dict[bool, list[tuple[bytes, Address, Address]]] = {False: [], True: []}
        self.network.onlooker = self._see

    def _see(self, data: bytes, source: Address, target: Address) -> None:
        seen = self._seen[data[:1] >= b"\xc0" and data[0] & 0x30 == 0]
        seen.append((data, source, target))
        del seen[:-SEEN]

    def _attack(self) -> None:
        for _ in range(PACKETS):
            seen = self._seen[self.draw.random() < INITIALS] or self._seen[False]
            data, source, target = self.draw.choice(seen)
            source = self.draw.choice((source, self._victim(), self._victim()))
            # A copy, junk for a known connection, junk for none, or a copy for another connection.
            match self.draw.randrange(4):
                case 1:
                    data = data[:9] + self.draw.randbytes(len(data) - 9)
                case 2:
                    data = data[:1] + self.draw.randbytes(len(data) - 1)
                case 3:
                    data = data[:6] + self.draw.randbytes(8) + data[14:]
            self.network.forge(data, source, target)


class Outsider(Hostile):
    """An agent that may use nothing sends more requests than an agent may."""

    name = "eve"

    def _place(self, simulation: ProcessSimulation) -> None:
        self._requested = 0
        self._connectors = [peer.name for peer in self.scenario.connectors]
        peer = Peer(self.name)
        self.site = AgentSite(simulation, peer, HOSTILE_NUMBER, self.relays)

    def _takes(self, link: ControlLink, message: Message, now: float) -> bool:
        return getattr(message, "request", 0) >= FORGED

    def _request(self, connector: str | None, service: str | None = None) -> None:
        """Request a session that the node itself knows nothing of."""
        self._requested += 1
        number, session = FORGED + self._requested, self.draw.randbytes(16)
        service = service or self.draw.choice(self.services)
        for link in self._links():
            link.send(messages.SessionRequest(number, session, service, connector))

    def _attack(self) -> None:
        for _ in range(REQUESTS[self._turns > 1]):
            connector = self.draw.choice([None, *self._connectors])
            self._request(connector, self.draw.choice((None, None, "nothing")))


class Insider(Outsider):
    """An agent that may use all services requests sessions without a handshake, opens streams
    without a header, resets streams, and names victims as its candidates."""

    name = HOSTILE

    def _attack(self) -> None:
        for _ in range(SESSIONS):
            self._request(self.draw.choice(self._connectors))
        node = self.site.node if self.site is not None else None
        if self._turns % 4 == 1 and isinstance(node, AgentNode):
            transport = node.open(self.draw.choice(self.services))
            self.network.clock.callLater(1.5 * PERIOD, transport.abortConnection)
        for session in self._core.sessions:
            if session.is_established:
                self._open_streams(session)
                for _ in range(UPDATES):
                    update = encode_message(CandidateUpdate(tuple(self._lies())))
                    session.connection.send(PATHS_STREAM, update)

    def _open_streams(self, session: Session) -> None:
        connection = session.connection
        header = StreamHeader(StreamKind.BYTES, self.draw.choice(self.services)).encode()
        for _ in range(STREAMS):
            stream = connection.open_stream()
            connection.send(stream, self.draw.choice((header, header[:1], header[:-1])))
            if self.draw.random() < 0.3:
                connection.reset(stream, ErrorCode.CANCELLED)

    def _lies(self) -> Iterator[CandidateInfo]:
        for number in range(16):
            host, port = self._victim()
            yield CandidateInfo("srflx", host, port, (1 << 30) + number, f"v{number}")


class BlackHole(Hostile):
    """A connector with the same grants accepts offers without a handshake, or refuses them."""

    def _place(self, simulation: ProcessSimulation) -> None:
        peer = Peer(HOSTILE, services=self.services)
        self.site = ConnectorSite(simulation, peer, HOSTILE_NUMBER, self.relays)

    def appear(self) -> None:
        """Register the services before the honest connectors."""
        assert self.site is not None
        self._run(self.site)

    def _takes(self, link: ControlLink, message: Message, now: float) -> bool:
        if isinstance(message, messages.SessionOffer):
            self._answer(link, message)
        return isinstance(message, messages.SessionOffer)

    def _answer(self, link: ControlLink, offer: messages.SessionOffer) -> None:
        code = self.draw.choice((ErrorCode.NO_ERROR, ErrorCode.NOT_AUTHORIZED))
        link.send(messages.SessionAnswer(offer.session, code))

    def _attack(self) -> None:
        for link in self._links():
            link.send(messages.SessionAnswer(self.draw.randbytes(16)))


class Flapper(BlackHole):
    """A connector with the same grants that comes and goes, and answers no offer."""

    def _answer(self, link: ControlLink, offer: messages.SessionOffer) -> None:
        pass

    def _attack(self) -> None:
        assert self.site is not None
        if self._turns % 4 == 0:
            self.site.crash()
            self._run(self.site)
        for link in self._links():
            for _ in range(4):
                some = self.draw.sample(self.services, self.draw.randint(0, len(self.services)))
                link.send(messages.Register(tuple(some)))
            link.send(messages.SessionAnswer(self.draw.randbytes(16)))
            link.send(messages.SessionClosed(self.draw.randbytes(16), ErrorCode.SHUTDOWN, "bye"))


class Forger(Hostile):
    """A further Intermediate of all nodes forges offers and observed addresses.

    It serves requests and relays like the others: nodes trust an Intermediate with availability.
    """

    def _place(self, simulation: ProcessSimulation) -> None:
        self.site = IntermediateSite(simulation, HOSTILE, HOSTILE_NUMBER)
        self._agents = [peer.name for peer in self.scenario.agents]
        self._sequence = FORGED

    def appear(self) -> None:
        """Start the Intermediate, to which the honest nodes connect."""
        assert self.site is not None
        self.site.start()

    def stop(self) -> None:
        """Forge no more; the Intermediate stays."""
        if self._loop.running:
            self._loop.stop()

    def _attack(self) -> None:
        nodes = self._core.nodes
        for each in nodes:
            if each.has_greeted:
                self._sequence += 1
                each.send(messages.ObservedAddress(self._sequence, *self._victim()))
        for connector in nodes.connectors.values():
            for number in range(OFFERS):
                agent = self.draw.choice((*self._agents, f"agent{number}"))
                name = self.draw.randbytes(40)
                connector.send(
                    messages.SessionOffer(
                        name[:16], agent, name[16:24], self.draw.choice(self.services),
                        send_channel=name[24:32], receive_channel=name[32:],
                    )
                )  # fmt: skip


KINDS: dict[HostileKind, type[Hostile]] = {
    HostileKind.STRANGER: Stranger,
    HostileKind.OUTSIDER: Outsider,
    HostileKind.INSIDER: Insider,
    HostileKind.BLACK_HOLE: BlackHole,
    HostileKind.FLAPPER: Flapper,
    HostileKind.FORGER: Forger,
}


def hostile_of(scenario: Scenario, simulation: ProcessSimulation) -> Hostile | None:
    """The attacker of a scenario, which has not begun; None without one."""
    kind = scenario.hostile
    return KINDS[kind](scenario, simulation) if kind is not None else None
