"""A TCP forward over aioquic as it comes, with Twisted's UDP port (see base.Pair).

What somebody would write who needs a forward: a stream for each TCP connection, and after each
datagram that was received whatever is to be sent, as aioquic's own asyncio code has it. Bytes that
are not sent yet are bounded by pausing the TCP connection; aioquic has no public word for how many
there are, so that this one thing is read from its internals.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from p2pnet import pki
from p2pnet.identity import Role

reactor: Any = _reactor
ALPN = "p2pnet-bench/1"
HIGH, LOW = 1 << 20, 1 << 19  # bytes not sent yet at which TCP is paused, and goes on


class Forwarded(Protocol):
    """A TCP connection that belongs to a stream."""

    transport: Any

    def __init__(self, link: "Link", stream_id: int) -> None:
        self.link = link
        self.stream_id = stream_id
        self.paused = self.ended = False
        self._early: list[tuple[bytes, bool]] = []
        link.streams[stream_id] = self

    def connectionMade(self) -> None:
        """Write what came before it was there."""
        self.transport.setTcpNoDelay(True)
        early, self._early = self._early, []
        for data, end in early:
            self.received(data, end)

    def dataReceived(self, data: bytes) -> None:
        """From TCP to the stream."""
        self.link.quic.send_stream_data(self.stream_id, data)
        self.link.flush()
        if not self.paused and self.link.backlog(self.stream_id) > HIGH:
            self.paused = True
            self.transport.pauseProducing()

    def received(self, data: bytes, end: bool) -> None:
        """From the stream to TCP."""
        if self.transport is None:
            self._early.append((data, end))
            return
        self.transport.write(data)
        if end:
            self.transport.loseConnection()

    def sent(self) -> None:
        """Go on, if there is room again."""
        if self.paused and self.link.backlog(self.stream_id) < LOW:
            self.paused = False
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """End the stream."""
        self.link.streams.pop(self.stream_id, None)
        self.link.quic.send_stream_data(self.stream_id, b"", end_stream=True)
        self.link.flush()


class Link(DatagramProtocol):
    """One QUIC connection on a socket of its own."""

    transport: Any
    quic: QuicConnection

    def __init__(self, configuration: QuicConfiguration) -> None:
        self.streams: dict[int, Forwarded] = {}
        self._configuration = configuration
        self._timer: Any = None

    def connect(self, address: tuple[str, int]) -> None:
        """As a client."""
        self.quic = QuicConnection(configuration=self._configuration)
        self.quic.connect(address, now=reactor.seconds())
        self.flush()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take it, and send what is due."""
        if not hasattr(self, "quic"):
            destination = datagram[6 : 6 + datagram[5]]  # RFC 9000 section 17.2
            self.quic = QuicConnection(
                configuration=self._configuration, original_destination_connection_id=destination
            )
        self.quic.receive_datagram(datagram, addr, now=reactor.seconds())
        self._handle_events()
        self.flush()

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream that are not sent, or not acknowledged."""
        stream = self.quic._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender._buffer_start

    def flush(self) -> None:
        """Send what is due, and set the timer."""
        for datagram, address in self.quic.datagrams_to_send(now=reactor.seconds()):
            self.transport.write(datagram, address)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        when = self.quic.get_timer()
        if when is not None:
            self._timer = reactor.callLater(max(0.0, when - reactor.seconds()), self._expire)
        for forwarded in list(self.streams.values()):
            forwarded.sent()

    def _expire(self) -> None:
        self.quic.handle_timer(now=max(reactor.seconds(), self.quic.get_timer() or 0.0))
        self._handle_events()
        self.flush()

    def _handle_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case HandshakeCompleted():
                    self.established()
                case StreamDataReceived():
                    stream = self.streams.get(event.stream_id) or self.requested(event)
                    if stream is not None:
                        stream.received(event.data, event.end_stream)
                case ConnectionTerminated():
                    reactor.stop()

    def established(self) -> None:
        """A hook for the near end."""

    def requested(self, event: StreamDataReceived) -> Forwarded | None:
        """A stream that is not known: one that is over here."""
        return None


class Far(Link):
    """Leads streams to the target."""

    def __init__(self, configuration: QuicConfiguration, target: tuple[str, int]) -> None:
        super().__init__(configuration)
        self._target = target
        self._known: set[int] = set()

    def requested(self, event: StreamDataReceived) -> Forwarded | None:
        """A new one, unless it is over already."""
        if event.stream_id in self._known:
            return None
        self._known.add(event.stream_id)
        forwarded = Forwarded(self, event.stream_id)
        factory = ClientFactory.forProtocol(lambda: forwarded)
        factory.noisy = False
        reactor.connectTCP(*self._target, factory)
        return forwarded


class Near(Link):
    """Leads TCP connections to streams."""

    def __init__(self, configuration: QuicConfiguration, address: str) -> None:
        super().__init__(configuration)
        self._address = address

    def established(self) -> None:
        """Listen."""

        def accepted() -> Forwarded:
            stream_id = self.quic.get_next_available_stream_id()
            self.quic.send_stream_data(stream_id, b"")  # or the next one gets the same id
            return Forwarded(self, stream_id)

        factory = Factory.forProtocol(accepted)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface=self._address)
        print("ready", port.getHost().port, flush=True)


def far(address: str, host: str, port: str) -> None:
    """Make a certificate, and listen."""
    with tempfile.TemporaryDirectory() as directory:
        authority = pki.create_authority("bench")
        pki.save(Path(directory), pki.AUTHORITY, *authority)
        pki.save(
            Path(directory),
            "far",
            *pki.issue(*authority, Role.INTERMEDIATE, "far", hosts=[address]),
        )
        configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
        configuration.load_cert_chain(f"{directory}/far.pem", f"{directory}/far.key")
        ca = Path(directory, "ca.pem").read_bytes()
    listening = reactor.listenUDP(0, Far(configuration, (host, int(port))), interface=address)
    print("ready", f"{address}:{listening.getHost().port}:{ca.hex()}", flush=True)


def near(address: str, there: str) -> None:
    """Connect."""
    host, port, ca = there.split(":")
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[ALPN], cadata=bytes.fromhex(ca), server_name=host
    )
    link = Near(configuration, address)
    reactor.listenUDP(0, link, interface=address)
    link.connect((host, int(port)))


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {"near": near, "far": far}
    roles[sys.argv[1]](*sys.argv[2:])
    reactor.run()
