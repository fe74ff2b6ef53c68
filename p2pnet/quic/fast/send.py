"""Making 1-RTT packets with frames of the usual kinds.

Whatever else there may be to send, now or with a new aioquic, has to be known to
FastEngine._is_aioquics_turn(), or it waits until something that is calls aioquic.
"""

import operator
from collections.abc import Callable
from typing import Any

from aioquic.quic.connection import Limit, stream_is_client_initiated
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.stream import QuicStream

from p2pnet.quic.fast import frames
from p2pnet.quic.fast.protect import NUMBER_SIZE, TAG_SIZE
from p2pnet.quic.fast.ranges import ranges_of
from p2pnet.quic.fast.receive import CONNECTED, ONE_RTT
from p2pnet.quic.fast.rows import PACKET_TYPE, RowSender
from p2pnet.wire.varint import varint

CONTROL = 1 + 3 * 8  # bytes; the largest of the frames for streams and limits
LITTLE = 1000  # bytes: a request or an answer, which fits any packet with an ACK frame
SMALLEST = 32  # bytes of room in a packet that are worth another frame

_was_sent = operator.attrgetter("was_sent")


def _has_challenge(path: Any) -> bool:
    """Whether a path has a PATH_RESPONSE or a PATH_CHALLENGE to send."""
    return bool(path.remote_challenges or not (path.is_validated or path.local_challenge_sent))


Handler = tuple[Callable[..., None], tuple[Any, ...]]


class Packet:
    """The frames of a packet that is being made.

    :ivar left: bytes that ack-eliciting frames may still take.
    :ivar handlers: what is to be called when the packet is acknowledged or lost, with arguments.
    """

    __slots__ = ("elicits", "handlers", "left", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.handlers: list[Handler] = []
        self.size = self.left = 0
        self.elicits = False

    def add(self, frame: bytes, handler: Callable[..., None], *args: Any) -> None:
        """Put in an ack-eliciting frame."""
        self.parts.append(frame)
        self.handlers.append((handler, args))
        self.left -= len(frame)
        self.elicits = True


class FastEngine(RowSender):
    """An Engine that takes and makes usual packets by itself, and leaves the others to aioquic."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._limits_due: list[Limit] = []

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes. Raises ValueError or RuntimeError if the stream cannot be sent on."""
        stream = self._streams.get(stream_id)
        if stream is None:
            super().send_stream_data(stream_id, data, end_stream)
        else:
            stream.sender.write(data, end_stream)

    def _make_datagrams(self, now: float) -> list[tuple[bytes, Any]]:
        if not self._acks_may_wait():
            self._settle_acks()
        if self._one_rtt is None or self._is_aioquics_turn():
            return super()._make_datagrams(now)
        self._is_due = False
        space, pacer = self._one_rtt.space, self._loss._pacer
        awake, signaling = self._streams.awake, self._streams.signaling
        pending = self._datagrams_pending
        path = self._network_paths[0]
        sent = []
        self._pacing_at = None
        self._limits_due = self._find_limits_due()
        while True:
            ack_at = space.ack_at
            is_ack_due = ack_at is not None and ack_at <= now
            if not is_ack_due:
                if not (awake or pending or signaling or self._limits_due):
                    break
                self._pacing_at = pacer.next_send_time(now=now)
                if self._pacing_at is not None:
                    break
            others = ack_at is not None or pending or signaling or self._limits_due
            if len(awake) == 1 and not others:
                row = self._make_row(next(iter(awake)), now)
                if row:
                    sent += [(datagram, path.addr) for datagram in row]
                    continue
            packet = Packet()
            self._fill(packet, ack_at is not None, now)
            if ack_at is not None and not (is_ack_due or packet.elicits):
                space.ack_at = ack_at  # nothing fitted that it could go with
                break
            if packet.parts:
                datagram = self._finish(packet, now)
                if ack_at is not None:
                    self._acked_at = now
                path.bytes_sent += len(datagram)
                sent.append((datagram, path.addr))
                pacer.update_after_send(now=now)
            elif not (self._limits_due and packet.left >= CONTROL):
                break  # else a stream was over, and the peer may open another one
        return sent

    def _make_restricted(self, stream_id: int, now: float) -> list[tuple[bytes, Any]]:
        self._settle_acks()  # first, as that wakes streams whose bytes were lost
        with self._streams.only(stream_id):
            return super()._make_restricted(stream_id, now)

    def _acks_may_wait(self) -> bool:
        """Whether one small packet is to be sent, which goes whatever was acknowledged."""
        cc, awake = self._loss._cc, self._streams.awake
        return (
            not self._is_due
            and len(awake) == 1
            and 0 < self.unsent(next(iter(awake))) < LITTLE
            and cc.bytes_in_flight + 2 * self._max_datagram_size < cc.congestion_window
        )

    def _is_aioquics_turn(self) -> bool:
        """Whether there is anything to send but acknowledgements, streams, datagrams, limits."""
        paths = self._network_paths
        return bool(
            self._close_pending
            or self._probe_pending
            or self._ping_pending
            or self._retire_connection_ids
            or self._handshake_done_pending
            or self._streams_blocked_pending
            or self._state is not CONNECTED
            or self._one_rtt.protection.pair._update_key_requested
            or self._remote_preferred_address is not None
            or not self._one_rtt.crypto.sender.buffer_is_empty
            or not paths[0].is_validated
            or paths[0].remote_challenges
            or (len(paths) > 1 and any(map(_has_challenge, paths)))
            or not all(map(_was_sent, self._host_cids))
        )

    # -- packets ---------------------------------------------------------------------------------

    def _fill(self, packet: Packet, with_ack: bool, now: float) -> None:
        """Put frames into a packet, as far as its size and the congestion window allow."""
        header = 1 + len(self._peer_cid.cid) + NUMBER_SIZE
        room = int(self._max_datagram_size) - header - TAG_SIZE
        cc = self._loss._cc
        window = cc.congestion_window - cc.bytes_in_flight - header - TAG_SIZE
        if with_ack:
            self._write_fast_ack(packet, room, min(room, window), now)
        packet.left = min(room, window) - packet.size
        due = self._limits_due
        while due and packet.left >= CONTROL:
            limit = due.pop(0)
            frame = varint(limit.frame_type) + varint(limit.value)
            packet.add(frame, self._on_connection_limit_delivery, limit)
            limit.sent = limit.value
        if self._streams.signaling:
            self._write_signals(packet)
        pending = self._datagrams_pending
        while pending:
            data = pending[0]
            head = b"\x31" + varint(len(data))
            if len(head) + len(data) > packet.left:
                break
            pending.popleft()
            packet.parts.append(head)
            packet.parts.append(data)
            packet.left -= len(head) + len(data)
            packet.elicits = True
        self._serve_streams(packet)

    def _write_fast_ack(self, packet: Packet, room: int, window: int, now: float) -> None:
        space = self._one_rtt.space
        delay = int((now - space.largest_received_time) * 1_000_000)
        received = ranges_of(space.ack_queue)
        frame = frames.ack(received, delay >> self._local_ack_delay_exponent, room)
        packet.parts.append(frame)
        packet.handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
        packet.size = len(frame)
        space.ack_at = None
        # The peer is asked to acknowledge one now and then, or the ranges were kept for ever.
        if len(received) > 1 and self._packet_number % 8 == 0 and packet.size < window:
            packet.add(frames.PING, self._on_ping_delivery, ())
            packet.size += 1

    def _finish(self, packet: Packet, now: float) -> bytes:
        """Protect a packet and register it as sent."""
        number, elicits = self._packet_number, packet.elicits
        plain = b"".join(packet.parts)
        one_rtt = self._one_rtt
        datagram: bytes = one_rtt.protection.protect(
            plain, number, self._peer_cid.cid, self._spin_bit
        )
        record = QuicSentPacket(
            ONE_RTT, elicits, elicits, False, number, PACKET_TYPE,
            now, len(datagram), packet.handlers,
        )  # fmt: skip
        self._packet_number = number + 1
        self._loss.on_packet_sent(packet=record, space=one_rtt.space)
        if elicits:
            self._elicited(now)
        return datagram

    # -- what goes into them ---------------------------------------------------------------------

    def _find_limits_due(self) -> list[Limit]:
        """Limits of the connection that are to be announced, by aioquic's rules and ours."""
        self._raise_connection_window()
        data = self._local_max_data
        due = [data] if data.value != data.sent else []
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            # Not before the peer has fewer left than it would get.
            if limit.value != limit.sent and limit.sent - limit.used < limit.value - limit.sent:
                due.append(limit)
        return due

    def _serve_streams(self, packet: Packet) -> None:
        """Let streams that are awake fill the packet, in turn."""
        streams = self._streams
        awake = streams.awake
        while awake and packet.left >= SMALLEST:
            stream_id = next(iter(awake))
            stream = streams.get(stream_id)
            if stream is None:
                del awake[stream_id]
            elif stream.sender.is_finished and stream.receiver.is_finished:
                self._discard_stream(stream)
            elif not self._write_stream(packet, stream):
                del awake[stream_id]
            elif packet.left < SMALLEST:
                awake.move_to_end(stream_id)  # it has more, but the next packet is another's

    def _write_signals(self, packet: Packet) -> None:
        """Write what is to be said of streams: windows, requests to stop, resets."""
        signaling = self._streams.signaling
        while signaling:
            stream = self._streams.get(next(iter(signaling)))
            if stream is not None and not self._write_signals_of(packet, stream):
                break
            del signaling[next(iter(signaling))]

    def _write_signals_of(self, packet: Packet, stream: QuicStream) -> bool:
        """Returns whether there was room for all of them."""
        if packet.left < 3 * CONTROL:
            return False
        receiver, sender = stream.receiver, stream.sender
        stream_id = varint(stream.stream_id or 0)
        if self._stream_limit_due(stream):
            end = stream.max_stream_data_local
            frame = frames.MAX_STREAM_DATA + stream_id + varint(end)
            packet.add(frame, self._on_max_stream_data_delivery, stream)
            stream.max_stream_data_local_sent = end
        if receiver.stop_pending:
            code = varint(receiver.get_stop_frame().error_code)
            packet.add(frames.STOP_SENDING + stream_id + code, receiver.on_stop_sending_delivery)
        if sender.reset_pending:
            reset = sender.get_reset_frame()
            fields = varint(reset.error_code) + varint(reset.final_size)
            packet.add(frames.RESET_STREAM + stream_id + fields, sender.on_reset_delivery)
        return True

    def _write_stream(self, packet: Packet, stream: QuicStream) -> bool:
        """Write a STREAM frame. Returns whether the stream may have more for now."""
        sender = stream.sender
        if sender.buffer_is_empty:
            return False
        if stream.is_blocked:
            self._streams.stalled.add(stream.stream_id or 0)
            return False
        header = frames.stream_header(stream.stream_id or 0, sender.next_offset)
        before = sender.highest_offset
        credit = before + self._remote_max_data - self._remote_max_data_used
        frame = sender.get_frame(
            packet.left - len(header) - 3, min(credit, stream.max_stream_data_remote)
        )
        if frame is None:
            if not sender.buffer_is_empty:
                self._streams.stalled.add(stream.stream_id or 0)
            return False
        data = frame.data
        kind = frames.STREAM | frames.STREAM_LENGTH | frame.fin
        if frame.offset:
            kind |= frames.STREAM_OFFSET
        head = b"%c%b%b" % (kind, header, (len(data) | 0x4000).to_bytes(2, "big"))
        packet.add(head, sender.on_data_delivery, frame.offset, frame.offset + len(data), frame.fin)
        packet.parts.append(data)
        packet.left -= len(data)
        self._remote_max_data_used += sender.highest_offset - before
        return not sender.buffer_is_empty

    def _discard_stream(self, stream: QuicStream) -> None:
        """Forget a stream that is over; the peer may open another one (RFC 9000 section 4.6)."""
        self._streams.drop(stream)
        self._streams_queue.remove(stream)
        stream_id = stream.stream_id or 0
        if stream_is_client_initiated(stream_id) != self._is_client:
            self._stream_limit(stream_id).value += 1
            self._limits_due = self._find_limits_due()
