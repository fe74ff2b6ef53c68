"""Forwarding in several processes: the Intermediate's side, and the core of a relay worker.

The Intermediate makes all decisions. It forwards frames itself, and so does each worker, which has
a copy of all circuits. The kernel spreads frames over the processes by their channel
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
from p2pnet.core.intermediate.forwarding import Circuit, Forwarder, Traffic
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
    """A closed circuit, and the workers that still owe their last counts of it.

    :ivar counted: called with the traffic of all processes once no worker owes a count.
    """

    circuit: Circuit
    counted: Callable[[Traffic], object]
    workers: set[int]


class SharedForwarder(Forwarder):
    """The Intermediate's forwarder, which shares its circuits with all relay workers.

    :param emit: called with each MessageNeeded, a message to all workers.
    """

    def __init__(self, emit: Callable[[events.Event], None]) -> None:
        super().__init__()
        self._emit = emit
        self._workers: set[int] = set()
        self._closing: dict[bytes, _Closing] = {}

    def open(self, circuit: Circuit) -> None:
        """Forward the frames of a circuit from now on, in all processes."""
        super().open(circuit)
        self._send(_describe(circuit))

    def move(self, circuit: Circuit, agent: Address, connector: Address) -> None:
        """Change the addresses of the two ends of a circuit, in all processes."""
        circuit.move(agent, connector)
        self._send(_describe(circuit))

    def close(self, circuit: Circuit, counted: Callable[[Traffic], object]) -> None:
        """Stop forwarding the frames of a circuit, in all processes.

        :param counted: called with the traffic of all processes once all workers reported theirs.
        """
        self.remove(circuit.upward)
        self._send(Forget(circuit.upward))
        self._closing[circuit.upward] = _Closing(circuit, counted, set(self._workers))
        self._check_counted(circuit.upward)

    def _send(self, message: WorkerMessage) -> None:
        if self._workers:
            self._emit(events.MessageNeeded(message))

    def _check_counted(self, upward: bytes) -> None:
        closing = self._closing[upward]
        if not closing.workers:
            del self._closing[upward]
            closing.counted(closing.circuit.traffic)

    # -- workers ---------------------------------------------------------------------------------

    def add_worker(self, worker: int) -> list[WorkerMessage]:
        """Add the worker with a number. Returns its first messages, which describe all circuits."""
        self._workers.add(worker)
        return [_describe(circuit) for circuit in self.circuits]

    def remove_worker(self, worker: int) -> None:
        """Remove a worker that ended, if it is known. Counts that it did not report are lost."""
        self._workers.discard(worker)
        for upward, closing in list(self._closing.items()):
            closing.workers.discard(worker)
            self._check_counted(upward)

    def receive_message(self, worker: int, message: WorkerMessage, now: float) -> None:
        """Handle a worker's message about circuits; any other message is ignored."""
        match message:
            case Forwarded(counts, unknown):
                self.dropped += unknown
                for upward, *traffic in counts:
                    self._count(upward, Traffic(*traffic), now)
            case Forgotten(upward) if upward in self._closing:
                self._closing[upward].workers.discard(worker)
                self._check_counted(upward)

    def _count(self, upward: bytes, traffic: Traffic, now: float) -> None:
        closing = self._closing.get(upward)
        circuit = self.find(upward) if closing is None else closing.circuit
        if circuit is not None:
            circuit.count(traffic, now)


def _describe(circuit: Circuit) -> Forward:
    return Forward(circuit.upward, circuit.downward, *circuit.ends, circuit.rate)


class RelayWorker:
    """The sans-IO core of a relay worker, driven like IntermediateCore.

    Messages from the Intermediate come by receive_message(); MessageNeeded events are messages to
    the Intermediate.
    """

    def __init__(self) -> None:
        self._forwarder = Forwarder()
        self._forwarded: list[tuple[bytes, Address]] = []
        self._events: collections.deque[events.Event] = collections.deque()
        self._report_at: float | None = None

    def receive_message(self, message: WorkerMessage, now: float) -> None:
        """Handle a message from the Intermediate about a circuit."""
        match message:
            case Forward(upward, downward, agent, connector, rate):
                circuit = self._forwarder.find(upward)
                if circuit is None:
                    self._forwarder.open(Circuit(upward, downward, agent, connector, rate, now))
                else:
                    circuit.move(agent, connector)
            case Forget(upward):
                circuit = self._forwarder.remove(upward)
                if circuit is not None:
                    self._report([circuit])
                self._send(Forgotten(upward))

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Handle a datagram that arrived from `address` (canonical form).

        A relay frame is forwarded; any other datagram goes to the Intermediate.
        """
        if classify(data) is Kind.RELAY:
            target = self._forwarder.forward(data, address, now)
            if target is not None:
                self._forwarded.append((data, target))
            if self._report_at is None:
                self._report_at = now + REPORT_INTERVAL
        else:
            self._send(Stray(data, address))

    def forward_joined(
        self, frames: bytes, size: int, source: Address, now: float
    ) -> Address | None:
        """The address to send joined frames on to, as by Forwarder.forward_joined()."""
        if self._report_at is None:
            self._report_at = now + REPORT_INTERVAL
        return self._forwarder.forward_joined(frames, size, source, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The frames to forward, each with the address to send it to."""
        datagrams, self._forwarded = self._forwarded, []
        return datagrams

    def next_event(self) -> events.Event | None:
        """The next MessageNeeded, None when there is none."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """The time of the next report, REPORT_INTERVAL after the first frame; None for never."""
        return self._report_at

    def handle_timer(self, now: float) -> None:
        """Report the traffic of all circuits if that is due."""
        if self._report_at is not None and now >= self._report_at:
            self._report_at = None
            self._report(self._forwarder.circuits)

    def _send(self, message: WorkerMessage) -> None:
        self._events.append(events.MessageNeeded(message))

    def _report(self, circuits: Iterable[Circuit]) -> None:
        taken = ((circuit.upward, circuit.take_traffic()) for circuit in circuits)
        counts = ((upward, *traffic) for upward, traffic in taken if any(traffic))
        part = tuple(itertools.islice(counts, MAX_COUNTS))
        while part or self._forwarder.dropped:
            unknown, self._forwarder.dropped = self._forwarder.dropped, 0
            self._send(Forwarded(part, unknown))
            part = tuple(itertools.islice(counts, MAX_COUNTS))
