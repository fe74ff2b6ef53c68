"""What is kept of the samples, and loss that is our doing told from the path's."""

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.filters import (
    FULL_ROUNDS,
    BestOfRound,
    ExtraAcked,
    FullPipe,
    MaxBandwidth,
    MinRtt,
    Rounds,
)
from p2pnet.quic.bbr.loss import MOST, THRESHOLD, LossMeter
from p2pnet.quic.bbr.rate import RateSample, RateSampler, Snapshot


def sample(rate: float, *, app_limited: bool = False) -> RateSample:
    """A sample of that rate."""
    prior = Snapshot(RateSampler(), 0, 0.0, 0.0, app_limited, 0, 0)
    return RateSample(rate, 0, 0, prior, 0, 0)


class RoundsTests(SynchronousTestCase):
    """Packet-timed round trips."""

    def test_a_round_ends_with_a_packet_sent_after_its_start(self) -> None:
        """Not with those that were under way."""
        rounds = Rounds()
        rounds.update(0, 1000)
        self.assertTrue(rounds.started)
        for prior in (0, 500, 999):
            rounds.update(prior, 2000)
            self.assertFalse(rounds.started)
        rounds.update(1000, 3000)
        self.assertEqual((True, 2), (rounds.started, rounds.count))


class BestOfRoundTests(SynchronousTestCase):
    """The best sample of the present round."""

    def test_the_best_is_kept_until_the_round_ends(self) -> None:
        best = BestOfRound()
        best.take(sample(5.0), 1000)
        best.end(sample(5.0))
        for rate in (9.0, 7.0):
            best.take(sample(rate), 2000)
            best.end(sample(rate))
            self.assertEqual((False, 9.0), (best.started, best.rate))

    def test_the_next_round_begins_with_the_sample_that_ends_this_one(self) -> None:
        best = BestOfRound()
        best.take(sample(9.0), 0)
        best.take(sample(4.0), 0)
        self.assertEqual((True, 9.0), (best.started, best.rate))
        best.end(sample(4.0))
        self.assertEqual(4.0, best.rate)


class MaxBandwidthTests(SynchronousTestCase):
    """The largest of two cycles."""

    def test_it_is_the_largest_of_this_cycle_and_the_last(self) -> None:
        """And forgotten with the next but one."""
        bandwidth = MaxBandwidth()
        for rate in (5.0, 9.0, 7.0):
            bandwidth.update(sample(rate))
        self.assertEqual(9.0, bandwidth.value)
        bandwidth.advance()
        bandwidth.update(sample(4.0))
        self.assertEqual(9.0, bandwidth.value)
        bandwidth.advance()
        self.assertEqual(4.0, bandwidth.value)

    def test_a_cycle_without_samples_forgets_nothing(self) -> None:
        """An idle connection still knows its path."""
        bandwidth = MaxBandwidth()
        bandwidth.update(sample(5.0))
        for _ in range(5):
            bandwidth.advance()
        self.assertEqual(5.0, bandwidth.value)

    def test_a_low_sample_for_lack_of_data_does_not_count(self) -> None:
        """A high one does: the path delivered it."""
        bandwidth = MaxBandwidth()
        bandwidth.update(sample(5.0))
        bandwidth.advance()
        bandwidth.update(sample(1.0, app_limited=True))
        bandwidth.advance()
        self.assertEqual(5.0, bandwidth.value)
        bandwidth.update(sample(6.0, app_limited=True))
        self.assertEqual(6.0, bandwidth.value)


class MinRttTests(SynchronousTestCase):
    """The smallest of ten seconds."""

    def test_a_smaller_one_counts_at_once_and_a_larger_one_when_that_is_old(self) -> None:
        """After ten seconds; and it is time to look after five."""
        rtt = MinRtt()
        rtt.update(0.0, 0.05)
        rtt.update(1.0, 0.04)
        rtt.update(2.0, 0.09)
        self.assertEqual((0.04, False), (rtt.value, rtt.is_due))
        rtt.update(6.5, 0.09)
        self.assertEqual((0.04, True), (rtt.value, rtt.is_due))
        rtt.update(11.5, 0.09)
        self.assertEqual(0.09, rtt.value)

    def test_one_that_is_known_from_before_expires_like_any_other(self) -> None:
        """By the time at which it was measured."""
        rtt = MinRtt()
        rtt.set(0.01, at=0.0, now=30.0)
        self.assertEqual(0.01, rtt.value)
        rtt.update(30.1, 0.08)
        self.assertEqual(0.08, rtt.value)

    @given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=50))
    def test_it_is_the_smallest_of_a_short_time(self, values: list[float]) -> None:
        """Whatever the order."""
        rtt = MinRtt()
        for number, value in enumerate(values):
            rtt.update(number * 0.1, value)
        self.assertEqual(min(values), rtt.value)


class ExtraAckedTests(SynchronousTestCase):
    """Acknowledgements that come in bunches."""

    def test_a_steady_stream_has_next_to_none(self) -> None:
        """As much as one acknowledgement."""
        extra = ExtraAcked()
        for number in range(100):
            extra.update(number * 0.001, 1000, 1e6, 1 << 30)
        self.assertLessEqual(extra.value, 1001)

    def test_bunches_are_excess(self) -> None:
        """Ten milliseconds of data at once."""
        extra = ExtraAcked()
        for bunch in range(5):
            for _ in range(10):
                extra.update(bunch * 0.01, 1000, 1e6, 1 << 30)
        self.assertAlmostEqual(10_000, extra.value)

    def test_it_is_forgotten(self) -> None:
        """After twice as many rounds as are kept; and never more than a window."""
        extra = ExtraAcked()
        extra.update(0.0, 50_000, 1e6, 20_000)
        self.assertEqual(20_000, extra.value)
        extra.count_round(1)
        self.assertEqual(20_000, extra.value)
        extra.count_round(1)
        self.assertEqual(0, extra.value)


class FullPipeTests(SynchronousTestCase):
    """Three rounds without growth."""

    def test_growth_starts_the_count_again(self) -> None:
        """By a quarter; less is none."""
        pipe = FullPipe()
        for rate in (1.0, 1.3, 1.5, 1.6, 1.7, 1.8, 1.9):
            pipe.update(rate)
            self.assertFalse(pipe.now)
        pipe.update(2.0)
        self.assertTrue(pipe.now and pipe.ever)

    def test_after_a_reset_it_has_still_been_full_once(self) -> None:
        """A probe asks again, and Startup is over for good."""
        pipe = FullPipe()
        pipe.found()
        pipe.reset(5.0)
        self.assertEqual((False, True), (pipe.now, pipe.ever))
        for _ in range(FULL_ROUNDS):
            pipe.update(5.0)
        self.assertTrue(pipe.now)


class LossTests(SynchronousTestCase):
    """Whose doing a loss is."""

    def setUp(self) -> None:
        self.meter = LossMeter(1000)
        self.delivered = 0

    def round(self, lost: int, of: int = 100, *, calm: bool = True) -> None:
        """A round of so many packets."""
        for _ in range(lost):
            self.meter.lost_one(self.delivered, 1000)
        self.delivered += 1000 * (of - lost)
        self.meter.end_round(self.delivered, calm=calm)

    def test_a_clean_path_has_the_drafts_threshold(self) -> None:
        """Two percent; and a single packet is none."""
        self.assertEqual(THRESHOLD, self.meter.threshold(1e6))
        for lost, of, high in ((0, 100, False), (2, 100, False), (3, 100, True), (1, 10, False)):
            self.round(lost, of, calm=False)
            self.assertIs(high, self.meter.is_high, lost)

    def test_a_path_that_always_loses_is_got_used_to(self) -> None:
        """Five percent, a few packets more or less: after some rounds it is not high any more."""
        chance = random.Random(1)
        for _ in range(200):
            self.round(sum(chance.random() < 0.05 for _ in range(100)))
        high = 0
        for _ in range(200):
            self.round(sum(chance.random() < 0.05 for _ in range(100)))
            high += self.meter.is_high
        self.assertLess(high, 10)
        self.round(20)
        self.assertTrue(self.meter.is_high)

    def test_what_was_sent_before_a_restart_does_not_count(self) -> None:
        """Neither what was lost already nor what is found out later; but what is sent then does."""
        self.round(20, calm=False)
        self.assertTrue(self.meter.is_high)
        self.meter.restart(self.delivered)
        self.assertFalse(self.meter.is_high)
        for _ in range(20):
            self.meter.lost_one(self.delivered - 1, 1000)
        self.meter.end_round(self.delivered + 80_000, calm=False)
        self.assertFalse(self.meter.is_high)
        self.round(20, calm=False)
        self.assertTrue(self.meter.is_high)

    def test_what_a_probe_loses_is_not_learnt(self) -> None:
        """Or the queue that it fills would be taken for the path's own loss."""
        for _ in range(50):
            self.round(10, calm=False)
        self.assertEqual(0.0, self.meter.baseline)

    def test_a_drop_of_bandwidth_is_not_got_used_to(self) -> None:
        """Not in the rounds that it takes to find the new rate."""
        for lost in (80, 70, 60, 50, 40, 30):
            self.round(lost)
            self.assertTrue(self.meter.is_high)
        self.assertLess(self.meter.baseline, 0.1)

    @given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=100))
    def test_the_threshold_has_a_bound(self, rounds: list[tuple[int, bool]]) -> None:
        """Whatever happened."""
        self.setUp()
        for lost, calm in rounds:
            self.round(lost, calm=calm)
            for size in (0, 1000, 1e6):
                self.assertTrue(THRESHOLD <= self.meter.threshold(size) <= THRESHOLD + MOST)
