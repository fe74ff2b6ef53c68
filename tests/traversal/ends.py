"""Two ends of a session face to face in memory: no node, no QUIC, no reactor, virtual time.

An end wraps a machine of p2pnet.traversal (`Paths` or `DirectSearch`) and does what it asks for.
The world between the ends has a direct line, a line for each Intermediate, and the signals.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from p2pnet.traversal.budget import SendBudget
from p2pnet.traversal.direct import DirectSearch
from p2pnet.traversal.exchange import CandidateExchange, Outgoing
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.paths import Paths
from p2pnet.wire.address import Address
from p2pnet.wire.check import CheckKind, decode_check
from p2pnet.wire.path_messages import PathMessage

SESSION = bytes(range(16))
AGENT: Address = ("203.0.113.1", 5000)
CONNECTOR: Address = ("198.51.100.1", 5000)
RELAY: Address = ("192.0.2.1", 4433)
OTHER_RELAY: Address = ("192.0.2.2", 4433)
Machine = TypeVar("Machine", Paths, DirectSearch)


@dataclasses.dataclass
class Server:
    """An Intermediate, as the candidates of a node need it."""

    address: Address | None = RELAY
    observed: Address | None = None
    is_ready: bool = True
    name: str = "relay.example:4433"


@dataclasses.dataclass
class Line:
    """What datagrams of both directions meet. `mtu`: larger ones are lost."""

    delay: float = 0.02
    is_cut: bool = False
    loss: float = 0.0
    mtu: int = 1500


class World:
    """Virtual time, and all that travels.

    :ivar direct: between the two ends. `relays`: through each Intermediate; `signals`: messages.
    :ivar ends: the agent and the connector.
    """

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.direct = Line()
        self.signals = Line()
        self.relays = {RELAY: Line(), OTHER_RELAY: Line(delay=0.03)}
        self.ends: list[End[Any]] = []
        self._flying: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Do something after `delay` seconds."""
        heapq.heappush(self._flying, (self.now + delay, next(self._count), call))

    def carry(self, line: Line, size: int, deliver: Callable[[], None]) -> None:
        """Deliver a datagram at the other end of a line, unless it is lost."""
        if not line.is_cut and size <= line.mtu and self.random.random() >= line.loss:
            self.later(line.delay, lambda: None if line.is_cut else deliver())

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (due := self._next()) <= end:
            self._step(due)
        self.now = end

    def run_until(self, done: Callable[[], Any], seconds: float = 60.0) -> None:
        """Let time pass until `done()`, which must be within so many seconds."""
        end = self.now + seconds
        while not done():
            assert self._next() <= end, f"not within {seconds} s"
            self._step(self._next())

    def _next(self) -> float:
        times = [end.due for end in self.ends]
        return min([*times, self._flying[0][0]] if self._flying else times)

    def _step(self, due: float) -> None:
        self.now = max(self.now, due)  # a timer in the past is due now
        if self._flying and self._flying[0][0] <= self.now:
            heapq.heappop(self._flying)[2]()
            return
        for end in self.ends:
            if end.due <= self.now:
                end.ring()


class End(Generic[Machine]):
    """One end: its machine, and a record of what it said and sent.

    :ivar address: where it is; a NAT may change that.
    :ivar events: all events but signals, each with its time. `signals`: messages for the peer.
    :ivar sent: checks, answers and openers, each with its time.
    :ivar proven: addresses that answered a check of this end.
    :ivar policy: the policy in offers.
    """

    policy: Any = "prefer-direct"

    def __init__(self, world: World, address: Address, *, controlling: bool) -> None:
        self.world = world
        self.address = address
        self.servers = [Server()]
        self.own = OwnCandidates(self.servers, tell_observed=True)
        self.own.set_addresses([address[0]], address[1])
        self.rounds = CandidateExchange(
            SESSION, controlling=controlling, own=self.own,
            policy=self.policy, budget=SendBudget(), entropy=world.random.randbytes,
        )  # fmt: skip
        self.machine: Machine = self.make()
        self.events: list[tuple[float, Any]] = []
        self.signals: list[PathMessage] = []
        self.sent: list[tuple[float, Outgoing]] = []
        self.proven: set[Address] = set()
        self.due = float("inf")
        self._asked: dict[bytes, Address] = {}
        self._timers = itertools.count()
        self._rung_at = (-1.0, 0)
        world.ends.append(self)

    def make(self) -> Machine:
        """Make the machine from `self.rounds`."""
        raise NotImplementedError

    @property
    def peer(self) -> Any:
        """The other end, of the same kind."""
        return self.world.ends[1 - self.world.ends.index(self)]

    @property
    def checks(self) -> list[tuple[float, Outgoing]]:
        """The requests that the end sent."""
        return [
            (at, out)
            for at, out in self.sent
            if out.ttl is None and decode_check(out.data).kind is CheckKind.REQUEST
        ]

    def said(self, kind: type[Any], since: float = 0.0) -> list[Any]:
        """The events of a kind, in order."""
        return [event for at, event in self.events if isinstance(event, kind) and at >= since]

    def signalled(self, kind: type[Any]) -> list[Any]:
        """The messages of a kind, in order."""
        return [message for message in self.signals if isinstance(message, kind)]

    def do(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of the machine at the present time, and do what the machine asks for."""
        result = call(*arguments, self.world.now, **options)
        self.follow()
        return result

    def ring(self) -> None:
        """The timer is due."""
        at, times = self._rung_at
        self._rung_at = self.world.now, times + 1 if at == self.world.now else 1
        assert self._rung_at[1] < 20, f"time stands still at {at}"
        self.do(self.machine.handle_timer)

    def follow(self) -> None:
        """Do what the machine asks for."""
        while (event := self.machine.next_event()) is not None:
            self.take_event(event)
        for out in self.machine.datagrams_to_send():
            self.sent.append((self.world.now, out))
            if out.ttl is None:
                self._send_check(out)
        self.due = self.machine.get_timer()

    def take_event(self, event: Any) -> None:
        """Keep an event, or pass a signal on."""
        if isinstance(event, PathMessage):
            self.signals.append(event)
            self.world.carry(self.world.signals, 0, lambda: self.peer.take_signal(event))
        else:
            self.events.append((self.world.now, event))

    def take_signal(self, message: PathMessage) -> None:
        """A message of the peer arrives."""
        self.do(self.machine.take_signal, message, 2 * self.world.signals.delay)

    def _send_check(self, out: Outgoing) -> None:
        check = decode_check(out.data)
        if check.kind is CheckKind.REQUEST:
            self._asked[check.transaction_id] = out.address
        source = self.address
        self.world.carry(self.world.direct, len(out.data), lambda: self.peer.arrive(out, source))

    def arrive(self, out: Outgoing, source: Address) -> None:
        """A check arrives if its destination is the end's address."""
        if out.address == self.address:
            check = decode_check(out.data)
            if self.do(self.machine.receive_check, check, source):
                is_answer = check.kind is CheckKind.SUCCESS
                if is_answer and self._asked.pop(check.transaction_id, None) == source:
                    self.proven.add(source)

    def move(self, address: Address) -> None:
        """A NAT gives the end another address, which its Intermediate observes."""
        self.address = self.servers[0].observed = address


class SearchEnd(End[DirectSearch]):
    """An end that is a search alone. Its packets go directly, and are answered directly."""

    def make(self) -> DirectSearch:
        """Make a search for the direct way."""
        return DirectSearch(self.rounds)

    def send(self, *, answers: bool = True) -> None:
        """Send a packet on the direct way."""
        path = self.machine.path
        if path is not None:
            self.machine.sent(self.world.now)
            destination, source = path.pair.address, self.address
            self.world.carry(
                self.world.direct, 0, lambda: self.peer.hear(destination, source, answers=answers)
            )
            self.follow()

    def hear(self, destination: Address, source: Address, *, answers: bool) -> None:
        """A packet arrives."""
        if destination == self.address:
            self.machine.heard(source, self.world.now)
            self.follow()
            if answers:
                self.send(answers=False)
