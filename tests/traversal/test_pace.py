"""When one session may send a check."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.budget import PACING, Cause, SendBudget
from p2pnet.traversal.pace import Pace
from p2pnet.wire.address import Address

VICTIM: Address = ("198.18.0.99", 5000)


class PaceTests(SynchronousTestCase):
    """Two sessions of one node."""

    def setUp(self) -> None:
        """Their budget was never used."""
        self.budget = SendBudget()
        self.one, self.other = Pace(self.budget, b"one"), Pace(self.budget, b"other")

    def use_up(self) -> None:
        """Leave no packet for the moment."""
        while self.budget.take_spare(0.0):
            pass

    def test_alone_it_is_always_the_sessions_turn(self) -> None:
        """After its own pace."""
        self.assertTrue(self.one.take_turn(0.0))
        self.one.sent(0.0)
        self.assertEqual(PACING, self.one.free_at)
        self.assertFalse(self.one.has_waited)

    def test_a_session_that_must_wait_learns_until_when(self) -> None:
        """It asks no earlier, and knows that there are others."""
        self.use_up()
        for pace in (self.one, self.other):
            self.assertFalse(pace.take_turn(0.0))
            self.assertTrue(pace.has_waited)
        self.assertAlmostEqual(2 * PACING, self.other.turn_at)
        self.assertFalse(self.other.take_turn(PACING))
        self.assertTrue(self.one.take_turn(PACING))
        self.assertTrue(self.other.take_turn(2 * PACING))

    def test_a_host_has_one_count_for_all_sessions(self) -> None:
        """Until it answered one of them."""
        while self.one.allows(VICTIM, Cause.NAMED, 0.0):
            pass
        self.assertFalse(self.other.allows(VICTIM, Cause.NAMED, 0.0))
        self.one.answered(VICTIM, 0.0)
        self.assertTrue(self.other.allows(VICTIM, Cause.NAMED, 0.0))
