"""Receive windows that grow with what is read."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.flow_control import (
    CONNECTION_WINDOW,
    IDLE,
    MAX_CONNECTION_WINDOW,
    MAX_GROWTH,
    MAX_STREAM_WINDOW,
    STREAM_WINDOW,
    ReceiveWindows,
)

MBIT = 1e6 / 8


class WindowTests(SynchronousTestCase):
    """The sizes."""

    def setUp(self) -> None:
        self.windows = ReceiveWindows()
        self.now = 0.0
        self.alive: set[int] = {0, 4, 8, 12, 16, 20}

    def read(self, rate: float, rtt: float, *streams: int, seconds: float = 2.0) -> None:
        """Read some streams at that rate each, ten milliseconds at a time."""
        for _ in range(round(seconds / 0.01)):
            for stream in streams:
                self.windows.read(stream, int(rate * 0.01))
            self.now += 0.01
            self.windows.measure(self.now, rtt, self.alive)

    def test_a_slow_reader_keeps_the_first_window(self) -> None:
        """As does one that is near, however fast: 200 Mbit/s at 2 ms."""
        self.read(10 * MBIT, 0.05, 0)
        self.read(200 * MBIT, 0.002, 4)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(0))
        self.assertEqual(STREAM_WINDOW, self.windows.stream(4))
        self.assertEqual(CONNECTION_WINDOW, self.windows.connection)

    def test_a_fast_and_far_one_gets_what_the_path_holds_three_times(self) -> None:
        """So that the window is no limit while something lost is sent again."""
        self.read(100 * MBIT, 0.2, 0)
        bdp = 100 * MBIT * 0.2
        self.assertGreater(self.windows.stream(0), 3 * bdp)
        self.assertGreater(self.windows.connection, 3 * bdp)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(4))

    def test_gulps_are_not_taken_for_speed(self) -> None:
        """A process that was busy reads a megabyte at once."""
        for _ in range(20):
            self.windows.read(0, 1 << 20)
            self.now += 1.0
            self.windows.measure(self.now, 0.01, self.alive)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(0))

    def test_a_stream_that_is_idle_gets_the_first_window_again(self) -> None:
        """And so does one that is over."""
        self.read(50 * MBIT, 0.2, 0, 4)
        self.assertGreater(self.windows.stream(0), STREAM_WINDOW)
        self.alive.remove(4)
        self.read(1 * MBIT, 0.2, 8, seconds=1.0)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(4))
        self.assertGreater(self.windows.stream(0), STREAM_WINDOW)
        self.read(1 * MBIT, 0.2, 8, seconds=IDLE)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(0))

    def test_without_a_round_trip_nothing_grows(self) -> None:
        """None was measured yet."""
        for _ in range(100):
            self.windows.read(0, 1 << 20)
            self.now += 0.1
            self.windows.measure(self.now, None, self.alive)
        self.assertEqual(STREAM_WINDOW, self.windows.stream(0))

    reads = st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 1 << 24), st.floats(0.0, 1.0)), max_size=60
    )

    @given(reads, st.floats(0.001, 1.0))
    def test_all_sizes_have_bounds(self, reads: list[tuple[int, int, float]], rtt: float) -> None:
        """Whatever is read when."""
        self.setUp()
        for number, size, pause in reads:
            self.windows.read(4 * number, size)
            self.now += pause
            self.windows.measure(self.now, rtt, self.alive)
            sizes = [self.windows.stream(stream) for stream in sorted(self.alive)]
            self.assertTrue(all(STREAM_WINDOW <= s <= MAX_STREAM_WINDOW for s in sizes), sizes)
            self.assertLessEqual(sum(sizes) - len(sizes) * STREAM_WINDOW, MAX_GROWTH)
            self.assertLessEqual(self.windows.connection, MAX_CONNECTION_WINDOW)
