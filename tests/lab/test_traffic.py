"""Checked traffic between two sockets of this process."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from lab.traffic import BLOCK, PATTERN, Direction

TAIL = 3 * len(PATTERN) + 5  # bytes: more than one period, and no whole number of blocks


class DirectionTests(SynchronousTestCase):
    """What a direction tells of its bytes."""

    def ends(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets."""
        ends = socket.socketpair()
        for end in ends:
            self.addCleanup(end.close)
        return ends

    def test_all_that_was_sent_came(self) -> None:
        """Blocks with pauses between them, and a tail as fast as it goes."""
        direction = Direction(*self.ends(), 1000, 0.001)
        direction.wait_for(5000)
        direction.end(TAIL)
        direction.join()
        self.assertEqual((0, True, ""), (direction.lost, direction.is_intact, direction.problem))
        self.assertGreaterEqual(direction.received, 5000 + TAIL)
        self.assertEqual(0, (direction.received - TAIL) % 1000)

    def test_each_byte_has_a_time(self) -> None:
        """The first one and the last one; none is later."""
        direction = Direction(*self.ends())
        direction.wait_for(8 * BLOCK)
        direction.end()
        direction.join()
        first, last = direction.arrival(0), direction.arrival(direction.received - 1)
        assert first is not None and last is not None and direction.ended_at is not None
        self.assertLessEqual(first, last)
        self.assertIsNone(direction.arrival(direction.received))
        self.assertLessEqual(direction.longest_silence()[1], direction.ended_at)
        self.assertGreater(direction.rate(0.0, direction.ended_at), 0.0)

    def test_a_byte_too_many_is_noticed(self) -> None:
        """It counts, and the hash is another."""
        source, sink = self.ends()
        source.sendall(b"?")
        direction = Direction(source, sink, 1000, 0.001)
        direction.wait_for(1)
        direction.end()
        direction.join()
        self.assertEqual(-1, direction.lost)
        self.assertFalse(direction.is_intact)

    def test_a_broken_connection_is_a_problem(self) -> None:
        """Not a hang."""
        source, sink = self.ends()
        direction = Direction(source, sink, 1000, 0.001)
        direction.wait_for(1)
        sink.shutdown(socket.SHUT_RDWR)
        direction.join()
        self.assertIn("sending: ", direction.problem)
