"""When a node tries again to reach an Intermediate, and how long a try may take."""

from collections.abc import Callable

CONNECT_TIMEOUT = 8.0  # seconds for resolving, handshake and greeting together
FIRST_RETRY = 1.0  # seconds, doubled after each failure ...
LAST_RETRY = 30.0  # ... up to this
RETRY_JITTER = 0.2  # of the delay either way, so that nodes do not return all at once
SUPERSEDED_FAILURES = 5  # failures that a superseded connection counts for: the longest delay
# Sessions wait for an Intermediate that restarts, and a try that began before it is back notices
# that late. So a node with sessions makes this many short tries first.
QUICK_TRIES = 20
QUICK_RETRY = 0.4  # seconds
QUICK_TIMEOUT = 1.0  # seconds, at least
QUICK_ROUND_TRIPS = 8  # round trips that a quick try may take on a slow path


class Backoff:
    """The tries to reach one Intermediate. Times are seconds of the caller's clock.

    `is_needed` says whether a session or a stream waits for the Intermediate: only then are tries
    quick.

    :param random: returns a number from 0 to 1, for jitter.
    :ivar began_at: when the present try began.
    :ivar failures: slow tries that failed in a row.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.began_at = 0.0
        self.failures = 0
        self._quick_tries = 0
        self._random = random

    def begin(self, now: float, rtt: float, *, is_needed: bool) -> float:
        """Begin a try at `now`; returns when it counts as failed.

        :param rtt: the round-trip time to the Intermediate in seconds, 0 if unknown.
        """
        self.began_at = now
        if is_needed and self._quick_tries:
            return now + max(QUICK_TIMEOUT, QUICK_ROUND_TRIPS * rtt)
        return now + CONNECT_TIMEOUT

    @property
    def latest(self) -> float:
        """When even a try that was answered counts as failed. An Intermediate that answers is
        there; if many nodes come back to it, another try would only have to queue again."""
        return self.began_at + CONNECT_TIMEOUT

    def succeeded(self) -> None:
        """Count from the start: the Intermediate answered."""
        self.failures, self._quick_tries = 0, QUICK_TRIES

    def failed(self, *, is_needed: bool) -> float:
        """Count a failure; returns the seconds until the next try."""
        jitter = 1 + RETRY_JITTER * (2 * self._random() - 1)
        if is_needed and self._quick_tries and self.failures < SUPERSEDED_FAILURES:
            self._quick_tries -= 1
            return QUICK_RETRY * jitter
        delay = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(self.failures, 10)) * jitter
        self.failures += 1
        return delay

    def superseded(self) -> None:
        """Wait for long: another process uses the certificate, and the two would fight."""
        self.failures = SUPERSEDED_FAILURES

    def network_changed(self) -> None:
        """Make quick tries again: the new network may reach what the old one did not."""
        self._quick_tries = QUICK_TRIES
