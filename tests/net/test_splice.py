"""Joining two connections; their life together is tested with real ones in tests/integration."""

import socket

from twisted.internet import main, tcp
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.net.splice import Splice
from tests.net.support import FakeReactor


class ConnectionCase(SynchronousTestCase):
    """One end is a TCP connection, the other is not."""

    def setUp(self) -> None:
        """A TCP connection, and one that feeds it."""
        self.reactor = FakeReactor()
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.theirs.setblocking(False)
        self.near, self.far = Splice.pair()
        self.connection = tcp.Connection(ours, Protocol(), self.reactor)
        self.connection.connected = 1
        self.addCleanup(ours.close)


class ReadNowTests(ConnectionCase):
    """What a client asked before it was accepted."""

    def setUp(self) -> None:
        """The other end is there first."""
        super().setUp()
        self.connection.protocol = self.near
        self.far.makeConnection(StringTransport())

    def test_it_is_passed_on_at_once(self) -> None:
        """Before the reactor looks at the connection."""
        self.theirs.send(b"question")
        self.near.makeConnection(self.connection)
        self.assertEqual(b"question", self.far.transport.value())

    def test_nothing_and_an_end_are_left_to_the_reactor(self) -> None:
        """It finds the same when it looks."""
        self.near.makeConnection(self.connection)
        self.assertEqual(b"", self.far.transport.value())
        self.theirs.close()
        self.assertIs(main.CONNECTION_DONE, self.connection.doRead())


class WriteNowTests(ConnectionCase):
    """What comes for a TCP connection goes out in the same turn of the reactor."""

    def setUp(self) -> None:
        """The other end is there, too."""
        super().setUp()
        self.near.makeConnection(self.connection)
        self.far.makeConnection(StringTransport())

    def test_it_is_there_at_once(self) -> None:
        """And there is nothing left for the reactor to do."""
        self.far.dataReceived(b"answer")
        self.assertEqual(b"answer", self.theirs.recv(100))
        self.assertEqual([], self.reactor.writers)

    def test_what_does_not_fit_is_left_to_the_reactor(self) -> None:
        """In order."""
        data = bytes(range(256)) * 40_000
        self.far.dataReceived(data)
        self.assertEqual([self.connection], self.reactor.writers)
        received = b""
        while len(received) < len(data):
            received += self.theirs.recv(1 << 20)
            self.connection.doWrite()
        self.assertEqual(data, received)

    def test_what_goes_wrong_is_left_to_the_reactor(self) -> None:
        """It finds the same, and ends the connection as it always does."""
        self.theirs.close()
        self.far.dataReceived(b"to nobody")
        self.assertEqual([self.connection], self.reactor.writers)
        self.assertIsInstance(self.connection.doWrite(), Exception)

    def test_other_transports_are_only_written_to(self) -> None:
        """They know themselves when to send."""
        self.near.dataReceived(b"question")
        transport = self.far.transport
        self.assertEqual(b"question", transport.value())
