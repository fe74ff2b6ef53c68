"""When to pause reading a busy socket, so that the next read gets several datagrams.

At some thousands of datagrams a second the reactor reads and answers each datagram in a turn of its
own. After a pause it reads and answers several together.
"""

REST = 0.002  # seconds of a pause, the most that a pause adds to a round trip
BUSY = 2e6  # bytes/s from which pauses pay, far above the rate of requests and responses
LITTLE = 3 << 14  # bytes; a read of this many bytes is a batch already
SPAN = 0.005  # seconds over which the rate is measured


class Gauge:
    """Measures the rate at which a socket is read. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0
        self._is_busy = False

    def calls_for_rest(self, size: int, now: float) -> bool:
        """Whether to pause for REST seconds after a read of `size` bytes at `now`."""
        self._count += size
        span = now - self._since
        if span >= SPAN:
            self._is_busy = self._count >= BUSY * span
            self._since, self._count = now, 0
        return self._is_busy and size < LITTLE
