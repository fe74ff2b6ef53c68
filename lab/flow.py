"""Traffic between two hosts that keeps note of when what came.

Times are seconds since 1970, as in event logs, so that both can be compared. What came when is
written down by the threads that read it, and looked at later: nothing here waits in steps.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import socket
import threading
import time
from typing import Self

from lab.namespaces import Host
from lab.traffic import Direction, connect, listen

TICK = 0.02  # seconds between blocks: shorter than any round trip that matters
DOWN, UP = 8192, 256  # bytes of a block: a download of 400 kB/s and somebody typing
UNNOTICED = 0.1  # seconds without a byte that nobody calls an interruption
JOIN_TIMEOUT = 20.0  # seconds for the last byte
REQUEST_TIMEOUT = 20.0  # seconds, then a request failed
QUESTION, ANSWER = 64, 1024  # bytes of a request


class Flow:
    """One TCP connection from a host to a forward and on to a service, busy both ways.

    :param client: where the forward listens, at `address`.
    :param server: where the service's target is to listen, at `port` of its loopback.
    :raises ProcessError: it did not get through.
    """

    def __init__(
        self, client: Host, address: tuple[str, int], server: Host, port: int
    ) -> None:  # fmt: skip
        with listen(server, port) as listener:
            self._near, self._far = connect(client, address, listener)
        self.down = Direction(self._far, self._near, DOWN, TICK)
        self.up = Direction(self._near, self._far, UP, TICK)
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
