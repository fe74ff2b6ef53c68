"""Tests of p2pnet.net.batched: what came joined, or alone, is sent on if somebody says where to."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.interfaces import Datagrams
from p2pnet.net import batched
from p2pnet.net.batched import MAX_BATCH, MAX_REFUSALS, MAX_SEGMENTS, BatchedUDPTransport
from p2pnet.wire.address import Address
from tests.net.support import FakeReactor
from tests.net.test_batched import ELSEWHERE, THERE, FakeSocket, gro


class ForwardingSocket(FakeSocket):
    """Keeps what is sent in one piece, and the size that it is to be cut into."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: list[tuple[bytes, int, Address]] = []

    def sendmsg(self, run: list[bytes], ancillary: Any, flags: int, address: Address) -> int:
        """Send several."""
        if self.error:
            raise OSError(self.error, errno.errorcode[self.error])
        size = int.from_bytes(ancillary[0][2], "little")
        self.joined.append((b"".join(run), size, address))
        return 0


class ForwardTests(SynchronousTestCase):
    """A transport that is told where to."""

    def setUp(self) -> None:
        """Everything goes elsewhere, but what is refused."""
        self.socket = ForwardingSocket()
        self.batches: list[Datagrams] = []
        self.refused: set[bytes] = set()
        self.asked: list[tuple[bytes, int, Address]] = []
        self.reactor = FakeReactor()
        self.transport = BatchedUDPTransport(
            self.reactor, "192.0.2.1", 1, open_socket=lambda *_: self.socket  # type: ignore
        )  # fmt: skip
        self.transport.forward = self.forward
        self.transport.start(self.batches.append)

    def forward(self, data: bytes, size: int, source: Address) -> Address | None:
        """Where to."""
        self.asked.append((data, size, source))
        return None if data in self.refused else ELSEWHERE

    def read(self, *waiting: Any) -> None:
        """One turn of the reactor."""
        self.socket.waiting = list(waiting)
        self.transport.doRead()

    def test_it_goes_on_in_one_piece(self) -> None:
        """And is not received."""
        self.read((b"onetwotri4", gro(3)), (b"onetwo", gro(3)))
        self.assertEqual((b"onetwotri4", 3, THERE), self.asked[0])
        expected = [(b"onetwotri4", 3, ELSEWHERE), (b"onetwo", 3, ELSEWHERE)]
        self.assertEqual((expected, []), (self.socket.joined, self.batches))

    def test_what_is_refused_is_received(self) -> None:
        """Each datagram by itself."""
        self.refused.add(b"onetwo")
        self.read((b"onetwo", gro(3)))
        self.assertEqual([[(b"one", THERE), (b"two", THERE)]], self.batches)

    def test_one_that_comes_alone_goes_on_at_once(self) -> None:
        """On a quiet network that is what it takes longer for being relayed."""
        self.read((b"one", []))
        self.assertEqual([[(b"one", THERE)]], self.batches)
        self.reactor.advance(1.0)
        self.read((b"two", []))
        self.reactor.advance(1.0)
        self.read((b"", []))
        self.assertEqual([([b"two"], ELSEWHERE)], self.socket.calls)
        self.assertEqual([(b"two", 3, THERE)], self.asked)
        self.assertEqual([(b"", THERE)], self.batches[1])
        self.refused.add(b"three")
        self.reactor.advance(1.0)
        self.read((b"three", []))
        self.assertEqual([(b"three", THERE)], self.batches[2])

    def test_a_single_datagram_is_received(self) -> None:
        """With others to one address it may be joined when it is sent."""
        self.read((b"one", []), (b"two", gro(3)))
        self.assertEqual([[(b"one", THERE), (b"two", THERE)]], self.batches)
        self.assertEqual([], self.asked)

    def test_nothing_overtakes_what_is_received(self) -> None:
        """That is sent when the turn is over; what comes joined after it may be for the same."""
        self.read((b"onetwo", gro(3)), (b"tri", []), (b"4th5th", gro(3)))
        self.assertEqual([(b"onetwo", 3, ELSEWHERE)], self.socket.joined)
        self.assertEqual([[(d, THERE) for d in (b"tri", b"4th", b"5th")]], self.batches)

    def test_a_flood_is_forwarded_in_turns(self) -> None:
        """Of as many datagrams as are received in one."""
        self.read(*[(bytes(32), gro(1))] * 10)
        self.assertEqual(MAX_BATCH // 32, len(self.socket.joined))

    def test_more_than_one_call_can_send_is_received(self) -> None:
        """A newer kernel may join more than an older one cuts."""
        self.read((bytes(MAX_SEGMENTS + 1), gro(1)))
        self.assertEqual(([], []), (self.socket.joined, self.asked))
        self.assertEqual(MAX_SEGMENTS + 1, len(self.batches[0]))

    def test_a_system_that_does_not_cut_is_sent_single_datagrams(self) -> None:
        """They are forwarded all the same; and after some refusals it is not tried any more."""
        self.socket.error = errno.EIO
        for _ in range(MAX_REFUSALS):
            self.read((b"onetwo", gro(3)))
        singles = [([b"one"], ELSEWHERE), ([b"two"], ELSEWHERE)] * MAX_REFUSALS
        self.assertEqual((singles, 0), (self.socket.calls, self.transport.lost))
        self.read((b"onetwo", gro(3)))
        self.assertEqual(1, len(self.batches))

    def test_refusals_now_and_then_are_forgotten(self) -> None:
        """One way may go through a tunnel that cannot have it."""
        for _ in range(MAX_REFUSALS + 1):
            for self.socket.error in (errno.EIO, 0):
                self.read((b"onetwo", gro(3)))
        self.assertEqual((MAX_REFUSALS + 1, []), (len(self.socket.joined), self.batches))

    def test_what_the_system_does_not_take_is_lost(self) -> None:
        """Its buffer is full."""
        self.socket.error = errno.EAGAIN
        self.read((b"onetwo", gro(3)))
        self.assertEqual((2, []), (self.transport.lost, self.batches))


class KernelForwardTests(SynchronousTestCase):
    """Through this system's own sockets."""

    def test_datagrams_arrive_as_they_were_sent(self) -> None:
        """Over a transport in the middle, to a socket that joins nothing."""
        if not batched.is_available(reactor):
            raise SkipTest("this system has no UDP_SEGMENT and UDP_GRO")
        source, middle = (BatchedUDPTransport(FakeReactor(), "127.0.0.1", 0) for _ in range(2))
        target = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(target.close)
        target.bind(("127.0.0.1", 0))
        target.settimeout(60)
        received: list[Datagrams] = []
        middle.forward = lambda data, size, source: target.getsockname()
        for transport in (source, middle):
            transport.start(received.append)
            self.addCleanup(transport.stop)
        sent = [bytes([number]) * 1200 for number in range(40)] + [b"end"]
        source.send([(datagram, middle.get_address()) for datagram in sent])
        middle.doRead()
        self.assertEqual(sent, [target.recv(65535) for _ in sent])
        self.assertEqual(([], 0), (received, middle.lost))
