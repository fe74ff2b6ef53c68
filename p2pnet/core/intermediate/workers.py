"""Relaying in several processes: what the Intermediate tells its workers, and what they do.

The Intermediate decides everything. It forwards frames itself, and so does each worker, which has a
copy of all circuits. Frames are spread over the processes by their channel
(net/workers/reuseport.py), but GRO may join datagrams of several channels and deliver all of them
where the first one belongs. So every process can forward every frame, and hands anything else to
the Intermediate.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable

from p2pnet.core import events
from p2pnet.core.intermediate.forwarding import Circuit, Relay, Traffic
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.worker_messages import (
    MAX_COUNTS,
    Forget,
    Forgotten,
    Forward,
    Forwarded,
    Stray,
    WorkerMessage,
)

REPORT_INTERVAL = 0.25  # seconds between reports of a worker that forwards


@dataclasses.dataclass(slots=True, eq=False)
class _Closing:
    """A circuit that is closed, and the workers that have not told their last counts of it."""

    circuit: Circuit
    closed: Callable[[Traffic], object]
    workers: set[int]


class SharedRelay(Relay):
    """The Intermediate's relay. Without workers it is as any other.

    :param emit: gets the MessageNeeded.
    """

    def __init__(self, emit: Callable[[events.Event], None]) -> None:
        super().__init__()
        self._emit = emit
        self._workers: set[int] = set()
        self._closing: dict[bytes, _Closing] = {}

    def open(self, circuit: Circuit) -> None:
        """Forward its frames from now on."""
        super().open(circuit)
        self._tell(_describe(circuit))

    def move(self, circuit: Circuit, agent: Address, connector: Address) -> None:
        """Forward its frames from and to other addresses from now on."""
        circuit.move(agent, connector)
        self._tell(_describe(circuit))

    def close(self, circuit: Circuit, closed: Callable[[Traffic], object]) -> None:
        """Forward its frames no more; `closed` gets all of its traffic, once that is known."""
        self.remove(circuit.upward)
        self._tell(Forget(circuit.upward))
        self._closing[circuit.upward] = _Closing(circuit, closed, set(self._workers))
        self._settle(circuit.upward)

    def _tell(self, message: WorkerMessage) -> None:
        if self._workers:
            self._emit(events.MessageNeeded(message))

    def _settle(self, upward: bytes) -> None:
        closing = self._closing[upward]
        if not closing.workers:
            del self._closing[upward]
            closing.closed(closing.circuit.traffic)

    # -- workers ---------------------------------------------------------------------------------

    def add_worker(self, worker: int) -> list[WorkerMessage]:
        """There is another worker, by its number. Returns what it must be told first."""
        self._workers.add(worker)
        return [_describe(circuit) for circuit in self.circuits]

    def remove_worker(self, worker: int) -> None:
        """It is no more, and what it had not told is lost. Harmless when there is none."""
        self._workers.discard(worker)
        for upward, closing in list(self._closing.items()):
            closing.workers.discard(worker)
            self._settle(upward)

    def take(self, worker: int, message: WorkerMessage, now: float) -> None:
        """Take what a worker says about circuits."""
        match message:
            case Forwarded(counts, unknown):
                self.dropped += unknown
                for upward, *traffic in counts:
                    self._count(upward, Traffic(*traffic), now)
            case Forgotten(upward) if upward in self._closing:
                self._closing[upward].workers.discard(worker)
                self._settle(upward)

    def _count(self, upward: bytes, traffic: Traffic, now: float) -> None:
        closing = self._closing.get(upward)
        circuit = self.find(upward) if closing is None else closing.circuit
        if circuit is not None:
            circuit.count(traffic, now)


def _describe(circuit: Circuit) -> Forward:
    return Forward(circuit.upward, circuit.downward, *circuit.ends, circuit.rate)


class RelayWorker:
    """The sans-IO core of a relay worker, driven like IntermediateCore; take() is for the messages
    of the Intermediate, those for it come as events.
    """

    def __init__(self) -> None:
        self._relay = Relay()
        self._forwarded: list[tuple[bytes, Address]] = []
        self._events: collections.deque[events.Event] = collections.deque()
        self._report_at: float | None = None

    def take(self, message: WorkerMessage, now: float) -> None:
        """Take a message about a circuit."""
        match message:
            case Forward(upward, downward, agent, connector, rate):
                circuit = self._relay.find(upward)
                if circuit is None:
                    self._relay.open(Circuit(upward, downward, agent, connector, rate, now))
                else:
                    circuit.move(agent, connector)
            case Forget(upward):
                circuit = self._relay.remove(upward)
                if circuit is not None:
                    self._report([circuit])
                self._tell(Forgotten(upward))

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Take a datagram that arrived from `address` (canonical form)."""
        if classify(data) is Kind.RELAY:
            target = self._relay.forward(data, address, now)
            if target is not None:
                self._forwarded.append((data, target))
            if self._report_at is None:
                self._report_at = now + REPORT_INTERVAL
        else:
            self._tell(Stray(data, address))

    def forward_joined(
        self, frames: bytes, size: int, source: Address, now: float
    ) -> Address | None:
        """See Relay."""
        if self._report_at is None:
            self._report_at = now + REPORT_INTERVAL
        return self._relay.forward_joined(frames, size, source, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The frames to forward, each with the address to send it to."""
        datagrams, self._forwarded = self._forwarded, []
        return datagrams

    def next_event(self) -> events.Event | None:
        """The next MessageNeeded, None when there is none."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call handle_timer(): a while after a frame came, else never."""
        return self._report_at

    def handle_timer(self, now: float) -> None:
        """Report what was forwarded."""
        if self._report_at is not None and now >= self._report_at:
            self._report_at = None
            self._report(self._relay.circuits)

    def _tell(self, message: WorkerMessage) -> None:
        self._events.append(events.MessageNeeded(message))

    def _report(self, circuits: Iterable[Circuit]) -> None:
        taken = ((circuit.upward, circuit.take_traffic()) for circuit in circuits)
        counts = ((upward, *traffic) for upward, traffic in taken if any(traffic))
        part = tuple(itertools.islice(counts, MAX_COUNTS))
        while part or self._relay.dropped:
            unknown, self._relay.dropped = self._relay.dropped, 0
            self._tell(Forwarded(part, unknown))
            part = tuple(itertools.islice(counts, MAX_COUNTS))
