"""Rows: packets full of new bytes of one stream, of which a transfer consists.

Fields that all packets of a row share are computed once for the row.
"""

from typing import Any

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.stream import QuicStream

from p2pnet.quic.fast import frames
from p2pnet.quic.fast.protect import NUMBER_SIZE, TAG_SIZE
from p2pnet.quic.fast.receive import ONE_RTT, FastReceiver
from p2pnet.wire.varint import varint

PACKET_TYPE = QuicPacketType.ONE_RTT  # looked up once: a member of an Enum costs what a frame does
MAX_ROW = 64  # packets


class RowSender(FastReceiver):
    """Adds packets of one stream to the receiver: up to MAX_ROW of full size in one pass."""

    def _elicited(self, now: float) -> None:
        """Something was sent that the peer acknowledges: the idle timer, RFC 9000 section 10.1."""
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True

    def _make_row(self, stream_id: int, now: float) -> list[bytes]:
        """Packets of a stream that has more than they carry; [] if it is not that simple."""
        stream: Any = self._streams.get(stream_id)
        if stream is None or stream.is_blocked:
            return []
        sender, size = stream.sender, int(self._max_datagram_size)
        waiting: range = sender.new_bytes
        destination, spin = self._peer_cid.cid, self._spin_bit
        room = size - 1 - len(destination) - NUMBER_SIZE - TAG_SIZE
        count = self._row_length(stream, waiting, size, room)
        if count < 2:
            return []
        # Each has one frame, which goes to the end of the packet and needs no length.
        prefix = b"%c%b" % (frames.STREAM | frames.STREAM_OFFSET, varint(stream_id))
        buffer, base = sender._buffer, sender._buffer_start
        first, on_delivery, offset = self._packet_number, sender.on_data_delivery, waiting.start
        one_rtt = self._one_rtt
        protect = one_rtt.protection.protect
        datagrams, records = [], []
        for number in range(first, first + count):
            head = prefix + varint(offset)
            stop = offset + room - len(head)
            plain = head + buffer[offset - base : stop - base]
            datagrams.append(protect(plain, number, destination, spin))
            records.append(
                QuicSentPacket(
                    ONE_RTT, True, True, False, number, PACKET_TYPE, now, size,
                    [(on_delivery, (offset, stop, False))],
                )
            )  # fmt: skip
            offset = stop
        sender.took(offset)
        self._remote_max_data_used += offset - waiting.start
        self._packet_number = first + count
        self._network_paths[0].bytes_sent += count * size
        self._loss.on_row_sent(records, one_rtt.space, now)
        self._elicited(now)
        return datagrams

    def _row_length(self, stream: QuicStream, waiting: range, size: int, room: int) -> int:
        """Packets of `size` bytes, with `room` for frames, that all of its bounds allow."""
        if not waiting.start:  # the first frame of a stream has no offset
            return 0
        cc = self._loss._cc
        credit = min(
            self._remote_max_data - self._remote_max_data_used,
            stream.max_stream_data_remote - waiting.start,
        )
        bounds: tuple[int, ...] = (
            min(credit, len(waiting) - 1) // room,
            (cc.congestion_window - cc.bytes_in_flight) // size,
            self._loss._pacer.room(),
            MAX_ROW,
        )
        return min(bounds)
