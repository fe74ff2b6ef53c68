"""A TCP forward over magic-wormhole's transit, the encrypted records of a transfer (see base.Pair).

Transit is one TCP connection and no tunnel; a number before the bytes of each record says which of
the forwarded connections they belong to, and a record without bytes ends it. The key, which a code
spoken from user to user leads to otherwise, is handed over in the word.
"""

import os
import sys
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import react
from wormhole.transit import DirectTCPV1Hint, TransitReceiver, TransitSender, allocate_tcp_port

reactor: Any = _reactor
NUMBER = 4  # bytes


class Receiver(TransitReceiver):
    """Listens at one address only."""

    def __init__(self, address: str) -> None:
        super().__init__(None, reactor=reactor)
        self.hint = DirectTCPV1Hint(address, allocate_tcp_port(), 0.0)

    def _build_listener(self) -> tuple[list[Any], Any]:
        endpoint = TCP4ServerEndpoint(reactor, self.hint.port, interface=self.hint.hostname)
        return [self.hint], endpoint


class Link:
    """Forwarded connections on one transit connection; a producer that pauses all of them."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.connections: dict[int, Forwarded] = {}
        self.ended: Deferred[None] = Deferred()
        pipe.registerProducer(self, True)
        pipe.connectConsumer(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """What comes is written at once; local connections are not slower."""

    def write(self, record: bytes) -> None:
        """A record came."""
        number, data = int.from_bytes(record[:NUMBER], "big"), record[NUMBER:]
        connection = self.connections.get(number)
        if connection is None and data:
            connection = self.requested(number)
        if connection is not None:
            connection.received(data)

    def requested(self, number: int) -> "Forwarded | None":
        """A hook for the far end."""
        return None

    def pauseProducing(self) -> None:
        """The transit connection is full."""
        for connection in self.connections.values():
            connection.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """There is room again."""
        for connection in self.connections.values():
            connection.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transit connection is over."""
        self.ended.callback(None)


class Forwarded(Protocol):
    """One of them."""

    transport: Any

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._prefix = number.to_bytes(NUMBER, "big")
        self._early: list[bytes] = []
        self._number = number
        self._ended = False

    def connectionMade(self) -> None:
        """Write what came before it was there."""
        self.transport.setTcpNoDelay(True)
        self._link.connections[self._number] = self
        for data in self._early:
            self.received(data)

    def dataReceived(self, data: bytes) -> None:
        """From TCP to the records."""
        self._link.pipe.send_record(self._prefix + data)

    def received(self, data: bytes) -> None:
        """From the records to TCP."""
        if self.transport is None:
            self._early.append(data)
        elif data:
            self.transport.write(data)
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """End it there too."""
        self._link.connections.pop(self._number, None)
        self._link.pipe.send_record(self._prefix)


class Far(Link):
    """Leads to the target."""

    target: tuple[str, int]

    def requested(self, number: int) -> Forwarded:
        """A new one."""
        connection = Forwarded(self, number)
        self.connections[number] = connection
        factory = ClientFactory.forProtocol(lambda: connection)
        factory.noisy = False
        reactor.connectTCP(*self.target, factory)
        return connection


@inlineCallbacks
def far(address: str, host: str, port: str) -> Generator[Deferred[Any], Any, None]:
    """Wait for the near end."""
    transit, key = Receiver(address), os.urandom(TransitReceiver.TRANSIT_KEY_LENGTH)
    transit.set_transit_key(key)
    yield transit.get_connection_hints()
    print("ready", f"{address}:{transit.hint.port}:{key.hex()}", flush=True)
    Far.target = (host, int(port))
    yield Far((yield transit.connect())).ended


@inlineCallbacks
def near(address: str, there: str) -> Generator[Deferred[Any], Any, None]:
    """Connect, then listen."""
    host, port, key = there.split(":")
    transit = TransitSender(None, no_listen=True, reactor=reactor)
    transit.set_transit_key(bytes.fromhex(key))
    yield transit.get_connection_hints()  # it must be asked, though it has none
    hint = {"type": "direct-tcp-v1", "priority": 0.0, "hostname": host, "port": int(port)}
    transit.add_connection_hints([hint])
    link, last = Link((yield transit.connect())), 0

    def accepted() -> Forwarded:
        nonlocal last
        last += 1
        return Forwarded(link, last)

    factory = Factory.forProtocol(accepted)
    factory.noisy = False
    listening = reactor.listenTCP(0, factory, interface=address)
    print("ready", listening.getHost().port, flush=True)
    yield link.ended


if __name__ == "__main__":
    roles: dict[str, Callable[..., Deferred[None]]] = {"near": near, "far": far}
    react(lambda _: roles[sys.argv[1]](*sys.argv[2:]))
