"""A simulated network on a virtual clock, driven by a seed: the same seed, the same run.

The real node code runs on it: give the services of p2pnet.node `network.clock` as their reactor
and `network.transport(address)` as their socket. What a packet meets (delay, loss, duplication,
reordering) is drawn from one seeded generator in the order in which packets are sent.
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
    """What packets between two hosts meet, one way.

    :ivar delay: seconds. `jitter`: up to so many more, which reorders.
    :ivar loss, duplication: probabilities.
    :ivar rate: bytes a second, 0 for no limit. `queue`: bytes that may wait for the link.
    :ivar mtu: larger UDP payloads are lost.
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
    """One datagram that was sent. `fate`: delivered, lost, queue, mtu, hops or nobody."""

    at: float
    source: Address
    destination: Address
    size: int
    fate: str


class Box(Protocol):
    """A NAT between hosts and the rest of the network; p2pnet.testing.nat has one.

    :ivar address: the one outside.
    :ivar hairpin: whether hosts inside reach each other by their external addresses.
    """

    address: str
    hairpin: bool

    def outbound(self, source: Address, destination: Address) -> Address:
        """The address that a packet of an inside host leaves with."""

    def inbound(self, source: Address, port: int) -> Address | None:
        """The inside host's address that a packet to the external `port` is for, if any's."""

    def rebind(self) -> None:
        """Forget every mapping."""


class SimulatedNetwork:
    """Hosts that reach each other by address.

    :ivar clock: the virtual clock, a Twisted IReactorTime.
    :ivar link: what packets meet unless links[source host, destination host] says otherwise. The
        outside address of a NAT box stands for the hosts behind it.
    :ivar trace: every packet, if `keep_trace`.
    :ivar tap: called with (data, source, destination) for every packet that is sent.
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
        self._boxes: dict[str, Box] = {}  # by address outside
        self._behind: dict[str, Box] = {}  # by host inside
        self._free_at: dict[tuple[str, str], float] = {}
        self._next_port = 50000

    def entropy(self, size: int) -> bytes:
        """Random bytes from the seed, for the cores."""
        return self.random.randbytes(size)

    def transport(self, host: str, port: int = 0) -> SimulatedTransport:
        """A socket on `host`; port 0 for any."""
        if port == 0:
            self._next_port += 1
            port = self._next_port
        return SimulatedTransport(self, (host, port))

    def connect(self, one: str, other: str, link: Link) -> None:
        """Let packets between two hosts meet `link`, either way."""
        self.links[one, other] = self.links[other, one] = link

    def link_between(self, source: str, destination: str) -> Link:
        """What packets from one host to another meet now."""
        return self.links.get((source, destination), self.link)

    def behind(self, host: str, box: Box) -> None:
        """Put `host` behind a NAT box. It may be the outside address of another box.

        Hosts behind the same box reach each other directly, nobody else reaches them so: inside
        addresses are private, but must not be used twice on one simulated network.
        """
        self._behind[host] = self._boxes[box.address] = box

    def renumber(self, box: Box, address: str) -> None:
        """Give a box another address outside; its mappings are gone."""
        del self._boxes[box.address]
        box.address = address
        box.rebind()
        self._boxes[address] = box

    def bind(self, address: Address, receive: Callable[[bytes, Address], Any]) -> None:
        """Deliver packets for `address`. Raises CannotListenError if it is taken."""
        if address in self._bound:
            raise CannotListenError(address[0], address[1], OSError("address already in use"))
        self._bound[address] = receive

    def unbind(self, address: Address) -> None:
        """Deliver them no more."""
        self._bound.pop(address, None)

    def send(
        self, data: bytes, source: Address, destination: Address, hops: int | None = None
    ) -> None:
        """Put a packet on its way. With a limit of `hops` it ends beyond the sender's own boxes."""
        if self.tap is not None:
            self.tap(data, source, destination)
        outside = self._translate(source, destination)
        ends = (outside or source)[0], destination[0]
        link = self.link_between(*ends)
        now = float(self.clock.seconds())
        fate = "nobody" if outside is None else self._fate(link, len(data), ends, now)
        if hops is not None:
            fate = "hops"
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
        """The source address beyond the boxes on the way, None if there is no way."""
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
        """A packet arrives, whatever its way has met."""
        inside: Address | None = destination
        while inside is not None and (box := self._boxes.get(inside[0])) is not None:
            inside = box.inbound(source, inside[1])
        receive = self._bound.get(inside) if inside is not None else None
        if receive is not None:
            receive(data, source)

    # -- time ------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let that much virtual time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], Any], seconds: float = 60.0) -> bool:
        """Let time pass until `done()`, at most so many virtual seconds. Returns whether it is."""
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
        self, data: bytes, source: Address, destination: Address, hops: int | None = None
    ) -> None: ...


@implementer(IDatagramTransport)
class SimulatedTransport:
    """A UDP socket on a simulated network."""

    gathers = False
    forward: Forward | None = None  # nothing comes joined

    def __init__(self, network: Ether, address: Address) -> None:
        self._network = network
        self._address = address
        self._arrived: Callable[[bytes, Address], Any]

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket. Raises CannotListenError if the address is taken."""
        self._arrived = lambda data, source: receive([(data, source)])
        self._network.bind(self._address, self._arrived)

    def send(self, datagrams: Datagrams, hops: int | None = None) -> None:
        """Send datagrams, each on its own way."""
        for datagram, address in datagrams:
            self._network.send(datagram, self._address, address, hops)

    def get_address(self) -> Address:
        """The local address."""
        return self._address

    def rehost(self, host: str) -> None:
        """The open socket is on another host from now on, on the same port."""
        self._network.unbind(self._address)
        self._address = (host, self._address[1])
        self._network.bind(self._address, self._arrived)

    def stop(self) -> None:
        """Close the socket."""
        self._network.unbind(self._address)
