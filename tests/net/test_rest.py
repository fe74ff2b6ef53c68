"""Letting datagrams gather before they are read."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.net.rest import BUSY, LITTLE, REST, SPAN, Gauge
from tests.net.test_batched import BatchedCase

FULL = 1200  # bytes


def flow(gauge: Gauge, rate: float, size: int = FULL) -> list[bool]:
    """What the gauge says of each read of a flow of so many bytes/s, over ten of its spans."""
    interval = size / rate
    return [
        gauge.calls_for_rest(size, number * interval)
        for number in range(1, 2 + round(10 * SPAN / interval))
    ]


class GaugeTests(SynchronousTestCase):
    """When it calls for a rest."""

    def test_a_busy_flow_that_comes_singly(self) -> None:
        """From the second span on, and always."""
        said = flow(Gauge(), 2 * BUSY)
        self.assertFalse(said[0])
        self.assertTrue(all(said[len(said) // 5 :]))

    def test_not_when_much_comes_at_once_anyway(self) -> None:
        """There is nothing to gain."""
        self.assertFalse(any(flow(Gauge(), 50 * BUSY, size=LITTLE)))

    def test_not_for_questions_and_answers(self) -> None:
        """However fast they follow each other: a rest would make each slower."""
        self.assertFalse(any(flow(Gauge(), 5000 * 150, size=150)))

    def test_no_longer_than_it_is_busy(self) -> None:
        """The first read after a silence finds the rate low again."""
        gauge = Gauge()
        self.assertTrue(flow(gauge, 2 * BUSY)[-1])
        self.assertFalse(gauge.calls_for_rest(FULL, 10.0))


class RestingTests(BatchedCase):
    """A transport whose flow is busy."""

    rests = True

    def read(self) -> None:
        """A datagram comes, and the reactor sees it if it looks."""
        self.socket.waiting.append((bytes(FULL), []))
        if self.transport in self.reactor.readers:
            self.transport.doRead()

    def make_busy(self) -> None:
        """Read until it rests."""
        for _ in range(100):
            self.read()
            if self.transport not in self.reactor.readers:
                return
            self.reactor.advance(FULL / BUSY / 2)
        self.fail("it does not rest")

    def test_what_comes_meanwhile_is_one_batch(self) -> None:
        """Read at the end of the rest, whether the reactor would have looked or not."""
        self.make_busy()
        self.batches.clear()
        for _ in range(3):
            self.read()
        self.assertEqual([], self.batches)
        self.reactor.advance(REST)
        self.assertEqual([3], [len(batch) for batch in self.batches])

    def test_it_reads_at_once_when_the_flow_ends(self) -> None:
        """And goes on doing so."""
        self.make_busy()
        self.reactor.advance(1.0)
        self.read()
        self.assertIn(self.transport, self.reactor.readers)

    def test_a_stop_ends_the_rest(self) -> None:
        """The reader does not come back."""
        self.make_busy()
        self.transport.stop()
        self.reactor.advance(REST)
        self.assertEqual([], self.reactor.readers)
