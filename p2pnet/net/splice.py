"""Joining two connections into one: bytes, half-close, resets and backpressure pass through."""

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import error, tcp
from twisted.internet.interfaces import IHalfCloseableProtocol, IUNIXTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.net.stream import StreamTransport

PROBES = 7
QUESTION = 4096  # bytes; more than that is part of a flow, of which much should go together


def write_now(transport: Any, data: bytes) -> None:
    """Write to a transport in this turn of the reactor: the other end of a request waits for it."""
    if isinstance(transport, StreamTransport) and len(data) <= QUESTION:
        transport.write_now(data)
        return
    if _has_nothing_before(transport):
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, int):
            data = data[sent:]
    transport.write(data)  # the reactor finds a lost connection again, and ends it


def _has_nothing_before(transport: Any) -> bool:
    """Whether bytes may go straight to the socket of a TCP connection.

    Twisted's write() registers a writer and removes it again, two system calls an answer. A TLS
    layer, bytes that wait and an end that was asked for leave no choice.
    """
    return isinstance(transport, tcp.Connection) and not (
        transport.dataBuffer
        or transport._tempDataBuffer
        or transport.TLS
        or transport.disconnected
        or transport.disconnecting
        or transport._writeDisconnecting
        or transport._writeDisconnected
    )


def forbid_delay(transport: Any) -> None:
    """Set TCP_NODELAY on a TCP connection; nothing on other transports.

    Nagle's algorithm (RFC 896) holds the second part of a message back until the first is
    acknowledged, 40 ms later. The peer behind the tunnel already chose how to cut its messages.
    """
    set_no_delay = getattr(transport, "setTcpNoDelay", None)  # also of a TLS layer over TCP
    # A UNIX connection of Twisted has it too, and would log an error.
    if set_no_delay is not None and not IUNIXTransport.providedBy(transport):
        set_no_delay(True)


def probe_silence(transport: Any, seconds: int) -> None:
    """Have the system probe a TCP connection after so many seconds of silence, 0 for never.

    A connection whose host vanished would stay for ever. PROBES go unanswered before it is lost,
    as far apart as the first one comes.
    """
    connection = getattr(transport, "transport", transport)  # below a TLS layer
    is_tcp = isinstance(connection, tcp.Connection) and not IUNIXTransport.providedBy(connection)
    if not seconds or not is_tcp:
        return
    connection.setTcpKeepAlive(True)
    for name, value in (
        ("TCP_KEEPIDLE", seconds),  # macOS and Windows name it otherwise, or have it not
        ("TCP_KEEPINTVL", seconds),
        ("TCP_KEEPCNT", PROBES),
    ):
        if hasattr(socket, name):
            connection.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def read_now(transport: Any) -> None:
    """Read what waits at a new TCP connection: a client's question often is there already.

    An end or an error is met again by the reactor.
    """
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        transport.doRead()


@implementer(IHalfCloseableProtocol)
class Splice(Protocol):
    """One end of a pair. Whichever end is connected second joins the two.

    :param keepalive: seconds of silence after which a TCP connection is probed, 0 for never.
    :ivar finished: called when the connection of this end is over, unless None.
    """

    transport: Any

    def __init__(self, keepalive: int) -> None:
        self._keepalive = keepalive
        self.finished: Callable[[], Any] | None = None
        self._other: Splice | None = None
        self._lost = False

    @classmethod
    def pair(cls, keepalive: int) -> tuple["Splice", "Splice"]:
        """Two ends that belong together."""
        one, two = cls(keepalive), cls(keepalive)
        one._other, two._other = two, one
        return one, two

    @property
    def is_live(self) -> bool:
        """Whether this end is connected."""
        return self.transport is not None and not self._lost

    def connectionMade(self) -> None:
        """Wait for the other end, or join it."""
        other = self._other
        assert other is not None
        forbid_delay(self.transport)
        probe_silence(self.transport, self._keepalive)
        if other._lost:
            self.transport.abortConnection()
        elif other.is_live:
            self._feed(other)
            other._feed(self)
            other.transport.resumeProducing()
            read_now(self.transport)
        else:
            self.transport.pauseProducing()

    def _feed(self, other: "Splice") -> None:
        """Let this end's transport be paused by what is unsent at the other."""
        other.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Write the received bytes to the other end; drop them if that end is not connected."""
        if self._other is not None and self._other.is_live:
            write_now(self._other.transport, data)

    def readConnectionLost(self) -> None:
        """Half-close the other end, because the peer of this end will send no more."""
        if self._other is not None and self._other.is_live:
            self._other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Our own half-close took effect."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """A proper end is passed on as one, anything else as a reset."""
        self._lost = True
        if self.finished is not None:
            self.finished()
        other, self._other = self._other, None
        if other is None or not other.is_live:
            return
        transport = other.transport
        if reason.check(error.ConnectionDone):
            transport.loseConnection()
        else:
            # First of all: a TCP transport that is lost has told the other to stop producing,
            # which lets that end properly as soon as it has no producer any more.
            transport.abortConnection()
        transport.unregisterProducer()
