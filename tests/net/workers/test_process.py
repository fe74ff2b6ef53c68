"""Tests of p2pnet.net.workers.process in this process, between a UDP socket and a pipe."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.net import batched, udp
from p2pnet.net.workers.pipe import Pipe
from p2pnet.net.workers.process import MAX_BACKLOG, Worker
from p2pnet.wire.worker_messages import Begin, Begun, Forget, Forgotten, Stray, WorkerMessage
from tests.net.support import FakeReactor

QUIC = b"\x40" + bytes(1199)


class WorkerTests(SynchronousTestCase):
    """A worker, and the Intermediate's end of its pipe."""

    def setUp(self) -> None:
        """One that has not begun."""
        if not batched.is_available(reactor):
            raise SkipTest("this system has no UDP_SEGMENT and UDP_GRO")
        self.reactor = FakeReactor()
        self.said: list[WorkerMessage] = []
        self.lost: list[str] = []
        self.udp = udp.open_socket("127.0.0.1", 0)
        self.client = socket.socket(type=socket.SOCK_DGRAM)
        ours, theirs = socket.socketpair()
        Worker(self.reactor, self.udp, theirs, "batched", self.lost.append)
        (self.theirs,) = self.reactor.readers
        self.ours = Pipe(FakeReactor(), ours, self.said.append, self.lost.append)
        for each in (self.ours, self.theirs, self.udp, self.client):
            self.addCleanup(each.close)

    def begin(self) -> Any:
        """Let it read its socket. Returns what reads."""
        self.ours.send(Begin())
        self.theirs.doRead()
        (reader,) = (each for each in self.reactor.readers if each is not self.theirs)
        self.addCleanup(reader.stop)
        return reader

    def send(self, datagram: bytes) -> None:
        """To its socket, where it waits then."""
        self.client.sendto(datagram, self.udp.getsockname())
        select.select([self.udp], [], [], 5)

    def test_it_reads_nothing_before_it_knows_everything(self) -> None:
        """Then it says that it does."""
        self.assertEqual([self.theirs], self.reactor.readers)
        self.begin()
        self.ours.doRead()
        self.assertEqual([Begun()], self.said)

    def test_it_answers_without_a_datagram(self) -> None:
        """In its next turn."""
        self.begin()
        self.ours.send(Forget(bytes(8)))
        self.theirs.doRead()
        self.reactor.advance(0)
        self.ours.doRead()
        self.assertEqual([Begun(), Forgotten(bytes(8))], self.said)

    def test_strays_do_not_wait_without_bound(self) -> None:
        """An Intermediate that does not read loses them, as if its own socket were full."""
        reader = self.begin()
        for _ in range(3 * MAX_BACKLOG // len(QUIC)):
            self.send(QUIC)
            reader.doRead()
        self.assertLess(self.theirs.backlog, MAX_BACKLOG + 2 * len(QUIC))
        for _ in range(MAX_BACKLOG // 10_000):
            self.ours.doRead()
            self.theirs.doWrite()
        source = self.client.getsockname()
        self.assertIn(Stray(QUIC, ("127.0.0.1", source[1])), self.said)
        self.assertEqual(([], 0), (self.lost, self.theirs.backlog))

    def test_the_end_of_the_intermediate_is_told(self) -> None:
        """A worker ends then."""
        self.begin()
        self.ours.close()
        self.theirs.doRead()
        self.assertEqual(["the process ended"], self.lost)
