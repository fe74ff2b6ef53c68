"""Multiplexers joined in memory, on virtual time: the real QUIC code without sockets or clocks."""

import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from aioquic import tls
from hypothesis import HealthCheck

from p2pnet.identity import Credentials, Role
from p2pnet.quic import events
from p2pnet.quic.admission import Limits
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import AnyAddress, Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.testing.realm import Realm
from p2pnet.wire.address import Address, PeerAddress

CLIENT: Address = ("198.51.100.1", 50000)
SERVER: Address = ("192.0.2.1", 4433)
PEER = PeerAddress.of_session(bytes(16))
ALPN = "test/1"
LIMITS = Limits(connections=10_000, retry_above=32)
ENGINE = FAST  # for settings that do not say; test_stock.py runs everything with the other one
TWICE = [HealthCheck.differing_executors]  # to be suppressed for what test_stock.py runs again

Kind = TypeVar("Kind", bound=events.Event)


@functools.cache
def realm(name: str = "example") -> Realm:
    """A realm, made once a run."""
    return Realm(name)


@functools.cache
def credentials(role: Role, name: str) -> Credentials:
    """A node of the realm `example`, made once a run."""
    hosts = [SERVER[0]] if role is Role.INTERMEDIATE else []
    return realm().credentials(role, name, hosts=hosts)


def settings(role: Role, peers: Iterable[Role], **changes: Any) -> ConnectionProfile:
    """The profile of a node that wants peers of some roles; `changes` are its fields."""
    fields: dict[str, Any] = {
        "credentials": credentials(role, f"the-{role}"),
        "roles": frozenset(peers),
        "utcnow": lambda: datetime.now(UTC),
        "alpn": ALPN,
        "datagrams": True,
        "engine": ENGINE,
        "entropy": lambda size: b"\x5a" * size,  # the same packet numbers in every run
    }
    return ConnectionProfile(**(fields | changes))


def client_settings(**changes: Any) -> ConnectionProfile:
    """An Agent that dials a Connector."""
    return settings(Role.AGENT, [Role.CONNECTOR], **changes)


def server_settings(**changes: Any) -> ConnectionProfile:
    """A Connector that waits for an Agent."""
    return settings(Role.CONNECTOR, [Role.AGENT], **{"max_streams": 16, **changes})


def protected(engine: Any, plain: bytes) -> bytes:
    """The next 1-RTT packet of an established connection, with frames of the caller's making."""
    crypto, number = engine._cryptos[tls.Epoch.ONE_RTT], engine._packet_number
    engine._packet_number += 1
    first = 0x41 | crypto.key_phase << 2
    header = b"%c%b%b" % (first, engine._peer_cid.cid, (number & 0xFFFF).to_bytes(2))
    packet: bytes = crypto.encrypt_packet(header, plain.ljust(4, b"\0"), number)
    return packet


class Endpoint:
    """A multiplexer on the network, with a host that reads everything unless told otherwise.

    :ivar address: where it is; change it to have it rebound by a NAT.
    :ivar events: all that happened, in order.
    :ivar consumes: whether received bytes count as used at once.
    :ivar sends: whether what it has to send is taken from it.
    :ivar uploads: what is left of each upload().
    """

    def __init__(self, mux: Multiplexer, address: Address) -> None:
        self.mux = mux
        self.address = address
        self.events: list[tuple[Connection, events.Event]] = []
        self.consumes = True
        self.sends = True
        self.uploads: dict[tuple[Connection, int], bytearray] = {}

    def happened(self, kind: type[Kind], connection: Connection | None = None) -> list[Kind]:
        """The events of a kind, of one connection or of all."""
        return [
            event
            for source, event in self.events
            if isinstance(event, kind) and connection in (None, source)
        ]

    def received(self, connection: Connection, stream_id: int) -> bytes:
        """All bytes that the stream delivered."""
        chunks = self.happened(events.StreamDataReceived, connection)
        return b"".join(event.data for event in chunks if event.stream_id == stream_id)

    def upload(self, connection: Connection, stream_id: int, data: bytes) -> None:
        """Send `data` and the end of the stream, as fast as send() says that it may."""
        self.uploads[connection, stream_id] = bytearray(data)
        self._continue(connection, stream_id)

    def take_events(self) -> bool:
        """Let the host handle what happened. Returns whether anything did."""
        before = len(self.events)
        while (item := self.mux.next_event()) is not None:
            self.events.append(item)
            connection, event = item
            if isinstance(event, events.StreamDataReceived) and self.consumes:
                connection.consume(event.stream_id, len(event.data))
            elif isinstance(event, events.StreamWritable):
                self._continue(connection, event.stream_id)
        return len(self.events) > before

    def _continue(self, connection: Connection, stream_id: int) -> None:
        left = self.uploads.get((connection, stream_id))
        while left:
            chunk = bytes(left[:16384])
            del left[:16384]
            if not connection.send(stream_id, chunk, end=not left):
                break


class Network:
    """Endpoints that reach each other by address.

    :ivar now: virtual time in seconds.
    :ivar delay: seconds one way. `loss`: the probability that a datagram is lost.
    :ivar mtu: bytes; datagrams with more are lost.
    :ivar jitter: seconds that a datagram may take longer, so that others overtake it.
    :ivar copies: the probability that a datagram arrives twice.
    :ivar sent: of every datagram when it was sent, by whom, and its size; lost ones, too.
    """

    def __init__(self, *, delay: float = 0.01, loss: float = 0.0, seed: int = 0) -> None:
        self.now = 0.0
        self.delay = delay
        self.loss = loss
        self.mtu = math.inf
        self.jitter = self.copies = 0.0
        self.sent: list[tuple[float, Address, int]] = []
        self.endpoints: list[Endpoint] = []
        self._random = random.Random(seed)
        self._flying: list[tuple[float, int, bytes, AnyAddress, Endpoint]] = []
        self._count = itertools.count()

    def add(self, mux: Multiplexer, address: Address) -> Endpoint:
        """Put a multiplexer on the network."""
        endpoint = Endpoint(mux, address)
        self.endpoints.append(endpoint)
        return endpoint

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], Any], seconds: float = 120.0) -> bool:
        """Let time pass until `done()`, at most so many seconds. Returns whether it is."""
        end = self.now + seconds
        self._pump_all()
        while not done():
            when = self._next_time()
            if when > end:
                self.now = end
                return False
            self._advance(when)
        return True

    def run_until_quiet(self, silence: float = 2.0) -> None:
        """Let time pass until nothing flies and nothing is due within `silence` seconds."""
        self._pump_all()
        while (when := self._next_time()) <= self.now + silence:
            self._advance(when)

    def _next_time(self) -> float:
        timers = [endpoint.mux.get_timer() for endpoint in self.endpoints]
        times = [time for time in timers if time is not None]
        if self._flying:
            times.append(self._flying[0][0])
        return min(times, default=math.inf)

    def _advance(self, when: float) -> None:
        self.now = when
        touched = set()
        while self._flying and self._flying[0][0] <= when:
            _, _, data, source, endpoint = heapq.heappop(self._flying)
            endpoint.mux.receive_datagram(data, source, when)
            touched.add(endpoint)
        for endpoint in self.endpoints:
            if endpoint in touched or self._is_due(endpoint):
                self._pump(endpoint)

    def _pump_all(self) -> None:
        for endpoint in self.endpoints:
            self._pump(endpoint)

    def _is_due(self, endpoint: Endpoint) -> bool:
        timer = endpoint.mux.get_timer()
        return timer is not None and timer <= self.now

    def _pump(self, endpoint: Endpoint) -> None:
        self._exchange(endpoint)
        # What is due before now is due now: an acknowledgement brings a probe timeout forward, and
        # a new path that is given up lets probes that it held back go.
        for _ in range(2):
            if self._is_due(endpoint):
                endpoint.mux.handle_timer(self.now)
                self._exchange(endpoint)
        timer = endpoint.mux.get_timer()
        assert not self._is_due(endpoint), f"timer stands still: {timer} at {self.now}"

    def _exchange(self, endpoint: Endpoint) -> None:
        endpoint.take_events()
        while endpoint.sends:
            datagrams = endpoint.mux.datagrams_to_send(self.now)
            for data, address in datagrams:
                self._send(endpoint, data, address)
            if not endpoint.take_events() and not datagrams:
                break

    def _send(self, sender: Endpoint, data: bytes, address: AnyAddress) -> None:
        self.sent.append((self.now, sender.address, len(data)))
        if self._random.random() < self.loss or len(data) > self.mtu:
            return
        times = [self.now + self.delay]
        if self.copies and self._random.random() < self.copies:
            times *= 2
        if self.jitter:
            times = [at + self._random.uniform(0, self.jitter) for at in times]
        # A PeerAddress is the same at both ends; whoever else is there is the other end.
        by_peer = isinstance(address, PeerAddress)
        source = address if by_peer else sender.address
        for endpoint in self.endpoints:
            if endpoint.address == address or (by_peer and endpoint is not sender):
                for at in times:
                    item = at, next(self._count), data, source, endpoint
                    heapq.heappush(self._flying, item)


class Pair(Network):
    """A client's and a server's multiplexer.

    :param peer: whether the two know each other by a PeerAddress rather than by real addresses.
    """

    def __init__(
        self,
        *,
        peer: bool = False,
        client: ConnectionProfile | None = None,
        server: ConnectionProfile | None = None,
        limits: Limits = LIMITS,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        self.client_settings = client or client_settings()
        self.server_address: AnyAddress = PEER if peer else SERVER
        accepted = server or server_settings()
        serving = (
            Multiplexer(accept_peer=lambda _: accepted)
            if peer
            else Multiplexer(server=accepted, limits=limits)
        )
        self.client = self.add(Multiplexer(), CLIENT)
        self.server = self.add(serving, SERVER)

    def dial(self, client: ConnectionProfile | None = None) -> Connection:
        """A connection of the client's, its handshake not begun."""
        mux = self.client.mux
        return mux.connect(client or self.client_settings, self.server_address, self.now)

    def connect(self, client: ConnectionProfile | None = None) -> tuple[Connection, Connection]:
        """The two ends of a new connection, established."""
        known = len(self.server.happened(events.HandshakeCompleted))
        one = self.dial(client)
        assert self.run_until(
            lambda: len(self.server.happened(events.HandshakeCompleted)) > known, 30.0
        ), self.client.events
        other = [
            connection
            for connection, event in self.server.events
            if isinstance(event, events.HandshakeCompleted)
        ][-1]
        self.run_until_quiet()
        return one, other
