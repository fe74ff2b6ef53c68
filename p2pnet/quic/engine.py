"""aioquic's connection with what p2pnet needs and aioquic has no public interface for.

Every private attribute of aioquic that p2pnet touches is touched here, in strict.py, migration.py,
recovery.py, restriction.py, tls.py, pacer.py, memory.py and fast/, and tests/quic/test_contract*.py
have one test for each, to be run against a new aioquic first.

What is changed, and why:

* Receive windows follow consumption, and so do their sizes (flow_control.py). Stock windows
  double on arrival, so that ten one-byte frames far apart allocate 537 MB and a reader can never
  be paused.
* A stream may have so many gaps and no more. Stock aioquic searches them one by one for each frame,
  so that 20000 one-byte frames, which fit into a hundred Initials, take it ten seconds.
* Mutual TLS is strict: a server demands a certificate, and either side judges the peer's inside
  the handshake, so that a refusal is a TLS alert with a reason.
* 1-RTT keys are updated before the AEAD's confidentiality limit (key_updates.py).
* A server sends to validated addresses only (migration.py).
* Packet numbers are skipped, and frames that change nothing are counted (strict.py).
"""

import math
from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicFrameType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from p2pnet.identity import Identity
from p2pnet.quic import log
from p2pnet.quic.flow_control import CONNECTION_WINDOW, STREAM_WINDOW, ReceiveWindows
from p2pnet.quic.key_updates import KeyUpdates
from p2pnet.quic.memory import check_crypto, check_gaps, discard, economize
from p2pnet.quic.migration import MigratingConnection
from p2pnet.quic.recovery import adopt
from p2pnet.quic.restriction import restricted
from p2pnet.quic.tls import StrictContext, Verify
from p2pnet.timing import TOLERANCE
from p2pnet.wire.packet_size import BASE

log.protect()

MAX_GAPS = 1024  # in a stream's received bytes; every other packet of a window lost makes 220
MAX_CRYPTO_GAPS = 64  # and in the handshake's, which is a few packets long
LARGEST = 1 << 14  # bytes of a packet: two are written for the length of a STREAM frame


def peek_stream_id(buf: Buffer) -> int:
    """The stream id that a frame begins with. Raises BufferReadError."""
    start = buf.tell()
    stream_id = int(buf.pull_uint_var())
    buf.seek(start)
    return stream_id


class Engine(MigratingConnection):
    """One QUIC connection. See the module's docstring for how it differs from aioquic's.

    :ivar only_stream: the stream that alone may send frames, None for no restriction.
    """

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        verify: Verify,
        max_streams: int,
        entropy: Callable[[int], bytes],
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            entropy=entropy,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._verify = verify
        self._held: dict[int, int] = {}
        self._held_total = 0
        self._undelivered_of: dict[int, int] = {}  # by stream; only those that have some
        self._undelivered = 0
        self.windows = ReceiveWindows()
        self._key_updates = KeyUpdates()
        self._largest = LARGEST
        self.only_stream: int | None = None
        # Both before the handshake, so that the transport parameters carry them.
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = max_streams
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0
        self._loss = adopt(self._loss)
        economize(self, self._budget.count)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context: Any = self.tls
        context.__class__ = StrictContext
        context.verify = self._verify
        context._request_client_certificate = not self._is_client
        # Both ends are ours: one group halves the cost of a ClientHello.
        context._supported_groups = [tls.Group.X25519]

    def _discard_epoch(self, epoch: tls.Epoch) -> None:
        super()._discard_epoch(epoch)
        discard(self, epoch)

    # -- state -----------------------------------------------------------------------------------

    @property
    def peer(self) -> Identity | None:
        """Who the peer proved to be, None before that."""
        context: StrictContext | None = getattr(self, "tls", None)
        return None if context is None else context.peer

    @property
    def is_first_flight(self) -> bool:
        """Whether nothing that the peer sent could be decrypted yet."""
        return bool(self._state is QuicConnectionState.FIRSTFLIGHT)

    @property
    def is_answered(self) -> bool:
        """Whether a client got a Retry, or anything that it could decrypt."""
        return bool(self._retry_count) or not self.is_first_flight

    @property
    def can_transmit(self) -> bool:
        """Whether there is an address to send to (a fresh server connection has none)."""
        return bool(self._network_paths)

    @property
    def closing(self) -> ConnectionTerminated | None:
        """Why the connection is being closed, as soon as that is known."""
        event: ConnectionTerminated | None = self._close_event
        return event

    @property
    def is_terminated(self) -> bool:
        """Whether the closing or draining period is over too (RFC 9000 section 10.2)."""
        return bool(self._state is QuicConnectionState.TERMINATED)

    @property
    def has_events(self) -> bool:
        """Whether next_event() would return an event."""
        return bool(self._events)

    @property
    def smoothed_rtt(self) -> float | None:
        """Smoothed round-trip time in seconds (RFC 9002 section 5.3), None before a sample."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    @property
    def newest_packet(self) -> int:
        """Grows with each authentic packet that is newer than all before; replays do not count."""
        return sum(int(space.largest_received_packet) for space in self._loss.spaces)

    @property
    def bytes_in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor lost (RFC 9002 section 2)."""
        return int(self._loss.bytes_in_flight)

    # -- streams ---------------------------------------------------------------------------------

    def unsent(self, stream_id: int) -> int:
        """Bytes given to the stream that were not yet sent once; 0 for an unknown stream."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.is_finished:
            return 0
        return int(stream.sender._buffer_stop - stream.sender.highest_offset)

    def receives(self, stream_id: int) -> bool:
        """Whether the stream can still deliver bytes."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.receiver.is_finished

    def hold(self, stream_id: int, size: int) -> None:
        """Note that `size` received bytes wait to be consumed: no credit for them yet."""
        if size:  # nobody need consume the nothing that comes with the end of a stream
            self._held[stream_id] = self._held.get(stream_id, 0) + size
            self._held_total += size

    def consume(self, stream_id: int, size: int) -> bool:
        """Give credit for `size` held bytes. Returns whether a window is due to be announced."""
        held = self._held.get(stream_id)
        if held is None:
            return False
        size = min(size, held)
        self._held_total -= size
        self.windows.read(stream_id, size)
        if held == size:
            del self._held[stream_id]
        else:
            self._held[stream_id] = held - size
        stream = self._streams.get(stream_id)
        limit = self._local_max_data
        return (
            stream is not None
            and self._stream_window_end(stream) - stream.max_stream_data_local >= STREAM_WINDOW // 4
        ) or self._connection_window_end() - limit.value >= CONNECTION_WINDOW // 4

    def forget(self, stream_id: int) -> None:
        """The stream will deliver nothing more: what it still holds is given up."""
        self._held_total -= self._held.pop(stream_id, 0)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receiver.is_finished:
            stream.receiver._buffer.clear()  # out of order when a reset came, which gave credit

    def _stream_window_end(self, stream: QuicStream) -> int:
        stream_id = stream.stream_id or 0
        used = int(stream.receiver.starting_offset()) - self._held.get(stream_id, 0)
        return used + self.windows.stream(stream_id)

    def _connection_window_end(self) -> int:
        window = self.windows.of_connection(self._held_total)
        return int(self._local_max_data.used) - self._undelivered + window

    def _received(self, stream: QuicStream) -> None:
        """Note what waits in a stream: bytes below the farthest that arrived, and gaps before them.

        They take memory but aioquic counts them as used, which would win the peer new credit.
        """
        receiver = stream.receiver
        waiting = (
            0 if receiver.is_finished else receiver.highest_offset - receiver.starting_offset()
        )
        stream_id = stream.stream_id or 0
        self._undelivered += waiting - self._undelivered_of.pop(stream_id, 0)
        if waiting:
            self._undelivered_of[stream_id] = waiting

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        stream_id = peek_stream_id(buf)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._received(stream)
            check_gaps(stream, MAX_GAPS, frame_type)

    def _handle_reset_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        stream_id = peek_stream_id(buf)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._received(stream)

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        check_crypto(self._crypto_streams, context.epoch, frame_type, buf)
        super()._handle_crypto_frame(context, frame_type, buf)
        check_gaps(self._crypto_streams[context.epoch], MAX_CRYPTO_GAPS, frame_type)

    def _stream_limit_due(self, stream: QuicStream) -> bool:
        """Raise the stream's window by what was consumed; whether to announce it."""
        if not stream.max_stream_data_local or stream.receiver.is_finished:
            return False
        end = self._stream_window_end(stream)
        if end - stream.max_stream_data_local >= STREAM_WINDOW // 4:
            stream.max_stream_data_local = end
        return bool(stream.max_stream_data_local_sent != stream.max_stream_data_local)

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        is_excluded = self.only_stream not in (None, stream.stream_id)
        if not is_excluded and self._stream_limit_due(stream):
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id or 0)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _raise_connection_window(self) -> None:
        end = self._connection_window_end()
        limit = self._local_max_data
        if end - limit.value >= CONNECTION_WINDOW // 4:
            limit.value = end
            self.windows.promise(end - int(limit.used) + self._undelivered + self._held_total)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        self._raise_connection_window()
        limit = self._local_max_data
        used, limit.used = limit.used, 0  # a used of 0 keeps aioquic from doubling the window
        try:
            super()._write_connection_limits(builder=builder, space=space)
        finally:
            limit.used = used

    # -- datagrams -------------------------------------------------------------------------------

    @property
    def queued_datagrams(self) -> int:
        """DATAGRAM frames that wait to be sent (aioquic's queue has no bound of its own)."""
        return len(self._datagrams_pending)

    @property
    def datagram_limit(self) -> int:
        """The largest DATAGRAM payload in bytes that will be sent; 0 if the peer takes none.

        One that does not fit a packet would block all later ones for ever, so that it is the same
        on every path. 30 bytes go to the short header, the tag and the frame's own header.
        """
        if self._remote_max_datagram_frame_size is None:
            return 0
        return min(BASE - 30, self._remote_max_datagram_frame_size - 8)

    # -- sizes -----------------------------------------------------------------------------------

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        parameters = pull_quic_transport_parameters(Buffer(data=data))
        self._largest = min(LARGEST, parameters.max_udp_payload_size or LARGEST)

    def set_max_datagram_size(self, size: int) -> None:
        """Make packets of up to `size` bytes from now on, BASE at least; at most LARGEST and what
        the peer takes, which is known once the connection is established."""
        size = max(BASE, min(size, self._largest))
        if size != self._max_datagram_size:
            self._max_datagram_size = size
            self._loss.set_max_datagram_size(size)

    def has_black_hole(self) -> bool:
        """Whether packets larger than BASE got lost over and over, and none arrived; said once."""
        return self._loss.large.are_gone(self._packet_number)

    # -- upkeep ----------------------------------------------------------------------------------

    def answer_at(self, now: float) -> float | None:
        """When datagrams_to_send() is to be called for what was received, None for never.

        All else that get_timer() said still stands, or is later. aioquic cannot tell: at once.
        """
        return now

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Datagrams with their addresses, as many as window and pacer let pass.

        :param now: seconds of the caller's clock.
        """
        if self._packet_number >= self._numbers.next_at:
            self._packet_number = self._numbers.skip(self._packet_number)
        for stream_id in self.windows.measure(now, self.smoothed_rtt, self._streams):
            self._window_grew(stream_id)
        if self.only_stream is None:
            datagrams = self._make_datagrams(now)
        else:
            datagrams = self._make_restricted(self.only_stream, now)
        if self._pacing_at is None:
            self._loss.on_app_limited()
        return datagrams

    def _make_restricted(self, stream_id: int, now: float) -> list[tuple[bytes, Any]]:
        with restricted(self, stream_id):
            return self._make_datagrams(now)

    def _window_grew(self, stream_id: int) -> None:
        """There may be a window to announce; for engines that do not look at each stream."""

    def _make_datagrams(self, now: float) -> list[tuple[bytes, Any]]:
        # aioquic lets pacing hold back an acknowledgement that is due at this very time, and would
        # ask to be called at this time again.
        for space in self._loss.spaces:
            if space.ack_at == now:
                space.ack_at = math.nextafter(now, -math.inf)
        datagrams, path = list(super().datagrams_to_send(now)), self._network_paths[0]
        is_over = not path.is_validated and path.bytes_sent > 3 * path.bytes_received
        # aioquic forgets RFC 9000 section 8.1 when it closes a connection.
        return [] if is_over and self.closing is not None else datagrams

    def handle_timer(self, now: float) -> None:
        """Do what is due. A moment later than asked for: at exactly the loss time, rounding can
        make nothing lost yet, and a virtual clock would stand still at that time for ever."""
        super().handle_timer(now + TOLERANCE)

    def update_keys_if_due(self) -> None:
        """Start a key update when enough packets were sent under the current 1-RTT keys."""
        if self._packet_number < self._key_updates.next_at or not self._handshake_confirmed:
            return
        acked = self._spaces[tls.Epoch.ONE_RTT].largest_acked_packet
        keys: Any = self._cryptos[tls.Epoch.ONE_RTT].send
        if self._key_updates.is_due(keys.secret, self._packet_number, acked):
            self.request_key_update()
