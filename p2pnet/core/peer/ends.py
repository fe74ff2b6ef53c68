"""The two ends of a session: the Agent opens streams, the Connector authorizes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from p2pnet.core import events
from p2pnet.core.ledger import Kind, Ledger
from p2pnet.core.peer.session import Announcement, Session
from p2pnet.core.peer.stream import Stream, StreamAccepted, StreamRequested, StreamState
from p2pnet.core.timers import Deadlines, Timer, Timers
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.names import MAX_NAME
from p2pnet.wire.stream import ACCEPTED, StreamKind, decode_stream_header

MAX_HEADER = 2 + MAX_NAME  # bytes; more without a complete header cannot come
HEADER_TIMEOUT = 10.0  # seconds from the first bytes of a stream to its complete header


class Need(NamedTuple):
    """What a stream needs: a session with a connector of the service, on paths of the policy.

    :ivar policy: the name of the path selector (p2pnet.traversal.selection).
    """

    service: str
    policy: str


class AgentSession(Session):
    """The Agent's end: it opens the streams.

    :param need: what the session was found for; more relays are requested for the same.
    :ivar used_at: when it last had a stream, in seconds of the caller's clock.
    :ivar join_timer: for the next request of one more relay.
    """

    def __init__(
        self,
        announced: Announcement,
        now: float,
        emit: Callable[[events.Event], None],
        need: Need,
    ) -> None:
        super().__init__(announced, now, emit)
        self.need = need
        self.used_at = now
        self.join_timer: Timer | None = None

    def open(self, stream: Stream, now: float) -> None:
        """Carry `stream`, which has no session yet, on a new stream of the connection."""
        self._now = now
        stream_id = self.connection.open_stream()
        self.streams[stream_id] = stream
        stream.attach(self, stream_id)

    def _before_open(self, stream: Stream, data: bytes) -> bytes:
        if not data:
            raise DecodeError("stream ended before it was accepted")
        if data[:1] != ACCEPTED:
            raise DecodeError(f"stream answered with {data[0]:#04x}")
        self.connection.consume(stream.stream_id, 1)
        stream.advance(StreamState.OPEN)
        self._opened(stream)
        self._emit(StreamAccepted(stream))
        return data[1:]


class ConnectorSession(Session):
    """The Connector's end: streams arrive, and each is authorized by who the agent proved to be.

    :param authorize: called with the agent's name and the service; returns None, or the code to
        refuse the stream with.
    :param ledger: counts the streams of the agent, those of its other sessions too. The services
        share what one agent may have, so that a service that hangs does not take it all.
    """

    def __init__(
        self,
        announced: Announcement,
        now: float,
        emit: Callable[[events.Event], None],
        authorize: Callable[[str, str], ErrorCode | None],
        ledger: Ledger,
        timers: Timers,
    ) -> None:
        super().__init__(announced, now, emit)
        self._authorize = authorize
        self._ledger = ledger
        self._headers_due = Deadlines(timers, self._check_header)

    def _stream(self, stream_id: int) -> Stream | None:
        stream = self.streams.get(stream_id)
        if stream is None and stream_id % 4 == 0:  # the agent's, bidirectional (RFC 9000 2.1)
            stream = self._begin(stream_id)
        return stream

    def _begin(self, stream_id: int) -> Stream | None:
        """A new stream; None for a stream that was reset, since the agent has too many."""
        assert self.peer is not None
        stream = Stream("", StreamKind.BYTES, self._now, self._emit)
        if self._ledger.admit(Kind.UNNAMED, self.peer.name, stream).refusal is not None:
            self.connection.reset(stream_id, ErrorCode.OVER_LIMIT)
            return None
        stream.session, stream.stream_id = self, stream_id
        # An agent that reads no more wants no answer; its STOP_SENDING may precede the header.
        stream.sending.ended = not self.connection.takes(stream_id)
        self.streams[stream_id] = stream
        return stream

    def close_stream(self, stream: Stream, code: int, reason: str) -> None:
        """Forget the stream, which counts no more for the agent."""
        self._ledger.release(Kind.UNNAMED, stream)
        self._ledger.release(Kind.STREAM, stream, self.peer_name)
        self._headers_due.forget(stream)
        super().close_stream(stream, code, reason)

    def _check_header(self, stream: Stream, now: float) -> None:
        self._now = now
        if stream.state is StreamState.WAITING:
            stream.reset(ErrorCode.PROTOCOL_ERROR, f"no header in {HEADER_TIMEOUT:.0f} s")

    def _before_open(self, stream: Stream, data: bytes) -> bytes:
        if stream.state is StreamState.REQUESTED:
            return data  # early data: the host gets it while it decides
        receiving = stream.receiving
        receiving.buffer += data
        decoded = decode_stream_header(bytes(receiving.buffer[:MAX_HEADER]))
        if decoded is None:
            self._headers_due.bring_forward(stream, stream.created + HEADER_TIMEOUT)
            return b""
        header, length = decoded
        rest, receiving.buffer = bytes(receiving.buffer[length:]), bytearray()
        self.connection.consume(stream.stream_id, length)
        stream.service, stream.kind = header.service, header.kind
        stream.advance(StreamState.REQUESTED)
        assert self.peer is not None
        code = self._authorize(self.peer.name, stream.service)
        reason = None if code is None else code.name.lower()
        if code is None and stream.kind is StreamKind.BYTES:  # flows have a socket each
            code, reason = ErrorCode.OVER_LIMIT, self._admit(stream)
        if reason is None:
            self._emit(StreamRequested(stream))
            return rest
        assert code is not None
        self.refuse(stream, code, f"agent {self.peer_name}: {reason}")
        return b""

    def _admit(self, stream: Stream) -> str | None:
        """Count the stream for its service, or return why there is no room.

        A service with more than its share loses the newest stream to one with less.
        """
        self._ledger.release(Kind.UNNAMED, stream)
        verdict = self._ledger.admit(Kind.STREAM, stream.service, stream, of=self.peer_name)
        if verdict.evicted is not None:
            verdict.evicted.reset(ErrorCode.OVER_LIMIT, "other services want their share")
        return verdict.refusal
