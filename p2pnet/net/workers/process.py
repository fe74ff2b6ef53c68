"""A process that forwards frames for an Intermediate, which starts it with both of its sockets.

It ends when the Intermediate does. Run as ``python -m p2pnet.net.workers.process UDP PIPE KIND``:
the descriptors of both sockets, and how the UDP socket is used (the setting `udp`).
"""

import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from p2pnet.core import events
from p2pnet.core.intermediate.workers import RelayWorker
from p2pnet.interfaces import Datagrams, IDatagramTransport
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.clock import use_elapsed_time
from p2pnet.net.driver import Driver
from p2pnet.net.udp import UDPTransport
from p2pnet.net.workers.pipe import Pipe
from p2pnet.wire.address import Address
from p2pnet.wire.worker_messages import Begin, Begun, Stray, WorkerMessage

MAX_BACKLOG = 1 << 20  # bytes that the Intermediate did not read, above which strays are lost
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # sent to a group, meant for its leader


def transport_on(reactor: Any, opened: socket.socket, kind: str) -> IDatagramTransport:
    """A transport of that kind, batched or plain, on a duplicate of a socket that is bound."""
    host, port = opened.getsockname()[:2]
    if kind == "plain":
        return UDPTransport(reactor, host, port, adopt=opened)
    return BatchedUDPTransport(reactor, host, port, open_socket=lambda *_: opened.dup())


class _UpToDateDriver(Driver):
    """Reads the Intermediate's messages before each datagram: one that was sent before the datagram
    must count for it."""

    read_messages: Callable[[], Any]

    def _receive(self, datagrams: Datagrams) -> None:
        self.read_messages()
        super()._receive(datagrams)

    def _forward(self, datagrams: bytes, size: int, source: Address) -> Address | None:
        self.read_messages()
        return super()._forward(datagrams, size, source)


class Worker:
    """A relay worker: its core, its UDP socket and the pipe to its Intermediate.

    :param udp: a bound socket on the Intermediate's port; `pipe`: connected to the Intermediate.
    :param kind: how the UDP socket is used, batched or plain.
    :param lost: called with the reason when the Intermediate has ended.
    """

    def __init__(
        self, reactor: Any, udp: socket.socket, pipe: socket.socket, kind: str,
        lost: Callable[[str], Any],
    ) -> None:  # fmt: skip
        self._core = RelayWorker()
        self._pipe = Pipe(reactor, pipe, self._take, lost)
        transport = transport_on(reactor, udp, kind)
        self._driver = _UpToDateDriver(
            self._core, transport, reactor, self._handle, self._core.forward_joined
        )
        self._driver.read_messages = self._pipe.doRead

    def _take(self, message: WorkerMessage) -> None:
        if isinstance(message, Begin):
            self._driver.start()
            self._pipe.send(Begun())
        else:
            self._core.receive_message(message, self._driver.now)
            self._driver.wake()

    def _handle(self, event: events.Event) -> None:
        assert isinstance(event, events.MessageNeeded)
        if not isinstance(event.message, Stray) or self._pipe.backlog < MAX_BACKLOG:
            self._pipe.send(event.message)


def main() -> None:
    """Run a relay worker on the descriptors of the command line until the Intermediate ends."""
    from twisted.internet import reactor

    loop: Any = reactor
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    warnings = LogLevelFilterPredicate(LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    use_elapsed_time(loop)
    udp, pipe = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    udp.setblocking(False)  # Python takes it for blocking, and would make the Intermediate's so too
    Worker(loop, udp, pipe, sys.argv[3], lambda reason: loop.stop())
    loop.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
