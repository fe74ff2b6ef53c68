"""Messages between an Intermediate and its relay workers."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import worker_messages as workers
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import MAX_MESSAGE
from p2pnet.wire.worker_messages import (
    MAX_COUNTS,
    WorkerMessage,
    WorkerMessageBuffer,
    decode_worker_message,
    encode_worker_message,
)

IDS = st.binary(min_size=8, max_size=8)
ADDRESSES = st.tuples(st.sampled_from(["192.0.2.1", "2001:db8::1"]), st.integers(0, 65535))
NUMBERS = st.integers(0, 2**63)
COUNTS = st.lists(st.tuples(IDS, NUMBERS, NUMBERS, NUMBERS), max_size=5).map(tuple)
MESSAGES = st.one_of(
    st.builds(workers.Forward, IDS, IDS, ADDRESSES, ADDRESSES, NUMBERS),
    st.builds(workers.Forget, IDS),
    st.just(workers.Begin()),
    st.just(workers.Begun()),
    st.builds(workers.Forwarded, COUNTS, NUMBERS),
    st.builds(workers.Forgotten, IDS),
    st.builds(workers.Stray, st.binary(max_size=1500), ADDRESSES),
)


class WorkerMessageTests(SynchronousTestCase):
    """They arrive as they were sent, in whatever pieces."""

    @given(st.lists(MESSAGES, max_size=10), st.integers(1, 100))
    def test_messages_arrive_in_order_in_any_pieces(
        self, sent: list[WorkerMessage], size: int
    ) -> None:
        """Equal, and of the same types."""
        data, buffer, received = (
            b"".join(map(encode_worker_message, sent)),
            WorkerMessageBuffer(),
            [],
        )
        for start in range(0, len(data), size):
            received += buffer.feed(data[start : start + size])
        self.assertEqual(sent, received)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_message_or_an_error(self, body: bytes) -> None:
        """And nothing else is raised."""
        try:
            message = decode_worker_message(body)
        except DecodeError:
            return
        self.assertIsInstance(message, WorkerMessage)

    def test_the_longest_report_is_a_message(self) -> None:
        """With numbers that take as many bytes as there can be."""
        count = (bytes(8), 2**63, 2**63, 2**63)
        longest = workers.Forwarded((count,) * MAX_COUNTS, 2**63)
        self.assertLess(len(encode_worker_message(longest)), MAX_MESSAGE)

    def test_a_datagram_that_is_too_long_is_no_message(self) -> None:
        """It would fit into no buffer of the other side."""
        with self.assertRaises(ValueError):
            encode_worker_message(workers.Stray(bytes(MAX_MESSAGE), ("192.0.2.1", 1)))
