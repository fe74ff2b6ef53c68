"""Two `Paths` face to face in memory: the packets of their session, and how their ways change."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.interfaces import IPathSelector
from p2pnet.traversal.path_events import Signal, WaysChanged
from p2pnet.traversal.paths import Paths
from p2pnet.traversal.selection import PreferDirect
from p2pnet.wire.address import Address
from tests.traversal.ends import AGENT, CONNECTOR, RELAY, End, World

PACKET, ACKNOWLEDGEMENT = True, False


class PathsEnd(End[Paths]):
    """An end with all its ways.

    Its packets are numbered. Only a packet newer than all before counts, as in QUIC; the peer
    acknowledges packets that are no acknowledgements.

    :ivar received: the kinds and numbers of packets that arrived first, with time and source.
    """

    def __init__(
        self,
        world: World,
        address: Address,
        *,
        controlling: bool,
        selector: IPathSelector | None = None,
    ) -> None:
        self.selector = selector or PreferDirect()
        self.policy = self.selector.name
        super().__init__(world, address, controlling=controlling)
        self.received: list[tuple[float, bool, Address]] = []
        self.channels = itertools.count(1)
        self._number = self._largest = self._acknowledged = self._newest_packet = 0

    def make(self) -> Paths:
        """Make the paths of the session."""
        return Paths(self.rounds, self.selector)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the ways in use."""
        return [way.kind.value for way in self.machine.using]

    @property
    def is_direct(self) -> bool:
        """Whether packets go directly, and only so."""
        return self.kinds == ["direct"]

    def ways(self, since: float = 0.0) -> list[str]:
        """The ways that were used since then, in order: relayed, direct, both, relays or none."""
        return [describe(change.ways) for change in self.said(WaysChanged, since)]

    def when(self, ways: str, since: float = 0.0) -> float:
        """When those ways were first used since then."""
        return next(
            at
            for at, event in self.events
            if isinstance(event, WaysChanged) and at >= since and describe(event.ways) == ways
        )

    def follow(self) -> None:
        """Do what the paths ask for, as far as they say that there is news."""
        if self.machine.has_news:
            super().follow()

    def take_event(self, event: Any) -> None:
        """Keep an event, or pass a signal on."""
        if isinstance(event, Signal):
            if self.machine.using:
                super().take_event(event.message)
        else:
            self.events.append((self.world.now, event))

    def add_relay(self, relay: Address = RELAY, cost: float = 0.04) -> None:
        """An Intermediate relays the session."""
        channel = next(self.channels).to_bytes(8, "big")
        self.do(self.machine.add_relay, relay, channel, cost, "granted")

    def send(self, *, is_packet: bool = PACKET) -> None:
        """Send a packet, or an acknowledgement, by the ways in use."""
        if not self.machine.using:
            return
        self._number += 1
        if is_packet:
            self._newest_packet = self._number
        answer_due = self._newest_packet > self._acknowledged
        self.machine.sent(self.world.now, answer_due=answer_due, rtt=0.04)
        number, largest, source = self._number, self._largest, self.address
        for way in self.machine.using:
            line = self.world.relays[way.address] if way.header else self.world.direct
            relay = way.address if way.header else None
            destination = None if way.header else way.address
            packet = number, largest, is_packet
            hear = functools.partial(self.peer.hear, packet, source, relay, destination)
            self.world.carry(line, 0, hear)
        self.follow()

    def hear(
        self,
        packet: tuple[int, int, bool],
        source: Address,
        relay: Address | None,
        destination: Address | None,
    ) -> None:
        """A packet arrives, through a relay or directly."""
        number, acknowledges, is_packet = packet
        if destination not in (None, self.address) or number <= self._largest:
            return
        if relay is not None and relay not in self.machine.relays:
            return
        self._largest = number
        self._acknowledged = max(self._acknowledged, acknowledges)
        self.received.append((self.world.now, is_packet, relay or source))
        if relay is None:
            self.machine.heard(source, self.world.now)
        else:
            self.machine.heard_relayed(relay, self.world.now)
        self.follow()
        if is_packet:
            self.send(is_packet=ACKNOWLEDGEMENT)

    def talk(self, every: float = 0.1, seconds: float = 3600.0) -> None:
        """Send packets regularly for so long."""
        until = self.world.now + seconds

        def again() -> None:
            if self.world.now < until:
                self.send()
                self.world.later(every, again)

        again()


def describe(ways: Iterable[Any]) -> str:
    """Ways in one word: direct, relayed, both (direct and relays), relays (several), none."""
    kinds = [way.kind.value for way in ways]
    if not kinds:
        return "none"
    if len(kinds) == 1:
        return str(kinds[0])
    return "both" if "direct" in kinds else "relays"


class PathsCase(SynchronousTestCase):
    """Two `Paths` face to face: `agent` controls, `connector` does not."""

    def meet(
        self, agent: IPathSelector | None = None, connector: IPathSelector | None = None
    ) -> None:
        """Make both ends of a session that has no way yet."""
        self.world = World()
        self.agent = PathsEnd(self.world, AGENT, controlling=True, selector=agent)
        self.connector = PathsEnd(
            self.world, CONNECTOR, controlling=False, selector=connector or agent
        )
        self.both = self.agent, self.connector

    def begin(self, *arguments: Any) -> None:
        """Make both ends, relayed by one Intermediate."""
        self.meet(*arguments)
        self.add_relay()

    def connect(self, *arguments: Any) -> None:
        """Make both ends, and let them become direct; wait until the packet size is found."""
        self.begin(*arguments)
        self.world.run_until(lambda: all(end.is_direct for end in self.both))
        self.world.run(2.0)

    def add_relay(self, relay: Address = RELAY, cost: float = 0.04) -> None:
        """An Intermediate relays the session for both ends, the connector first."""
        is_first = not self.agent.machine.relays
        for end in (self.connector, self.agent):
            end.add_relay(relay, cost)
        if is_first:  # as the end-to-end handshake, which takes no time here
            self.agent.do(self.agent.machine.begin)

    def assert_ways(self, expected: str) -> None:
        """Both ends use these ways."""
        self.assertEqual([expected] * 2, [describe(end.machine.using) for end in self.both])
