"""Variable-length integers."""

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.varint import MAX_VARINT, decode_varint, encode_varint

# RFC 9000 section A.1: the encoding and what it stands for.
RFC_EXAMPLES = {
    "c2197c5eff14e88c": 151_288_809_941_952_652,
    "9d7f3e7d": 494_878_333,
    "7bbd": 15_293,
    "25": 37,
}
# The first and the last value of each length.
BOUNDARIES = {
    0: "00",
    0x3F: "3f",
    0x40: "4040",
    0x3FFF: "7fff",
    0x4000: "80004000",
    0x3FFF_FFFF: "bfffffff",
    0x4000_0000: "c000000040000000",
    MAX_VARINT: "ffffffffffffffff",
}


class VarintTests(SynchronousTestCase):
    """RFC 9000 section 16."""

    def test_the_examples_of_the_rfc(self) -> None:
        """Both ways."""
        for encoded, value in RFC_EXAMPLES.items():
            self.assertEqual(encoded, encode_varint(value).hex())
            self.assertEqual((value, len(encoded) // 2), decode_varint(bytes.fromhex(encoded)))

    def test_the_ends_of_each_length(self) -> None:
        """The shortest form is written."""
        for value, encoded in BOUNDARIES.items():
            self.assertEqual(encoded, encode_varint(value).hex())

    def test_a_longer_form_than_needed_is_read(self) -> None:
        """The RFC's own example: 37 in two bytes."""
        self.assertEqual((37, 2), decode_varint(bytes.fromhex("4025")))

    def test_what_does_not_fit_is_refused(self) -> None:
        """Below and above."""
        for value in (-1, MAX_VARINT + 1):
            self.assertRaises(ValueError, encode_varint, value)

    @given(st.integers(0, MAX_VARINT), st.binary(max_size=9), st.binary(max_size=9))
    def test_every_value_comes_back(self, value: int, before: bytes, after: bytes) -> None:
        """Wherever it stands, with the offset behind it."""
        encoded = encode_varint(value)
        decoded = decode_varint(before + encoded + after, len(before))
        self.assertEqual((value, len(before) + len(encoded)), decoded)

    @given(st.integers(0, MAX_VARINT), st.data())
    def test_a_cut_one_is_refused(self, value: int, data: st.DataObject) -> None:
        """At any byte."""
        encoded = encode_varint(value)
        cut = data.draw(st.integers(0, len(encoded) - 1))
        self.assertRaises(DecodeError, decode_varint, encoded[:cut])

    @given(st.binary(max_size=9), st.integers(0, 12))
    @example(b"", 0)
    def test_any_bytes_decode_or_are_refused(self, data: bytes, offset: int) -> None:
        """By DecodeError alone, never reading past the end."""
        try:
            value, end = decode_varint(data, offset)
        except DecodeError:
            return
        self.assertTrue(0 <= value <= MAX_VARINT and offset < end <= len(data))
