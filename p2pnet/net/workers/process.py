"""The program of a relay worker, which the Intermediate starts and which ends with it.

The command is ``python -m p2pnet.net.workers.process UDP PIPE KIND``: the inherited descriptors of
the UDP socket and the pipe, and the kind of transport (batched or plain).
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
from p2pnet.net.driver import Driver, Forwarder
from p2pnet.net.udp import UDPTransport
from p2pnet.net.workers.pipe import Pipe
from p2pnet.wire.address import Address
from p2pnet.wire.worker_messages import Begin, Begun, Stray, WorkerMessage

MAX_BACKLOG = 1 << 20  # bytes left unread by the Intermediate, above which strays are dropped
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # of a process group; its leader acts


def transport_on(reactor: Any, opened: socket.socket, kind: str) -> IDatagramTransport:
    """A transport on a duplicate of a bound socket.

    :param kind: "batched" or "plain".
    """
    host, port = opened.getsockname()[:2]
    if kind == "plain":
        return UDPTransport(reactor, host, port, adopt=opened)
    return BatchedUDPTransport(reactor, host, port, open_socket=lambda *_: opened.dup())


class _UpToDateDriver(Driver):
    """Drains the pipe before it handles datagrams: a circuit is known before its first frame.

    :ivar drain_pipe: handles all waiting messages of the Intermediate.
    """

    drain_pipe: Callable[[], Any]

    def _receive(self, datagrams: Datagrams) -> None:
        self.drain_pipe()
        super()._receive(datagrams)

    def _forward(
        self, forward: Forwarder, datagrams: bytes, size: int, source: Address
    ) -> Address | None:
        self.drain_pipe()
        return super()._forward(forward, datagrams, size, source)


class Worker:
    """A relay worker in this process; it opens its UDP socket at the message Begin.

    :param udp: the bound UDP socket.
    :param pipe: the socket to the Intermediate.
    :param kind: "batched" or "plain", the transport on `udp`.
    :param lost: called with the reason when the Intermediate ended or is stuck.
    """

    def __init__(
        self, reactor: Any, udp: socket.socket, pipe: socket.socket, kind: str,
        lost: Callable[[str], Any],
    ) -> None:  # fmt: skip
        self._core = RelayWorker()
        self._pipe = Pipe(reactor, pipe, self._receive, lost)
        transport = transport_on(reactor, udp, kind)
        self._driver = _UpToDateDriver(
            self._core, transport, reactor, self._handle, self._core.forward_joined
        )
        self._driver.drain_pipe = self._pipe.doRead

    def _receive(self, message: WorkerMessage) -> None:
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
    """Run the worker that the command line describes until the Intermediate ends."""
    from twisted.internet import reactor

    loop: Any = reactor
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    warnings = LogLevelFilterPredicate(LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    use_elapsed_time(loop)
    udp, pipe = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    # Python assumes a blocking socket, and would set that on the Intermediate's descriptor as well.
    udp.setblocking(False)
    Worker(loop, udp, pipe, sys.argv[3], lambda reason: loop.stop())
    loop.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
