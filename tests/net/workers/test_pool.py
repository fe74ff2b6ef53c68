"""Tests of p2pnet.net.workers.pool and .process: real processes that share a port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

from p2pnet.interfaces import Datagrams, IDatagramTransport
from p2pnet.net import batched
from p2pnet.net.workers import pipe
from p2pnet.net.workers import pool as workers
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.testing.processes import Deadline
from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import encode_relay_frame
from p2pnet.wire.worker_messages import Forget, Forgotten, Forward, Forwarded, Stray, WorkerMessage

TIMEOUT = 30.0  # seconds of a Deadline for anything
PAYLOAD = bytes(1000)
QUIC = b"\x40" + bytes(1008)  # as long as a frame of that, so that the kernel joins them


def channel(byte: int, number: int = 0) -> bytes:
    """A channel whose frames go to the socket that `byte` chooses."""
    return bytes([byte]) + number.to_bytes(7, "big")


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


class Owner:
    """Has workers, and keeps what it hears of them."""

    def __init__(self) -> None:
        self.known: list[WorkerMessage] = []
        self.pids: dict[int, int] = {}
        self.said: list[WorkerMessage] = []
        self.lost: list[tuple[int, str, float]] = []

    def worker_added(self, worker: int) -> list[WorkerMessage]:
        """A worker that knows what is known."""
        return self.known

    def worker_began(self, worker: int, pid: int) -> None:
        """It relays."""
        self.pids[worker] = pid

    def worker_said(self, worker: int, message: WorkerMessage) -> None:
        """It says this."""
        self.said.append(message)

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """It is no more."""
        self.pids.pop(worker, None)
        self.lost.append((worker, reason, restart_in))

    @property
    def frames(self) -> int:
        """Frames that the workers say they forwarded."""
        reports = [m for m in self.said if isinstance(m, Forwarded)]
        return sum(count[1] for report in reports for count in report.counts)


class PoolCase(TestCase):
    """A pool with two workers, and two ends that send frames to each other through it."""

    timeout = 40 * TIMEOUT
    kind = "batched"

    @inlineCallbacks
    def setUp(self) -> Any:  # type: ignore[override]
        """Start them, and wait until they relay."""
        if not workers.is_available(reactor):
            raise SkipTest("this system or this reactor cannot share a port among processes")
        if self.kind == "batched" and not batched.is_available(reactor):
            raise SkipTest("this system does not join datagrams")
        self.received: list[tuple[bytes, Address]] = []
        self.agent, self.connector = self.end(), self.end()
        self.owner = Owner()
        self.pool = WorkerPool(reactor, "127.0.0.1", 0, 2, self.kind)
        self.pool.owner = self.owner
        self.pool.start(self._receive)
        self.addCleanup(lambda: self.pool.stop())
        yield self.until(lambda: len(self.owner.pids) == 2)

    def _receive(self, datagrams: Datagrams) -> None:
        self.received += datagrams

    def end(self) -> socket.socket:
        """A socket of a node."""
        end = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(end.close)
        end.bind(("127.0.0.1", 0))
        end.setblocking(False)
        return end

    @inlineCallbacks
    def until(self, done: Callable[[], object]) -> Any:
        """Wait for that."""
        deadline = Deadline(TIMEOUT)
        while not done():
            self.assertFalse(deadline.passed, "it takes too long")
            yield deferLater(reactor, 0.01)

    def circuit(self, byte: int) -> Forward:
        """A circuit from agent to connector, of that byte."""
        ends = self.agent.getsockname(), self.connector.getsockname()
        return Forward(channel(byte), channel(byte, 1), *ends, 0)

    def send(self, *datagrams: bytes) -> None:
        """From the agent, together if there are several."""
        ancillary = []
        if len(datagrams) > 1:
            size = batched.SEGMENT_SIZE.pack(len(datagrams[0]))
            ancillary = [(batched.SOL_UDP, batched.UDP_SEGMENT, size)]
        self.agent.sendmsg(datagrams, ancillary, 0, self.pool.get_address())

    @inlineCallbacks
    def relayed(self) -> Any:
        """The next datagram that the connector gets, from the port that all share."""
        data: list[bytes] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                received, source = self.connector.recvfrom(65535)
                self.assertEqual(self.pool.get_address(), source)
                data.append(received)
            return bool(data)

        yield self.until(came)
        return data[0]


class PoolTests(PoolCase):
    """On batched sockets."""

    def test_it_is_a_transport(self) -> None:
        """As the Intermediate wants it."""
        verifyObject(IDatagramTransport, self.pool)

    @inlineCallbacks
    def test_each_worker_forwards_the_frames_of_its_channels(self) -> Any:
        """As soon as it was told, without waiting; and it reports them."""
        for byte in (1, 2):
            self.pool.tell(self.circuit(byte))
            frame = encode_relay_frame(channel(byte), PAYLOAD)
            self.send(frame)
            self.assertEqual(frame, (yield self.relayed()))
        yield self.until(lambda: self.owner.frames == 2)
        self.assertEqual([], self.received)

    @inlineCallbacks
    def test_what_was_said_before_a_frame_was_sent_holds_for_it(self) -> Any:
        """A hundred times, though both wait for the worker at once."""
        frame = encode_relay_frame(channel(1), PAYLOAD)
        for _ in range(100):
            self.pool.tell(self.circuit(1))
            self.send(frame)
            self.assertEqual(frame, (yield self.relayed()))
            self.pool.tell(Forget(channel(1)))
        yield self.until(lambda: self.owner.said.count(Forgotten(channel(1))) == 200)
        self.assertEqual(100, self.owner.frames)

    @inlineCallbacks
    def test_the_rest_comes_here(self) -> Any:
        """Frames of this process's channels, and whatever is no frame."""
        frame = encode_relay_frame(channel(3), PAYLOAD)
        self.send(frame)
        self.send(QUIC)
        yield self.until(lambda: len(self.received) == 2)
        source = self.agent.getsockname()
        self.assertEqual([(frame, source), (QUIC, source)], self.received)

    @inlineCallbacks
    def test_what_was_joined_with_a_frame_gets_where_it_belongs(self) -> Any:
        """A worker forwards the frame of another one, and passes on what is no frame."""
        for byte in (1, 2):
            self.pool.tell(self.circuit(byte))
        frames = [encode_relay_frame(channel(byte), PAYLOAD) for byte in (1, 2)]
        self.send(*frames, QUIC)
        for frame in frames:
            self.assertEqual(frame, (yield self.relayed()))
        yield self.until(lambda: self.received)
        self.assertEqual([(QUIC, self.agent.getsockname())], self.received)

    @inlineCallbacks
    def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(self) -> Any:
        """Until the next one relays, which knows all circuits, its frames come here."""
        self.owner.known = [self.circuit(1)]
        frame = encode_relay_frame(channel(1), PAYLOAD)
        for delay in (0.0, workers.FIRST_DELAY):
            before = self.owner.pids[1]
            os.kill(before, signal.SIGKILL)
            yield self.until(lambda: self.owner.lost)
            self.assertEqual([(1, "the process ended", delay)], self.owner.lost)
            self.send(frame)
            yield self.until(lambda: self.received)
            self.assertEqual([(frame, self.agent.getsockname())], self.received)
            yield self.until(lambda: 1 in self.owner.pids)
            self.assertFalse(is_running(before))
            self.send(frame)
            self.assertEqual(frame, (yield self.relayed()))
            self.owner.lost.clear()
            self.received.clear()


class PlainPoolTests(PoolTests):
    """On Twisted's own sockets."""

    kind = "plain"


class ProcessTests(PoolCase):
    """What becomes of the processes, whatever the sockets are."""

    @inlineCallbacks
    def test_a_worker_that_is_stuck_is_replaced(self) -> Any:
        """It reads nothing of what it is told."""
        self.patch(pipe, "PATIENCE", 0.5)
        stuck = self.owner.pids[2]
        os.kill(stuck, signal.SIGSTOP)
        for _ in range(200):
            self.pool.tell(Stray(bytes(10_000), ("192.0.2.1", 1)))
        yield self.until(lambda: self.owner.lost)
        self.assertEqual([(2, "it read nothing for 0.5 s", 0.0)], self.owner.lost)
        self.assertFalse(is_running(stuck))
        yield self.until(lambda: 2 in self.owner.pids)

    @inlineCallbacks
    def test_workers_that_cannot_start_are_tried_again_later_and_later(self) -> Any:
        """And the Intermediate relays alone."""
        self.patch(sys, "executable", "/nonexistent")
        os.kill(self.owner.pids[1], signal.SIGKILL)
        yield self.until(lambda: len(self.owner.lost) == 4)
        self.assertEqual([0.0, 0.1, 0.2, 0.4], [delay for _, _, delay in self.owner.lost])
        self.send(encode_relay_frame(channel(1), PAYLOAD))
        yield self.until(lambda: self.received)

    @inlineCallbacks
    def test_signals_to_the_group_leave_the_workers_to_the_intermediate(self) -> Any:
        """A terminal and systemd send them to all; the Intermediate has sessions to drain."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(self.owner.pids[1], number)
        self.pool.tell(self.circuit(1))
        self.send(encode_relay_frame(channel(1), PAYLOAD))
        yield self.relayed()
        self.assertEqual([], self.owner.lost)

    @inlineCallbacks
    def test_stopping_ends_the_workers_and_frees_the_port(self) -> Any:
        """They are gone when it is done; stopping again is harmless."""
        address, pids = self.pool.get_address(), list(self.owner.pids.values())
        yield self.pool.stop()
        yield self.pool.stop()
        self.assertEqual([False, False], list(map(is_running, pids)))
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(address)
        self.assertEqual([], self.owner.lost)

    def test_a_port_in_use_cannot_be_listened_on(self) -> None:
        """Not even by another pool; no process is started."""
        other = WorkerPool(reactor, *self.pool.get_address(), 2, self.kind)
        other.owner = Owner()
        self.assertRaises(CannotListenError, other.start, self._receive)
        done: Deferred[Any] = other.stop()
        self.successResultOf(done)

    def test_a_worker_is_small(self) -> None:
        """It has nothing of QUIC."""
        maps = Path(f"/proc/{self.owner.pids[1]}/maps").read_text()
        self.assertNotIn("aioquic", maps)

    @inlineCallbacks
    def test_without_a_descriptor_to_read_its_socket_a_worker_is_replaced_later(self) -> Any:
        """What comes meanwhile waits."""

        def refuse(*_: object) -> None:
            raise CannotListenError("127.0.0.1", 0, OSError("too many open files"))

        patched = self.patch(workers, "transport_on", refuse)
        os.kill(self.owner.pids[1], signal.SIGKILL)
        yield self.until(lambda: len(self.owner.lost) == 3)
        frame = encode_relay_frame(channel(1), PAYLOAD)
        self.send(frame)
        patched.restore()
        yield self.until(lambda: self.received)
        self.assertEqual([(frame, self.agent.getsockname())], self.received)
        yield self.until(lambda: 1 in self.owner.pids)
