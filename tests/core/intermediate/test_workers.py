"""Tests of p2pnet.core.intermediate.workers: several processes forward, and any may die."""

from __future__ import annotations

import collections
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core import events
from p2pnet.core.intermediate.forwarding import LEAST_BURST, Circuit, Traffic
from p2pnet.core.intermediate.workers import REPORT_INTERVAL, RelayWorker, SharedForwarder
from p2pnet.wire import worker_messages as workers
from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import encode_relay_frame
from p2pnet.wire.worker_messages import MAX_COUNTS, WorkerMessage

AGENT: Address = ("203.0.113.1", 50001)
CONNECTOR: Address = ("198.51.100.1", 50002)
UPWARD, DOWNWARD = bytes(range(8)), bytes(range(8, 16))
FRAME = encode_relay_frame(UPWARD, b"payload")
QUIC = b"\x40" + bytes(20)


def said_by(
    core: SharedForwarder | RelayWorker | None, told: list[events.Event]
) -> list[WorkerMessage]:
    """The messages among the events, which are taken."""
    if isinstance(core, RelayWorker):
        while (event := core.next_event()) is not None:
            told.append(event)
    messages = [event.message for event in told if isinstance(event, events.MessageNeeded)]
    told.clear()
    return messages


class WorkerCase(SynchronousTestCase):
    """A worker that knows one circuit."""

    rate = 0

    def setUp(self) -> None:
        """The worker."""
        self.worker = RelayWorker()
        self.worker.receive_message(
            workers.Forward(UPWARD, DOWNWARD, AGENT, CONNECTOR, self.rate), 0.0
        )

    def said(self) -> list[WorkerMessage]:
        """What the worker has to say."""
        return said_by(self.worker, [])


class RelayWorkerTests(WorkerCase):
    """It forwards what it was told of."""

    def test_frames_are_forwarded_and_reported_after_a_while(self) -> None:
        """Once for all of them; then it has no timer until there is another."""
        self.assertIsNone(self.worker.get_timer())
        for _ in range(3):
            self.worker.receive_datagram(FRAME, AGENT, 1.0)
        self.assertEqual([(FRAME, CONNECTOR)] * 3, self.worker.datagrams_to_send(1.0))
        due = self.worker.get_timer()
        self.assertEqual(1.0 + REPORT_INTERVAL, due)
        self.worker.handle_timer(1.0 + REPORT_INTERVAL)
        count = (UPWARD, 3, 3 * len(FRAME), 0)
        self.assertEqual([workers.Forwarded((count,))], self.said())
        self.assertIsNone(self.worker.get_timer())

    def test_joined_frames_are_forwarded_at_once_and_reported(self) -> None:
        """Without waiting for datagrams_to_send()."""
        for _ in range(2):
            target = self.worker.forward_joined(FRAME * 3, len(FRAME), AGENT, 1.0)
            self.assertEqual(CONNECTOR, target)
        self.assertEqual([], self.worker.datagrams_to_send(1.0))
        self.worker.handle_timer(1.0 + REPORT_INTERVAL)
        count = (UPWARD, 6, 6 * len(FRAME), 0)
        self.assertEqual([workers.Forwarded((count,))], self.said())

    def test_a_timer_that_comes_too_early_reports_nothing(self) -> None:
        """It is asked again."""
        self.worker.receive_datagram(FRAME, AGENT, 1.0)
        self.worker.handle_timer(1.1)
        self.assertEqual([], self.said())

    def test_an_end_that_moved_is_known_by_its_new_address(self) -> None:
        """The counts go on."""
        moved = ("203.0.113.9", 50009)
        self.worker.receive_datagram(FRAME, AGENT, 0.0)
        self.worker.receive_message(workers.Forward(UPWARD, DOWNWARD, moved, CONNECTOR, 0), 0.0)
        self.worker.receive_datagram(FRAME, moved, 0.0)
        self.worker.receive_datagram(FRAME, AGENT, 0.0)
        self.worker.handle_timer(REPORT_INTERVAL)
        count = (UPWARD, 2, 2 * len(FRAME), 0)
        self.assertEqual([workers.Forwarded((count,), unknown=1)], self.said())

    def test_a_forgotten_circuit_tells_its_last_counts_first(self) -> None:
        """And it forwards no more."""
        self.worker.receive_datagram(FRAME, AGENT, 0.0)
        self.worker.receive_message(workers.Forget(UPWARD), 0.0)
        count = (UPWARD, 1, len(FRAME), 0)
        self.assertEqual([workers.Forwarded((count,)), workers.Forgotten(UPWARD)], self.said())
        self.worker.datagrams_to_send(0.0)
        self.worker.receive_datagram(FRAME, AGENT, 0.0)
        self.assertEqual([], self.worker.datagrams_to_send(0.0))

    def test_a_circuit_that_is_not_known_is_forgotten_all_the_same(self) -> None:
        """A worker that was started meanwhile is told so too."""
        self.worker.receive_message(workers.Forget(DOWNWARD), 0.0)
        self.assertEqual([workers.Forgotten(DOWNWARD)], self.said())

    def test_whatever_is_no_frame_is_passed_on(self) -> None:
        """The network joined it with one."""
        self.worker.receive_datagram(QUIC, AGENT, 0.0)
        self.assertEqual([workers.Stray(QUIC, AGENT)], self.said())
        self.assertEqual([], self.worker.datagrams_to_send(0.0))

    def test_a_report_of_many_circuits_comes_in_parts(self) -> None:
        """Each of which is a message."""
        for number in range(MAX_COUNTS + 1):
            upward, downward = number.to_bytes(8, "big"), (number + 2**32).to_bytes(8, "big")
            self.worker.receive_message(workers.Forward(upward, downward, AGENT, CONNECTOR, 0), 0.0)
            self.worker.receive_datagram(encode_relay_frame(upward, b"x"), AGENT, 0.0)
        self.worker.handle_timer(REPORT_INTERVAL)
        reports = self.said()
        sizes = [len(r.counts) for r in reports if isinstance(r, workers.Forwarded)]
        self.assertEqual([MAX_COUNTS, 1], sizes)


class QuotaTests(WorkerCase):
    """The quota of a session is kept by the worker."""

    rate = 1

    def test_frames_over_the_quota_are_dropped_and_reported(self) -> None:
        """Of two that are as long as the whole burst, one."""
        frame = encode_relay_frame(UPWARD, bytes(LEAST_BURST - 9))
        for _ in range(2):
            self.worker.receive_datagram(frame, AGENT, 0.0)
        self.assertEqual([(frame, CONNECTOR)], self.worker.datagrams_to_send(0.0))
        self.worker.handle_timer(REPORT_INTERVAL)
        self.assertEqual([workers.Forwarded(((UPWARD, 1, LEAST_BURST, 1),))], self.said())


class SharedForwarderTests(SynchronousTestCase):
    """The Intermediate's side."""

    def setUp(self) -> None:
        """A forwarder with a circuit and without workers."""
        self.told: list[events.Event] = []
        self.forwarder = SharedForwarder(self.told.append)
        self.circuit = Circuit(UPWARD, DOWNWARD, AGENT, CONNECTOR, 7, 0.0)
        self.forwarder.open(self.circuit)
        self.closed: list[Traffic] = []

    def said(self) -> list[WorkerMessage]:
        """What is to be said to the workers."""
        return said_by(None, self.told)

    def test_without_workers_nothing_is_said(self) -> None:
        """And a circuit is closed at once, with what this process forwarded."""
        self.forwarder.forward(FRAME, AGENT, 0.0)
        self.forwarder.close(self.circuit, self.closed.append)
        self.assertEqual([Traffic(1, len(FRAME), 0)], self.closed)
        self.assertEqual([], self.told)

    def test_a_new_worker_is_told_what_is_there(self) -> None:
        """With the addresses of now; all hear what changes later."""
        moved = ("203.0.113.9", 50009)
        self.forwarder.move(self.circuit, moved, CONNECTOR)
        known = workers.Forward(UPWARD, DOWNWARD, moved, CONNECTOR, 7)
        self.assertEqual([known], self.forwarder.add_worker(1))
        self.assertEqual([], self.said())
        self.forwarder.move(self.circuit, AGENT, CONNECTOR)
        self.assertEqual([workers.Forward(UPWARD, DOWNWARD, AGENT, CONNECTOR, 7)], self.said())

    def test_a_worker_keeps_a_circuit_busy(self) -> None:
        """A drain waits for it."""
        self.forwarder.add_worker(1)
        self.forwarder.receive_message(1, workers.Forwarded(((UPWARD, 1, 100, 0),)), 9.0)
        self.assertEqual(9.0, self.circuit.used_at)

    def test_the_end_of_a_circuit_waits_for_the_counts_of_all_workers(self) -> None:
        """Of those that live."""
        for worker in (1, 2, 3):
            self.forwarder.add_worker(worker)
        self.forwarder.close(self.circuit, self.closed.append)
        self.assertEqual([workers.Forget(UPWARD)], self.said())
        self.forwarder.receive_message(1, workers.Forwarded(((UPWARD, 2, 200, 1),)), 0.0)
        self.forwarder.receive_message(1, workers.Forgotten(UPWARD), 0.0)
        self.forwarder.receive_message(2, workers.Forwarded(((UPWARD, 3, 300, 0),)), 0.0)
        self.forwarder.receive_message(2, workers.Forgotten(UPWARD), 0.0)
        self.assertEqual([], self.closed)
        self.forwarder.remove_worker(3)
        self.assertEqual([Traffic(5, 500, 1)], self.closed)

    def test_what_a_worker_says_of_others_counts_nothing(self) -> None:
        """Only its frames for nobody are counted."""
        self.forwarder.add_worker(1)
        self.forwarder.receive_message(1, workers.Forwarded(((DOWNWARD, 1, 1, 1),), unknown=4), 0.0)
        self.forwarder.receive_message(1, workers.Forgotten(DOWNWARD), 0.0)
        self.forwarder.receive_message(1, workers.Begun(), 0.0)
        self.assertEqual(Traffic(), self.circuit.traffic)
        self.assertEqual(4, self.forwarder.dropped)


WORKERS = st.integers(1, 2)
PROCESSES = st.integers(0, 2)
NUMBERS = st.integers(0, 3)


class ProcessesMachine(RuleBasedStateMachine):
    """An Intermediate and two workers between which messages wait, and which die and return."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.made = 0
        self.told: list[events.Event] = []
        self.forwarder = SharedForwarder(self.told.append)
        self.workers: dict[int, RelayWorker] = {}
        self.commands: dict[int, collections.deque[WorkerMessage]] = {}
        self.answers: dict[int, collections.deque[WorkerMessage]] = {}
        self.circuits: list[Circuit] = []
        self.forwarded: collections.Counter[bytes] = collections.Counter()
        self.uncertain: set[bytes] = set()  # some of their counts may have died with a worker
        self.closed: dict[bytes, Traffic] = {}
        self.awaited: set[bytes] = set()

    def flush(self) -> None:
        """Put what is to be said into the pipes."""
        for message in said_by(None, self.told):
            for commands in self.commands.values():
                commands.append(message)
        for number, worker in self.workers.items():
            self.answers[number] += said_by(worker, [])

    @rule()
    @precondition(lambda self: len(self.circuits) < 4)
    def open(self) -> None:
        """A session begins."""
        self.made += 1
        upward, downward = self.made.to_bytes(8, "big"), (self.made + 1000).to_bytes(8, "big")
        circuit = Circuit(upward, downward, AGENT, CONNECTOR, 0, self.now)
        self.circuits.append(circuit)
        self.forwarder.open(circuit)
        self.flush()

    @rule(number=NUMBERS)
    @precondition(lambda self: self.circuits)
    def close(self, number: int) -> None:
        """A session ends."""
        circuit = self.circuits.pop(number % len(self.circuits))
        upward = circuit.upward
        self.awaited.add(upward)

        def closed(traffic: Traffic) -> None:
            assert upward not in self.closed
            self.closed[upward] = traffic

        self.forwarder.close(circuit, closed)
        self.flush()

    @rule(number=NUMBERS, port=st.integers(1, 5))
    @precondition(lambda self: self.circuits)
    def move(self, number: int, port: int) -> None:
        """An agent moves."""
        circuit = self.circuits[number % len(self.circuits)]
        self.forwarder.move(circuit, ("203.0.113.1", port), CONNECTOR)
        self.flush()

    @rule(number=NUMBERS, process=PROCESSES)
    @precondition(lambda self: self.circuits)
    def forward(self, number: int, process: int) -> None:
        """A frame comes to any process; a worker hears first what was said before."""
        circuit = self.circuits[number % len(self.circuits)]
        frame, source = encode_relay_frame(circuit.upward, b"x"), circuit.ends[0]
        if process in self.workers:
            self.hear(process, 1000)
            worker = self.workers[process]
            worker.receive_datagram(frame, source, self.now)
            assert worker.datagrams_to_send(self.now) == [(frame, CONNECTOR)]
        else:
            assert self.forwarder.forward(frame, source, self.now) == CONNECTOR
        self.forwarded[circuit.upward] += 1

    @rule(process=WORKERS, number=NUMBERS)
    def hear(self, process: int, number: int) -> None:
        """A worker reads some of what it was told."""
        commands = self.commands.get(process, ())
        for _ in range(min(number, len(commands))):
            self.workers[process].receive_message(commands.popleft(), self.now)  # type: ignore[union-attr]
        self.flush()

    @rule(process=WORKERS, number=NUMBERS)
    def listen(self, process: int, number: int) -> None:
        """The Intermediate reads some of what a worker said."""
        answers = self.answers.get(process, ())
        for _ in range(min(number, len(answers))):
            self.forwarder.receive_message(process, answers.popleft(), self.now)  # type: ignore[union-attr]

    @rule()
    def wait(self) -> None:
        """Time passes."""
        self.now += REPORT_INTERVAL
        for worker in self.workers.values():
            worker.handle_timer(self.now)
        self.flush()

    @rule(process=WORKERS)
    def start(self, process: int) -> None:
        """A worker starts."""
        if process not in self.workers:
            self.workers[process] = RelayWorker()
            self.commands[process] = collections.deque(self.forwarder.add_worker(process))
            self.answers[process] = collections.deque()

    @rule(process=WORKERS)
    def die(self, process: int) -> None:
        """A worker dies."""
        if self.workers.pop(process, None) is not None:
            del self.commands[process], self.answers[process]
            self.uncertain |= self.forwarded.keys()
            self.forwarder.remove_worker(process)

    @invariant()
    def traffic_is_counted_once(self) -> None:
        """What a closed session forwarded is what went through it."""
        for upward, traffic in self.closed.items():
            assert traffic.frames <= self.forwarded[upward]
            if upward not in self.uncertain:
                assert traffic.frames == self.forwarded[upward]

    def teardown(self) -> None:
        """In the end all that was closed is known, and nothing is left."""
        for process in (1, 2):
            self.hear(process, 10**6)
            self.listen(process, 10**6)
        assert self.closed.keys() == self.awaited
        assert not self.forwarder._closing
        assert len(self.forwarder) == 2 * len(self.circuits)
        self.traffic_is_counted_once()


class ProcessesTests(SynchronousTestCase):
    """Whatever happens."""

    def test_every_frame_is_forwarded_and_counted_whatever_happens(self) -> None:
        """By whichever process it reaches, while others start and die."""
        machine: Any = ProcessesMachine
        run_state_machine_as_test(
            machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
