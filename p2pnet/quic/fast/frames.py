"""Frames to bytes and back (RFC 9000 section 19), for those that usual packets carry."""

from collections.abc import Sequence
from typing import NamedTuple

from aioquic.quic.recovery import MAX_ACK_RANGES

from p2pnet.wire.varint import read_varint, varint

PADDING = 0x00
PING = b"\x01"
ACK = 0x02
RESET_STREAM = b"\x04"
STOP_SENDING = b"\x05"
STREAM, STREAM_FIN, STREAM_LENGTH, STREAM_OFFSET = 0x08, 1, 2, 4
MAX_STREAM_DATA = b"\x11"
DATAGRAM_WITH_LENGTH = 0x31


def read_stream(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """The STREAM frame at `at`, None if it is cut short.

    Returns the stream's id, the offset in it, and where the bytes in `data` start and end.
    """
    kind = data[at]
    offset = 0
    try:
        stream_id, start = data[at + 1], at + 2
        if stream_id >= 0x40:
            stream_id, start = read_varint(data, at + 1)
        if kind & STREAM_OFFSET:
            offset, start = read_varint(data, start)
        if kind & STREAM_LENGTH:
            length, start = read_varint(data, start)
            end = start + length
        else:
            end = len(data)
    except IndexError:
        return None
    if max(start, end) > len(data):
        return None
    return stream_id, offset, start, end


def stream_header(stream_id: int, offset: int) -> bytes:
    """A STREAM frame's fields between its type and its length, the offset only if there is one."""
    return varint(stream_id) + varint(offset) if offset else varint(stream_id)


def read_datagram(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the DATAGRAM frame at `at` is; None if cut short (RFC 9221)."""
    try:
        length, start = read_varint(data, at + 1)
    except IndexError:
        return None
    end = start + length
    return (start, end) if end <= len(data) else None


class AckFrame(NamedTuple):
    """An ACK frame: the packet numbers, the largest ones first, and where the frame ends."""

    ranges: list[range]
    delay: int
    end: int


def read_ack(data: bytes, at: int) -> AckFrame | None:
    """The ACK frame without ECN counts at `at`, None if it is cut short or makes no sense.

    None for more ranges than a receiver keeps, too.
    """
    try:
        largest, at = read_varint(data, at + 1)
        delay, at = read_varint(data, at)
        count, at = read_varint(data, at)
        if count >= MAX_ACK_RANGES:
            return None
        length, at = read_varint(data, at)
        ranges = [range(largest - length, largest + 1)]
        for _ in range(count):
            gap, at = read_varint(data, at)
            length, at = read_varint(data, at)
            largest = ranges[-1].start - gap - 2
            ranges.append(range(largest - length, largest + 1))
    except IndexError:
        return None
    if at > len(data) or ranges[-1].start < 0:
        return None
    return AckFrame(ranges, delay, at)


def ack(ranges: Sequence[range], delay: int, room: int) -> bytes:
    """An ACK frame of at most `room` bytes, without the oldest ranges if they do not fit.

    :param ranges: packet numbers, the smallest first.
    :param delay: in the unit of our ack_delay_exponent.
    """
    newest = ranges[-1]
    head = varint(newest.stop - 1) + varint(delay)
    first = varint(newest.stop - 1 - newest.start)
    room -= 1 + len(head) + 2 + len(first)
    fields: list[bytes] = []
    start = newest.start
    for older in reversed(ranges[:-1]):
        pair = varint(start - older.stop - 1) + varint(older.stop - older.start - 1)
        room -= len(pair)
        if room < 0:
            break
        fields.append(pair)
        start = older.start
    return b"\x02" + head + varint(len(fields)) + first + b"".join(fields)
