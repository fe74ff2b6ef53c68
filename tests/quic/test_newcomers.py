"""Clients that wait: which first packet is read next."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.newcomers import MAX_UNREAD, Initial, Unread
from p2pnet.quic.packet import InitialHeader


def initial(number: int, token: bytes = b"") -> Initial:
    """An Initial that the number tells from others."""
    header = InitialHeader(1, bytes(8), bytes(8), token, 0, 0)
    return number.to_bytes(4, "big"), header, ("192.0.2.1", 1)


class UnreadTests(SynchronousTestCase):
    """Initials that were not decrypted yet."""

    def setUp(self) -> None:
        self.unread = Unread()

    def taken(self, most: int) -> list[int]:
        """The numbers of those that are taken."""
        return [int.from_bytes(datagram, "big") for datagram, _, _ in self.unread.take(most)]

    def test_the_newest_are_read_in_their_order(self) -> None:
        """A client that waited behind a flood would have repeated its Initial meanwhile."""
        for number in range(5):
            self.unread.add(initial(number))
        self.assertEqual([2, 3, 4], self.taken(3))
        self.assertEqual([0, 1], self.taken(3))
        self.assertEqual([], self.taken(3))

    def test_half_of_a_turn_is_for_those_that_have_a_token(self) -> None:
        """A flood without tokens does not delay a client that has answered a Retry."""
        for number in range(6):
            self.unread.add(initial(number))
        self.unread.add(initial(7, b"token"))
        self.assertEqual([4, 5, 7], self.taken(3))
        for number in (8, 9, 10):
            self.unread.add(initial(number, b"token"))
        self.assertEqual([0, 1, 8, 2, 9, 3, 10], self.taken(9))

    def test_nothing_that_is_taken_is_lost(self) -> None:
        """Whatever the number, and however many of each kind there are."""
        for count in range(1, 6):
            for number in range(5):
                self.unread.add(initial(number, b"token" * (number % 2)))
            found: list[int] = []
            while len(self.unread):
                found += self.taken(count)
            self.assertEqual(list(range(5)), sorted(found))

    def test_the_oldest_of_a_kind_makes_way(self) -> None:
        """Those with a token lose none to a flood of others."""
        self.assertTrue(self.unread.add(initial(0, b"token")))
        full = [self.unread.add(initial(number)) for number in range(1, MAX_UNREAD + 3)]
        self.assertEqual([True] * MAX_UNREAD + [False] * 2, full)
        self.assertEqual(MAX_UNREAD + 1, len(self.unread))
        numbers = self.taken(2 * MAX_UNREAD)
        self.assertEqual([0, 3], sorted(numbers)[:2])
