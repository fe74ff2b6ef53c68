"""Tests of p2pnet.core.peer.backoff: when the next try begins, and how long it may take."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.backoff import (
    CONNECT_TIMEOUT,
    LAST_RETRY,
    QUICK_RETRY,
    QUICK_ROUND_TRIPS,
    QUICK_TIMEOUT,
    QUICK_TRIES,
    RETRY_JITTER,
    SUPERSEDED_FAILURES,
    Backoff,
)


class BackoffTests(SynchronousTestCase):
    """Jitter in the middle, so that delays are the round numbers of the constants."""

    def setUp(self) -> None:
        """No try yet."""
        self.backoff = Backoff(lambda: 0.5)

    def delays(self, count: int, *, is_needed: bool) -> list[float]:
        """The delays after so many failures in a row."""
        return [self.backoff.failed(is_needed=is_needed) for _ in range(count)]

    def test_delays_double_up_to_the_last_one(self) -> None:
        """However many failures there are: no power overflows."""
        self.assertEqual([1, 2, 4, 8, 16, 30, 30], self.delays(7, is_needed=False))
        self.assertEqual({LAST_RETRY}, set(self.delays(2000, is_needed=False)))

    @given(st.integers(0, 2**32), st.booleans())
    def test_jitter_is_a_fifth_either_way_at_most(self, seed: int, is_needed: bool) -> None:
        """For slow and quick tries."""
        with_jitter, without = Backoff(random.Random(seed).random), Backoff(lambda: 0.5)
        for backoff in (with_jitter, without):
            backoff.succeeded()
        for _ in range(8):
            delay, middle = (b.failed(is_needed=is_needed) for b in (with_jitter, without))
            self.assertLessEqual(abs(delay / middle - 1), RETRY_JITTER + 1e-9)

    def test_a_node_that_is_needed_first_makes_quick_tries(self) -> None:
        """Once it was connected; when they are used up, the slow ones begin from the start."""
        self.assertEqual([1, 2], self.delays(2, is_needed=True))
        self.backoff.succeeded()
        self.assertEqual({QUICK_RETRY}, set(self.delays(QUICK_TRIES, is_needed=True)))
        self.assertEqual([1, 2], self.delays(2, is_needed=True))

    def test_a_node_that_nobody_needs_makes_slow_tries(self) -> None:
        """And keeps the quick ones for later."""
        self.backoff.succeeded()
        self.assertEqual([1], self.delays(1, is_needed=False))
        self.assertEqual([QUICK_RETRY], self.delays(1, is_needed=True))

    def test_another_network_allows_quick_tries_again(self) -> None:
        """But does not forget the failures, by which the next address is chosen."""
        self.delays(3, is_needed=True)
        self.backoff.network_changed()
        self.assertEqual([QUICK_RETRY], self.delays(1, is_needed=True))
        self.assertEqual(3, self.backoff.failures)

    def test_a_superseded_node_waits_for_long_even_if_it_is_needed(self) -> None:
        """Until a try succeeds."""
        self.backoff.succeeded()
        self.backoff.superseded()
        self.assertEqual(SUPERSEDED_FAILURES, self.backoff.failures)
        self.assertEqual([LAST_RETRY], self.delays(1, is_needed=True))
        self.backoff.succeeded()
        self.assertEqual([QUICK_RETRY], self.delays(1, is_needed=True))

    def test_a_try_has_time_for_a_slow_path(self) -> None:
        """A quick try at least a second, and eight round trips."""
        self.assertEqual(10 + CONNECT_TIMEOUT, self.backoff.begin(10.0, 0.05, is_needed=True))
        self.backoff.succeeded()
        self.assertEqual(20 + QUICK_TIMEOUT, self.backoff.begin(20.0, 0.05, is_needed=True))
        slow = 30 + QUICK_ROUND_TRIPS * 0.5
        self.assertEqual(slow, self.backoff.begin(30.0, 0.5, is_needed=True))
        self.assertEqual(40 + CONNECT_TIMEOUT, self.backoff.begin(40.0, 0.05, is_needed=False))
        self.assertEqual(40.0, self.backoff.began_at)
