"""Which packet numbers are skipped, and what an acknowledgement of a skipped number means."""

import random

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.packet_numbers import FIRST_PERIOD, MAX_PERIOD, REMEMBERED, PacketNumbers


class PacketNumbersTests(SynchronousTestCase):
    """The numbers of one connection."""

    def setUp(self) -> None:
        self.numbers = PacketNumbers(random.Random(7).randbytes)

    def test_the_period_doubles_up_to_its_maximum(self) -> None:
        """So a long connection skips few."""
        self.assertLessEqual(self.numbers.next_at, 2 * FIRST_PERIOD)
        gaps = []
        for _ in range(100):
            number = self.numbers.next_at
            self.assertEqual(number + 1, self.numbers.skip(number))
            gaps.append(self.numbers.next_at - number)
        self.assertLessEqual(max(gaps), 2 * MAX_PERIOD)
        self.assertGreater(sum(gaps), 50 * MAX_PERIOD)
        self.assertEqual(len(gaps), len({*gaps}))

    def test_what_was_sent_may_be_acknowledged(self) -> None:
        """Up to the newest packet, around the skipped number."""
        self.numbers.skip(5)
        for acked in ([range(6, 8)], [range(3, 5)], [range(6, 8), range(5)]):
            self.assertTrue(self.numbers.were_sent(acked, 8), acked)

    def test_what_was_not_sent_may_not(self) -> None:
        """A skipped number in any range, and the next packet's."""
        self.numbers.skip(5)
        for acked in ([range(8)], [range(5, 6)], [range(8, 9)], [range(7, 8), range(6)]):
            self.assertFalse(self.numbers.were_sent(acked, 8), acked)

    def test_the_last_few_are_remembered(self) -> None:
        """No table grows."""
        for number in range(0, 4 * REMEMBERED, 2):
            self.numbers.skip(number)
        forgotten = 2 * REMEMBERED - 2
        self.assertTrue(self.numbers.were_sent([range(forgotten, forgotten + 1)], 1000))
        self.assertFalse(self.numbers.were_sent([range(forgotten + 2, forgotten + 3)], 1000))
