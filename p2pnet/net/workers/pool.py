"""One UDP port that an Intermediate shares with relay workers, which are processes of their own.

Each process has a socket of its own on the port, and the kernel spreads the frames over them
(reuseport.py). The Intermediate opens all of the sockets and keeps them open. When a process dies,
the Intermediate reads its socket until the next process is ready.
"""

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet
from zope.interface import implementer

from p2pnet.interfaces import Datagrams, Forward, IDatagramTransport
from p2pnet.net import batched
from p2pnet.net.workers import process as relay_worker
from p2pnet.net.workers import reuseport
from p2pnet.net.workers.pipe import Pipe
from p2pnet.net.workers.process import transport_on
from p2pnet.wire.address import Address
from p2pnet.wire.worker_messages import Begin, Begun, Stray, WorkerMessage

FIRST_DELAY = 0.1  # seconds to the second restart; the first is immediate, later delays double
MAX_DELAY = 10.0  # seconds; a process that lived for longer resets the delay


def is_available(reactor: object) -> bool:
    """Whether this system and this reactor can share a port among processes."""
    return IReactorFDSet.providedBy(reactor) and reuseport.is_available()


class WorkerOwner(Protocol):
    """Receives the events of the workers of a pool. Workers have numbers from 1."""

    def worker_added(self, worker: int) -> Iterable[WorkerMessage]:
        """Handle the start of the worker's process. Returns the messages to send to it first."""

    def worker_started(self, worker: int, pid: int) -> None:
        """Handle that the worker's process, with the id `pid`, reads its UDP socket now."""

    def worker_message(self, worker: int, message: WorkerMessage) -> None:
        """Handle a message from the worker."""

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """Handle the end of the worker's process; the next starts in `restart_in` seconds."""


class _Process:
    """A process that runs p2pnet.net.workers.process with a UDP socket, and the pipe to it.

    :ivar started_at: the time of its start, in seconds of the reactor's clock.
    """

    def __init__(
        self,
        reactor: Any,
        udp: socket.socket,
        kind: str,
        receive: Callable[[WorkerMessage], Any],
        lost: Callable[[str], Any],
    ) -> None:
        """Start the process. Raises OSError."""
        ours, theirs = socket.socketpair()
        descriptors = udp.fileno(), theirs.fileno()
        command = [sys.executable, "-P", "-m", relay_worker.__name__, *map(str, descriptors), kind]
        # The worker finds modules where this process does; -P keeps its working directory out.
        modules = os.pathsep.join(filter(None, sys.path))
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=descriptors,
                    env={**os.environ, "PYTHONPATH": modules},
                )  # fmt: skip
            except OSError:
                ours.close()
                raise
        self.pid = self._process.pid
        self.started_at = reactor.seconds()
        self.pipe = Pipe(reactor, ours, receive, lost)

    def end(self) -> None:
        """Kill the process, which has no state to save."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()


class _Worker:
    """One worker: a socket, and the processes that read it one after the other.

    :param number: the worker's, from 1.
    :param udp: the socket, which stays open.
    :param kind: "batched" or "plain", the transport on the socket.
    :param owner: gets the events of the worker.
    :param read: starts a transport on the socket in this process, while no other one reads it.
    :param receive: gets the datagrams that the process passes on.
    """

    def __init__(
        self,
        reactor: Any,
        number: int,
        udp: socket.socket,
        kind: str,
        owner: WorkerOwner,
        read: Callable[[socket.socket], IDatagramTransport],
        receive: Callable[[Datagrams], Any],
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._udp = udp
        self._kind = kind
        self._owner = owner
        self._read = read
        self._receive = receive
        self._process: _Process | None = None
        self._stand_in: IDatagramTransport | None = None  # reads the socket while no process does
        self._delay = 0.0  # seconds before the next restart
        self._start_call: IDelayedCall | None = None

    def start(self) -> None:
        """Start a process, and read the socket in this one until the process does."""
        self._start_call = None
        try:
            self._step_in()
            process = _Process(self._reactor, self._udp, self._kind, self._handle, self._lost)
        except (OSError, CannotListenError) as error:
            self._start_later(str(error))
            return
        self._process = process
        for message in self._owner.worker_added(self._number):
            process.pipe.send(message)
        process.pipe.send(Begin())

    def send(self, message: WorkerMessage) -> None:
        """Send a message to the process, if there is one."""
        if self._process is not None:
            self._process.pipe.send(message)

    def stop(self) -> Any:
        """End the process. Returns None, or a Deferred that fires when nothing reads the socket."""
        if self._start_call is not None:
            self._start_call.cancel()
        if self._process is not None:
            self._process.end()
        self._process = self._start_call = None
        return self._step_back()

    def _step_in(self) -> None:
        if self._stand_in is None:
            self._stand_in = self._read(self._udp)

    def _step_back(self) -> Any:
        stand_in, self._stand_in = self._stand_in, None
        return None if stand_in is None else stand_in.stop()

    def _handle(self, message: WorkerMessage) -> None:
        match message:
            case Begun():
                self._step_back()
                assert self._process is not None
                self._owner.worker_started(self._number, self._process.pid)
            case Stray(data, source):
                self._receive([(data, source)])
            case _:
                self._owner.worker_message(self._number, message)

    def _lost(self, reason: str) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.end()
        if self._reactor.seconds() - process.started_at > MAX_DELAY:
            self._delay = 0.0
        self._start_later(reason)

    def _start_later(self, reason: str) -> None:
        delay, self._delay = self._delay, min(max(FIRST_DELAY, 2 * self._delay), MAX_DELAY)
        self._owner.worker_lost(self._number, reason, delay)
        self._start_call = self._reactor.callLater(delay, self.start)
        try:
            self._step_in()
        except CannotListenError:
            pass  # no descriptor is left; datagrams wait in the socket for the next process


@implementer(IDatagramTransport)
class WorkerPool:
    """The IDatagramTransport of an Intermediate with workers.

    :param reactor: provides IReactorFDSet, and the interfaces that transports of `kind` need.
    :param host: an IP literal; "::" also binds IPv4.
    :param port: 0 for any.
    :param workers: number of workers, this process not counted.
    :param kind: "batched" or "plain", the transport on each socket.
    :ivar count: number of workers.
    :ivar owner: the WorkerOwner, to be set before start().
    """

    owner: WorkerOwner
    forward: Forward | None = None

    def __init__(self, reactor: Any, host: str, port: int, workers: int, kind: str) -> None:
        self._reactor = reactor
        self._kind = kind
        self._host = host
        self._port = port
        self.count = workers
        self._sockets: list[socket.socket] = []
        self._workers: list[_Worker] = []
        self._transport: Any = None  # on the first socket

    @property
    def gathers(self) -> bool:
        """Whether one call of `receive` gets all waiting datagrams; see IDatagramTransport."""
        return bool(self._transport.gathers)

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open the sockets, and start the workers. Raises CannotListenError."""
        options = [] if self._kind == "plain" else [batched.JOINED]
        try:
            sockets = reuseport.open_group(self._host, self._port, 1 + self.count, options)
        except OSError as error:
            raise CannotListenError(self._host, self._port, error) from error
        self._sockets = sockets
        read = functools.partial(self._read, receive)
        self._transport = read(sockets[0])
        self._workers = [
            _Worker(self._reactor, number, udp, self._kind, self.owner, read, receive)
            for number, udp in enumerate(sockets[1:], start=1)
        ]
        for worker in self._workers:
            worker.start()

    def _read(self, receive: Callable[[Datagrams], Any], udp: socket.socket) -> IDatagramTransport:
        """Return a started transport on a socket of the pool. Raises CannotListenError."""
        transport = transport_on(self._reactor, udp, self._kind)
        transport.forward = self.forward
        transport.start(receive)
        return transport

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send datagrams from the socket of this process; see IDatagramTransport."""
        self._transport.send(datagrams, ttl)

    def broadcast(self, message: WorkerMessage) -> None:
        """Send a message to all workers, which read it before any datagram that is sent later."""
        for worker in self._workers:
            worker.send(message)

    def get_address(self) -> Address:
        """The local address of the started transport."""
        address: Address = self._transport.get_address()
        return address

    def stop(self) -> Deferred[Any]:
        """End the workers and close the sockets. Fires once all of them are closed."""
        stopping = [maybeDeferred(worker.stop) for worker in self._workers]
        if self._transport is not None:
            stopping.append(maybeDeferred(self._transport.stop))
        for udp in self._sockets:
            udp.close()
        self._workers, self._sockets = [], []
        return gatherResults(stopping)
