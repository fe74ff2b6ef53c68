"""Packet numbers that are skipped, so that a peer cannot acknowledge blindly (RFC 9000 21.4).

A peer that acknowledges packets before they arrive, or packets that went elsewhere, makes the
sender go faster than the path. It cannot know which numbers no packet has.
"""

from collections.abc import Callable, Iterable

FIRST_PERIOD = 64  # packets until the first number is skipped, on average
MAX_PERIOD = 8192  # the period doubles up to this: a skipped number costs an acknowledgement
REMEMBERED = 8  # numbers; an older one is acknowledged too late to be of use


class PacketNumbers:
    """Which packet numbers of a connection are skipped.

    :param entropy: returns that many random bytes.
    :ivar next_at: the first number that may be skipped.
    """

    __slots__ = ("_entropy", "_newest", "_period", "_skipped", "next_at")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._newest = -1
        self._period = FIRST_PERIOD
        self._skipped: tuple[int, ...] = ()
        self.next_at = self._draw(0)

    def _draw(self, number: int) -> int:
        return number + 1 + int.from_bytes(self._entropy(4), "big") % (2 * self._period)

    def skip(self, number: int) -> int:
        """Skip a number. Returns the number of the next packet."""
        self._newest = number
        self._skipped = (*self._skipped[1 - REMEMBERED :], number)
        self._period = min(2 * self._period, MAX_PERIOD)
        self.next_at = self._draw(number)
        return number + 1

    def were_sent(self, acked: Iterable[range], next_number: int) -> bool:
        """Whether a peer may acknowledge these numbers.

        :param next_number: the number of the next packet.
        """
        for numbers in acked:
            if numbers.stop > next_number:
                return False
            if numbers.start <= self._newest and any(n in numbers for n in self._skipped):
                return False
        return True
