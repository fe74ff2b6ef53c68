"""A simulated network on a virtual clock: runs with equal seeds are equal.

The real node code runs on it: give the services of p2pnet.node `network.clock` as their reactor
and `network.transport(host)` as their socket. One seeded generator decides the delay, loss,
duplication and reordering of packets, in the order in which they are sent.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import CannotListenError
from zope.interface import implementer

from p2pnet.interfaces import Datagrams, Forward, IDatagramTransport
from p2pnet.testing.clock import VirtualClock
from p2pnet.wire.address import Address


@dataclasses.dataclass(frozen=True)
class Link:
    """The properties of the network between two hosts in one direction.

    :ivar delay: seconds that each packet takes.
    :ivar jitter: the most seconds that are added at random, which reorders packets.
    :ivar loss: probability of the loss of a packet.
    :ivar duplication: probability of the duplication of a packet.
    :ivar rate: bytes a second, 0 for no limit.
    :ivar queue: bytes that may wait for a link with a rate.
    :ivar mtu: bytes of the largest UDP payload that is not lost.
    """

    delay: float = 0.02
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    rate: int = 0
    queue: int = 256 * 1024
    mtu: int = 1472


@dataclasses.dataclass(frozen=True, slots=True)
class Packet:
    """The record of one sent datagram.

    :ivar at: the time of sending in seconds of virtual time.
    :ivar size: bytes of the payload.
    :ivar fate: delivered, lost, queue (full), mtu (too large), ttl (TTL exceeded) or nobody (no
        path to the destination).
    """

    at: float
    source: Address
    destination: Address
    size: int
    fate: str


class Box(Protocol):
    """A NAT between hosts and the rest of the network, such as p2pnet.testing.nat.NATBox.

    :ivar address: the external IP literal.
    :ivar hairpin: whether inside hosts reach each other by their external addresses.
    """

    address: str
    hairpin: bool

    def outbound(self, source: Address, destination: Address) -> Address:
        """The external address of an inside host's packet, whose mapping is made or refreshed."""

    def inbound(self, source: Address, port: int) -> Address | None:
        """The inside address for a packet to the external `port`, None if the packet is dropped."""

    def rebind(self) -> None:
        """Drop every mapping, as a restart of the box does."""


class SimulatedNetwork:
    """Hosts that reach each other by address.

    :param keep_trace: whether `trace` records every packet.
    :ivar clock: the virtual clock, a Twisted IReactorTime.
    :ivar random: the generator of all random decisions.
    :ivar link: the Link between hosts without one in `links`.
    :ivar links: Links by (source host, destination host). The external address of a NAT box stands
        for the hosts behind it.
    :ivar trace: the record of every packet, empty unless `keep_trace`.
    :ivar tap: called with (data, source, destination) for every sent packet, unless None.
    """

    def __init__(self, seed: int = 0, link: Link | None = None, keep_trace: bool = False) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.random = random.Random(seed)
        self.link = link or Link()
        self.links: dict[tuple[str, str], Link] = {}
        self.trace: collections.deque[Packet]
        self.trace = collections.deque(maxlen=None if keep_trace else 0)
        self.tap: Callable[[bytes, Address, Address], Any] | None = None
        self._bound: dict[Address, Callable[[bytes, Address], Any]] = {}
        self._boxes: dict[str, Box] = {}  # by external address
        self._behind: dict[str, Box] = {}  # by inside host
        self._free_at: dict[tuple[str, str], float] = {}
        self._next_port = 50000

    def entropy(self, size: int) -> bytes:
        """`size` random bytes that depend on the seed, for the `entropy` of cores."""
        return self.random.randbytes(size)

    def transport(self, host: str, port: int = 0) -> SimulatedTransport:
        """A transport on `host`, which start() binds; port 0 stands for an unused one."""
        if port == 0:
            self._next_port += 1
            port = self._next_port
        return SimulatedTransport(self, (host, port))

    def connect(self, one: str, other: str, link: Link) -> None:
        """Make `link` the link between two hosts in both directions."""
        self.links[one, other] = self.links[other, one] = link

    def link_between(self, source: str, destination: str) -> Link:
        """The link from one host to another."""
        return self.links.get((source, destination), self.link)

    def behind(self, host: str, box: Box) -> None:
        """Put `host` behind a NAT box; the external address of a box goes behind another box.

        Hosts behind the same box reach each other directly by their inside addresses. These are
        private, but must be unique on one simulated network.
        """
        self._behind[host] = self._boxes[box.address] = box

    def renumber(self, box: Box, address: str) -> None:
        """Give a box another external address, which drops its mappings."""
        del self._boxes[box.address]
        box.address = address
        box.rebind()
        self._boxes[address] = box

    def bind(self, address: Address, receive: Callable[[bytes, Address], Any]) -> None:
        """Deliver packets to `address` by calls of receive(data, source).

        Raises CannotListenError for an address that is bound.
        """
        if address in self._bound:
            raise CannotListenError(address[0], address[1], OSError("address already in use"))
        self._bound[address] = receive

    def unbind(self, address: Address) -> None:
        """Drop packets to `address` from now on. Harmless if it is not bound."""
        self._bound.pop(address, None)

    def send(
        self, data: bytes, source: Address, destination: Address, ttl: int | None = None
    ) -> None:
        """Send a packet, which the destination gets after the delay of the link, if at all.

        :param ttl: a TTL, with which a packet opens the sender's own boxes and then ends; None for
            the system's, with which it reaches the destination.
        """
        if self.tap is not None:
            self.tap(data, source, destination)
        outside = self._translate(source, destination)
        ends = (outside or source)[0], destination[0]
        link = self.link_between(*ends)
        now = float(self.clock.seconds())
        fate = "nobody" if outside is None else self._fate(link, len(data), ends, now)
        if ttl is not None:
            fate = "ttl"
        self.trace.append(Packet(now, source, destination, len(data), fate))
        if outside is None or fate != "delivered":
            return
        copies = 2 if link.duplication and self.random.random() < link.duplication else 1
        for _ in range(copies):
            delay = self._queued(link, len(data), ends, now) + link.delay
            if link.jitter:
                delay += self.random.random() * link.jitter
            self.clock.callLater(delay, self.deliver, data, outside, destination)

    def _translate(self, source: Address, destination: Address) -> Address | None:
        """The source address beyond the sender's boxes, None without a path."""
        while (box := self._behind.get(source[0])) is not self._behind.get(destination[0]):
            if box is None or (destination[0] == box.address and not box.hairpin):
                return None
            source = box.outbound(source, destination)
        return source

    def _fate(self, link: Link, size: int, ends: tuple[str, str], now: float) -> str:
        if size > link.mtu:
            return "mtu"
        if link.loss and self.random.random() < link.loss:
            return "lost"
        if link.rate and (self._free_at.get(ends, now) - now) * link.rate > link.queue:
            return "queue"
        return "delivered"

    def _queued(self, link: Link, size: int, ends: tuple[str, str], now: float) -> float:
        if not link.rate:
            return 0.0
        free_at = max(now, self._free_at.get(ends, now)) + size / link.rate
        self._free_at[ends] = free_at
        return free_at - now

    def deliver(self, data: bytes, source: Address, destination: Address) -> None:
        """Deliver a packet now, through the boxes before `destination` but without its link."""
        inside: Address | None = destination
        while inside is not None and (box := self._boxes.get(inside[0])) is not None:
            inside = box.inbound(source, inside[1])
        receive = self._bound.get(inside) if inside is not None else None
        if receive is not None:
            receive(data, source)

    # -- time ------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Advance the clock by `seconds` and run all calls in between."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], Any], seconds: float = 60.0) -> bool:
        """Advance the clock until done() is true, by `seconds` at most. Returns done()."""
        clock = self.clock
        end = clock.seconds() + seconds
        while not done():
            when = clock.next_time()
            clock.advance_to(min(when, end))
            if when > end:
                return bool(done())
        return True


class Ether(Protocol):
    """A simulated network, as far as a socket on it needs it."""

    def bind(self, address: Address, receive: Callable[[bytes, Address], Any]) -> None: ...
    def unbind(self, address: Address) -> None: ...
    def send(
        self, data: bytes, source: Address, destination: Address, ttl: int | None = None
    ) -> None: ...


@implementer(IDatagramTransport)
class SimulatedTransport:
    """An IDatagramTransport on a simulated network."""

    gathers = False
    forward: Forward | None = None  # is not called: the network joins no datagrams

    def __init__(self, network: Ether, address: Address) -> None:
        self._network = network
        self._address = address
        self._arrived: Callable[[bytes, Address], Any]

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Bind the address. Raises CannotListenError for an address that is bound."""
        self._arrived = lambda data, source: receive([(data, source)])
        self._network.bind(self._address, self._arrived)

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send datagrams one by one; see IDatagramTransport."""
        for datagram, address in datagrams:
            self._network.send(datagram, self._address, address, ttl)

    def get_address(self) -> Address:
        """The local address, known before start() too."""
        return self._address

    def rehost(self, host: str) -> None:
        """Move the started transport to another host, with the same port."""
        self._network.unbind(self._address)
        self._address = (host, self._address[1])
        self._network.bind(self._address, self._arrived)

    def stop(self) -> None:
        """Unbind the address. A second call does nothing."""
        self._network.unbind(self._address)
