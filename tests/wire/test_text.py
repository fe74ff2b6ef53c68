"""The texts of peers, as logs and terminals get them."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.text import MAX_TEXT, printable


class PrintableTests(SynchronousTestCase):
    """`printable`."""

    @given(st.text(st.characters()), st.integers(3, 300))
    def test_any_text_becomes_short_and_printable(self, text: str, limit: int) -> None:
        """Surrogates included; doing so again changes nothing."""
        found = printable(text, limit)
        self.assertTrue(found.isascii() and found.isprintable(), found)
        self.assertLessEqual(len(found), limit)
        self.assertEqual(found, printable(found, limit))

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=MAX_TEXT))
    def test_a_plain_text_stays_as_it_is(self, text: str) -> None:
        """Quotes and backslashes included."""
        self.assertEqual(text, printable(text))

    def test_a_long_text_ends_with_dots(self) -> None:
        """At the limit, after a character that has not been cut itself, or has."""
        self.assertEqual("x" * 197 + "...", printable("x" * 100_000))
        self.assertEqual(r"\x1b\x...", printable("\x1b" * 100_000, 9))

    def test_whatever_moves_a_cursor_or_turns_a_line_is_escaped(self) -> None:
        """C0 and C1 controls, ends of lines and paragraphs, marks of direction, surrogates."""
        for character in "\x00\x07\x1b\r\n\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\ud800":
            self.assertNotIn(unicodedata.category(character)[0], "LNPS")
            self.assertEqual(character.encode("unicode_escape").decode(), printable(character))
