"""Messages between an Intermediate and one of its workers, over a Unix socket that they share."""

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.worker_messages import WorkerMessage, WorkerMessageBuffer, encode_worker_message

CHUNK = 1 << 16  # bytes
BUFFER_SIZE = 1 << 17  # bytes asked of the kernel, which takes twice as much
MAX_CHUNKS = 8  # read in one turn: more than the kernel holds, so all that waited
ENDED = "the process ended"
PATIENCE = 5.0  # seconds for which the other process may read nothing of what it is sent


@implementer(IReadDescriptor, IWriteDescriptor)
class Pipe:
    """One end of the socket between an Intermediate and a worker.

    A message is written at once, if the system takes it, where Twisted's transports would wait for
    the reactor's next turn. A process that drains the pipe before it reads UDP therefore knows
    everything that was written before that datagram was sent.

    :param reactor: provides IReactorFDSet and IReactorTime.
    :param opened: a connected stream socket, which is the pipe's own from now on.
    :param receive: gets each message that comes.
    :param lost: called with the reason, once, when the other process is gone or stuck; not after
        close().
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        opened: socket.socket,
        receive: Callable[[WorkerMessage], Any],
        lost: Callable[[str], Any],
    ) -> None:
        self._reactor = reactor
        self._socket: socket.socket | None = opened
        self._receive = receive
        self._lost = lost
        self._buffer = WorkerMessageBuffer()
        self._unsent = bytearray()
        self._overdue: IDelayedCall | None = None
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
        reactor.addReader(self)

    def close(self) -> None:
        """Close the socket: nothing more is read or written, and `lost` is not called."""
        if self._socket is not None:
            self._reactor.removeReader(self)  # while it still has its descriptor
            self._stop_waiting()
            self._socket.close()
            self._socket = None
            self._unsent.clear()

    def _lose(self, reason: str) -> None:
        if self._socket is not None:
            self.close()
            self._lost(reason)

    def logPrefix(self) -> str:
        """The name of this end in Twisted's own log lines."""
        return "relay worker"

    def fileno(self) -> int:
        """The socket's file descriptor, -1 once it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives the socket up: the other process counts as gone."""
        self._lose(reason.getErrorMessage())

    # -- receiving -------------------------------------------------------------------------------

    def doRead(self) -> None:
        """Read the messages that wait; the reactor calls again if more came meanwhile."""
        try:
            for _ in range(MAX_CHUNKS):
                if self._socket is None:
                    return
                data = self._socket.recv(CHUNK)
                if not data:
                    self._lose(ENDED)
                for message in self._buffer.feed(data):
                    self._take(message)
        except BlockingIOError:
            pass
        except ConnectionError:
            self._lose(ENDED)  # and had not read everything
        except (OSError, DecodeError) as error:
            self._lose(str(error))

    def _take(self, message: WorkerMessage) -> None:
        try:
            self._receive(message)
        except Exception:
            self.log.failure("while taking {message}", message=message)

    # -- sending ---------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes of messages that wait until the other process reads some."""
        return len(self._unsent)

    def send(self, message: WorkerMessage) -> None:
        """Send a message, if the pipe is open. Raises ValueError for one that is too long."""
        if self._socket is not None:
            self._unsent += encode_worker_message(message)
            if self._overdue is None:
                self.doWrite()

    def doWrite(self) -> None:
        """Write as many of the waiting bytes as the system takes."""
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(ENDED)
            return
        del self._unsent[:sent]
        if sent:
            self._stop_waiting()
        if self._unsent and self._overdue is None:
            self._reactor.addWriter(self)
            reason = f"it read nothing for {PATIENCE:g} s"
            self._overdue = self._reactor.callLater(PATIENCE, self._lose, reason)

    def _stop_waiting(self) -> None:
        overdue, self._overdue = self._overdue, None
        if overdue is not None:
            self._reactor.removeWriter(self)
            if overdue.active():
                overdue.cancel()
