"""Tests of p2pnet.wire.names."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.messages import Name
from p2pnet.wire.names import MAX_NAME, NAME_PATTERN


class NameTests(SynchronousTestCase):
    """What a realm, a node or a service may be called."""

    def test_a_name_has_1_to_63_characters(self) -> None:
        """The first and the last are letters or digits."""
        for name in ("a", "7", "a-b", "a.b_c", "a" * MAX_NAME):
            self.assertIsNotNone(NAME_PATTERN.fullmatch(name), name)
        for name in ("", "-", "a-", ".a", "A", "a b", "a\n", "ä", "a" * (MAX_NAME + 1)):
            self.assertIsNone(NAME_PATTERN.fullmatch(name), name)

    @given(st.from_regex(NAME_PATTERN) | st.text(max_size=70))
    def test_messages_take_the_names_that_certificates_take(self, name: str) -> None:
        """The whole text has to match in both."""
        try:
            msgspec.convert(name, Name)
            taken = True
        except msgspec.ValidationError:
            taken = False
        self.assertEqual(NAME_PATTERN.fullmatch(name) is not None, taken)
