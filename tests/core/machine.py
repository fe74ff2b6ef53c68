"""Three real cores on a network in memory that does whatever it is told, and a record beside it.

Nothing here looks at what a core thinks of the network: which addresses have answered, and what was
written and read, is noted from the datagrams and events alone.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.stream import Stream, StreamClosed, StreamData, StreamRequested
from p2pnet.wire.address import Address
from p2pnet.wire.check import encode_success
from p2pnet.wire.demux import Kind, classify
from tests.core.support import make_agent, make_connector, make_intermediate

AGENT, CONNECTOR, RELAY = range(3)  # who is who in World.hosts
RELAY_ADDRESS: Address = ("192.0.2.1", 4433)
# Where each node may be. Nobody is at the places that it left, nor at any of NOWHERE.
PLACES: list[list[Address]] = [
    [("203.0.113.1", 5000), ("203.0.113.1", 5001), ("203.0.113.2", 5000)],
    [("198.51.100.1", 5000), ("198.51.100.1", 5001), ("198.51.100.2", 5000)],
]
NOWHERE: list[Address] = [("192.0.2.66", 5000), ("192.0.2.67", 5000)]
ELSEWHERE = [address for places in (*PLACES, NOWHERE) for address in places]
REQUEST, SUCCESS = b"\x00\x01", b"\x01\x01"  # a STUN message begins so
CONSENT = 30.0  # seconds after its last answer for which data may go to an address (RFC 7675)
STANDSTILL = 20  # times that a core may ask for one and the same moment


@dataclasses.dataclass(frozen=True, slots=True)
class Datagram:
    """One on its way."""

    due: float
    data: bytes
    source: Address
    destination: Address


@dataclasses.dataclass(frozen=True, slots=True)
class Weather:
    """What datagrams from one host to another meet."""

    loss: float = 0.0
    jitter: float = 0.0
    duplication: float = 0.0


FAIR, CUT = Weather(), Weather(loss=1.0)


class Talk:
    """One end of a stream: what was written to it, what was read from it, and how it ended."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.written = bytearray()
        self.read = bytearray()
        self.closed: tuple[int, str] | None = None

    @property
    def key(self) -> tuple[bytes, int] | None:
        """The same at both ends, None before there is a session."""
        session = self.stream.session
        return (session.id, self.stream.stream_id) if session is not None else None

    @property
    def is_broken(self) -> bool:
        """Whether it was reported to have ended before its time."""
        return self.closed is not None and self.closed[0] != 0

    def write(self, data: bytes) -> None:
        """Say something, if it may still be said."""
        if not (self.stream.is_closed or self.stream.sending.ended):
            self.written += data
            self.stream.write(data)


class Host:
    """A core at an address. It is driven as p2pnet.net.driver drives one."""

    def __init__(self, core: Any, address: Address) -> None:
        self.core = core
        self.address = address
        self._woken_at = 0.0
        self._woken = 0

    def pump(self, now: float) -> list[tuple[bytes, Address]]:
        """Handle what happened; what is to be sent comes back."""
        out: list[tuple[bytes, Address]] = []
        while True:
            while (event := self.core.next_event()) is not None:
                self.handle(event, now)
            datagrams = self.core.datagrams_to_send(now)
            if not datagrams and (event := self.core.next_event()) is None:
                return out
            if event is not None:
                self.handle(event, now)
            out += datagrams
            assert len(out) < 10_000, "it cannot stop sending"

    def wake(self, now: float) -> None:
        """The time that it asked for has come."""
        self._woken = self._woken + 1 if now == self._woken_at else 1
        self._woken_at = now
        assert self._woken <= STANDSTILL, f"time stands still at {now}"
        self.core.handle_timer(now)

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """A datagram arrived."""
        self.core.receive_datagram(data, source, now)

    def handle(self, event: events.Event, now: float) -> None:
        """Something happened."""


class Node(Host):
    """An Agent or a Connector.

    :ivar talks: by stream, all that there ever were.
    :ivar ended: sessions, with the code and reason that were reported.
    :ivar proven: when each address last answered a transaction of ours, by session and address.
    :ivar genuine: the answers of its own that it sent.
    """

    core: PeerCore

    def __init__(self, core: PeerCore, address: Address, policy: str) -> None:
        super().__init__(core, address)
        self.policy = policy
        self.talks: dict[Stream, Talk] = {}
        self.ended: dict[str, tuple[str, str]] = {}
        self.proven: dict[tuple[bytes, Address], float] = {}
        self.genuine: set[bytes] = set()
        self.peer: Node = self
        self._asked: dict[bytes, Address] = {}
        self._moved: set[Session] = set()
        self._ways: dict[Session, set[Address]] = {}

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """A datagram arrived: note what it proves."""
        transaction_id = data[8:20]
        if data in self.peer.genuine and self._asked.get(transaction_id) == source:
            self.proven[transaction_id[:4], source] = now  # which begins with the session's tag
        super().receive(data, source, now)

    def pump(self, now: float) -> list[tuple[bytes, Address]]:
        """What is to be sent, which must be allowed."""
        self._moved.clear()
        out = super().pump(now)
        for data, destination in out:
            self._judge(data, destination, now)
        used = {destination for data, destination in out if classify(data) is not Kind.STUN}
        for session in self._moved & set(self.core.sessions):
            ways = {way.address for way in self.core.paths_of(session).using}
            new = ways - self._ways.get(session, set())
            self._ways[session] = ways
            assert new <= used or not session.connection.is_established, "no probe on a new path"
        return out

    def _judge(self, data: bytes, destination: Address, now: float) -> None:
        kind = classify(data)
        if kind is Kind.RELAY:
            assert destination == RELAY_ADDRESS, "a relay frame to somebody else"
        elif kind is Kind.STUN and data[:2] == REQUEST:
            self._asked[data[8:20]] = destination
        elif kind is Kind.STUN and data[:2] == SUCCESS:
            assert data[8:20] in self.peer._asked, "an answer to a stranger"
            self.genuine.add(data)
        elif kind is Kind.QUIC and destination != RELAY_ADDRESS:
            assert self.policy != "relay-only"
            answered = [when for (_, at), when in self.proven.items() if at == destination]
            assert answered, f"data to {destination}, which never answered"
            assert now - max(answered) <= CONSENT, f"data to {destination}, silent for long"

    def handle(self, event: events.Event, now: float) -> None:
        """Accept every stream, and read what comes."""
        match event:
            case StreamRequested(stream):
                self.talks[stream] = Talk(stream)
                stream.accept()
            case StreamData(stream, data, _):
                talk = self.talks[stream]
                assert talk.closed is None, "bytes after the end"
                talk.read += data
                stream.consume(len(data))
            case StreamClosed(stream, code, reason):
                talk = self.talks.setdefault(stream, Talk(stream))
                assert talk.closed is None, "closed twice"
                talk.closed = code, reason
            case reports.SessionClosed(session, _, code, reason):
                assert session not in self.ended, "ended twice"
                self.ended[session] = code, reason
            case reports.PathSelected(session_id):
                chosen = self.core.sessions.find(bytes.fromhex(session_id))
                if chosen is not None and chosen.has_connection:
                    self._moved.add(chosen)

    def open(self, now: float) -> Talk:
        """Begin a talk. Only for an Agent."""
        assert isinstance(self.core, AgentCore)
        stream = self.core.open_stream("web", now)
        talk = self.talks[stream] = Talk(stream)
        return talk

    def by_key(self) -> dict[tuple[bytes, int], Talk]:
        """The talks that have a session."""
        return {talk.key: talk for talk in self.talks.values() if talk.key is not None}


class World:
    """The hosts and what is between them.

    :ivar flying: datagrams on their way, in order of arrival.
    :ivar history: the latest that were sent.
    :ivar strangers: what those do who are where a datagram finds no host of ours.
    """

    def __init__(self, seed: int, policy: str) -> None:
        self.now = 0.0
        self.policy = policy
        self.random = random.Random(seed)
        self.flying: list[Datagram] = []
        self.history: collections.deque[Datagram] = collections.deque(maxlen=256)
        self.weather: dict[tuple[int, int], Weather] = {}
        self.delay = 0.02
        self.strangers: Callable[[Datagram], None] = self.ignore
        self.sent = 0
        entropy = self.random.randbytes
        agent = make_agent(["192.0.2.1:4433"], entropy, path=policy)
        connector = make_connector(["192.0.2.1:4433"], entropy)
        self.agent, self.connector = self.nodes = [
            Node(core, places[0], policy)
            for core, places in zip((agent, connector), PLACES, strict=True)
        ]
        self.agent.peer, self.connector.peer = self.connector, self.agent
        self.hosts: list[Host] = [*self.nodes, self._intermediate()]
        for side in (CONNECTOR, AGENT):
            self.tell_addresses(side, [])
            self.nodes[side].core.connect(self.now)
            self.pump(side)

    def _intermediate(self) -> Host:
        return Host(make_intermediate(self.random.randbytes), RELAY_ADDRESS)

    # -- the network -----------------------------------------------------------------------------

    def pump(self, side: int) -> None:
        """What a host sends is on its way, as the weather is."""
        host = self.hosts[side]
        for data, destination in host.pump(self.now):
            self.sent += 1
            self.history.append(Datagram(self.now, data, host.address, destination))
            weather = self.weather.get((side, self._region(destination)), FAIR)
            if self.random.random() < weather.loss:
                continue
            for _ in range(2 if self.random.random() < weather.duplication else 1):
                self.send(data, host.address, destination, weather.jitter * self.random.random())

    def send(self, data: bytes, source: Address, destination: Address, extra: float = 0.0) -> None:
        """Put a datagram on its way, whoever sends it."""
        due = self.now + self.delay + extra
        self.flying.append(Datagram(due, data, source, destination))
        self.flying.sort(key=lambda datagram: datagram.due)

    def _region(self, address: Address) -> int:
        """Whose part of the network it is; -1 for that of strangers."""
        regions = (i for i, places in enumerate((*PLACES, [RELAY_ADDRESS])) if address in places)
        return next(regions, -1)

    def arrive(self, datagram: Datagram) -> None:
        """A datagram reaches whoever is at its destination now."""
        for side, host in enumerate(self.hosts):
            if host.address == datagram.destination:
                host.receive(datagram.data, datagram.source, self.now)
                self.pump(side)
                return
        self.strangers(datagram)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            flying = self.flying[0].due if self.flying else float("inf")
            timers = [host.core.get_timer() for host in self.hosts]
            when, side = min((t, i) for i, t in enumerate([*timers, flying]) if t is not None)
            if when > end:
                break
            self.now = max(self.now, when)
            if side == len(self.hosts):
                self.arrive(self.flying.pop(0))
            else:
                self.hosts[side].wake(self.now)
                self.pump(side)
        self.now = end

    # -- what strangers do -----------------------------------------------------------------------

    def ignore(self, datagram: Datagram) -> None:
        """Nobody is there."""

    def reflect(self, datagram: Datagram) -> None:
        """Send everything back."""
        self.send(datagram.data, datagram.destination, datagram.source)

    def pretend(self, datagram: Datagram) -> None:
        """Answer checks without knowing the password."""
        if datagram.data[:2] == REQUEST:
            answer = encode_success(datagram.data[8:20], datagram.source, "a guess")
            self.send(answer, datagram.destination, datagram.source)

    def forward(self, datagram: Datagram) -> None:
        """Stand in for the other node, and hand everything on to it."""
        for node in self.nodes:
            if datagram.source == node.address:
                self.send(datagram.data, datagram.destination, node.peer.address)

    def divert(self, datagram: Datagram) -> None:
        """Hand it to the other node as it came: the answer will come from elsewhere."""
        for node in self.nodes:
            if datagram.source == node.address:
                self.send(datagram.data, datagram.source, node.peer.address)

    # -- what may happen to hosts ----------------------------------------------------------------

    def tell_addresses(self, side: int, external: list[Address]) -> None:
        """The node has a private address, and an operator who may be mistaken."""
        self.nodes[side].core.set_local_addresses([f"10.0.{side}.1"], 5000, external, self.now)

    def restart(self, goodbye: bool) -> None:
        """The Intermediate starts anew, after a last word or without."""
        if goodbye:
            self.hosts[RELAY].core.close(self.now)
            self.pump(RELAY)
        self.hosts[RELAY] = self._intermediate()

    def heal(self) -> None:
        """All is well again, and nobody is where he should not be."""
        self.weather.clear()
        self.strangers = self.ignore

    # -- talks -----------------------------------------------------------------------------------

    def pairs(self) -> Iterator[tuple[Talk, Talk | None, Node]]:
        """Every end of every talk, with the other end and the node it is at."""
        for node in self.nodes:
            others = node.peer.by_key()
            for talk in node.talks.values():
                yield talk, others.get(talk.key) if talk.key is not None else None, node
