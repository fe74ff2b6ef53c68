"""One UDP port that an Intermediate shares with relay workers, which are processes of their own.

Each process has a socket of its own on the port, and the kernel spreads the frames over them
(reuseport.py). All of the sockets are opened here and stay open here. So little changes when a
worker dies: until the next one is ready, its socket is read here.
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

FIRST_DELAY = (
    0.1  # seconds to the second restart, doubled with every one after it; the first is now
)
MAX_DELAY = 10.0  # seconds; a worker that lived for longer begins anew


def is_available(reactor: object) -> bool:
    """Whether this system and this reactor can share a port among processes."""
    return IReactorFDSet.providedBy(reactor) and reuseport.is_available()


class WorkerOwner(Protocol):
    """What a WorkerPool asks of its Intermediate, and tells it. Workers are numbered from 1."""

    def worker_added(self, worker: int) -> Iterable[WorkerMessage]:
        """A worker's process started. Returns the messages that it must get first."""

    def worker_began(self, worker: int, pid: int) -> None:
        """The worker's process, of that process id, forwards frames from now on."""

    def worker_said(self, worker: int, message: WorkerMessage) -> None:
        """The worker sent a message about its circuits."""

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """The worker's process ended; another one starts in `restart_in` seconds."""


class _Process:
    """A process that runs p2pnet.net.workers.process with a UDP socket, and the pipe to it.

    :ivar started_at: when, by the reactor's clock.
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
        # Modules are where this process found them, and with -P not where it works.
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
        """End it at once; it has nothing to lose."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()


class _Worker:
    """One worker: its socket, which stays open, and its process, which may end and start again.

    :param owner: learns what the process does, by the worker's number.
    :param read: reads the socket in this process, while no other one does.
    :param receive: gets datagrams that the process passes on.
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
        self._stand_in: IDatagramTransport | None = None  # while the process is not there
        self._delay = 0.0  # seconds before the next start, if there is need of one
        self._start_call: IDelayedCall | None = None

    def start(self) -> None:
        """Read the socket here, and start a process that will."""
        self._start_call = None
        try:
            self._step_in()
            process = _Process(self._reactor, self._udp, self._kind, self._take, self._lost)
        except (OSError, CannotListenError) as error:
            self._start_later(str(error))
            return
        self._process = process
        for message in self._owner.worker_added(self._number):
            process.pipe.send(message)
        process.pipe.send(Begin())

    def tell(self, message: WorkerMessage) -> None:
        """Tell the process, if there is one."""
        if self._process is not None:
            self._process.pipe.send(message)

    def stop(self) -> Any:
        """End it. Returns None, or a Deferred that fires when its socket is not read any more."""
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

    def _take(self, message: WorkerMessage) -> None:
        match message:
            case Begun():
                self._step_back()
                assert self._process is not None
                self._owner.worker_began(self._number, self._process.pid)
            case Stray(data, source):
                self._receive([(data, source)])
            case _:
                self._owner.worker_said(self._number, message)

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
            pass  # there is no descriptor left; what comes waits for the next process


@implementer(IDatagramTransport)
class WorkerPool:
    """The UDP socket of an Intermediate that has workers.

    :param reactor: provides what IDatagramTransports of that kind do, and IReactorFDSet.
    :param host: an IP literal; "::" takes IPv4 too.
    :param port: 0 for any.
    :param workers: how many, besides this process.
    :param kind: how the sockets are used, batched or plain.
    :ivar count: of workers; `owner`: the WorkerOwner, to be set before it starts.
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
        """See IDatagramTransport; all sockets of the pool are of one kind."""
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
        """Read a socket in this process. Raises CannotListenError."""
        transport = transport_on(self._reactor, udp, self._kind)
        transport.forward = self.forward
        transport.start(receive)
        return transport

    def send(self, datagrams: Datagrams, hops: int | None = None) -> None:
        """Send, best effort, from the socket of this process."""
        self._transport.send(datagrams, hops)

    def tell(self, message: WorkerMessage) -> None:
        """Send a message to every worker; each knows it before a datagram that is sent afterwards
        arrives anywhere."""
        for worker in self._workers:
            worker.tell(message)

    def get_address(self) -> Address:
        """The local address of the shared port, once the pool is started."""
        address: Address = self._transport.get_address()
        return address

    def stop(self) -> Deferred[Any]:
        """End the workers and close the sockets."""
        stopping = [maybeDeferred(worker.stop) for worker in self._workers]
        if self._transport is not None:
            stopping.append(maybeDeferred(self._transport.stop))
        for udp in self._sockets:
            udp.close()
        self._workers, self._sockets = [], []
        return gatherResults(stopping)
