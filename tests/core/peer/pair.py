"""The two ends of a session over a real connection in memory: no network, no node, no clock."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core import events
from p2pnet.core.ledger import Cap, Kind, Ledger
from p2pnet.core.peer.ends import AgentSession, ConnectorSession, Need
from p2pnet.core.peer.options import PeerOptions
from p2pnet.core.peer.profiles import Profiles
from p2pnet.core.peer.session import Announcement, Session
from p2pnet.core.peer.stream import (
    FlowDatagram,
    Stream,
    StreamClosed,
    StreamData,
    StreamOwner,
    StreamRequested,
    StreamState,
    StreamWritable,
)
from p2pnet.core.timers import Timers
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.wire.address import PeerAddress
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind
from tests.core.support import credentials

SESSION = b"0123456789abcdef"
ADDRESS = PeerAddress.of_session(SESSION)
OPTIONS = PeerOptions(engine="fast", congestion="bbr", tell_observed=True)
MOMENT = 0.05  # seconds in which delayed acknowledgements leave

E = TypeVar("E")


class Owner:
    """Keeps what a stream says to its host."""

    def __init__(self, stream: Stream) -> None:
        self.data = b""
        self.ended = False
        self.payloads: list[bytes] = []
        self.writable = 0
        self.outcome: tuple[int, str] | None = None
        stream.owner = self


class Raw(Stream):
    """A stream that starts with nothing; the test writes the header, or what it likes."""

    def attach(self, session: StreamOwner, stream_id: int) -> None:
        """Belong to the session without a word."""
        self.session, self.stream_id = session, stream_id
        self.advance(StreamState.REQUESTED)


class Host:
    """A host that reads everything.

    :ivar requested: the streams that arrived and were authorized; they wait for an answer.
    :ivar events: all that happened.
    """

    def __init__(self) -> None:
        self.requested: list[Stream] = []
        self.events: list[events.Event] = []

    def happened(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def emit(self, event: events.Event) -> None:
        """Keep an event, and handle it."""
        self.events.append(event)
        match event:
            case StreamRequested(stream):
                Owner(stream)
                self.requested.append(stream)
            case StreamData(stream, data, end) if stream.owner is not None:
                stream.owner.data += data
                stream.owner.ended = stream.owner.ended or end
                stream.consume(len(data))
            case FlowDatagram(stream, payload):
                stream.owner.payloads.append(payload)
            case StreamWritable(stream):
                stream.owner.writable += 1
            case StreamClosed(stream, code, reason) if stream.owner is not None:
                assert stream.owner.outcome is None
                stream.owner.outcome = code, reason


class End(Host):
    """One end: a session on a multiplexer, and its host."""

    session: Session

    def __init__(self, mux: Multiplexer) -> None:
        super().__init__()
        self.mux = mux

    def take_events(self, now: float) -> None:
        """Let the session handle what happened on the connection."""
        while (item := self.mux.next_event()) is not None:
            connection, event = item
            if connection.owner is None:
                self.session.set_connection(connection)
            if isinstance(event, quic_events.StreamEvent):
                self.session.handle(event, now)
            elif isinstance(event, quic_events.HandshakeCompleted):
                self.session.is_proven = True

    def datagrams(self, now: float) -> list[bytes]:
        """What is due."""
        found: list[bytes] = []
        self.take_events(now)
        while self.mux.may_send:
            found += [data for data, _ in self.mux.datagrams_to_send(now)]
            self.take_events(now)
        return found


class SessionCase(SynchronousTestCase):
    """An agent's and a connector's end, established; the connector does not answer by itself."""

    def setUp(self) -> None:
        """The handshake is over."""
        self.now = 0.0
        self.ledger = Ledger({Kind.UNNAMED: Cap(own=16), Kind.STREAM: Cap(16)})
        self.timers = Timers()
        alice, office = (
            Profiles(credentials(role, name), peer, OPTIONS, utcnow, max_peer_streams=32)
            for role, name, peer in (
                (Role.AGENT, "alice", Role.CONNECTOR),
                (Role.CONNECTOR, "office", Role.AGENT),
            )
        )
        self.agent = End(Multiplexer())
        self.connector = End(Multiplexer(accept_peer=lambda _: office.peer()))
        self.session = self.agent.session = AgentSession(
            Announcement(SESSION, "office", b"instance"),
            0.0,
            self.agent.emit,
            Need("web", "prefer-direct"),
        )
        self.other_session = self.connector.session = ConnectorSession(
            Announcement(SESSION, "alice", b"instance"), 0.0, self.connector.emit, self.authorize,
            self.ledger, self.timers,
        )  # fmt: skip
        self.session.set_connection(self.agent.mux.connect(alice.peer(), ADDRESS, 0.0))
        self.settle()
        self.assertTrue(self.session.is_established and self.other_session.is_established)

    @property
    def requested(self) -> list[Stream]:
        """The streams that wait at the connector."""
        return self.connector.requested

    @property
    def connection(self) -> Connection:
        """The agent's end of the connection."""
        return self.session.connection

    def authorize(self, agent: str, service: str) -> ErrorCode | None:
        """Let alice use "web" and "dns"."""
        self.assertEqual("alice", agent)
        return None if service in ("web", "dns") else ErrorCode.UNKNOWN_SERVICE

    def settle(self) -> None:
        """Let everything arrive that is on its way, and what it causes."""
        for _ in range(2):
            while self._exchange(self.agent, self.connector) + self._exchange(
                self.connector, self.agent
            ):
                pass
            self.now += MOMENT
            for end in (self.agent, self.connector):
                end.mux.handle_timer(self.now)

    def _exchange(self, source: End, target: End) -> int:
        datagrams = source.datagrams(self.now)
        for data in datagrams:
            target.mux.receive_datagram(data, ADDRESS, self.now)
        return len(datagrams)

    def make(self, kind: StreamKind = StreamKind.BYTES) -> Stream:
        """A stream of the agent's without a session yet."""
        stream = Stream("web", kind, self.now, self.agent.emit)
        Owner(stream)
        return stream

    def open(self, kind: StreamKind = StreamKind.BYTES) -> Raw:
        """A stream on the connection without a header."""
        stream = Raw("web", kind, self.now, self.agent.emit)
        Owner(stream)
        self.session.open(stream, self.now)
        return stream

    def talk(self, kind: StreamKind = StreamKind.BYTES) -> tuple[Stream, Stream]:
        """Both ends of a stream that was requested and accepted."""
        stream = self.make(kind)
        self.session.open(stream, self.now)
        self.settle()
        other = self.requested[-1]
        other.accept()
        self.settle()
        return stream, other

    def write(self, stream: Stream, data: bytes, end: bool = False) -> None:
        """Bytes as they are, which arrive before anything else happens."""
        session: Any = stream.session
        session.connection.send(stream.stream_id, data, end=end)
        self.settle()

    def assert_reset(self, stream: Stream, code: ErrorCode) -> None:
        """The stream is broken at both ends, and nothing remains of it."""
        self.assertEqual((code, "reset by the peer"), stream.owner.outcome)
        self.assertEqual({}, self.session.streams)
        self.assertEqual({}, self.other_session.streams)
