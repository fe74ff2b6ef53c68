"""When to let datagrams gather before they are read.

At some thousands of datagrams a second each would be read by itself, and would cost a round of the
reactor and an answer of its own. After a rest, several are read and answered together.
"""

REST = 0.002  # seconds; what a rest adds to a round trip at most
BUSY = 2e6  # bytes/s from which on it pays: far more than questions and answers come to
LITTLE = 3 << 14  # bytes; who gets more at once has no need to wait for it
SPAN = 0.005  # seconds that the rate is measured over


class Gauge:
    """Measures the rate of what is read. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0
        self._is_busy = False

    def calls_for_rest(self, size: int, now: float) -> bool:
        """Whether to rest after reading so many bytes at once."""
        self._count += size
        span = now - self._since
        if span >= SPAN:
            self._is_busy = self._count >= BUSY * span
            self._since, self._count = now, 0
        return self._is_busy and size < LITTLE
