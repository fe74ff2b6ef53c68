"""A service stream or UDP flow on the end-to-end connection, as a host of the core sees it.

The host writes to a `Stream`, which hands the bytes straight to the connection of its session. The
other way a session makes events of what the connection received; they stand at the end of this
file.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Protocol

from p2pnet import reports
from p2pnet.core.events import Event, OwnerEvent, StreamEvent
from p2pnet.identity import Identity
from p2pnet.quic.connection import HIGH_WATER, Connection
from p2pnet.wire.address import PeerAddress
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import (
    MAX_DATAGRAM,
    StreamHeader,
    StreamKind,
    encode_capsule,
    encode_flow_datagram,
)


class StreamOwner(Protocol):
    """The session of a stream, as far as the stream and its host need it.

    :ivar id: 16 bytes.
    :ivar address: the fixed address under which QUIC knows the other end.
    :ivar created: in seconds of the core's clock.
    :ivar peer: who the other end proved to be, None before the handshake.
    :ivar peer_name: the other end's name as the Intermediate announced it.
    """

    id: bytes
    address: PeerAddress
    created: float

    @property
    def peer_name(self) -> str: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def peer(self) -> Identity | None: ...

    def accept(self, stream: Stream) -> None: ...
    def refuse(self, stream: Stream, code: ErrorCode, reason: str) -> None: ...
    def close_stream(self, stream: Stream, code: int, reason: str) -> None: ...
    def close_if_finished(self, stream: Stream) -> None: ...


class StreamState(enum.Enum):
    """The states of a stream, from its creation to its end."""

    WAITING = enum.auto()  # for a session (Agent), or for its header (Connector)
    REQUESTED = enum.auto()  # the header is sent or received, no answer yet
    OPEN = enum.auto()
    CLOSED = enum.auto()


TRANSITIONS = {
    StreamState.WAITING: {StreamState.REQUESTED, StreamState.CLOSED},
    StreamState.REQUESTED: {StreamState.OPEN, StreamState.CLOSED},
    StreamState.OPEN: {StreamState.CLOSED},
    StreamState.CLOSED: set(),
}


@dataclasses.dataclass(slots=True)
class StreamPart:
    """The sending or the receiving part of a stream (RFC 9000 section 3).

    :ivar size: bytes of the service so far: written by the host, or delivered to it.
    :ivar buffer: bytes written before there is a session; or the received beginning of a header or
        a capsule.
    :ivar ended: whether no more bytes follow.
    """

    size: int = 0
    buffer: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False


class Stream:
    """Bytes, or datagrams, to and from one service.

    An Agent may write before the stream is accepted, even before there is a session: this saves a
    round trip. Calls on a closed stream do nothing.

    :param now: time of creation in seconds of the core's clock.
    :param emit: takes the events of the stream while it has no session.
    :ivar owner: for the host, which keeps here what the stream belongs to.
    :ivar session: the session that carries the stream, None before there is one.
    :ivar stream_id: its number on the connection (RFC 9000 section 2.1), -1 without a session.
    """

    def __init__(
        self, service: str, kind: StreamKind, now: float, emit: Callable[[Event], None]
    ) -> None:
        self.service = service
        self.kind = kind
        self.created = now
        self.state = StreamState.WAITING
        self.owner: Any = None
        self.session: StreamOwner | None = None
        self.stream_id = -1
        self.sending = StreamPart()
        self.receiving = StreamPart()
        self._emit = emit
        self._watched = False

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id} {self.service} {self.state.name.lower()}>"

    @property
    def flow_id(self) -> int:
        """The id in DATAGRAM frames: the quarter stream id (RFC 9297 section 2.1)."""
        return self.stream_id // 4

    @property
    def is_closed(self) -> bool:
        """Whether the stream is over, so that calls do nothing."""
        return self.state is StreamState.CLOSED

    def advance(self, state: StreamState) -> None:
        """Go to `state`, which must be one of TRANSITIONS from here."""
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    # -- for the host ----------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Queue bytes. Returns False to ask for a pause until StreamWritable."""
        sending = self.sending
        if self.is_closed or sending.ended or not data:
            return True
        sending.size += len(data)
        if self.session is None:
            sending.buffer += data
            return len(sending.buffer) <= HIGH_WATER
        return self.session.connection.send(self.stream_id, data)

    def watch_writable(self) -> None:
        """Ask for StreamWritable as soon as little is unsent."""
        if self.session is not None and not self.is_closed:
            self.session.connection.watch(self.stream_id)
        self._watched = True

    def write_end(self) -> None:
        """End the sending part; the receiving part stays open."""
        if self.is_closed or self.sending.ended:
            return
        self.sending.ended = True
        if self.session is not None:
            self.session.connection.send(self.stream_id, b"", end=True)
            self.session.close_if_finished(self)

    def discard_input(self) -> None:
        """Read nothing more, and ask the peer to send no more (STOP_SENDING, RFC 9000 19.5)."""
        if self.is_closed or self.receiving.ended:
            return
        self.receiving.ended = True
        if self.session is not None:
            self.session.connection.stop(self.stream_id, ErrorCode.NO_ERROR)
            self.session.close_if_finished(self)

    def consume(self, size: int) -> bool:
        """Give the peer credit for as many bytes as the host has used (RFC 9000 section 4).

        Returns whether the credit is due to be sent.
        """
        return self.session is not None and self.session.connection.consume(self.stream_id, size)

    def reset(self, code: int = ErrorCode.CANCELLED, reason: str = "") -> None:
        """Break off both directions. The peer gets the code, StreamClosed code and reason."""
        if self.is_closed:
            return
        if self.session is not None:
            self.session.connection.reset(self.stream_id, code)
            self.session.close_stream(self, code, reason)
        else:
            self.advance(StreamState.CLOSED)
            self._emit(StreamClosed(self, code, reason))

    def accept(self) -> None:
        """Connector: tell the Agent that the target is connected."""
        if self.state is StreamState.REQUESTED and self.session is not None:
            self.session.accept(self)

    def refuse(self, code: ErrorCode, reason: str) -> None:
        """Connector: refuse the stream. The Agent gets the code, the event log the reason."""
        if self.state is StreamState.REQUESTED and self.session is not None:
            self.session.refuse(self, code, reason)

    def send_datagram(self, payload: bytes) -> bool:
        """Send a datagram of the flow, best effort. Returns False if it was dropped.

        A datagram too large for a DATAGRAM frame (RFC 9221) travels on the flow's stream, unless
        HIGH_WATER bytes of the stream are unsent.
        """
        if self.is_closed or len(payload) > MAX_DATAGRAM:
            return False
        if self.session is None:
            buffer = self.sending.buffer
            if len(buffer) + len(payload) > HIGH_WATER:
                return False
            buffer += encode_capsule(payload)
        else:
            connection = self.session.connection
            data = encode_flow_datagram(self.flow_id, payload)
            # Before the header arrived, a DATAGRAM frame would find no flow: use the stream.
            if self.state is StreamState.OPEN and len(data) <= connection.datagram_limit:
                if not connection.send_datagram(data):
                    return False
            elif connection.unsent(self.stream_id) > HIGH_WATER:
                return False
            else:
                connection.send(self.stream_id, encode_capsule(payload))
        self.sending.size += len(payload)
        return True

    # -- for the Agent and its sessions ----------------------------------------------------------

    def fail(self, code: ErrorCode, reason: str) -> None:
        """Refuse the stream, which waits for a session and will not get one."""
        if self.is_closed:
            return
        self.advance(StreamState.CLOSED)
        self._emit(reports.StreamRefused("", self.service, code.name.lower(), reason))
        self._emit(StreamClosed(self, code, reason))

    def attach(self, session: StreamOwner, stream_id: int) -> None:
        """The session carries the stream: send the header, and the bytes written before."""
        self.session, self.stream_id = session, stream_id
        self.advance(StreamState.REQUESTED)
        sending = self.sending
        header = StreamHeader(self.kind, self.service).encode()
        written, sending.buffer = bytes(sending.buffer), bytearray()
        session.connection.send(stream_id, header + written, end=sending.ended)
        if self._watched:
            session.connection.watch(stream_id)
        if self.receiving.ended:
            session.connection.stop(stream_id, ErrorCode.NO_ERROR)
            session.close_if_finished(self)


@dataclasses.dataclass(frozen=True, slots=True)
class StreamRequested(StreamEvent):
    """An agent requests `stream.service`: accept() or refuse() the stream."""

    stream: Stream


@dataclasses.dataclass(frozen=True, slots=True)
class StreamAccepted(StreamEvent):
    """The connector accepted the stream: its target is connected."""

    stream: Stream


@dataclasses.dataclass(frozen=True, slots=True)
class StreamData(OwnerEvent):
    """Bytes in order, the last ones if `end`; call stream.consume(len(data)) once used."""

    stream: Stream
    data: bytes
    end: bool

    def deliver(self) -> None:
        """Give the bytes to the stream's owner; those of a refused stream are dropped."""
        if self.stream.owner is not None:
            self.stream.owner.received(self.data, self.end)


@dataclasses.dataclass(frozen=True, slots=True)
class StreamWritable(OwnerEvent):
    """The stream takes more bytes: write() returned False, or the host called watch_writable()."""

    stream: Stream

    def deliver(self) -> None:
        """Let the stream's owner write on."""
        if self.stream.owner is not None:
            self.stream.owner.writable()


@dataclasses.dataclass(frozen=True, slots=True)
class FlowDatagram(OwnerEvent):
    """A datagram of the flow arrived; it is delivered once, or never."""

    stream: Stream
    payload: bytes

    def deliver(self) -> None:
        """Give the payload to the owner of the flow."""
        if self.stream.owner is not None:
            self.stream.owner.datagram(self.payload)


@dataclasses.dataclass(frozen=True, slots=True)
class StreamClosed(StreamEvent):
    """The stream is over in both directions: properly with code 0, else broken off."""

    stream: Stream
    code: int
    reason: str
