"""A session: one Agent and one Connector, and the streams of their end-to-end connection.

Both ends have this in common; ends.py has the difference. The packets of the connection travel as
the session's `Paths` say, which a session does not know.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from p2pnet import reports
from p2pnet.core.events import Event
from p2pnet.core.peer.stream import (
    FlowDatagram,
    Stream,
    StreamClosed,
    StreamData,
    StreamState,
    StreamWritable,
)
from p2pnet.identity import Identity
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.wire.address import PeerAddress
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.stream import ACCEPTED, StreamKind, decode_capsules, decode_flow_datagram


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """What an Intermediate says of a session; the handshake has to confirm the name.

    :ivar session_id: 16 bytes, chosen by the Agent.
    :ivar peer_name: the name of the other end.
    :ivar instance: 8 bytes, the process of the other end.
    """

    session_id: bytes
    peer_name: str
    instance: bytes


class Session:
    """Streams over one end-to-end connection: what both ends have in common.

    :param announced: what an Intermediate said.
    :param emit: takes the events of the streams, and reports.
    :ivar id: 16 bytes, chosen by the Agent.
    :ivar address: the fixed address under which QUIC knows the other end.
    :ivar created: in seconds of the caller's clock.
    :ivar streams: the open ones, by stream id.
    :ivar is_proven: whether the other end proved to be the announced one.
    :ivar handshake_rtt: seconds of a round trip by the duration of the handshake, 0.0 if unknown.
        aioquic has no sample of its own where each packet was sent twice, as on all long ways.
    :ivar unanswered_since: when the first packet left that the peer should have acknowledged, with
        no packet of the peer since; math.inf if no answer is due.
    """

    def __init__(self, announced: Announcement, now: float, emit: Callable[[Event], None]) -> None:
        self.id = announced.session_id
        self.address: PeerAddress = PeerAddress.of_session(self.id)
        self._announced = announced
        self.created = now
        self.streams: dict[int, Stream] = {}
        self.is_proven = False
        self.handshake_rtt = 0.0
        self.unanswered_since = math.inf
        self._now = now  # of the last call that said it, for durations
        self._emit = emit
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id.hex()} {self.peer_name}>"

    @property
    def peer_name(self) -> str:
        """The other end's name as the Intermediate announced it."""
        return self._announced.peer_name

    @property
    def instance(self) -> bytes:
        """8 bytes, the other end's process as announced."""
        return self._announced.instance

    @property
    def connection(self) -> Connection:
        """The end-to-end connection. Only for a session that has one."""
        assert self._connection is not None
        return self._connection

    @property
    def has_connection(self) -> bool:
        """Whether there is an end-to-end connection, complete or not."""
        return self._connection is not None

    @property
    def is_established(self) -> bool:
        """Whether the other end proved to be the announced peer, and nothing closed the connection
        since."""
        return self.is_proven and self.connection.is_established

    @property
    def peer(self) -> Identity | None:
        """Who the other end proved to be, None until the handshake."""
        return self._connection.peer if self._connection is not None else None

    def set_connection(self, connection: Connection) -> None:
        """Carry the streams on this connection, whose handshake begins."""
        connection.owner = self
        self._connection = connection

    # -- events of the connection ----------------------------------------------------------------

    def handle(self, event: quic_events.StreamEvent, now: float) -> None:
        """Take an event of a stream of the connection, or a DATAGRAM frame."""
        self._now = now
        match event:
            case quic_events.StreamDataReceived(stream_id, data, end):
                self._received(stream_id, data, end)
            case quic_events.DatagramReceived(data):
                self._datagram(data)
            case quic_events.StreamWritable(stream_id):
                if stream_id in self.streams:
                    self._emit(StreamWritable(self.streams[stream_id]))
            case quic_events.StreamReset(stream_id, code):
                self._reset(stream_id, code)
            case quic_events.StreamStopped(stream_id, code):
                self._stopped(stream_id, code)

    def abandon(self, code: ErrorCode, reason: str, now: float) -> None:
        """The connection is over: every stream breaks."""
        self._now = now
        for stream in list(self.streams.values()):
            self.close_stream(stream, code or ErrorCode.CANCELLED, reason)

    def _stream(self, stream_id: int) -> Stream | None:
        """The stream that arriving data belongs to, None to drop the data."""
        return self.streams.get(stream_id)

    def _received(self, stream_id: int, data: bytes, end: bool) -> None:
        stream = self._stream(stream_id)
        if stream is None or stream.is_closed:
            self.connection.consume(stream_id, len(data))
            return
        try:
            if stream.state is not StreamState.OPEN:
                data = self._before_open(stream, data)
            self._deliver(stream, data, end)
        except DecodeError as error:
            stream.reset(ErrorCode.PROTOCOL_ERROR, str(error))

    def _before_open(self, stream: Stream, data: bytes) -> bytes:
        """Take the header or the answer off the front of `data`. Raises DecodeError."""
        raise NotImplementedError

    def _deliver(self, stream: Stream, data: bytes, end: bool) -> None:
        if end:
            stream.receiving.ended = True
        if stream.is_closed:
            return
        if stream.kind is StreamKind.FLOW and stream.state is not StreamState.WAITING:
            self._deliver_capsules(stream, data)
        elif stream.state is StreamState.WAITING:
            if end:
                raise DecodeError("stream ended before its header")
        elif data or end:
            stream.receiving.size += len(data)
            self._emit(StreamData(stream, data, end))
        if end:
            self.close_if_finished(stream)

    def _deliver_capsules(self, stream: Stream, data: bytes) -> None:
        self.connection.consume(stream.stream_id, len(data))
        buffer = stream.receiving.buffer
        buffer += data
        for payload in decode_capsules(buffer):
            self._deliver_datagram(stream, payload)

    def _datagram(self, data: bytes) -> None:
        try:
            flow_id, payload = decode_flow_datagram(data)
        except DecodeError:
            return
        stream = self.streams.get(flow_id * 4)
        if stream is not None and stream.kind is StreamKind.FLOW:
            self._deliver_datagram(stream, payload)

    def _deliver_datagram(self, stream: Stream, payload: bytes) -> None:
        stream.receiving.size += len(payload)
        self._emit(FlowDatagram(stream, payload))

    def _reset(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.connection.reset(stream_id, ErrorCode.CANCELLED)
            self.close_stream(stream, code or ErrorCode.CANCELLED, "reset by the peer")

    def _stopped(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if code != ErrorCode.NO_ERROR:
            self._reset(stream_id, code)
        else:  # it ended properly over there; its last bytes are on their way
            stream.sending.ended = True
            self.close_if_finished(stream)

    # -- the life of streams ---------------------------------------------------------------------

    def close_if_finished(self, stream: Stream) -> None:
        """Close the stream properly if both of its parts ended."""
        if stream.receiving.ended and stream.sending.ended:
            self.close_stream(stream, ErrorCode.NO_ERROR, "")

    def close_stream(self, stream: Stream, code: int, reason: str) -> None:
        """Forget the stream; a report and StreamClosed say why. Only the first call counts."""
        if stream.is_closed:
            return
        refused = stream.state is StreamState.REQUESTED and code != ErrorCode.NO_ERROR
        stream.advance(StreamState.CLOSED)
        self.streams.pop(stream.stream_id, None)
        name = ErrorCode.of(code).name.lower()
        if refused:
            self._emit(reports.StreamRefused(self.peer_name, stream.service, name, reason))
        else:
            seconds = self._now - stream.created
            self._emit(
                reports.StreamFinished(
                    self.id.hex(), self.peer_name, stream.service,
                    stream.sending.size, stream.receiving.size, seconds, name,
                )
            )  # fmt: skip
        self._emit(StreamClosed(stream, code, reason))

    def accept(self, stream: Stream) -> None:
        """Answer a requested stream: it is open."""
        stream.advance(StreamState.OPEN)
        self.connection.send(stream.stream_id, ACCEPTED)
        self._opened(stream)

    def refuse(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        """Answer a requested stream: it is refused, with `code` for the peer."""
        self.connection.reset(stream.stream_id, code)
        self.close_stream(stream, code, reason)

    def _opened(self, stream: Stream) -> None:
        self._emit(
            reports.StreamOpened(
                self.id.hex(), self.peer_name, stream.service, stream.kind.name.lower(),
                self._now - stream.created,
            )
        )  # fmt: skip
