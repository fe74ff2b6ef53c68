"""Traffic between two hosts that keeps note of when what came.

Times are seconds since 1970, as in event logs, so that both can be compared. What came when is
written down by the threads that read it, and looked at later: nothing here waits in steps.
"""

import asyncio
import bisect
import contextlib
import dataclasses
import hashlib
import itertools
import os
import socket
import threading
import time
from typing import Self

from lab.namespaces import Host
from p2pnet.testing.processes import ProcessError

TICK = 0.02  # seconds between blocks: shorter than any round trip that matters
DOWN, UP = 8192, 256  # bytes of a block: a download of 400 kB/s and somebody typing
UNNOTICED = 0.1  # seconds without a byte that nobody calls an interruption
JOIN_TIMEOUT = 20.0  # seconds for a connection to reach the other host, or for its last byte
REQUEST_TIMEOUT = 20.0  # seconds, then a request failed
QUESTION, ANSWER = 64, 1024  # bytes of a request


class Direction:
    """Random bytes from one socket to another, a block each TICK, until `end()`.

    :ivar sent: bytes handed over so far; `received`: those that came.
    :ivar problem: why sending or receiving broke off, "" if it did not; `ended_at`: when the
        receiver saw the end, proper or not.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, block: int) -> None:
        self.sent = self.received = 0
        self.problem = ""
        self.ended_at: float | None = None
        self._source, self._sink, self._block = source, sink, block
        self._hashes = hashlib.sha256(), hashlib.sha256()
        self._arrivals: list[tuple[int, float]] = []  # bytes received until then, and when
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        try:
            while not self._ending.wait(TICK):
                data = os.urandom(self._block)
                self._hashes[0].update(data)
                self.sent += len(data)
                self._source.sendall(data)
            self._source.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.problem = self.problem or f"sending: {error}"

    def _receive(self) -> None:
        try:
            while data := self._sink.recv(1 << 16):
                self.received += len(data)
                self._arrivals.append((self.received, time.time()))
                self._hashes[1].update(data)
        except OSError as error:
            self.problem = self.problem or f"receiving: {error}"
        self.ended_at = time.time()

    def end(self) -> None:
        """Send no more."""
        self._ending.set()

    def join(self, deadline: float) -> None:
        """Wait until that time (seconds since 1970) for everything to have arrived."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.time()))

    def arrival(self, offset: int) -> float | None:
        """When the first byte beyond `offset` came, None if it did not yet."""
        index = bisect.bisect_right(self._arrivals, offset, key=lambda arrival: arrival[0])
        return self._arrivals[index][1] if index < len(self._arrivals) else None

    def longest_silence(self, since: float) -> tuple[float, float]:
        """The longest time without a byte that ended after `since`: its seconds, and its end."""
        times = [when for _, when in self._arrivals] + [self.ended_at or time.time()]
        gaps = ((b - a, b) for a, b in itertools.pairwise(times) if b > since)
        return max(gaps, default=(0.0, since))

    @property
    def lost(self) -> int:
        """Bytes that were sent and did not come."""
        return self.sent - self.received

    @property
    def is_intact(self) -> bool:
        """Whether all that came is all that was sent."""
        return self._hashes[0].digest() == self._hashes[1].digest()


class Flow:
    """One TCP connection from a host to a forward and on to a service, busy both ways.

    :param client: where the forward listens, at `address`.
    :param server: where the service's target is to listen, at `port` of its loopback.
    :raises ProcessError: it did not get through.
    """

    def __init__(
        self, client: Host, address: tuple[str, int], server: Host, port: int
    ) -> None:  # fmt: skip
        with server.enter():
            listener = socket.create_server(("127.0.0.1", port))
        try:
            with listener:
                listener.settimeout(JOIN_TIMEOUT)
                with client.enter():
                    self._near = socket.create_connection(address, JOIN_TIMEOUT)
                self._far, _ = listener.accept()
        except OSError as error:
            raise ProcessError(f"no connection through the forward: {error}") from None
        for end in (self._near, self._far):
            end.settimeout(None)
        self.down = Direction(self._far, self._near, DOWN)
        self.up = Direction(self._near, self._far, UP)
        self.directions = self.down, self.up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for direction in self.directions:
            direction.end()
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):  # it broke before
                end.shutdown(socket.SHUT_RDWR)  # wakes the threads that still wait on it
        for direction in self.directions:
            direction.join(time.time() + JOIN_TIMEOUT)
        for end in (self._near, self._far):
            end.close()

    @property
    def marks(self) -> tuple[int, ...]:
        """How far each direction was sent; for `caught_up()`."""
        return tuple(direction.sent for direction in self.directions)

    def caught_up(self, marks: tuple[int, ...]) -> float | None:
        """When bytes sent after `marks` had come in both directions, None if they did not yet."""
        times = [d.arrival(mark) for d, mark in zip(self.directions, marks, strict=True)]
        known = [when for when in times if when is not None]
        return max(known) if len(known) == len(times) else None

    def interruption(self, since: float) -> tuple[float, float]:
        """The longest silence of either direction, and when both had ended; 0.0 and `since` if
        none was longer than those of undisturbed traffic."""
        silences = [direction.longest_silence(since) for direction in self.directions]
        noticed = [silence for silence in silences if silence[0] > UNNOTICED]
        seconds, ends = [s for s, _ in noticed], [end for _, end in noticed]
        return max(seconds, default=0.0), max(ends, default=since)

    def finish(self) -> None:
        """Send no more, and wait for the last byte."""
        for direction in self.directions:
            direction.end()
        deadline = time.time() + JOIN_TIMEOUT
        for direction in self.directions:
            direction.join(deadline)

    @property
    def lost(self) -> int:
        """Bytes that were sent and did not come, of both directions."""
        return sum(direction.lost for direction in self.directions)

    @property
    def is_intact(self) -> bool:
        """Whether all that came is all that was sent, both ways."""
        return all(direction.is_intact for direction in self.directions)

    @property
    def problem(self) -> str:
        """Why it broke off, "" if it did not."""
        return "; ".join(filter(None, (direction.problem for direction in self.directions)))


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: when it began, when it ended, and why it failed ("" if it did not)."""

    begun: float
    ended: float
    problem: str


class Requests(threading.Thread):
    """Requests at a steady rate, each on a TCP connection of its own, from `with` to its end.

    :param client: where the forward listens, at `address`.
    :param server: where the service's target is to listen, at `port` of its loopback.
    :param rate: requests a second.
    :ivar done: those that ended.
    """

    def __init__(
        self, client: Host, address: tuple[str, int], server: Host, port: int, rate: float
    ) -> None:
        super().__init__(daemon=True)
        with server.enter():
            self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._client, self._address, self._rate = client, address, rate
        self._ending = threading.Event()
        self.done: list[Request] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Begin no more, and wait for those that are under way."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Do them."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._listener)
        begun, count = time.time(), 0
        async with server, asyncio.TaskGroup() as requests:
            while not self._ending.is_set():
                requests.create_task(self._request())
                count += 1
                await asyncio.sleep(max(0.0, begun + count / self._rate - time.time()))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the asker notices
            writer.write(_answer_to(await reader.readexactly(QUESTION)))
            await writer.drain()
            writer.close()

    async def _request(self) -> None:
        begun, problem = time.time(), ""
        question = os.urandom(QUESTION)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                if await self._ask(question) != _answer_to(question):
                    problem = "not the answer"
        except TimeoutError:
            problem = f"no answer in {REQUEST_TIMEOUT:.0f} s"
        except OSError as error:
            problem = str(error)
        self.done.append(Request(begun, time.time(), problem))

    async def _ask(self, question: bytes) -> bytes:
        with self._client.enter():  # a socket stays where it was made
            connection = socket.socket()
        with connection:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, self._address)
            await loop.sock_sendall(connection, question)
            answer = b""
            while data := await loop.sock_recv(connection, 1 << 16):
                answer += data
            return answer


def _answer_to(question: bytes) -> bytes:
    return hashlib.sha256(question).digest() * (ANSWER // 32)
