"""Tests of p2pnet.net.udp and .batched on real sockets of this machine's loopback."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

from p2pnet.interfaces import Datagrams, IDatagramTransport
from p2pnet.net import batched
from p2pnet.net.batched import MAX_BATCH, BatchedUDPTransport
from p2pnet.net.udp import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    PMTUDISC_PROBE,
    UDPTransport,
)

Transport = UDPTransport | BatchedUDPTransport

IP_RECVTTL = getattr(socket, "IP_RECVTTL", 12)  # of Linux; Python names it from 3.14 on

MORE = 500  # datagrams; too many for one batch

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object  # only with a transport is it a TestCase


class Bug(Exception):
    """Something nobody thought of."""


def has_ipv6() -> bool:
    """Whether ::1 can be bound to."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class TransportTests(Base):
    """One socket, which takes whatever comes and loses what cannot be sent."""

    timeout = 120

    def make(self, host: str, port: int = 0) -> Transport:
        """A transport that was not started."""
        raise NotImplementedError

    def handle(self, transport: Any) -> socket.socket:
        """The socket of a started one."""
        raise NotImplementedError

    def start(self, transport: Transport) -> Callable[[], Deferred[Any]]:
        """Start it. Returns what gives the next datagram that it gets."""
        waiting: list[Deferred[Any]] = []
        early: list[Any] = []

        def receive(datagrams: Datagrams) -> None:
            for item in datagrams:
                if waiting:
                    waiting.pop(0).callback(item)
                else:
                    early.append(item)

        def received() -> Deferred[Any]:
            deferred: Deferred[Any] = Deferred()
            if early:
                deferred.callback(early.pop(0))
            else:
                waiting.append(deferred)
            return deferred

        transport.start(receive)
        self.addCleanup(transport.stop)
        return received

    def open(self, host: str, port: int = 0) -> tuple[Transport, Callable[[], Deferred[Any]]]:
        """A started transport, and what gives the next datagram that it gets."""
        transport = self.make(host, port)
        return transport, self.start(transport)

    def port(self, transport: Transport) -> int:
        """The transport's port."""
        return transport.get_address()[1]

    @inlineCallbacks
    def exchange(self, host: str, other_host: str, target: str) -> Any:
        """A datagram from one to the other, and one back to where it seemed to come from."""
        one, one_gets = self.open(host)
        other, other_gets = self.open(other_host)
        one.send([(b"hello", (target, self.port(other)))])
        data, source = yield other_gets()
        self.assertEqual(b"hello", data)
        self.assertEqual((target, self.port(one)), source)
        other.send([(b"answer", source)])
        data, source = yield one_gets()
        self.assertEqual((b"answer", (target, self.port(other))), (data, source))
        self.assertEqual((0, 0), (one.lost, other.lost))

    def test_it_is_a_datagram_transport(self) -> None:
        """As the interface has it; its address is where it was opened."""
        transport, _ = self.open("127.0.0.1")
        self.assertTrue(verifyObject(IDatagramTransport, transport))
        self.assertEqual("127.0.0.1", transport.get_address()[0])
        self.assertNotEqual(0, self.port(transport))

    def test_ipv4_speaks_with_ipv4(self) -> Any:
        """The plain case."""
        return self.exchange("127.0.0.1", "127.0.0.1", "127.0.0.1")

    def test_ipv6_speaks_with_ipv6(self) -> Any:
        """The other plain case."""
        self.need_ipv6()
        return self.exchange("::1", "::1", "::1")

    def test_an_unnamed_address_speaks_with_ipv4(self) -> Any:
        """Addresses of a dual-stack socket look as if it were an IPv4 one."""
        return self.exchange("", "127.0.0.1", "127.0.0.1")

    def test_an_unnamed_address_speaks_with_ipv6(self) -> Any:
        """With the same socket."""
        self.need_ipv6()
        return self.exchange("", "::1", "::1")

    def test_two_unnamed_addresses_speak_either_family(self) -> Any:
        """With each other."""
        self.need_ipv6()
        done = self.exchange("", "", "127.0.0.1")
        return done.addCallback(lambda _: self.exchange("", "::", "::1"))

    def arriving_ttl(self, host: str, family: socket.AddressFamily, target: str) -> int:
        """The TTL with which a datagram of TTL 3 arrives, without a router between."""
        transport, _ = self.open(host)
        is_ipv6 = family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if is_ipv6 else socket.IPPROTO_IP
        wish = socket.IPV6_RECVHOPLIMIT if is_ipv6 else IP_RECVTTL
        with socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(level, wish, 1)
            receiver.settimeout(60.0)
            receiver.bind((target, 0))
            transport.send([(b"opener", (target, receiver.getsockname()[1]))], 3)
            data, ancillary, _flags, _source = receiver.recvmsg(100, 100)
        self.assertEqual((b"opener", 0), (data, transport.lost))
        return int.from_bytes(ancillary[0][2], sys.byteorder)

    def test_the_ttl_is_limited_as_asked(self) -> None:
        """On sockets of both families, and to IPv4 from one of IPv6."""
        self.assertEqual(3, self.arriving_ttl("127.0.0.1", socket.AF_INET, "127.0.0.1"))
        self.need_ipv6()
        self.assertEqual(3, self.arriving_ttl("::1", socket.AF_INET6, "::1"))
        self.assertEqual(3, self.arriving_ttl("", socket.AF_INET, "127.0.0.1"))

    @inlineCallbacks
    def test_the_largest_datagram_passes_and_a_larger_one_is_lost(self) -> Any:
        """Without an error, and without harm to what follows."""
        one, _ = self.open("127.0.0.1")
        other, other_gets = self.open("127.0.0.1")
        target = other.get_address()
        one.send([(bytes(65508), target)])
        self.assertEqual(1, one.lost)
        for data in (bytes(65507), b""):
            one.send([(data, target)])
            got, _ = yield other_gets()
            self.assertEqual(len(data), len(got))

    def test_datagrams_are_not_cut_on_their_way(self) -> None:
        """On sockets of both families, and to IPv4 from one of IPv6."""
        if sys.platform != "linux":
            raise SkipTest("only Linux is asked to")
        for host in ("127.0.0.1", *(["::1", "::"] if has_ipv6() else [])):
            handle = self.handle(self.open(host)[0])
            options = [(socket.IPPROTO_IP, IP_MTU_DISCOVER)]
            if ":" in host:
                options.append((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER))
            for option in options:
                self.assertEqual(PMTUDISC_PROBE, handle.getsockopt(*option), host)

    def test_what_cannot_be_sent_is_counted_as_lost(self) -> None:
        """Wrong family, no such route, no address at all, a port that is none."""
        transport, _ = self.open("127.0.0.1")
        targets = [
            ("::1", 4433),
            ("relay.example", 4433),
            ("", 4433),
            ("127.0.0.1", 0),
            ("127.0.0.1", 70000),
            ("255.255.255.255", 4433),
        ]
        for number, target in enumerate(targets, 1):
            transport.send([(b"hello", target)])
            self.assertEqual(number, transport.lost, target)

    @inlineCallbacks
    def test_a_target_that_refuses_does_no_harm(self) -> Any:
        """The kernel tells the socket; the next datagram is sent and received all the same."""
        one, one_gets = self.open("127.0.0.1")
        closed, _ = self.open("127.0.0.1")
        target = closed.get_address()
        yield closed.stop()
        for _ in range(3):
            one.send([(b"hello?", target)])
        other, _ = self.open("127.0.0.1")
        other.send([(b"hello", one.get_address())])
        data, _ = yield one_gets()
        self.assertEqual(b"hello", data)

    def test_a_port_that_is_taken_cannot_be_opened(self) -> None:
        """Neither by its address nor without one."""
        transport, _ = self.open("127.0.0.1")
        self.assertRaises(CannotListenError, self.open, "127.0.0.1", self.port(transport))
        unnamed, _ = self.open("")
        self.assertRaises(CannotListenError, self.open, "", self.port(unnamed))

    @inlineCallbacks
    def test_a_closed_socket_sends_nothing_and_may_be_closed_again(self) -> Any:
        """A node that stops may still have something to say."""
        transport, _ = self.open("127.0.0.1")
        yield transport.stop()
        transport.send([(b"hello", ("127.0.0.1", 4433))])
        self.assertEqual(1, transport.lost)
        yield transport.stop()

    @inlineCallbacks
    def test_datagrams_to_one_address_arrive_in_order(self) -> Any:
        """Of several lengths, none left out, amid others to other addresses and either family."""
        source, _ = self.open("")
        targets = [self.open("127.0.0.1") for _ in range(3)]
        if has_ipv6():
            targets.append(self.open("::1"))
        sizes = (0, 1, 1200, 1200, 1200, 1199, 1200, 60, 60, 60, 60, 61, 9000, 9000) * 5
        sent = [bytes([number]) * size for number, size in enumerate(sizes)]
        source.send([(data, target.get_address()) for data in sent for target, _ in targets])
        for _, gets in targets:
            for data in sent:
                got, (_, port) = yield gets()
                self.assertEqual((data, self.port(source)), (got, port))
        self.assertEqual(0, source.lost)

    @inlineCallbacks
    def test_a_receiver_that_raises_is_called_again(self) -> Any:
        """The reactor must not give the socket up."""
        source, _ = self.open("127.0.0.1")
        target = self.make("127.0.0.1")
        batches: list[Datagrams] = []
        done: Deferred[None] = Deferred()

        def receive(datagrams: Datagrams) -> None:
            batches.append(datagrams)
            if len(batches) == 3:
                done.callback(None)
                return
            source.send([(b"again", target.get_address())])
            raise Bug

        target.start(receive)
        self.addCleanup(target.stop)
        source.send([(b"hello", target.get_address())])
        yield done
        self.assertEqual(2, len(self.flushLoggedErrors(Bug)))

    @inlineCallbacks
    def test_nothing_is_received_after_a_stop(self) -> Any:
        """Not even what had arrived already."""
        source, _ = self.open("127.0.0.1")
        other, other_gets = self.open("127.0.0.1")
        target = self.make("127.0.0.1")
        batches: list[Datagrams] = []

        def receive(datagrams: Datagrams) -> None:
            batches.append(datagrams)
            target.stop()

        target.start(receive)
        source.send([(b"hello", target.get_address())] * MORE)
        source.send([(b"the end", other.get_address())])
        for _ in range(2):  # the second one is sent when target had its turn for sure
            yield other_gets()
            source.send([(b"the end", other.get_address())])
        self.assertEqual(1, len(batches))

    def test_the_socket_is_opened_by_start(self) -> None:
        """Not before: only then is it known in which network namespace."""
        transport, _ = self.open("127.0.0.1")
        late = self.make("127.0.0.1", self.port(transport))
        self.assertRaises(CannotListenError, late.start, lambda datagrams: None)

    def need_ipv6(self) -> None:
        """Skip the test where there is none."""
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6 loopback address")


class PlainTests(TransportTests, TestCase):
    """On Twisted's Port."""

    def make(self, host: str, port: int = 0) -> UDPTransport:
        """A transport that was not started."""
        return UDPTransport(reactor, host, port)

    def handle(self, transport: Any) -> socket.socket:
        """The socket of a started one."""
        handle: socket.socket = transport._port.getHandle()
        return handle

    def test_an_unnamed_address_is_ipv4_where_there_is_no_ipv6(self) -> None:
        """The first attempt fails, and nobody needs to know."""

        class Older:
            def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> Any:
                """Open a socket, of IPv4 only."""
                if ":" in interface:
                    raise CannotListenError(interface, port, OSError("no such address family"))
                return reactor.listenUDP(port, protocol, interface, size)  # type: ignore[attr-defined]

        transport = UDPTransport(Older(), "", 0)
        self.start(transport)
        self.assertEqual("0.0.0.0", transport.get_address()[0])


class BatchedTests(TransportTests, TestCase):
    """In batches; see test_batched for how."""

    def setUp(self) -> None:
        """Elsewhere there is nothing to test."""
        if not batched.is_available(reactor):
            raise SkipTest("this system has no UDP_SEGMENT and UDP_GRO")

    def make(self, host: str, port: int = 0) -> BatchedUDPTransport:
        """A transport that was not started."""
        return BatchedUDPTransport(reactor, host, port)

    def handle(self, transport: Any) -> socket.socket:
        """The socket of a started one."""
        handle: socket.socket = transport._socket
        return handle

    def test_an_unnamed_address_is_ipv4_where_there_is_no_ipv6(self) -> None:
        """The first attempt fails, and nobody needs to know."""

        def older(host: str, port: int) -> socket.socket:
            if ":" in host:
                raise OSError("no such address family")
            return batched.open_socket(host, port)

        transport = BatchedUDPTransport(reactor, "", 0, open_socket=older)
        self.start(transport)
        self.assertEqual("0.0.0.0", transport.get_address()[0])

    @inlineCallbacks
    def test_what_waits_comes_in_batches_that_have_an_end(self) -> Any:
        """So that other sockets have their turn; what is left comes after that."""
        source, _ = self.open("127.0.0.1")
        target = self.make("127.0.0.1")
        batches: list[Datagrams] = []
        done: Deferred[None] = Deferred()

        def receive(datagrams: Datagrams) -> None:
            batches.append(datagrams)
            if sum(map(len, batches)) == MORE:
                done.callback(None)

        target.start(receive)
        self.addCleanup(target.stop)
        source.send([(b"%d" % number, target.get_address()) for number in range(MORE)])
        yield done
        got = [int(data) for batch in batches for data, _ in batch]
        self.assertEqual(list(range(MORE)), got)
        self.assertLess(max(map(len, batches)), 2 * MAX_BATCH)
        self.assertLess(len(batches), MORE // 8)
