"""Virtual time: calls in order, and processes that are killed."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.testing.clock import ProcessClock, VirtualClock


class ClockTests(SynchronousTestCase):
    """Virtual time."""

    def setUp(self) -> None:
        """A clock, and what it called."""
        self.clock = VirtualClock()
        self.calls: list[str] = []

    def test_calls_run_in_the_order_of_their_times_and_then_of_their_making(self) -> None:
        """Also one that is made while another runs."""
        self.clock.callLater(2, self.calls.append, "c")
        self.clock.callLater(1, lambda: self.clock.callLater(0, self.calls.append, "b"))
        self.clock.callLater(1, self.calls.append, "a")
        self.assertEqual(1, self.clock.next_time())
        self.clock.advance(1)
        self.assertEqual((["a", "b"], 1), (self.calls, self.clock.seconds()))
        self.clock.advance(1)
        self.assertEqual(["a", "b", "c"], self.calls)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_calls_can_be_moved_and_cancelled(self) -> None:
        """As a reactor's can."""
        later, sooner, never = (self.clock.callLater(5, self.calls.append, c) for c in "lsn")
        later.delay(5)
        sooner.reset(1)
        never.cancel()
        self.assertEqual({later, sooner}, set(self.clock.getDelayedCalls()))
        self.clock.advance(1)
        self.assertEqual(["s"], self.calls)
        self.clock.advance(8)
        self.assertEqual(["s"], self.calls)
        self.clock.advance(1)
        self.assertEqual(["s", "l"], self.calls)

    def test_calls_that_make_each_other_without_end_are_an_error(self) -> None:
        """Else a run would never end."""

        def again() -> None:
            self.clock.callLater(0, again)

        again()
        self.assertIn("again", str(self.assertRaises(RuntimeError, self.clock.advance, 1)))

    def test_a_killed_process_is_not_called_any_more(self) -> None:
        """Nor leaves anything behind."""
        one, other = ProcessClock(self.clock), ProcessClock(self.clock)
        for process in (one, other):
            process.callLater(1, self.calls.append, "x")
        one.kill()
        one.callLater(1, self.calls.append, "y")
        self.assertEqual([], one.getDelayedCalls())
        self.clock.advance(1)
        self.assertEqual(["x"], self.calls)
