"""One stream of our QUIC engine between two processes, without TCP on either side.

::

    python -m bench.stream --seconds 3

The multiplexer, the driver and the batched UDP transport of the nodes, and nothing above them: what
a forward of p2pnet comes to is to be compared with it.
"""

import multiprocessing
import os
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from typing import Any

from bench.report import Figures, alternate, parser, show
from p2pnet.identity import Credentials, Role
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.driver import Driver
from p2pnet.quic import events
from p2pnet.quic.admission import Limits
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.testing.realm import Realm
from p2pnet.wire.address import Address

LIMITS = Limits(connections=1, retry_above=1)
NAME = "QUIC stream, no TCP"
LOOPBACK = "127.0.0.1"
CHUNK = bytes(os.urandom(1 << 16))
TIMEOUT = 60.0  # seconds


def the_reactor() -> Any:
    """That of this process."""
    from twisted.internet import reactor

    return reactor


def settings(ours: Credentials, peer: Role) -> ConnectionProfile:
    """For either end."""
    return ConnectionProfile(
        ours, frozenset({peer}), lambda: datetime.now(UTC), "p2pnet-bench/1", FAST, max_streams=1
    )


class End:
    """What both ends do."""

    def __init__(self, mux: Multiplexer) -> None:
        self.reactor = the_reactor()
        self.mux = mux
        self.transport = BatchedUDPTransport(self.reactor, LOOPBACK, 0)
        self.driver = Driver(mux, self.transport, self.reactor, self.handle)  # type: ignore[arg-type]
        self.driver.start()
        self.reactor.callLater(TIMEOUT, self.reactor.stop)

    def handle(self, item: Any) -> None:
        """An event with its connection."""
        self.take(*item)

    def take(self, connection: Connection, event: events.Event) -> None:
        """A hook."""


class Receiver(End):
    """Answers the end of the stream with the number of bytes that came."""

    total = 0

    def take(self, connection: Connection, event: events.Event) -> None:
        """Count what comes."""
        match event:
            case events.StreamDataReceived(stream_id, data, end):
                self.total += len(data)
                connection.consume(stream_id, len(data))
                if end:
                    connection.send(stream_id, self.total.to_bytes(8, "big"), end=True)
            case events.ConnectionClosed():
                self.reactor.stop()


class Sender(End):
    """Sends for so long, and waits for the answer."""

    stream_id = sent = 0
    began = finished = 0.0

    def __init__(self, mux: Multiplexer, seconds: float) -> None:
        super().__init__(mux)
        self._seconds = seconds

    def take(self, connection: Connection, event: events.Event) -> None:
        """Fill the stream."""
        match event:
            case events.HandshakeCompleted():
                self.began = time.perf_counter()
                self.stream_id = connection.open_stream()
                self.fill(connection)
            case events.StreamWritable():
                self.fill(connection)
            case events.StreamDataReceived(_, data, _) if data:
                assert int.from_bytes(data, "big") == self.sent
                self.finished = time.perf_counter()
                connection.close(0, "done")
            case events.ConnectionClosed():
                self.reactor.stop()

    def fill(self, connection: Connection) -> None:
        """As much as it takes."""
        while time.perf_counter() - self.began < self._seconds:
            self.sent += len(CHUNK)
            if not connection.send(self.stream_id, CHUNK):
                return
        connection.send(self.stream_id, b"", end=True)


def receive(pipe: Pipe, credentials: Credentials) -> None:
    """The receiving process."""
    end = Receiver(Multiplexer(server=settings(credentials, Role.AGENT), limits=LIMITS))
    pipe.send(end.transport.get_address())
    used = time.process_time()
    end.reactor.run()
    pipe.send(time.process_time() - used)


def send(pipe: Pipe, credentials: Credentials, address: Address, seconds: float) -> None:
    """The sending process."""
    end = Sender(Multiplexer(), seconds)
    end.mux.connect(settings(credentials, Role.CONNECTOR), address, end.driver.now)
    end.driver.wake()
    used = time.process_time()
    end.reactor.run()
    pipe.send((end.sent, end.finished - end.began, time.process_time() - used))


def measure(seconds: float) -> Figures:
    """One run."""
    context, realm = multiprocessing.get_context("fork"), Realm()  # credentials cannot be pickled
    connector, agent = (realm.credentials(r, "bench") for r in (Role.CONNECTOR, Role.AGENT))
    (receiving, there), (sending, here) = context.Pipe(), context.Pipe()
    receiver = context.Process(target=receive, args=(there, connector))
    receiver.start()
    sender = context.Process(target=send, args=(here, agent, receiving.recv(), seconds))
    sender.start()
    sent, elapsed, sent_with = sending.recv()
    used = sent_with + receiving.recv()
    for process in (sender, receiver):
        process.join()
    return {
        "MB/s": sent / elapsed / 1e6,
        "cpu_s/GB": used / sent * 1e9,
    }


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=3.0, help="how long a run sends")
    options.add_argument("--rounds", type=int, default=3, help="how many")
    arguments = options.parse_args()
    found = alternate({NAME: lambda: measure(arguments.seconds)}, arguments.rounds)
    rows = [{"case": name, **figures} for name, figures in found.items()]
    show({"One stream": rows}, arguments.json)


if __name__ == "__main__":
    main()
