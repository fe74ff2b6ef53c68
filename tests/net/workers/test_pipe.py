"""Tests of p2pnet.net.workers.pipe: messages between two ends in one process."""

from __future__ import annotations

import socket

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.net.workers.pipe import MAX_CHUNKS, PATIENCE, Pipe
from p2pnet.wire.worker_messages import Begun, Forget, Stray, WorkerMessage
from tests.net.support import FakeReactor

LARGE = Stray(bytes(60_000), ("192.0.2.1", 1))


class PipeTests(SynchronousTestCase):
    """Both ends on a fake reactor, which reads and writes when told."""

    def setUp(self) -> None:
        """A pipe."""
        self.reactor = FakeReactor()
        self.received: list[WorkerMessage] = []
        self.lost: list[str] = []
        self.left, self.right = socket.socketpair()
        self.addCleanup(self.right.close)
        self.pipe = Pipe(self.reactor, self.left, self.received.append, self.lost.append)
        self.addCleanup(self.pipe.close)

    def other(self) -> Pipe:
        """The other end."""
        other = Pipe(self.reactor, self.right, self.received.append, self.lost.append)
        self.addCleanup(other.close)
        return other

    def fill(self) -> int:
        """Send until the system takes no more. Returns how many messages that were."""
        sent = 0
        while not self.pipe.backlog:
            self.pipe.send(LARGE)
            sent += 1
        return sent

    def test_it_is_what_the_reactor_wants(self) -> None:
        """A reader and a writer."""
        verifyObject(IReadDescriptor, self.pipe)
        verifyObject(IWriteDescriptor, self.pipe)

    def test_a_message_goes_at_once(self) -> None:
        """Before the reactor has its turn."""
        other = self.other()
        self.pipe.send(Forget(bytes(8)))
        self.pipe.send(Begun())
        other.doRead()
        self.assertEqual([Forget(bytes(8)), Begun()], self.received)
        self.assertEqual([], self.reactor.getWriters())

    def test_one_turn_reads_all_that_waited(self) -> None:
        """However much the system held."""
        sent, other = self.fill(), self.other()
        other.doRead()
        self.assertEqual([LARGE] * (sent - 1), self.received)
        self.assertLess(sent, MAX_CHUNKS)

    def test_what_the_system_does_not_take_goes_later(self) -> None:
        """In order, and then the reactor need not ask any more."""
        sent, other = self.fill(), self.other()
        self.pipe.send(Begun())
        self.assertEqual([self.pipe], self.reactor.getWriters())
        for _ in range(3):
            other.doRead()
            self.pipe.doWrite()
        self.assertEqual([*[LARGE] * sent, Begun()], self.received)
        self.assertEqual((0, []), (self.pipe.backlog, self.reactor.getWriters()))
        self.reactor.advance(2 * PATIENCE)
        self.assertEqual([], self.lost)

    def test_who_reads_slowly_is_waited_for(self) -> None:
        """The patience begins anew with everything that is read."""
        self.fill()
        other = self.other()
        for _ in range(5):
            self.reactor.advance(0.9 * PATIENCE)
            other.doRead()
            self.pipe.doWrite()
            self.fill()
        self.assertEqual([], self.lost)

    def test_who_reads_nothing_is_given_up(self) -> None:
        """What waits for it would grow for ever."""
        self.fill()
        self.reactor.advance(PATIENCE)
        self.assertEqual(["it read nothing for 5 s"], self.lost)
        self.assertEqual(([], []), (self.reactor.getReaders(), self.reactor.getWriters()))
        self.assertEqual(-1, self.pipe.fileno())

    def test_the_end_of_the_other_process_is_told_once(self) -> None:
        """After what it said last."""
        other = self.other()
        other.send(Begun())
        other.close()
        self.pipe.doRead()
        self.pipe.doRead()
        self.assertEqual(([Begun()], ["the process ended"]), (self.received, self.lost))

    def test_sending_to_a_process_that_ended_is_no_error(self) -> None:
        """It is told as its end is."""
        self.right.close()
        self.pipe.send(Begun())
        self.pipe.send(Begun())
        self.assertEqual(1, len(self.lost))
        self.assertEqual(0, self.pipe.backlog)

    def test_nonsense_ends_the_pipe(self) -> None:
        """Whoever sends that is not our process."""
        self.right.sendall(b"\x00\x00\x00\x01\xc0")
        self.pipe.doRead()
        self.assertIn("worker message", self.lost[0])

    def test_a_socket_that_the_reactor_gave_up_is_lost(self) -> None:
        """With its reason."""
        self.pipe.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(1, len(self.lost))

    def test_closing_is_not_losing(self) -> None:
        """Nothing is said, nothing is read, and nothing waits."""
        self.fill()
        self.pipe.close()
        self.pipe.close()
        self.pipe.doRead()
        self.pipe.doWrite()
        self.pipe.send(Begun())
        self.reactor.advance(PATIENCE)
        self.assertEqual([], self.lost)

    def test_a_receiver_that_fails_gets_the_next_message(self) -> None:
        """The failure is logged."""
        taken: list[WorkerMessage] = []

        def receive(message: WorkerMessage) -> None:
            taken.append(message)
            raise ZeroDivisionError

        other = Pipe(self.reactor, self.right, receive, self.lost.append)
        self.addCleanup(other.close)
        self.pipe.send(Begun())
        self.pipe.send(Begun())
        other.doRead()
        self.assertEqual(2, len(taken))
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))
