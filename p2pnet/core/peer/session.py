"""A session: one Agent and one Connector, one end-to-end connection, and the path below it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.stream import (
    FlowDatagram,
    Stream,
    StreamClosed,
    StreamData,
    StreamState,
    StreamWritable,
)
from p2pnet.identity import Identity
from p2pnet.interfaces import IPathSelector
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.traversal.relay_choice import RelayChoice
from p2pnet.traversal.selection import DIRECT, NONE, RELAYED, Choices, DirectOnly, RelayOnly
from p2pnet.traversal.way import DirectPath, Path, RelayedPath
from p2pnet.wire.address import Address, PeerAddress, format_address
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.packet_size import BASE
from p2pnet.wire.stream import (
    StreamKind,
    decode_capsules,
    decode_flow_datagram,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Introduction:
    """What an Intermediate says of a session.

    :ivar session_id: 16 bytes, chosen by the Agent.
    :ivar peer_name: who the other end is said to be.
    :ivar instance: the number of the other end's process.
    """

    session_id: bytes
    peer_name: str
    instance: bytes


class Session:
    """What both ends of a session have in common: streams over the connection, and the path.

    :ivar id: 16 bytes, chosen by the Agent.
    :ivar address: the fixed address under which QUIC knows the other end.
    :ivar peer_name: the other end's name as the Intermediate announced it.
    :ivar instance: the number of the other end's process, as announced.
    :ivar relays: the paths through Intermediates, by address; `relay_choice` says which is used.
    :ivar direct: the direct path, None while there is none; `direct_is_doubtful` when packets go
        both ways, `direct_is_silent` when that has been for so long that they no longer do.
    :ivar packet_size: bytes of a packet that the direct path carries.
    :ivar farewell: code and reason with which the peer is said to have ended the session.
    :ivar paths: where packets go. None means that they are dropped, and QUIC sends their content
        again later.
    """

    def __init__(
        self, introduction: Introduction, now: float, emit: Callable[[events.Event], None]
    ) -> None:
        self.id = introduction.session_id
        self.address = PeerAddress.of_session(self.id)
        self.peer_name = introduction.peer_name
        self.instance = introduction.instance
        self.created = now
        self.now = now  # of the last event, for durations
        self.relays: dict[Address, RelayedPath] = {}
        self.relay_choice = RelayChoice()
        self.direct: DirectPath | None = None
        self.direct_is_doubtful = False
        self.direct_is_silent = False
        self.direct_rtt: float | None = None
        self.packet_size = self._told_size = BASE
        self.relay_rtt: float | None = None
        self.paths: tuple[Path, ...] = ()
        self.farewell: tuple[ErrorCode, str] | None = None
        self.selector: IPathSelector = RelayOnly()
        self.streams: dict[int, Stream] = {}
        self._emit = emit
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id.hex()} {self.peer_name}>"

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
    def peer(self) -> Identity | None:
        """Who the other end proved to be, None until the handshake."""
        return self._connection.peer if self._connection is not None else None

    def is_relayed_by(self, intermediate: Address | None) -> bool:
        """Whether the Intermediate at that address relays the session."""
        return intermediate in self.relays

    def set_connection(self, connection: Connection) -> None:
        """The end-to-end connection began its handshake."""
        connection.owner = self
        self._connection = connection

    # -- paths -----------------------------------------------------------------------------------

    def add_relay(self, relay: RelayedPath, cost: float, reason: str) -> None:
        """There is a way through an Intermediate, of that round-trip time in seconds."""
        self.relays[relay.intermediate] = relay
        self.relay_choice.add(relay.intermediate, cost, self.now)
        self.choose_path(reason)

    def remove_relay(self, intermediate: Address, reason: str) -> None:
        """There is no way through that Intermediate any more."""
        self.relays.pop(intermediate, None)
        self.relay_choice.remove(intermediate, self.now)
        self.choose_path(reason)

    def set_direct(
        self, direct: DirectPath | None, rtt: float | None, reason: str, doubtful: bool = False
    ) -> None:
        """There is another direct path now, or none, or it became doubtful."""
        self.direct, self.direct_rtt, self.direct_is_doubtful = direct, rtt, doubtful
        self.direct_is_silent = False
        self.packet_size = BASE
        self.choose_path(reason)

    def rest_direct(self, reason: str, *, lost: bool = False) -> None:
        """The direct path carries nothing: a relay carries the session alone.

        :param lost: nor has anything that was sent reached the peer by a relay.
        """
        self.direct_is_doubtful = self.direct_is_silent = True
        self.choose_path(reason, planned=not lost)

    def set_packet_size(self, size: int, *, is_settled: bool) -> None:
        """Packets of `size` bytes get through on the direct path; it is told once that is final."""
        self.packet_size = size
        self._fit_packets()
        if is_settled and self.direct is not None and size != self._told_size:
            self._told_size = size
            address = format_address(self.direct.address)
            self._emit(reports.PacketSizeFound(self.id.hex(), address, size))

    def _fit_packets(self) -> None:
        """Only a direct path in good health carries more than BASE, and only for itself."""
        if self._connection is not None and self._connection.is_established:
            is_alone = self.paths == (self.direct,) and not self.direct_is_doubtful
            self._connection.set_max_datagram_size(self.packet_size if is_alone else BASE)

    def choose_path(self, reason: str = "", *, planned: bool = False) -> None:
        """Ask the selector, and send the way that it says from now on.

        :param planned: what was sent the other way still arrives.
        """
        if self.is_relayed and self.has_connection:
            self.relay_rtt = self.connection.smoothed_rtt or self.relay_rtt
        figures = self.direct_rtt, self.relay_rtt
        choices = Choices(self.direct is not None, bool(self.relays), *figures)
        decision = self.selector.select(choices)
        relayed = tuple(self.relays[address] for address in self.relay_choice)
        paths: tuple[Path, ...] = ()
        if decision.path == DIRECT and self.direct is not None:
            paths = (self.direct,)
            if self.direct_is_doubtful and not isinstance(self.selector, DirectOnly):
                paths = (self.direct, *relayed)
                if self.direct_is_silent and relayed:
                    paths = relayed
        elif decision.path == RELAYED:
            paths = relayed
        was_silent = self.direct_is_doubtful or self.relay_choice.is_doubtful or not self.paths
        before, self.paths = self.paths, paths
        self._fit_packets()  # before anything goes the other way
        if paths == before:
            return
        if not planned:
            self._moved(lost=was_silent)
        grounds = "" if self.direct_is_doubtful else decision.reason  # which took it to be well
        why = "; ".join(filter(None, (reason, grounds)))
        self._emit(
            reports.PathSelected(
                self.id.hex(),
                paths[0].kind if paths else NONE,
                why,
                " and ".join(format_address(path.address) for path in paths),
                *figures,
            )
        )

    def _moved(self, *, lost: bool) -> None:
        """Tell QUIC that what it learnt about the path is void, unless nothing was sent yet.

        Also when a path becomes doubtful or there is one again: then what was sent got `lost`, and
        the next of the probes that QUIC spaces ever farther may come too late.
        """
        if self._connection is not None and self._connection.is_established and self.paths:
            self._connection.path_changed(self.now, path=self._path_name, lost=lost)

    @property
    def _path_name(self) -> Hashable:
        """What tells one way from another, also when a relay is granted anew."""
        return tuple(path.address for path in self.paths)

    @property
    def is_relayed(self) -> bool:
        """Whether packets go through relays alone."""
        return bool(self.paths) and self.paths[0].kind == RELAYED

    def path_renewed(self, now: float) -> None:
        """The paths are the same, but something was lost on them: see at once what.

        Amid doubt that is all that went out since. Else most of what is unacknowledged may have
        arrived, and would stand before what did not.
        """
        self.now = now
        self._moved(lost=self.direct_is_doubtful)

    # -- events of the connection ----------------------------------------------------------------

    def handle(self, event: quic_events.Event, now: float) -> None:
        """Take one event of the end-to-end connection."""
        self.now = now
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
            case quic_events.HandshakeCompleted(peer):
                self.connection.name_path(self._path_name)
                self._fit_packets()
                self._emit(reports.HandshakeCompleted(self.id.hex(), str(peer), now - self.created))
            case quic_events.ConnectionClosed():
                self.abandon(event.error_code, event.reason)

    def abandon(self, code: ErrorCode, reason: str) -> None:
        """The connection is over: every stream breaks."""
        for stream in list(self.streams.values()):
            self.close_stream(stream, code or ErrorCode.CANCELLED, reason)

    def _stream(self, stream_id: int) -> Stream | None:
        """The stream that data came for, None if it is to be dropped."""
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
        """Take what precedes the bytes of the service off the front. Raises DecodeError."""
        raise NotImplementedError

    def _deliver(self, stream: Stream, data: bytes, end: bool) -> None:
        if end:
            stream.input_ended = True
        if stream.is_closed:
            return
        if stream.kind is StreamKind.FLOW and stream.state is not StreamState.WAITING:
            self._deliver_capsules(stream, data)
        elif stream.state is StreamState.WAITING:
            if end:
                raise DecodeError("stream ended before its header")
        elif data or end:
            stream.received += len(data)
            self._emit(StreamData(stream, data, end))
        if end:
            self.close_if_finished(stream)

    def _deliver_capsules(self, stream: Stream, data: bytes) -> None:
        self.connection.consume(stream.stream_id, len(data))
        stream.buffer += data
        for payload in decode_capsules(stream.buffer):
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
        stream.received += len(payload)
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
        else:  # it ended properly over there, what it still sends us is on its way
            stream.output_ended = True
            self.close_if_finished(stream)

    # -- the life of streams ---------------------------------------------------------------------

    def close_if_finished(self, stream: Stream) -> None:
        """Both directions ended: the stream is over."""
        if stream.input_ended and stream.output_ended:
            self.close_stream(stream, ErrorCode.NO_ERROR, "")

    def close_stream(self, stream: Stream, code: int, reason: str) -> None:
        """Forget the stream and tell its owner, once."""
        if stream.is_closed:
            return
        refused = stream.state is StreamState.REQUESTED and code != ErrorCode.NO_ERROR
        stream.advance(StreamState.CLOSED)
        self.streams.pop(stream.stream_id, None)
        name = ErrorCode.of(code).name.lower()
        if refused:
            self._emit(reports.StreamRefused(self.peer_name, stream.service, name, reason))
        else:
            seconds = self.now - stream.created
            self._emit(
                reports.StreamFinished(
                    self.id.hex(), stream.service, stream.sent, stream.received, seconds, name
                )
            )
        self._emit(StreamClosed(stream, code, reason))

    def accept(self, stream: Stream) -> None:
        """Answer a requested stream: it is open."""
        stream.answer()
        self._opened(stream)

    def refuse(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        """Answer a requested stream: no."""
        self.connection.reset(stream.stream_id, code)
        self.close_stream(stream, code, reason)

    def _opened(self, stream: Stream) -> None:
        self._emit(
            reports.StreamOpened(
                self.id.hex(),
                self.peer_name,
                stream.service,
                stream.kind.name.lower(),
                self.now - stream.created,
            )
        )
