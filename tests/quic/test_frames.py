"""The fast engine's frames are aioquic's frames, byte for byte."""

from aioquic.buffer import Buffer, encode_uint_var  # type: ignore[attr-defined]
from aioquic.quic.packet import pull_ack_frame, push_ack_frame
from aioquic.quic.rangeset import RangeSet
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.fast import frames
from p2pnet.wire.varint import read_varint, varint

numbers = st.integers(0, 2**62 - 1) | st.integers(0, 2**15)
range_sets = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 70)), min_size=1).map(
    lambda pieces: RangeSet([range(start, start + size) for start, size in pieces])
)


class FrameTests(SynchronousTestCase):
    """What is written, and what is read of anything."""

    @given(numbers)
    def test_varints(self, value: int) -> None:
        """There and back; any that is cut short ends behind the data."""
        encoded = varint(value)
        self.assertEqual(encode_uint_var(value), encoded)
        self.assertEqual((value, len(encoded) + 1), read_varint(b"x" + encoded, 1))
        for size in range(1, len(encoded)):
            self.assertEqual(len(encoded), read_varint(encoded[:size], 0)[1])
        self.assertRaises(IndexError, read_varint, b"", 0)

    @given(range_sets, numbers)
    def test_acks_are_written_as_aioquic_does(self, ranges: RangeSet, delay: int) -> None:
        """As far as there is room."""
        buffer = Buffer(capacity=100_000)
        buffer.push_uint_var(frames.ACK)
        push_ack_frame(buffer, ranges, delay, 99_000)
        self.assertEqual(buffer.data, frames.ack(ranges, delay, 99_000))

    @given(range_sets, numbers, st.integers(26, 200))
    def test_acks_leave_the_oldest_out(self, ranges: RangeSet, delay: int, room: int) -> None:
        """And stay within their room."""
        data = frames.ack(ranges, delay, room)
        self.assertLessEqual(len(data), room)
        frame = frames.read_ack(data, 0)
        assert frame is not None
        self.assertEqual(list(ranges)[-len(frame.ranges) :], frame.ranges[::-1])
        self.assertEqual((delay, len(data)), (frame.delay, frame.end))

    @given(st.binary(max_size=40))
    def test_acks_are_read_as_aioquic_does(self, data: bytes) -> None:
        """Whatever it is; what aioquic refuses, is left to it."""
        buffer = Buffer(data=data)
        try:
            expected, delay = pull_ack_frame(buffer)
        except (ValueError, AssertionError):  # BufferReadError is a ValueError
            self.assertIsNone(frames.read_ack(b"\x02" + data, 0))
            return
        frame = frames.read_ack(b"\x02" + data, 0)
        assert frame is not None
        self.assertEqual((list(expected), delay), (frame.ranges[::-1], frame.delay))
        self.assertEqual(buffer.tell() + 1, frame.end)

    @given(st.integers(8, 15), numbers, numbers, st.binary(max_size=20), st.binary(max_size=5))
    def test_streams(
        self, kind: int, stream_id: int, offset: int, data: bytes, rest: bytes
    ) -> None:
        """With and without an offset, a length and an end; and none that is cut short."""
        packet = bytes([kind]) + encode_uint_var(stream_id)
        if kind & frames.STREAM_OFFSET:
            packet += encode_uint_var(offset)
        if kind & frames.STREAM_LENGTH:
            packet += encode_uint_var(len(data))
        else:
            rest = b""
        start = len(packet)
        packet += data
        expected = stream_id, offset if kind & frames.STREAM_OFFSET else 0, start, len(packet)
        self.assertEqual(expected, frames.read_stream(packet + rest, 0))
        for size in range(1, len(packet) if kind & frames.STREAM_LENGTH else start):
            self.assertIsNone(frames.read_stream(packet[:size], 0))

    @given(st.binary(max_size=80), st.binary(max_size=5))
    def test_datagrams(self, data: bytes, rest: bytes) -> None:
        """With a length; and none that is cut short."""
        packet = b"\x31" + encode_uint_var(len(data)) + data
        start = len(packet) - len(data)
        self.assertEqual((start, len(packet)), frames.read_datagram(packet + rest, 0))
        for size in range(1, len(packet)):
            self.assertIsNone(frames.read_datagram(packet[:size], 0))
