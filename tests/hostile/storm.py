"""A reconnect storm on virtual time: nodes with their timers, and a server with a slow processor.

Multiplexers, TLS and Backoff are the real ones. The server's processor is modelled: each thing that
the server does takes the time that it took on a real core, divided by the server's share of a core.
"""

import collections
import functools
import heapq
import itertools
import random
from collections.abc import Callable, Iterable

from p2pnet.core.peer.backoff import Backoff
from p2pnet.quic import events
from p2pnet.quic.admission import Limits
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.wire.address import Address
from tests.quic.harness import SERVER, client_settings, server_settings

# Seconds of a whole core.
DATAGRAM, INITIAL, RETRY, BEGIN, FINISH = 20e-6, 50e-6, 50e-6, 1.3e-3, 1.4e-3
HANDSHAKE = BEGIN + FINISH
BATCH = 64  # datagrams of a turn, as net/batched.py
BUFFER = 3600  # datagrams that a socket's buffer holds
DELAY = 0.01  # seconds one way


class Processor:
    """A server's multiplexer, driven as net/driver.py does, on a share of a core.

    :ivar used: seconds of a whole core that the server worked.
    """

    def __init__(self, share: float, retry_above: int = 32) -> None:
        limits = Limits(connections=10_000, retry_above=retry_above)
        self.mux = Multiplexer(server=server_settings(), limits=limits)
        self.used = 0.0
        self._queue: collections.deque[tuple[bytes, Address]] = collections.deque()
        self._sent: list[tuple[float, bytes, Address]] = []
        self._free_at = 0.0
        self._share = share
        self._seen = (0, 0)

    def next_turn(self) -> float | None:
        """When the next turn begins, None for never."""
        timer = self.mux.get_timer()
        if self._queue:
            return self._free_at
        return None if timer is None else max(self._free_at, timer)

    def arrive(self, data: bytes, address: Address, now: float) -> None:
        """Put a datagram into the socket's buffer, unless that is full."""
        if len(self._queue) < BUFFER:
            self._queue.append((data, address))
            self._free_at = max(self._free_at, now)

    def turn(self, now: float) -> list[tuple[float, bytes, Address]]:
        """Do what a reactor does between two calls of select(). Returns what is sent, and when."""
        timer = self.mux.get_timer()
        if timer is not None and timer <= now:
            self.mux.handle_timer(now)
            now = self._pump(now)
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        arrived = now
        for data, address in batch:
            self.mux.receive_datagram(data, address, arrived)
            now = self._work(now, DATAGRAM + (INITIAL if data[0] & 0xF0 == 0xC0 else 0))
        self._free_at = self._pump(now)
        sent, self._sent = self._sent, []
        return sent

    def _pump(self, now: float) -> float:
        while True:
            while (item := self.mux.next_event()) is not None:
                connection, event = item
                if isinstance(event, events.HandshakeCompleted):
                    now = self._work(now, FINISH)
                elif isinstance(event, events.StreamDataReceived):
                    connection.consume(event.stream_id, len(event.data))
                    connection.send(event.stream_id, b"welcome")
            retries, begun = self._seen
            datagrams = self.mux.datagrams_to_send(now)
            self._seen = self.mux.admission.retry.sent, self.mux.admission.half_open.begun
            now = self._work(now, (self._seen[0] - retries) * RETRY)
            now = self._work(now, (self._seen[1] - begun) * BEGIN)
            now = self._work(now, len(datagrams) * DATAGRAM)
            self._sent += [(now, data, address) for data, address in datagrams]
            if not datagrams:
                return now

    def _work(self, now: float, seconds: float) -> float:
        self.used += seconds
        return now + seconds / self._share


class Node:
    """A node that lost its server at time 0, and comes back with the timers of a ControlLink.

    :param has_sessions: whether sessions wait for the server, so that tries are quick.
    :ivar up_at: when the node was back, None before.
    """

    def __init__(self, address: Address, rng: random.Random, *, has_sessions: bool) -> None:
        self.address = address
        self.up_at: float | None = None
        self.tries = 0
        self.mux = Multiplexer()
        self._backoff = Backoff(rng.random)
        self._connection: Connection | None = None
        self._deadline = 0.0
        self._has_sessions = has_sessions
        self._backoff.succeeded()  # before
        self._start_at = self._backoff.failed(is_needed=has_sessions)

    def get_timer(self) -> float | None:
        """When handle_timer() is due, None for never."""
        times = [self.mux.get_timer()]
        if self.up_at is None:
            times.append(self._start_at if self._connection is None else self._deadline)
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Begin a try or give it up, and what the connection does."""
        self.mux.handle_timer(now)
        if self.up_at is not None:
            return
        if self._connection is None and now >= self._start_at:
            self.tries += 1
            self._deadline = self._backoff.begin(now, 0.0, is_needed=self._has_sessions)
            self._connection = self.mux.connect(client_settings(), SERVER, now)
        elif self._connection is None or now < self._deadline:
            return
        elif self._connection.is_answered and now < self._backoff.latest:
            self._deadline = self._backoff.latest
        else:
            self._connection.close(0, "no answer in time")
            self._failed(now)

    def take_events(self, now: float) -> None:
        """Greet, and be welcomed."""
        while (item := self.mux.next_event()) is not None:
            connection, event = item
            if connection is not self._connection:
                continue
            if isinstance(event, events.HandshakeCompleted):
                connection.send(connection.open_stream(), b"hello")
            elif isinstance(event, events.StreamDataReceived):
                self.up_at = now
            elif isinstance(event, events.ConnectionClosed) and self.up_at is None:
                self._failed(now)

    def _failed(self, now: float) -> None:
        self._connection = None
        self._start_at = now + self._backoff.failed(is_needed=self._has_sessions)


class Storm:
    """Nodes that lost their server at time 0, and the server, which is there again at once.

    :param has_sessions: of all nodes.
    :ivar nodes: the nodes by address; `up_at` says when each is back.
    """

    def __init__(
        self,
        processor: Processor,
        addresses: Iterable[Address],
        *,
        has_sessions: bool = False,
        seed: int = 1,
    ) -> None:
        rng = random.Random(seed)
        self.processor = processor
        self.nodes = {
            address: Node(address, rng, has_sessions=has_sessions) for address in addresses
        }
        self._away = set(self.nodes)
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        for node in self.nodes.values():
            self._set_timer(node)

    def run(self, seconds: float) -> list[float]:
        """Let time pass until all are back, or so many seconds have passed. Returns when each node
        was back, in order."""
        now = 0.0
        while now < seconds and self._away:
            turn = self.processor.next_turn()
            if turn is not None and turn <= self._agenda[0][0]:
                now = turn
                for at, data, address in self.processor.turn(now):
                    self._call_at(at + DELAY, functools.partial(self._deliver, address, data))
            else:
                now, _, happen = heapq.heappop(self._agenda)
                happen(now)
        return sorted(node.up_at for node in self.nodes.values() if node.up_at is not None)

    def _call_at(self, at: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self._agenda, (at, next(self._count), call))

    def _set_timer(self, node: Node) -> None:
        timer = node.get_timer()
        if timer is not None:
            self._call_at(timer, functools.partial(self._wake, node))

    def _wake(self, node: Node, now: float) -> None:
        timer = node.get_timer()
        if timer is not None and timer <= now:
            node.handle_timer(now)
            self._pump(node, now)

    def _deliver(self, address: Address, data: bytes, now: float) -> None:
        node = self.nodes[address]
        node.mux.receive_datagram(data, SERVER, now)
        self._pump(node, now)

    def _pump(self, node: Node, now: float) -> None:
        node.take_events(now)
        for data, _ in node.mux.datagrams_to_send(now):
            arrive = functools.partial(self.processor.arrive, data, node.address)
            self._call_at(now + DELAY, arrive)
        node.take_events(now)
        if node.up_at is not None:
            self._away.discard(node.address)
        self._set_timer(node)
