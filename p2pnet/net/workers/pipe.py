"""The pipe between an Intermediate and one of its workers: messages over a Unix socket pair."""

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.worker_messages import WorkerMessage, WorkerMessageBuffer, encode_worker_message

CHUNK = 1 << 16  # bytes of one recv()
BUFFER_SIZE = 1 << 17  # bytes of the send buffer; the kernel doubles the number
MAX_CHUNKS = 8  # read in one turn: more than the kernel's buffer holds
ENDED = "the process ended"
PATIENCE = 5.0  # seconds without a read, after which the other process counts as stuck


@implementer(IReadDescriptor, IWriteDescriptor)
class Pipe:
    """One end of the pipe.

    send() writes a message at once, where Twisted's transports wait for the reactor's next turn. A
    process that drains the pipe before it reads UDP therefore knows everything that was written
    before that datagram was sent.

    :param reactor: provides IReactorFDSet and IReactorTime.
    :param opened: a connected stream socket, which the pipe closes.
    :param receive: gets each message from the other process. Exceptions that it raises are logged.
    :param lost: called once, with the reason, when the other process ended or is stuck; not after
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
        """Close the socket and discard unsent messages. A second call does nothing."""
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
        """The name of this descriptor in Twisted's log."""
        return "relay worker"

    def fileno(self) -> int:
        """The descriptor of the socket, -1 after close()."""
        return -1 if self._socket is None else self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """Report the pipe as lost, because the reactor removed the socket after an error."""
        self._lose(reason.getErrorMessage())

    # -- receiving -------------------------------------------------------------------------------

    def doRead(self) -> None:
        """Deliver all waiting messages, up to MAX_CHUNKS * CHUNK bytes in one call."""
        try:
            for _ in range(MAX_CHUNKS):
                if self._socket is None:
                    return
                data = self._socket.recv(CHUNK)
                if not data:
                    self._lose(ENDED)
                for message in self._buffer.feed(data):
                    self._deliver(message)
        except BlockingIOError:
            pass
        except ConnectionError:
            self._lose(ENDED)  # the other process left bytes unread
        except (OSError, DecodeError) as error:
            self._lose(str(error))

    def _deliver(self, message: WorkerMessage) -> None:
        try:
            self._receive(message)
        except Exception:
            self.log.failure("while handling {message}", message=message)

    # -- sending ---------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that wait until the other process reads."""
        return len(self._unsent)

    def send(self, message: WorkerMessage) -> None:
        """Send a message; a closed pipe drops it. Raises ValueError above MAX_MESSAGE bytes."""
        if self._socket is not None:
            self._unsent += encode_worker_message(message)
            if self._overdue is None:
                self.doWrite()

    def doWrite(self) -> None:
        """Write as much of the unsent bytes as the kernel accepts."""
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
