"""Tests of p2pnet.net.clock: timers and the calendar."""

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.net.clock import elapsed, use_elapsed_time


class IdleReactor(ReactorBase):
    """One that does not run, and needs no descriptors."""

    def installWaker(self) -> None:
        """Nobody will wake it."""


class ElapsedTimeTests(SynchronousTestCase):
    """A reactor, and a calendar that is set."""

    def setUp(self) -> None:
        """A reactor with a call that is due in a minute."""
        self.offset = 0.0
        self.patch(ReactorBase, "seconds", staticmethod(lambda: 1e9 + elapsed() + self.offset))
        self.reactor = IdleReactor()
        self.call = self.reactor.callLater(60.0, lambda: None)

    def left(self, call: IDelayedCall) -> float:
        """Seconds until it is due."""
        return call.getTime() - self.reactor.seconds()

    def test_the_calendar_would_move_timers(self) -> None:
        """Or what follows would mean nothing."""
        self.offset = -3600.0
        self.assertApproximates(3660.0, self.left(self.call), 10.0)

    def test_a_calendar_that_is_set_does_not_move_timers(self) -> None:
        """Neither what was to be called before, nor what is to be called later."""
        use_elapsed_time(self.reactor)
        for self.offset in (-3600.0, 3600.0):
            self.assertApproximates(60.0, self.left(self.call), 10.0)
            later = self.reactor.callLater(30.0, lambda: None)
            self.assertApproximates(30.0, self.left(later), 10.0)

    def test_other_clocks_are_left_alone(self) -> None:
        """A virtual one, and one that was changed already."""
        clock = Clock()
        use_elapsed_time(clock)
        self.assertEqual(0.0, clock.seconds())
        use_elapsed_time(self.reactor)
        seconds = self.reactor.seconds
        use_elapsed_time(self.reactor)
        self.assertIs(seconds, self.reactor.seconds)
