"""Time and rates in the pure layers, whose times are seconds of the caller's clock."""

import math
from collections.abc import Callable

TOLERANCE = 1e-6
"""Seconds by which a timer may fire early and still be due: float sums carry rounding errors."""


class TokenBucket:
    """A bucket of `burst` tokens that gains a token each `interval` seconds; it begins full.

    Without any burst it gives no token.
    """

    __slots__ = ("_burst", "_full_at", "_interval")

    def __init__(self, interval: float, burst: float) -> None:
        self._interval = interval
        self._burst = burst
        self._full_at = -math.inf

    def ready_at(self) -> float:
        """The time from which a token is in the bucket; it may be over."""
        if not self._burst:
            return math.inf
        return self._full_at - (self._burst - 1) * self._interval

    def is_full(self, now: float) -> bool:
        """Whether the bucket is as if no token had ever been taken."""
        return now >= self._full_at

    def take(self, now: float) -> bool:
        """Take a token. Returns False if there is none."""
        if now < self.ready_at() - TOLERANCE:
            return False
        self._full_at = max(now, self._full_at) + self._interval
        return True

    def give_back(self) -> None:
        """Put a token back that was taken."""
        self._full_at -= self._interval


class Throttle:
    """Runs `burst` actions at once and one each `interval` seconds.

    Of the actions that would have to wait only the newest remains.

    :ivar waiting: that action, None for none.
    """

    __slots__ = ("_bucket", "waiting")

    def __init__(self, interval: float, burst: int) -> None:
        self._bucket = TokenBucket(interval, burst)
        self.waiting: Callable[[float], object] | None = None

    def call(self, action: Callable[[float], object], now: float) -> bool:
        """Run `action` with the time, or let it wait in place of an earlier one.

        Returns whether the wait begins with this call, so that get_timer() has become earlier.
        """
        is_first, self.waiting = self.waiting is None, action
        self.handle_timer(now)
        return is_first and self.waiting is not None

    def cancel(self) -> None:
        """Forget the action that waits."""
        self.waiting = None

    def get_timer(self) -> float:
        """Return the time to call handle_timer() at, math.inf for never."""
        return math.inf if self.waiting is None else self._bucket.ready_at()

    def handle_timer(self, now: float) -> None:
        """Run the action that waits, if it is due."""
        action = self.waiting
        if action is not None and self._bucket.take(now):
            self.waiting = None
            action(now)
