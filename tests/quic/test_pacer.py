"""Bursts: how long they are, and that they do not change the rate."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.pacer import BURST, MAX_BURST, PAUSE, BurstPacer

SIZE = 1200


def bursts(pacer: BurstPacer, seconds: float) -> list[tuple[float, int]]:
    """When a sender that always has something sends, and how many packets it may send then."""
    now, found = 1.0, list[tuple[float, int]]()
    while now < 1.0 + seconds:
        count = 0
        while (later := pacer.next_send_time(now)) is None:
            pacer.update_after_send(now)
            count += 1
        found.append((now, count))
        assert later > now, "the clock would stand still"
        now = later
    return found


class BurstTests(SynchronousTestCase):
    """A sender that always has something to send."""

    def pacer(self, rate: float, rtt: float) -> BurstPacer:
        """A pacer for `rate` packets a second."""
        pacer = BurstPacer(max_datagram_size=SIZE)
        pacer.update_rate(congestion_window=int(rate * rtt * SIZE), smoothed_rtt=rtt)
        return pacer

    @given(st.floats(1.0, 1e5), st.floats(0.001, 0.5), st.lists(st.floats(0, 0.02), max_size=20))
    def test_a_row_is_as_long_as_what_passes_one_by_one(
        self, rate: float, rtt: float, pauses: list[float]
    ) -> None:
        """At any times; it is the same rate then."""
        rows, singles = self.pacer(rate, rtt), self.pacer(rate, rtt)
        now = 1.0
        for pause in pauses:
            now += pause
            in_rows = one_by_one = 0
            while rows.next_send_time(now) is None:
                in_rows += (count := rows.room())
                rows.update_after_row(count)
            while singles.next_send_time(now) is None:
                singles.update_after_send(now)
                one_by_one += 1
            self.assertLessEqual(abs(in_rows - one_by_one), 1)  # rounding errors of a fraction
            singles.bucket_time = rows.bucket_time

    def test_nothing_is_paced_before_there_is_a_rate(self) -> None:
        """The first window goes out at once."""
        self.assertIsNone(BurstPacer(max_datagram_size=SIZE).next_send_time(1.0))

    def test_a_fast_path_gets_bursts_that_one_call_can_send(self) -> None:
        """100 and 500 Mbit/s: two milliseconds' worth or 64 packets, then half of it."""
        for rate, burst in ((10_000, 20), (50_000, MAX_BURST)):
            (_, first), *others = bursts(self.pacer(rate, 0.005), 0.1)
            self.assertAlmostEqual(burst, first, delta=1)
            for _, count in others:
                self.assertAlmostEqual(burst / 2, count, delta=1)

    def test_a_slow_path_is_not_flooded(self) -> None:
        """1 Mbit/s: a quarter of the window at first, then one packet at a time."""
        (_, first), *others = bursts(self.pacer(100, 0.1), 2.0)
        self.assertLessEqual(first, 4)
        self.assertLessEqual(max(count for _, count in others), 2)

    @given(st.floats(20, 200_000), st.floats(0.001, 0.3))
    def test_the_rate_is_kept(self, rate: float, rtt: float) -> None:
        """Whatever it is: no more than that and a burst, and nearly as much."""
        pacer = self.pacer(max(rate, 2 / rtt), rtt)
        assert pacer.packet_time is not None
        rate = 1 / pacer.packet_time
        seconds = max(0.2, 50 / rate)
        found = bursts(pacer, seconds)
        total = sum(count for _, count in found[:-1])
        most = max(pacer.bucket_max, BURST) / pacer.packet_time
        self.assertLessEqual(total, rate * (found[-1][0] - 1.0) + most + len(found))
        self.assertGreaterEqual(total, 0.9 * rate * (seconds - PAUSE) - 2)
        self.assertLessEqual(max(count for _, count in found), MAX_BURST + 2)
