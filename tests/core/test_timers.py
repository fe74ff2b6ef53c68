"""Tests of p2pnet.core.timers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.timers import Alarm, Deadlines, Timer, Timers

TIMES = st.floats(min_value=0, max_value=100)


class TimersTests(SynchronousTestCase):
    """Callbacks at given times, by somebody else's clock."""

    def setUp(self) -> None:
        """No timers."""
        self.timers = Timers()
        self.ran: list[tuple[str, float]] = []

    def call(self, when: float, name: str) -> Timer:
        """A timer that notes when it ran."""
        return self.timers.call_at(when, lambda now: self.ran.append((name, now)))

    def test_nothing_is_due_when_there_is_nothing(self) -> None:
        """No time to be called at, and no harm in being called."""
        self.assertIsNone(self.timers.get_timer())
        self.timers.handle_timer(1e9)
        self.assertEqual(0, len(self.timers))

    def test_callbacks_get_the_time_at_which_they_run(self) -> None:
        """Which may be later than what they asked for, and is never earlier."""
        self.call(2.0, "two")
        self.timers.handle_timer(1.9)
        self.assertEqual([], self.ran)
        self.timers.handle_timer(5.0)
        self.assertEqual([("two", 5.0)], self.ran)

    def test_callbacks_for_one_time_run_in_the_order_of_asking(self) -> None:
        """So that a simulation is the same each time."""
        for name in "abc":
            self.call(1.0, name)
        self.timers.handle_timer(1.0)
        self.assertEqual(["a", "b", "c"], [name for name, _ in self.ran])

    def test_a_cancelled_timer_does_not_run_and_is_not_waited_for(self) -> None:
        """Cancelling it again, or after it ran, is harmless."""
        first, second = self.call(1.0, "first"), self.call(2.0, "second")
        first.cancel()
        self.assertEqual((2.0, 1), (self.timers.get_timer(), len(self.timers)))
        self.timers.handle_timer(3.0)
        for timer in (first, second):
            timer.cancel()
            self.assertFalse(timer.active)
        self.assertEqual([("second", 3.0)], self.ran)

    def test_a_callback_may_ask_for_another(self) -> None:
        """One that is already due runs in the same call."""
        self.timers.call_at(1.0, lambda now: self.call(now + 1.0, "late"))
        self.timers.handle_timer(1.5)
        self.assertEqual(([], 2.5), (self.ran, self.timers.get_timer()))
        self.timers.call_at(1.0, lambda now: self.call(now, "at once"))
        self.timers.handle_timer(2.0)
        self.assertEqual([("at once", 2.0)], self.ran)

    def test_one_that_raises_does_not_come_back(self) -> None:
        """The others do."""

        def fail(now: float) -> None:
            raise RuntimeError("a bug")

        self.timers.call_at(1.0, fail)
        self.call(1.0, "other")
        self.assertRaises(RuntimeError, self.timers.handle_timer, 1.0)
        self.timers.handle_timer(1.0)
        self.assertEqual(["other"], [name for name, _ in self.ran])

    @given(st.lists(st.tuples(TIMES, st.booleans())), st.lists(TIMES))
    def test_each_timer_runs_once_at_the_first_call_after_its_time_or_never(
        self, asked: list[tuple[float, bool]], calls: list[float]
    ) -> None:
        """Whatever the times; never, if it was cancelled."""
        self.setUp()
        for number, (when, cancelled) in enumerate(asked):
            timer = self.call(when, str(number))
            if cancelled:
                timer.cancel()
        calls = [*sorted(calls), 100.0]
        for now in calls:
            self.timers.handle_timer(now)
            due = self.timers.get_timer()
            self.assertTrue(due is None or due > now)
        expected = {
            str(number): next(now for now in calls if now >= when)
            for number, (when, cancelled) in enumerate(asked)
            if not cancelled
        }
        self.assertEqual(len(expected), len(self.ran))
        self.assertEqual(expected, dict(self.ran))
        self.assertEqual(0, len(self.timers))


class DeadlinesTests(SynchronousTestCase):
    """The next time for each of many things."""

    def setUp(self) -> None:
        """Deadlines that record which things they handle."""
        self.timers = Timers()
        self.handled: list[tuple[str, float]] = []
        self.deadlines: Deadlines[str] = Deadlines(
            self.timers, lambda *what: self.handled.append(what)
        )

    def test_a_deadline_moves_forward_only(self) -> None:
        """A later time is none of its business before the earlier has come."""
        for when, expected in ((5.0, 5.0), (3.0, 3.0), (9.0, 3.0), (math.inf, 3.0)):
            self.deadlines.bring_forward("a", when)
            self.assertEqual(expected, self.timers.get_timer())
        self.assertEqual(1, len(self.timers))

    def test_each_thing_is_handled_once_at_its_time(self) -> None:
        """And can have another deadline from then on."""
        self.deadlines.bring_forward("a", 5.0)
        self.deadlines.bring_forward("b", 4.0)
        self.timers.handle_timer(4.5)
        self.assertEqual([("b", 4.5)], self.handled)
        self.deadlines.bring_forward("b", 6.0)
        self.timers.handle_timer(7.0)
        self.assertEqual([("b", 4.5), ("a", 7.0), ("b", 7.0)], self.handled)
        self.assertIsNone(self.timers.get_timer())

    def test_never_sets_no_timer(self) -> None:
        """math.inf is never."""
        self.deadlines.bring_forward("a", math.inf)
        self.assertIsNone(self.timers.get_timer())

    def test_a_forgotten_thing_is_handled_no_more(self) -> None:
        """Whether it had a deadline or not."""
        self.deadlines.bring_forward("a", 5.0)
        self.deadlines.forget("a")
        self.deadlines.forget("b")
        self.timers.handle_timer(9.0)
        self.assertEqual([], self.handled)


class AlarmTests(SynchronousTestCase):
    """A timer that is set again and again."""

    def setUp(self) -> None:
        """It is not set."""
        self.timers = Timers()
        self.alarm = Alarm(self.timers)
        self.ran: list[float] = []

    def test_only_the_last_time_counts(self) -> None:
        """Earlier or later than the one before."""
        for when in (2.0, 1.0, 3.0):
            self.alarm.set(when, self.ran.append)
        self.assertEqual((3.0, 1), (self.timers.get_timer(), len(self.timers)))
        self.timers.handle_timer(3.5)
        self.assertEqual([3.5], self.ran)

    def test_its_callback_may_set_it_again(self) -> None:
        """For a later time."""
        self.alarm.set(1.0, lambda now: self.alarm.set(now + 1, self.ran.append))
        self.timers.handle_timer(1.0)
        self.assertEqual(2.0, self.timers.get_timer())

    def test_a_cancelled_one_does_not_run(self) -> None:
        """Cancelling twice is harmless."""
        self.alarm.set(1.0, self.ran.append)
        for _ in range(2):
            self.alarm.cancel()
        self.assertIsNone(self.timers.get_timer())
