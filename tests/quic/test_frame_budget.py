"""Frames that change nothing, counted."""

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.recovery import MAX_ACK_RANGES
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.frame_budget import CREDIT, FREE_FRAMES, MAX_IDLE_FRAMES, FrameBudget

ACK, PING, STREAM = 0x02, 0x01, 0x0A


class FrameBudgetTests(SynchronousTestCase):
    """The budget of one connection."""

    def setUp(self) -> None:
        self.budget = FrameBudget()

    def packet(self, *kinds: int) -> None:
        """A packet with these frames."""
        self.budget.begin_packet()
        for kind in kinds:
            self.budget.count(kind)

    def test_a_few_frames_of_each_packet_are_free(self) -> None:
        """For ever."""
        for _ in range(1000):
            self.packet(*[PING] * FREE_FRAMES)
        self.assertEqual(FREE_FRAMES, self.budget.idle)

    def test_one_too_many_is_an_error(self) -> None:
        """Whatever its kind."""
        self.packet(*[PING] * MAX_IDLE_FRAMES)
        error = self.assertRaises(QuicConnectionError, self.budget.count, STREAM)
        self.assertEqual("too many frames that change nothing", error.reason_phrase)

    def test_a_frame_that_brings_something_pays_for_others(self) -> None:
        """Not for those to come."""
        self.budget.pay()
        self.packet(*[PING] * 100)
        for _ in range(100 // CREDIT - 1):
            self.budget.pay()
        self.assertEqual(CREDIT, self.budget.idle)
        for _ in range(2):
            self.budget.pay()
        self.assertEqual(0, self.budget.idle)

    def test_a_second_acknowledgement_counts_for_all_its_ranges(self) -> None:
        """The first one of a packet is as good as any frame."""
        self.packet(ACK)
        self.assertEqual(1, self.budget.idle)
        self.packet(ACK, ACK)
        self.assertEqual(2 + MAX_ACK_RANGES, self.budget.idle)
