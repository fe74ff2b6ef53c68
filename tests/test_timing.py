"""Token buckets and throttles."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.timing import Throttle, TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """A token each interval, and no more at once than the burst."""

    def test_a_full_bucket_gives_its_burst_and_then_one_each_interval(self) -> None:
        """Also after a long time at rest."""
        bucket = TokenBucket(2.0, 3)
        for start in (0.0, 1000.0):
            self.assertTrue(bucket.is_full(start))
            self.assertEqual([True] * 3 + [False], [bucket.take(start) for _ in range(4)])
            self.assertEqual(start + 2.0, bucket.ready_at())
            self.assertFalse(bucket.take(start + 1.9))
            self.assertTrue(bucket.take(start + 2.0))
            self.assertFalse(bucket.is_full(start + 7.9))
            self.assertTrue(bucket.is_full(start + 8.0))

    @given(st.lists(st.floats(0.0, 3.0), max_size=200))
    def test_no_span_of_time_has_more_than_its_share(self, pauses: list[float]) -> None:
        """The burst, and what the bucket gains in the span."""
        bucket, now, taken = TokenBucket(1.0, 3), 0.0, list[float]()
        for pause in pauses:
            now += pause
            if bucket.take(now):
                taken.append(now)
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                share = 3 + taken[last] - taken[first]
                self.assertLessEqual(last - first + 1, share + 1e-3)

    def test_a_token_can_be_put_back(self) -> None:
        """As if it had not been taken."""
        bucket = TokenBucket(1.0, 1)
        self.assertTrue(bucket.take(0.0))
        bucket.give_back()
        self.assertTrue(bucket.take(0.0))

    def test_a_bucket_without_a_burst_is_empty(self) -> None:
        """At any time."""
        self.assertFalse(TokenBucket(1.0, 0).take(100.0))


class ThrottleTests(SynchronousTestCase):
    """Actions at most so often, the newest of those that wait."""

    def setUp(self) -> None:
        """A throttle, and what it ran when."""
        self.throttle = Throttle(1.0, 2)
        self.ran: list[tuple[str, float]] = []

    def action(self, name: str) -> Callable[[float], None]:
        """An action with a name."""
        return lambda now: self.ran.append((name, now))

    def test_the_newest_action_that_waits_replaces_the_others(self) -> None:
        """Only the first of them makes the timer earlier."""
        waits = [self.throttle.call(self.action(name), 0.0) for name in "abcd"]
        self.assertEqual([False, False, True, False], waits)
        self.assertEqual([("a", 0.0), ("b", 0.0)], self.ran)
        self.assertEqual(1.0, self.throttle.get_timer())
        self.throttle.handle_timer(0.5)
        self.assertEqual(2, len(self.ran))
        self.throttle.handle_timer(1.0)
        self.throttle.handle_timer(2.0)
        self.assertEqual([("d", 1.0)], self.ran[2:])
        self.assertEqual(math.inf, self.throttle.get_timer())

    def test_a_cancelled_action_never_runs(self) -> None:
        """Nothing is due then."""
        for name in "abc":
            self.throttle.call(self.action(name), 0.0)
        self.throttle.cancel()
        self.throttle.handle_timer(5.0)
        self.assertEqual((2, math.inf), (len(self.ran), self.throttle.get_timer()))
