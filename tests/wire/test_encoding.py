"""A stream of messages: the form that all of them have."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import messages
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message
from p2pnet.wire.framing import MAX_MESSAGE
from p2pnet.wire.messages import TYPES, decode_message
from tests.wire.encoding_cases import by_hypothesis, fields_of, pack

MESSAGES = st.one_of([by_hypothesis(kind) for kind in TYPES.values()])


class MessageBufferTests(SynchronousTestCase):
    """A stream, cut into messages."""

    @given(st.lists(MESSAGES, max_size=4), st.binary(max_size=3))
    def test_byte_by_byte_gives_the_same_as_whole(
        self, sent: list[Message], incomplete: bytes
    ) -> None:
        """QUIC cuts the stream anywhere."""
        data = b"".join(map(encode_message, sent)) + incomplete
        self.assertEqual(sent, MessageBuffer(decode_message).feed(data))
        buffer = MessageBuffer(decode_message)
        one_by_one = [message for byte in data for message in buffer.feed(bytes([byte]))]
        self.assertEqual(sent, one_by_one)

    def test_an_unknown_type_is_left_out(self) -> None:
        """What is around it arrives."""
        unknown = pack({"t": "from-the-future"})
        one, other = messages.Goodbye(0, ""), messages.Draining(30.0)
        data = encode_message(one) + len(unknown).to_bytes(4, "big") + unknown
        self.assertEqual(
            [one, other], MessageBuffer(decode_message).feed(data + encode_message(other))
        )

    def test_a_length_over_the_limit_is_refused_at_once(self) -> None:
        """When the four bytes are there, before anything is kept for it."""
        for length in (MAX_MESSAGE + 1, 2**32 - 1):
            buffer = MessageBuffer(decode_message)
            head = length.to_bytes(4, "big")
            self.assertEqual([], buffer.feed(head[:3]))
            self.assertRaises(DecodeError, buffer.feed, head[3:])

    def test_the_limit_can_be_lower(self) -> None:
        """As on the stream of messages about paths."""
        buffer = MessageBuffer(decode_message, 100)
        self.assertEqual([], buffer.feed((100).to_bytes(4, "big")))
        buffer = MessageBuffer(decode_message, 100)
        self.assertRaises(DecodeError, buffer.feed, (101).to_bytes(4, "big"))

    def test_the_longest_message_passes(self) -> None:
        """Exactly the limit, by a field that is ignored; one byte more is not sent."""
        fields = fields_of(messages.Goodbye(0, "")) | {"x": b""}
        # A longer byte string has two more bytes of length.
        fields["x"] = bytes(MAX_MESSAGE - len(pack(fields)) - 1)
        body = pack(fields)
        self.assertEqual(MAX_MESSAGE, len(body))
        data = len(body).to_bytes(4, "big") + body
        self.assertEqual([messages.Goodbye(0, "")], MessageBuffer(decode_message).feed(data))

    def test_a_message_over_the_limit_is_not_sent(self) -> None:
        """encode_message() has no limits of fields, so this can happen."""
        too_long = messages.Register(("x" * MAX_MESSAGE,))
        self.assertRaises(ValueError, encode_message, too_long)

    @given(st.lists(st.binary(max_size=30), max_size=5))
    def test_any_bytes_are_cut_or_refused(self, chunks: list[bytes]) -> None:
        """By DecodeError alone."""
        buffer = MessageBuffer(decode_message)
        try:
            for chunk in chunks:
                buffer.feed(chunk)
        except DecodeError:
            return
