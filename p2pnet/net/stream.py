"""A service stream as a Twisted transport, with backpressure both ways."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.core.peer.stream import Stream
from p2pnet.errors import error_for
from p2pnet.net.driver import Pump
from p2pnet.wire.codes import ErrorCode


@implementer(IAddress)
class ServiceAddress:
    """A service, and the node at that end of the stream."""

    def __init__(self, service: str, node: str) -> None:
        self.service = service
        self.node = node

    def __repr__(self) -> str:
        return f"ServiceAddress({self.service!r}, {self.node!r})"


class _Feed:
    """A registered producer, and how it is driven."""

    __slots__ = ("is_paused", "is_streaming", "producer")

    def __init__(self, producer: Any, *, is_streaming: bool) -> None:
        self.producer = producer
        self.is_streaming = is_streaming
        self.is_paused = False


@implementer(ITransport, IConsumer, IPushProducer)
class StreamTransport:
    """Joins a Stream to a protocol.

    As a consumer it pauses its producer while too many bytes are unsent. As a producer it keeps
    what arrives while paused, and gives QUIC no credit for it, so that the other end stops too.

    :param pump: of the node, which sends what is written.
    :ivar stream: the Stream below, for what ITransport has no word for (who the peer is).
    :ivar given_up: called if the stream breaks before there is a protocol. One that ended properly
        is still to be delivered.
    """

    log = Logger()
    disconnecting = False

    def __init__(self, stream: Stream, pump: Pump) -> None:
        self.stream = stream
        self.protocol: IProtocol | None = None
        self.given_up: Callable[[], Any] | None = None
        self._pump = pump
        self._feed: _Feed | None = None  # what writes here
        self._paused = False
        self._kept: list[bytes] = []
        self._ended = False  # the end of input arrived, and is not delivered yet
        self._outcome: Failure | None = None  # how the stream ended, once it has
        self._lost = False
        stream.owner = self

    # -- ITransport ------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes for the stream, sent in the next turn of the reactor (ITransport).

        Bytes after loseConnection() or after the end of the stream are dropped.
        """
        self._write(data)
        self._pump.wake()

    def write_now(self, data: bytes) -> None:
        """Send bytes before this returns; events may be delivered meanwhile (see Driver.flush)."""
        self._write(data)
        self._pump.flush()

    def _write(self, data: bytes) -> None:
        # A producer may still write after loseConnection(), until it is done.
        feed = self._feed
        if (self.disconnecting and feed is None) or self.stream.is_closed:
            return
        writable = self.stream.write(bytes(data))
        if feed is None:
            return
        if not feed.is_streaming:
            self.stream.watch_writable()
        elif not (writable or feed.is_paused):
            feed.is_paused = True
            feed.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Queue the pieces as one write(), in their order (ITransport)."""
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """Half-close: no more bytes to the other end, which may still send."""
        self.stream.write_end()
        self._pump.wake()

    def loseConnection(self) -> None:
        """Close once everything written is sent."""
        if self.disconnecting or self._lost:
            return
        self.disconnecting = True
        if self._feed is not None and not self.stream.is_closed:
            return  # as with TCP, what a producer still has comes first
        self._close()

    def _close(self) -> None:
        self.stream.write_end()
        self.stream.discard_input()
        self._kept.clear()
        self._pump.wake()

    def abortConnection(self) -> None:
        """Break the stream off, as a TCP reset would."""
        self.stream.reset(ErrorCode.CANCELLED, "aborted here")
        self._kept.clear()
        self._pump.wake()

    def getPeer(self) -> ServiceAddress:
        """The service, and the name of the node at the other end ("" before that is known)."""
        peer = self.stream.session.peer if self.stream.session is not None else None
        return ServiceAddress(self.stream.service, peer.name if peer is not None else "")

    def getHost(self) -> ServiceAddress:
        """The service at this end."""
        return ServiceAddress(self.stream.service, "")

    # -- IConsumer: a producer here feeds the stream ---------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a producer, which is paused while too much is unsent."""
        if self._feed is not None:
            raise RuntimeError(f"{self._feed.producer!r} is registered already")
        if self._lost:
            producer.stopProducing()
            return
        self._feed = _Feed(producer, is_streaming=streaming)
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        self._feed = None
        if self.disconnecting and not self._lost:
            self._close()

    def writable(self) -> None:
        """Resume the paused producer: few unsent bytes are left in the stream."""
        feed = self._feed
        if feed is not None and (feed.is_paused or not feed.is_streaming):
            feed.is_paused = False
            feed.producer.resumeProducing()

    # -- IPushProducer: the stream feeds a protocol ----------------------------------------------

    def pauseProducing(self) -> None:
        """Keep received bytes until resumeProducing(), and give the peer no credit for them."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver what was kept, and go on."""
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """Nobody wants the stream any more."""
        self.loseConnection()

    # -- from the node ---------------------------------------------------------------------------

    @property
    def has_input(self) -> bool:
        """Whether bytes wait to be delivered."""
        return bool(self._kept)

    def connect(self, protocol: IProtocol) -> None:
        """Join `protocol` to the stream; what arrived meanwhile is delivered at once."""
        self.protocol = protocol
        protocol.makeConnection(self)
        self._deliver()

    def received(self, data: bytes, end: bool) -> None:
        """Bytes arrived, or the end of them."""
        if self.disconnecting:
            self.stream.consume(len(data))
            return
        if data:
            self._kept.append(data)
        self._ended = self._ended or end
        self._deliver()

    def _deliver(self) -> None:
        while self._kept and not self._paused and self.protocol is not None:
            data = self._kept.pop(0)
            if self.stream.consume(len(data)):
                self._pump.wake()
            try:
                self.protocol.dataReceived(data)
            except Exception:
                self.abortConnection()  # as TCP would
                raise
        if self._ended and not self._kept and not self._paused and self.protocol is not None:
            self._ended = False
            half_closeable = IHalfCloseableProtocol(self.protocol, None)
            if half_closeable is not None:
                half_closeable.readConnectionLost()
            else:
                self.loseConnection()
            self._report_if_over()

    def closed(self, code: int, reason: str) -> None:
        """The stream is over in both directions."""
        if code == ErrorCode.NO_ERROR:
            self._outcome = Failure(error.ConnectionDone())
        else:
            self._outcome = Failure(error_for(code, reason))
            self._kept.clear()
            self._ended = False
            if self.given_up is not None:
                self.given_up()
        self._report_if_over()

    def _report_if_over(self) -> None:
        """Tell the protocol, after everything that came before was delivered."""
        if self._lost or self._outcome is None or self.protocol is None:
            return
        if self._kept or self._ended:
            return
        self._lost = True
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.producer.stopProducing()
        self.protocol.connectionLost(self._outcome)
