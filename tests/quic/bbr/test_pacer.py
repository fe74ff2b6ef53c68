"""The pacer keeps the rate, however it is called."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.pacer import (
    IDLE_BURST,
    MAX_BURST,
    MAX_LATENESS,
    PATIENCE,
    Pacer,
    send_quantum,
)

SIZE = 1200


class PacerCase(SynchronousTestCase):
    """A pacer of a rate that may be changed."""

    def setUp(self) -> None:
        self.rate: float | None = 1e6
        self.pacer = Pacer(lambda: self.rate, max_datagram_size=SIZE)

    def send_all(self, now: float, size: int = SIZE, most: int = 1000) -> int:
        """Send what may be sent now. Returns the bytes."""
        sent = 0
        while sent < most * size and self.pacer.next_send_time(now) is None:
            self.pacer.update_after_send(now)
            self.pacer.refund(size)
            sent += size
        return sent

    def polled(self, step: float, seconds: float = 2.0) -> float:
        """Bytes/s if the sender comes by every `step` seconds, wanted or not."""
        self.send_all(0.0)
        steps = round(seconds / step)
        return sum(self.send_all(step * i) for i in range(1, steps + 1)) / seconds


class RateTests(PacerCase):
    """The rate over a while."""

    def test_it_is_kept_whenever_it_is_asked(self) -> None:
        """aioquic's own sends 4.8 times the rate when it is polled every half a millisecond."""
        for step in (0.0001, 0.0005, 0.001, 0.0024, 0.005):
            self.setUp()
            self.assertTrue(0.98 < self.polled(step) / 1e6 < 1.02, step)

    @given(
        st.none() | st.floats(1e4, 1e9),
        st.lists(st.floats(0, 0.02) | st.just(0.0), min_size=1, max_size=20),
    )
    def test_a_row_is_as_long_as_what_passes_one_by_one(
        self, rate: float | None, pauses: list[float]
    ) -> None:
        """Packets of the full size, at any times."""
        self.setUp()
        self.rate = rate
        singles = Pacer(lambda: rate, max_datagram_size=SIZE)
        now = 1.0
        for pause in pauses:
            now += pause
            in_rows = one_by_one = 0
            while in_rows < 100 and self.pacer.next_send_time(now) is None:
                in_rows += (count := self.pacer.room())
                self.pacer.update_after_row(count)
            while one_by_one < in_rows and singles.next_send_time(now) is None:
                singles.update_after_send(now)
                singles.refund(SIZE)
                one_by_one += 1
            self.assertEqual(in_rows, one_by_one)
            if in_rows < 100:
                self.assertEqual(self.pacer.next_send_time(now), singles.next_send_time(now))

    @given(st.floats(1e4, 1e8), st.integers(100, SIZE))
    def test_it_is_kept_by_a_sender_that_comes_when_told(self, rate: float, size: int) -> None:
        """Whatever the size of packets: what one was smaller is given back."""
        self.setUp()
        self.rate = rate
        now, sent = 1.0, 0
        self.send_all(now)
        for _ in range(200):
            due = self.pacer.next_send_time(now)
            assert due is not None
            self.assertGreater(due, now)
            now = due
            sent += self.send_all(now, size)
        burst = send_quantum(rate, SIZE, PATIENCE)
        self.assertTrue(abs(sent - rate * (now - 1.0)) <= burst + SIZE)

    def test_a_sender_that_comes_late_loses_nothing(self) -> None:
        """Four milliseconds after the time, each time."""
        self.send_all(0.0)
        now, sent = 0.0, 0
        while now < 2.0:
            due = self.pacer.next_send_time(now)
            assert due is not None
            now = due + 0.004
            sent += self.send_all(now)
        self.assertTrue(0.98 < sent / now / 1e6 < 1.02, sent / now)

    def test_without_a_rate_everything_passes(self) -> None:
        """Before the first round trip; and no debt is left from it."""
        self.rate = None
        self.assertEqual(50 * SIZE, self.send_all(0.0, most=50))
        self.rate = 1e6
        self.assertIsNone(self.pacer.next_send_time(1.0))


class BurstTests(PacerCase):
    """How much leaves at once."""

    def test_a_pause_earns_a_few_packets(self) -> None:
        """Not what could have been sent in all that time."""
        self.send_all(0.0)
        due = self.pacer.next_send_time(0.0)
        assert due is not None
        self.assertIsNone(self.pacer.next_send_time(due))  # and there is nothing to send
        self.assertTrue(self.send_all(1000.0) <= (IDLE_BURST + 1) * SIZE)

    def test_a_late_call_earns_a_bounded_burst(self) -> None:
        """A process that was stopped does not flood the path."""
        self.send_all(0.0)
        self.assertIsNotNone(self.pacer.next_send_time(0.0))
        most = IDLE_BURST * SIZE + MAX_LATENESS * 1e6
        self.assertTrue(self.send_all(1000.0) <= most + SIZE)

    @given(st.floats(1.0, 1e12))
    def test_a_burst_has_bounds(self, rate: float) -> None:
        """Two packets or a millisecond."""
        self.assertTrue(2 * SIZE <= send_quantum(rate, SIZE) <= MAX_BURST)
