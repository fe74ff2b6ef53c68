"""What a datagram is, by its first byte."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.demux import MAGIC_COOKIE, Kind, classify


class ClassifyTests(SynchronousTestCase):
    """The table of RFC 9443, as far as it is ours."""

    def test_all_first_bytes(self) -> None:
        """Without a magic cookie behind it."""
        kinds = [classify(bytes([first]) + bytes(19)) for first in range(256)]
        expected = (
            [Kind.UNKNOWN] * 0x20  # STUN's four among them: the cookie is missing
            + [Kind.RELAY] * 0x10
            + [Kind.UNKNOWN] * 0x10
            + [Kind.QUIC] * 0xC0
        )
        self.assertEqual(expected, kinds)

    def test_all_first_bytes_before_the_magic_cookie(self) -> None:
        """Only the first four become STUN by it (RFC 8489 section 5)."""
        found = {
            first
            for first in range(256)
            if classify(bytes([first, 1, 0, 0]) + MAGIC_COOKIE + bytes(12)) is Kind.STUN
        }
        self.assertEqual({0, 1, 2, 3}, found)

    def test_the_empty_datagram_is_nobodys(self) -> None:
        """UDP allows it."""
        self.assertIs(Kind.UNKNOWN, classify(b""))

    def test_a_cut_magic_cookie_is_none(self) -> None:
        """A datagram may end within it."""
        binding = b"\x00\x01\x00\x00" + MAGIC_COOKIE
        self.assertIs(Kind.STUN, classify(binding))
        for length in range(1, len(binding)):
            self.assertIs(Kind.UNKNOWN, classify(binding[:length]))

    @given(st.binary(max_size=40))
    def test_any_bytes_have_a_kind(self, data: bytes) -> None:
        """Total: nothing is raised."""
        self.assertIsInstance(classify(data), Kind)
