"""Forwarding in several processes: the Intermediate's messages to its workers, and the workers.

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
    """A circuit that is closed, and the workers whose last counts of it are still to come."""

    circuit: Circuit
    counted: Callable[[Traffic], object]
    workers: set[int]


class SharedForwarder(Forwarder):
    """The Intermediate's forwarder, whose circuits the workers know too.

    :param emit: gets each MessageNeeded, for all workers.
    """

    def __init__(self, emit: Callable[[events.Event], None]) -> None:
        super().__init__()
        self._emit = emit
        self._workers: set[int] = set()
        self._closing: dict[bytes, _Closing] = {}

    def open(self, circuit: Circuit) -> None:
        """Forward the circuit's frames from now on."""
        super().open(circuit)
        self._send(_describe(circuit))

    def move(self, circuit: Circuit, agent: Address, connector: Address) -> None:
        """Forward the circuit's frames from and to these addresses from now on."""
        circuit.move(agent, connector)
        self._send(_describe(circuit))

    def close(self, circuit: Circuit, counted: Callable[[Traffic], object]) -> None:
        """Stop forwarding the circuit's frames.

        :param counted: called with the traffic of all processes, once all of them reported.
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
        """Add a worker, by its number. Returns the messages that the worker must get first."""
        self._workers.add(worker)
        return [_describe(circuit) for circuit in self.circuits]

    def remove_worker(self, worker: int) -> None:
        """Remove a worker that ended; counts that it did not report are lost. Harmless when there
        is none."""
        self._workers.discard(worker)
        for upward, closing in list(self._closing.items()):
            closing.workers.discard(worker)
            self._check_counted(upward)

    def receive_message(self, worker: int, message: WorkerMessage, now: float) -> None:
        """Take a worker's message about circuits; any other message is ignored."""
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

    Messages of the Intermediate come by receive_message(); those for it are MessageNeeded events.
    """

    def __init__(self) -> None:
        self._forwarder = Forwarder()
        self._forwarded: list[tuple[bytes, Address]] = []
        self._events: collections.deque[events.Event] = collections.deque()
        self._report_at: float | None = None

    def receive_message(self, message: WorkerMessage, now: float) -> None:
        """Take a message of the Intermediate about a circuit."""
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
        """Take a datagram that arrived from `address` (canonical form): a relay frame to forward,
        or a datagram that the Intermediate gets."""
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
        """See Forwarder.forward_joined(); the frames are counted for the next report too."""
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
        """When to call handle_timer(): REPORT_INTERVAL after a frame came, else None for never."""
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
