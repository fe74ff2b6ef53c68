"""Checked bytes through a forward: how many came, when, and whether all are right.

Each direction of a connection has a thread that sends and one that receives, both in this process,
so that all times are by one clock.
"""

import bisect
import contextlib
import hashlib
import itertools
import math
import os
import socket
import threading
import time

from lab.namespaces import Host
from p2pnet.testing.processes import POLL, ProcessError

BLOCK = 1 << 16  # bytes
CONNECT_TIMEOUT = 60.0  # seconds for a connection to reach the other host
PATTERN = os.urandom((1 << 20) - 1)  # an odd length: a lost or repeated block changes the hash


def listen(host: Host, port: int = 0) -> socket.socket:
    """A TCP listener on the host's loopback, to be the target of a service."""
    with host.enter():
        return socket.create_server(("127.0.0.1", port))


def connect(
    host: Host, address: tuple[str, int], listener: socket.socket, timeout: float | None = None
) -> tuple[socket.socket, socket.socket]:
    """A connection from a host to a forward at `address` and on to the service of `listener`.

    Returns the host's end and the listener's. Raises ProcessError.

    :param timeout: of both ends, in seconds without a byte; None: they wait for ever.
    """
    listener.settimeout(CONNECT_TIMEOUT)
    with contextlib.ExitStack() as stack:
        try:
            with host.enter():
                near = stack.enter_context(socket.create_connection(address, CONNECT_TIMEOUT))
            far, _ = listener.accept()
        except OSError as error:
            raise ProcessError(f"no connection through the forward: {error}") from None
        stack.pop_all()
    for end in (near, far):
        end.settimeout(timeout)
    return near, far


class Direction:
    """Bytes from one socket to another, a block each `pause` seconds, until `end()`.

    :param pause: 0.0 for as fast as they go.
    :ivar sent: bytes handed over so far; `received`: those that came.
    :ivar problem: why sending or receiving broke off, "" if it did not; `ended_at`: when the
        receiver saw the end, proper or not (seconds since 1970).
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, block: int = BLOCK, pause: float = 0.0
    ) -> None:
        self.sent = self.received = 0
        self.problem = ""
        self.ended_at: float | None = None
        self._ends = source, sink
        self._pace = block, pause
        self._tail = 0
        self._hashes = hashlib.sha256(), hashlib.sha256()
        self._arrivals = [(0, time.time())]  # bytes received until then, and when
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        block, pause = self._pace
        try:
            while not self._ending.wait(pause) if pause else not self._ending.is_set():
                self._send_some(block)
            end = self.sent + self._tail
            while self.sent < end:
                self._send_some(min(BLOCK, end - self.sent))
            self._ends[0].shutdown(socket.SHUT_WR)
        except OSError as error:
            self.problem = self.problem or f"sending: {error}"

    def _send_some(self, size: int) -> None:
        start = self.sent % len(PATTERN)
        data = PATTERN[start : start + size]
        self._hashes[0].update(data)
        self.sent += len(data)
        self._ends[0].sendall(data)

    def _receive(self) -> None:
        try:
            while data := self._ends[1].recv(BLOCK):
                self.received += len(data)
                self._arrivals.append((self.received, time.time()))
                self._hashes[1].update(data)
        except OSError as error:
            self.problem = self.problem or f"receiving: {error}"
        self.ended_at = time.time()

    def end(self, tail: int = 0) -> None:
        """Send no more than `tail` bytes, as fast as they go."""
        self._tail = tail
        self._ending.set()

    def join(self, deadline: float = math.inf) -> None:
        """Wait until that time (seconds since 1970) for everything to have arrived."""
        for thread in self._threads:
            thread.join(None if deadline == math.inf else max(0.0, deadline - time.time()))

    def wait_for(self, total: int, until: float = math.inf) -> None:
        """Return once so many bytes were received, no more will be, or at `until`."""
        while self.received < total and self.ended_at is None and time.time() < until:
            time.sleep(POLL)

    def arrival(self, offset: int) -> float | None:
        """When the first byte beyond `offset` came, None if it did not yet."""
        index = bisect.bisect_right(self._arrivals, offset, key=lambda arrival: arrival[0])
        return self._arrivals[index][1] if index < len(self._arrivals) else None

    def longest_silence(self, since: float = 0.0) -> tuple[float, float]:
        """The longest time without a byte that ended after `since`: its seconds, and its end."""
        times = [when for _, when in self._arrivals] + [self.ended_at or time.time()]
        gaps = ((b - a, b) for a, b in itertools.pairwise(times) if b > since)
        return max(gaps, default=(0.0, since))

    def rate(self, start: float, end: float) -> float:
        """Bytes/s between two times (seconds since 1970)."""
        indices = (bisect.bisect(self._arrivals, w, key=lambda one: one[1]) for w in (start, end))
        (before, first), (after, last) = (self._arrivals[max(0, i - 1)] for i in indices)
        return (after - before) / (last - first) if last > first else 0.0

    @property
    def lost(self) -> int:
        """Bytes that were sent and did not come."""
        return self.sent - self.received

    @property
    def is_intact(self) -> bool:
        """Whether all that came is all that was sent."""
        return self._hashes[0].digest() == self._hashes[1].digest()
