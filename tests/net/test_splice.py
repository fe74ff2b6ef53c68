"""Joining two connections; their life together is tested with real ones in tests/integration."""

import socket
import struct
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.interfaces import IUNIXTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2pnet.net.splice import PROBES, Splice
from tests.net.support import FakeReactor


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


@implementer(IUNIXTransport)
class UnixConnection(tcp.Connection):
    """A connection of Twisted's over a UNIX socket, which needs no port."""

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Nothing here sends any."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Not for this family."""
        raise AssertionError("TCP_NODELAY on a UNIX socket")


class ConnectionCase(SynchronousTestCase):
    """One end is a TCP connection, the other is not."""

    def setUp(self) -> None:
        """A TCP connection, and one that feeds it."""
        self.reactor = FakeReactor()
        ours, self.theirs = tcp_pair()
        self.addCleanup(self.theirs.close)
        self.theirs.setblocking(False)
        self.near, self.far = Splice.pair(0)
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

    def test_the_reactor_is_not_asked_to_write(self) -> None:
        """Registering a writer and removing it are two system calls."""
        self.far.dataReceived(b"answer")
        self.assertEqual(b"answer", self.theirs.recv(100))
        self.assertEqual(0, self.reactor.writers_added)

    def test_bytes_that_wait_go_first(self) -> None:
        """Whatever the socket has room for."""
        self.connection.write(b"first ")
        self.far.dataReceived(b"second")
        self.assertRaises(BlockingIOError, self.theirs.recv, 100)
        self.connection.doWrite()
        self.assertEqual(b"first second", self.theirs.recv(100))

    def test_a_connection_that_is_about_to_end_is_left_to_twisted(self) -> None:
        """It decides what is still written."""
        for end in ("loseWriteConnection", "loseConnection"):
            with self.subTest(end):
                getattr(self.connection, end)()
                self.far.dataReceived(b"late")
                self.assertRaises(BlockingIOError, self.theirs.recv, 100)

    def test_a_tls_layer_encrypts_what_is_written(self) -> None:
        """Nothing passes it by."""
        connection: Any = self.connection
        kept: list[bytes] = []
        connection.TLS, connection.write = True, kept.append
        self.far.dataReceived(b"secret")
        self.assertRaises(BlockingIOError, self.theirs.recv, 100)
        self.assertEqual([b"secret"], kept)

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
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()  # with a reset
        self.far.dataReceived(b"to nobody")
        self.assertEqual([self.connection], self.reactor.writers)
        self.assertIsInstance(self.connection.doWrite(), Exception)

    def test_other_transports_are_only_written_to(self) -> None:
        """They know themselves when to send."""
        self.near.dataReceived(b"question")
        transport = self.far.transport
        self.assertEqual(b"question", transport.value())


class KeepaliveTests(ConnectionCase):
    """Local connections whose host vanished end."""

    def test_regression_a_silent_connection_is_probed(self) -> None:
        """It stayed for ever, and its stream counted."""
        near, _ = Splice.pair(15)
        near.makeConnection(self.connection)
        self.assertTrue(self.connection.getTcpKeepAlive())
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        found = [self.connection.socket.getsockopt(socket.IPPROTO_TCP, name) for name in options]
        self.assertEqual([15, 15, PROBES], found)

    def test_zero_is_never(self) -> None:
        """As the system has it."""
        self.near.makeConnection(self.connection)
        self.assertFalse(self.connection.getTcpKeepAlive())


class NoDelayTests(ConnectionCase):
    """Local connections send each part of a message when it is written."""

    def test_regression_a_request_in_three_parts_waited_for_acknowledgements(self) -> None:
        """36 ms: Nagle's algorithm at one end, delayed acknowledgements at the other."""
        self.assertFalse(self.connection.getTcpNoDelay())
        self.near.makeConnection(self.connection)
        self.assertTrue(self.connection.getTcpNoDelay())
        self.far.makeConnection(StringTransport())
        for part in (b"a request ", b"in three ", b"parts"):
            self.far.dataReceived(part)
        self.assertEqual(b"a request in three parts", self.theirs.recv(100))

    def test_a_unix_connection_has_no_such_option(self) -> None:
        """It is spliced all the same."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        near, far = Splice.pair(15)
        connection = UnixConnection(ours, near, self.reactor)
        connection.connected = 1
        far.makeConnection(StringTransport())
        near.makeConnection(connection)
        far.dataReceived(b"answer")
        self.assertEqual(b"answer", theirs.recv(100))
