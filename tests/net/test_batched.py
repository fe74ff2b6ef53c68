"""Tests of p2pnet.net.batched: what goes to the kernel, and what it may do with it.

What it has in common with the plain transport is tested in test_udp.
"""

from __future__ import annotations

import errno
import itertools
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.interfaces import Datagrams
from p2pnet.net import batched
from p2pnet.net.batched import (
    MAX_BATCH,
    MAX_REFUSALS,
    MAX_RUN,
    MAX_SEGMENTS,
    MAX_TURN,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    BatchedUDPTransport,
    cut_into_runs,
    joined_size,
    split,
)
from p2pnet.wire.address import Address
from tests.net.support import FakeReactor

HERE: Address = ("192.0.2.1", 1)
THERE: Address = ("192.0.2.2", 2)
ELSEWHERE: Address = ("192.0.2.3", 3)
SIZES = st.one_of(st.sampled_from([0, 1, 60, 1199, 1200, 1201, 40000]), st.integers(0, 65507))


def gro(size: int) -> list[tuple[int, int, bytes]]:
    """The ancillary data of datagrams that the kernel joined."""
    return [(SOL_UDP, UDP_GRO, batched.GRO_SIZE.pack(size))]


class FakeSocket:
    """A socket in memory.

    :ivar calls: what was sent with each call: the datagrams and the address.
    :ivar waiting: what recvmsg() gives, or raises.
    :ivar error: raised by every call that sends several; `single_error`: that sends one.
    """

    family = socket.AF_INET

    def __init__(self) -> None:
        self.calls: list[tuple[list[bytes], Address]] = []
        self.waiting: list[Any] = []
        self.error = self.single_error = 0
        self.is_closed = False

    def sendmsg(self, run: list[bytes], ancillary: Any, flags: int, address: Address) -> int:
        """Send several, as long as the first."""
        assert ancillary == [(SOL_UDP, UDP_SEGMENT, len(run[0]).to_bytes(2, "little"))]
        self._note(list(run), address, self.error)
        return sum(map(len, run))

    def sendto(self, datagram: bytes, address: Address) -> int:
        """Send one."""
        self._note([datagram], address, self.single_error)
        return len(datagram)

    def _note(self, run: list[bytes], address: Address, error: int) -> None:
        self.calls.append((run, address))
        if error:
            raise OSError(error, errno.errorcode[error])

    def recvmsg(self, size: int, space: int) -> Any:
        """The next one that waits."""
        item = self.waiting.pop(0) if self.waiting else BlockingIOError(errno.EAGAIN, "no more")
        if isinstance(item, Exception):
            raise item
        data, ancillary = item
        return data, ancillary, 0, THERE

    def fileno(self) -> int:
        """A descriptor."""
        return -1 if self.is_closed else 99

    def getsockname(self) -> Address:
        """Its address."""
        return HERE

    def close(self) -> None:
        """It is no more."""
        self.is_closed = True


class BatchedCase(SynchronousTestCase):
    """A transport with such a socket."""

    rests = False

    def setUp(self) -> None:
        """A started transport."""
        self.reactor = FakeReactor()
        self.socket = FakeSocket()
        self.batches: list[Datagrams] = []
        self.transport = BatchedUDPTransport(
            self.reactor, "192.0.2.1", 1, rests=self.rests,
            open_socket=lambda host, port: self.socket,  # type: ignore
        )  # fmt: skip
        self.transport.start(self.batches.append)

    def send(self, number: int, size: int = 1200, address: Address = THERE) -> None:
        """Send that many datagrams at once."""
        self.transport.send([(bytes(size), address)] * number)

    def sizes(self) -> list[tuple[int, Address]]:
        """How many datagrams were sent with each call, and where to."""
        return [(len(run), address) for run, address in self.socket.calls]


class RunTests(SynchronousTestCase):
    """What one call can send, and what one call got."""

    @given(st.lists(SIZES, max_size=200), st.sampled_from([1, 2, MAX_SEGMENTS]))
    def test_runs_are_what_the_kernel_takes(self, sizes: list[int], most: int) -> None:
        """All there, in order, within the limits; and none could have been longer."""
        block = bytes(65507)
        datagrams = [block[:size] for size in sizes]
        runs = list(cut_into_runs(datagrams, most))
        self.assertEqual(datagrams, [datagram for run in runs for datagram in run])
        for run in runs:
            self.assertTrue(self.is_sendable(run, most))
        for run, following in itertools.pairwise(runs):
            self.assertFalse(self.is_sendable([*run, following[0]], most))

    def is_sendable(self, run: list[bytes], most: int) -> bool:
        """Whether one call can send all that."""
        first = len(run[0])
        return len(run) == 1 or (
            first > 0
            and len(run) <= min(most, MAX_RUN // first)
            and all(len(datagram) == first for datagram in run[:-1])
            and 0 < len(run[-1]) <= first
        )

    @given(st.binary(max_size=200), st.integers(-1, 300))
    def test_what_the_kernel_joined_is_divided(self, data: bytes, size: int) -> None:
        """Whatever it says of the size, nothing is lost."""
        parts = split(data, joined_size(data, gro(size)))
        self.assertEqual(data, b"".join(parts))
        if 0 < size < len(data):
            self.assertEqual({size}, {len(part) for part in parts[:-1]})
        self.assertEqual(0, joined_size(data, [(SOL_UDP, UDP_SEGMENT, gro(1)[0][2])]))


class SendTests(BatchedCase):
    """Runs, by address."""

    def test_each_address_has_runs_of_its_own(self) -> None:
        """Although its datagrams were amid others."""
        self.transport.send([(bytes(1200), (THERE, ELSEWHERE)[n % 2]) for n in range(20)])
        self.assertEqual([(10, THERE), (10, ELSEWHERE)], self.sizes())

    def test_a_run_has_an_end(self) -> None:
        """At 64 datagrams, or 65,000 bytes."""
        self.send(100, 100)
        self.send(100, 1200)
        self.assertEqual([64, 36, 54, 46], [number for number, _ in self.sizes()])

    def test_a_full_buffer_is_loss(self) -> None:
        """And no reason to try it otherwise."""
        for code in (errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM):
            self.socket.error, self.transport.lost = code, 0
            self.send(10)
            self.assertEqual(10, self.transport.lost)
        self.assertEqual([(10, THERE)] * 4, self.sizes())

    def test_a_run_that_is_refused_goes_one_by_one(self) -> None:
        """In order, and nothing is lost."""
        for code in (errno.EIO, errno.EINVAL, errno.EMSGSIZE):
            self.socket.calls.clear()
            self.socket.error = code
            self.transport.send([(bytes([n]), THERE) for n in range(5)])
            self.assertEqual(
                [[bytes([n])] for n in range(5)], [c[0] for c in self.socket.calls[1:]]
            )
        self.assertEqual(0, self.transport.lost)

    def test_what_is_always_refused_is_not_tried_any_more(self) -> None:
        """The system lacks it."""
        self.socket.error = errno.EIO
        for _ in range(MAX_REFUSALS):
            self.send(2)
        self.socket.calls.clear()
        self.send(4)
        self.assertEqual([(1, THERE)] * 4, self.sizes())

    def test_what_is_refused_now_and_then_is_tried_again(self) -> None:
        """One way has it, and another has not."""
        for _ in range(2 * MAX_REFUSALS):
            self.socket.error = errno.EIO
            self.send(2, address=ELSEWHERE)
            self.socket.error = 0
            self.send(2)
        self.socket.calls.clear()
        self.send(2)
        self.assertEqual([(2, THERE)], self.sizes())

    def test_what_cannot_be_sent_at_all_says_nothing_about_runs(self) -> None:
        """Such as to port 0: it is lost either way."""
        self.socket.error = self.socket.single_error = errno.EINVAL
        for _ in range(2 * MAX_REFUSALS):
            self.send(2)
        self.assertEqual(4 * MAX_REFUSALS, self.transport.lost)
        self.socket.calls.clear()
        self.socket.error = self.socket.single_error = 0
        self.send(2)
        self.assertEqual([(2, THERE)], self.sizes())

    def test_a_closed_socket_loses_runs_too(self) -> None:
        """A node that stops may still have something to say."""
        self.transport.stop()
        self.send(5)
        self.assertEqual((5, []), (self.transport.lost, self.socket.calls))


class ReceiveTests(BatchedCase):
    """Reads, by turn of the reactor."""

    def test_it_is_a_read_descriptor(self) -> None:
        """For as long as it is open."""
        self.assertTrue(verifyObject(IReadDescriptor, self.transport))
        self.assertEqual([self.transport], self.reactor.readers)
        self.assertEqual(99, self.transport.fileno())
        self.transport.stop()
        self.assertEqual(([], -1, True), (self.reactor.readers, self.transport.fileno(),
                                          self.socket.is_closed))  # fmt: skip

    def test_all_that_waits_is_one_batch(self) -> None:
        """Joined or not; an empty datagram is one too."""
        self.socket.waiting = [(b"one", []), (b"twoNEWtri", gro(3)), (b"", []), (b"four+5", gro(4))]
        self.transport.doRead()
        expected = [b"one", b"two", b"NEW", b"tri", b"", b"four", b"+5"]
        self.assertEqual([[(data, THERE) for data in expected]], self.batches)

    def read(self, *waiting: bytes) -> int:
        """Have the reactor come once while these and what still does wait; how many were read."""
        self.socket.waiting += [(data, []) for data in waiting]
        self.batches.clear()
        self.transport.doRead()
        return sum(map(len, self.batches))

    def test_what_comes_alone_takes_one_call(self) -> None:
        """Another one would only say that there is no more; what follows at once is all read."""
        self.assertEqual(1, self.read(b"0"))
        self.reactor.advance(1.0)
        self.assertEqual(1, self.read(b"1", b"2", b"3"))
        self.assertEqual(2, self.read())
        self.reactor.advance(1.0)
        self.assertEqual(3, self.read(b"4", b"5", b"6"), "a flow, though it paused")

    def test_what_comes_joined_does_not_come_alone(self) -> None:
        """Whatever its pauses."""
        self.assertEqual(1, self.read(b"0"))
        self.reactor.advance(1.0)
        self.socket.waiting = [(b"onetwo", gro(3))]
        self.assertEqual(2, self.read())
        self.reactor.advance(1.0)
        self.assertEqual(2, self.read(b"3", b"4"))

    def test_nothing_is_no_batch(self) -> None:
        """Reactors may be wrong, or late."""
        self.transport.doRead()
        self.socket.waiting = [(b"one", [])]
        self.transport.stop()
        self.transport.doRead()
        self.assertEqual([], self.batches)

    def test_a_flood_is_read_in_turns(self) -> None:
        """Of one datagram more than a batch has and one joined, at most."""
        self.socket.waiting = [(bytes(64), gro(1))] * 10
        self.transport.doRead()
        self.assertEqual(MAX_BATCH, len(self.batches[0]))
        self.socket.waiting = [(b"1", []), *[(bytes(64), gro(1))] * 10]
        self.transport.doRead()
        self.assertEqual(MAX_BATCH + 1, len(self.batches[1]))
        self.assertEqual(9, len(self.socket.waiting))

    def test_a_turn_of_large_datagrams_is_shorter(self) -> None:
        """Or a megabyte would come before anything else has its turn."""
        self.socket.waiting = [(bytes(64_000), gro(16_000))] * 10
        self.transport.doRead()
        self.assertEqual(-(-MAX_TURN // 64_000) * 4, len(self.batches[0]))

    def test_an_error_ends_a_turn_and_no_more(self) -> None:
        """What came before it is there, and so is what comes after."""
        refused = ConnectionRefusedError(errno.ECONNREFUSED, "an earlier one was not wanted")
        self.socket.waiting = [(b"before", []), refused, (b"after", [])]
        self.transport.doRead()
        self.transport.doRead()
        self.assertEqual([[(b"before", THERE)], [(b"after", THERE)]], self.batches)

    def test_a_socket_that_the_reactor_gives_up_is_closed(self) -> None:
        """As all are when the process ends."""
        self.transport.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(self.socket.is_closed)
        self.transport.stop()


class Counted(socket.socket):
    """A real socket that counts its calls."""

    calls = 0

    def sendmsg(self, *args: Any) -> int:
        """Send."""
        self.calls += 1
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        """Receive."""
        self.calls += 1
        return super().recvmsg(*args)


class KernelTests(SynchronousTestCase):
    """This system's own."""

    def setUp(self) -> None:
        """Elsewhere there is nothing to test."""
        if not batched.is_available(reactor):
            raise SkipTest("this system has no UDP_SEGMENT and UDP_GRO")

    def open(self, host: str) -> tuple[BatchedUDPTransport, Counted, list[Datagrams]]:
        """A transport, its socket and what it receives."""
        batches: list[Datagrams] = []
        opened: list[Counted] = []

        def open_socket(host: str, port: int) -> socket.socket:
            plain = batched.open_socket(host, port)
            opened.append(Counted(fileno=plain.detach()))
            return opened[0]

        transport = BatchedUDPTransport(FakeReactor(), host, 0, open_socket=open_socket)
        transport.start(batches.append)
        self.addCleanup(transport.stop)
        return transport, opened[0], batches

    def test_the_kernel_cuts_and_joins(self) -> None:
        """Fifty datagrams cost one call to send, and one to receive and one to see that there are
        no more."""
        for host, target in (("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")):
            try:
                source, sending, _ = self.open(host)
            except Exception as error:
                raise SkipTest(f"{host} cannot be used: {error}") from None
            other, receiving, batches = self.open(target)
            sent = [bytes([number]) * 1200 for number in range(50)]
            source.send([(data, (target, other.get_address()[1])) for data in sent])
            other.doRead()
            self.assertEqual([sent], [[data for data, _ in batch] for batch in batches])
            self.assertEqual((1, 2, 0), (sending.calls, receiving.calls, source.lost))

    def test_jumbo_datagrams_share_calls_too(self) -> None:
        """Four of 16000 bytes are what one call takes; each is divided as it was."""
        source, sending, _ = self.open("127.0.0.1")
        other, _, batches = self.open("127.0.0.1")
        sent = [bytes([number]) * 16000 for number in range(8)]
        source.send([(data, other.get_address()) for data in sent])
        other.doRead()
        self.assertEqual(sent, [data for batch in batches for data, _ in batch])
        self.assertEqual((2, 0), (sending.calls, source.lost))

    def test_a_reactor_without_descriptors_cannot_have_it(self) -> None:
        """Such as Windows' proactor."""
        self.assertTrue(batched.is_available(FakeReactor()))
        self.assertFalse(batched.is_available(Clock()))
