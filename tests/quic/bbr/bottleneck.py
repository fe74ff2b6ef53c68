"""Connections that share a bottleneck, on virtual time: the real QUIC code over a simulated link.

The link has a rate, a buffer in front of it and a delay behind it, and may lose, delay and bunch
packets. Wire bytes count with UDP's and IP's headers. Everything is drawn from a seed.
"""

import dataclasses
import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

from p2pnet.quic import events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from tests.quic.harness import CLIENT, LIMITS, SERVER, client_settings, server_settings

HEADERS = 28  # bytes of UDP and IPv4
CHUNK = bytes(16384)
BIN = 0.1  # seconds of goodput that are counted together
LONGEST_BURST = 0.02  # seconds; or one would stand still with a sender that waits
WIRE_SHARE = 1160 / 1228  # of a full packet on the wire that is stream data
MBIT = 1e6 / 8  # bytes/s


@dataclasses.dataclass
class Link:
    """A bottleneck; the fields may change while it is used.

    :ivar rate: bytes/s. `rtt`: seconds there and back without a queue.
    :ivar buffer: bytes that wait at most; one BDP, or what 20 ms bring, unless given.
    :ivar loss: probability for each packet, either way, in runs of `burst` packets on average.
    :ivar jitter: seconds of random delay at most, in order.
    :ivar bunching: seconds; acknowledgements arrive at multiples of it, as over Wi-Fi.
    :ivar policer: bytes/s above which packets are dropped, with a bucket of `bucket` bytes.
    """

    rate: float
    rtt: float
    buffer: float = 0.0
    loss: float = 0.0
    burst: float = 1.0
    jitter: float = 0.0
    bunching: float = 0.0
    policer: float = math.inf
    bucket: float = 64 * 1024

    def __post_init__(self) -> None:
        self.buffer = self.buffer or self.rate * max(self.rtt, 0.02)

    @property
    def bdp(self) -> float:
        """Bytes under way when it is full."""
        return self.rate * self.rtt


class Flow:
    """A client that uploads all it may to a server of its own, over the link.

    :ivar goodput: bytes that arrived in order, by BIN.
    :ivar sent: bytes of packets that went out, and `lost` of them that were declared lost.
    :ivar greedy: whether there is always more to send; else what send() is called for.
    """

    def __init__(self, congestion: str, start: float, **settings: Any) -> None:
        accepted = server_settings(congestion=congestion, **settings)
        self.client = Multiplexer()
        self.server = Multiplexer(server=accepted, limits=LIMITS)
        self.congestion = congestion
        self.settings = client_settings(congestion=congestion, **settings)
        self.start = start
        self.started = False
        self.one: Connection | None = None
        self.other: Connection | None = None
        self.stream = 0
        self.goodput: dict[int, int] = {}
        self.sent = self.lost = 0
        self.greedy = True

    @property
    def controller(self) -> Any:
        """The sender's congestion controller."""
        assert self.one is not None
        engine: Any = self.one.engine
        return engine._loss._cc

    def dial(self, now: float) -> None:
        """Begin, and count what is lost from now on."""
        self.started = True
        self.one = self.client.connect(self.settings, SERVER, now)
        recovery: Any = self.one.engine._loss
        on_sent, on_lost = recovery.on_packet_sent, recovery._on_packets_lost
        on_row_sent = recovery.on_row_sent

        def count_sent(*, packet: Any, space: Any) -> None:
            self.sent += packet.sent_bytes
            on_sent(packet=packet, space=space)

        def count_row(packets: Any, space: Any, now: float) -> None:
            self.sent += sum(packet.sent_bytes for packet in packets)
            on_row_sent(packets, space, now)

        def count_lost(*, packets: Any, **rest: Any) -> None:
            packets = list(packets)
            self.lost += sum(packet.sent_bytes for packet in packets)
            on_lost(packets=packets, **rest)

        recovery.on_packet_sent, recovery._on_packets_lost = count_sent, count_lost
        recovery.on_row_sent = count_row

    def send(self, size: int) -> None:
        """Give the client so many bytes to send."""
        assert self.one is not None
        self.one.send(self.stream, bytes(size))

    def feed(self) -> None:
        """Let a greedy client write until send() says to wait."""
        while self.greedy and self.one is not None and self.one.send(self.stream, CHUNK):
            pass

    def take_events(self, now: float) -> None:
        """What both ends' hosts do about what happened."""
        while (item := self.client.next_event()) is not None:
            event = item[1]
            if isinstance(event, events.HandshakeCompleted):
                assert self.one is not None
                self.stream = self.one.open_stream()
                self.feed()
            elif isinstance(event, events.StreamWritable):
                self.feed()
        while (item := self.server.next_event()) is not None:
            self.other, event = item
            if isinstance(event, events.StreamDataReceived):
                size = len(event.data)
                at = int(now / BIN)
                self.goodput[at] = self.goodput.get(at, 0) + size
                self.other.consume(event.stream_id, size)

    def received(self, begin: float, end: float) -> int:
        """Bytes that arrived in that time."""
        return sum(self.goodput.get(at, 0) for at in range(round(begin / BIN), round(end / BIN)))


class Bottleneck:
    """Flows over one link.

    :ivar now: virtual time in seconds.
    :ivar delays: of each packet that went through, when it did and how long it waited.
    """

    def __init__(self, link: Link, *congestion: str, starts: float = 0.0, seed: int = 1) -> None:
        self.link = link
        self.now = 0.0
        self.flows = [Flow(name, number * starts) for number, name in enumerate(congestion)]
        self.delays: list[tuple[float, float]] = []
        self._random = random.Random(seed)
        self._count = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._free = 0.0  # when the link has sent what waits
        self._tokens, self._tokens_at = link.bucket, 0.0
        self._burst_began = [-math.inf, -math.inf]
        self._last_arrival = [0.0, 0.0]
        for flow in self.flows:
            self.at(flow.start, functools.partial(self._dial, flow))

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at that time."""
        heapq.heappush(self._due, (when, next(self._count), action))

    def run(self, until: float) -> None:
        """Let time pass until then."""
        while True:
            timer, flow = self._next_timer()
            when = min(timer, self._due[0][0] if self._due else math.inf)
            if when > until:
                self.now = until
                return
            self.now = max(self.now, when)
            if flow is not None and timer <= when:
                for mux in (flow.client, flow.server):
                    mux.handle_timer(self.now)
                self.pump(flow)
            else:
                heapq.heappop(self._due)[2]()

    def utilisation(self, begin: float, end: float) -> list[float]:
        """Share of what the link can carry of stream data that each flow got, 0..1."""
        room = self.link.rate * (end - begin) * WIRE_SHARE
        return [flow.received(begin, end) / room for flow in self.flows]

    def queueing(self, begin: float, end: float) -> float:
        """Mean seconds that packets waited in the buffer."""
        waits = [wait for at, wait in self.delays if begin <= at < end]
        return sum(waits) / max(len(waits), 1)

    def retransmitted(self) -> list[float]:
        """Share of each flow's bytes that were declared lost, 0..1."""
        return [flow.lost / max(flow.sent, 1) for flow in self.flows]

    # -- inside ----------------------------------------------------------------------------------

    def _dial(self, flow: Flow) -> None:
        flow.dial(self.now)
        self.pump(flow)

    def _next_timer(self) -> tuple[float, Flow | None]:
        earliest, whose = math.inf, None
        for flow in self.flows:
            for mux in (flow.client, flow.server):
                timer = mux.get_timer()
                if timer is not None and timer < earliest:
                    earliest, whose = timer, flow
        return earliest, whose

    def pump(self, flow: Flow) -> None:
        """Exchange events and datagrams until neither end has any."""
        busy = True
        while busy:
            busy = False
            flow.take_events(self.now)
            for forward, mux in ((True, flow.client), (False, flow.server)):
                for data, _ in mux.datagrams_to_send(self.now):
                    busy = True
                    self._send(flow, data, forward=forward)

    def _send(self, flow: Flow, data: bytes, *, forward: bool) -> None:
        link, size = self.link, len(data) + HEADERS
        at = self.now + link.rtt / 2
        if forward:
            wait = max(self._free - self.now, 0.0)
            if self._is_policed(size) or wait * link.rate + size > link.buffer:
                return
            self.delays.append((self.now, wait))
            self._free = self.now + wait + size / link.rate
            at += self._free - self.now
        elif link.bunching:
            at = math.ceil(at / link.bunching) * link.bunching
        if self._is_lost(forward):
            return
        if link.jitter:
            at = max(at + self._random.random() * link.jitter, self._last_arrival[forward])
            self._last_arrival[forward] = at
        self.at(at, lambda: self._arrive(flow, data, forward=forward))

    def _arrive(self, flow: Flow, data: bytes, *, forward: bool) -> None:
        if forward:
            flow.server.receive_datagram(data, CLIENT, self.now)
        else:
            flow.client.receive_datagram(data, SERVER, self.now)
        self.pump(flow)

    def _is_policed(self, size: int) -> bool:
        link = self.link
        if math.isinf(link.policer):
            return False
        credit = self._tokens + (self.now - self._tokens_at) * link.policer
        self._tokens, self._tokens_at = min(credit, link.bucket), self.now
        if self._tokens < size:
            return True
        self._tokens -= size
        return False

    def _is_lost(self, forward: bool) -> bool:
        link, began = self.link, self._burst_began[forward]
        if link.burst > 1 and self.now - began < LONGEST_BURST:
            if self._random.random() < 1 - 1 / link.burst:
                return True
            self._burst_began[forward] = -math.inf
        if self._random.random() >= link.loss / max(link.burst, 1.0):
            return False
        self._burst_began[forward] = self.now
        return True
