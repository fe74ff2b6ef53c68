"""Tests of p2pnet.net.workers.reuseport on real sockets: which one on a port gets a datagram."""

from __future__ import annotations

import errno
import select
import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.net.batched import (
    ANCILLARY_SPACE,
    JOINED,
    SEGMENT_SIZE,
    SOL_UDP,
    UDP_SEGMENT,
    joined_size,
    split,
)
from p2pnet.net.workers import reuseport
from p2pnet.net.workers.reuseport import open_group
from p2pnet.wire.demux import MAGIC_COOKIE
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.net.test_udp import has_ipv6

TIMEOUT = 60.0  # seconds for a datagram on loopback, on a busy machine
OTHERS = (
    b"", b"\x20", b"\x00\x01\x00\x00" + MAGIC_COOKIE + bytes(12), b"\x40" + bytes(1199),
    b"\xc0" + bytes(1199), b"\x1f" + bytes(range(1, 30)), b"\x30" + bytes(range(1, 30)),
)  # fmt: skip
"""What is no relay frame with a channel: STUN, QUIC, nobody's."""


class GroupCase(SynchronousTestCase):
    """Tests with a group of sockets."""

    def setUp(self) -> None:
        """It takes Linux."""
        if not reuseport.is_available():
            raise SkipTest("this system cannot have a program choose among sockets of one port")

    def group(self, sockets: int, host: str = "127.0.0.1", port: int = 0) -> list[socket.socket]:
        """That many sockets on one port."""
        opened = open_group(host, port, sockets, [JOINED])
        for each in opened:
            self.addCleanup(each.close)
        return opened

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """A socket with an address of its own."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        return client

    def taken_by(self, group: list[socket.socket], count: int = 1) -> list[tuple[int, bytes]]:
        """The next datagrams, each with the number of the socket that got it."""
        taken: list[tuple[int, bytes]] = []
        while len(taken) < count:
            ready, _, _ = select.select(group, [], [], TIMEOUT)
            self.assertTrue(ready, "no datagram came")
            data, ancillary, _, _ = ready[0].recvmsg(65535, ANCILLARY_SPACE)
            taken += [
                (group.index(ready[0]), part) for part in split(data, joined_size(data, ancillary))
            ]
        return taken


class SteeringTests(GroupCase):
    """The program sees the datagram and nothing else."""

    def assert_steered(self, group: list[socket.socket], host: str = "127.0.0.1") -> None:
        """By the first byte of the channel from two clients, and all else to the first socket."""
        target = (host, group[0].getsockname()[1])
        for client in (self.client(host), self.client(host)):
            for byte in range(256):
                frame = encode_relay_frame(bytes([byte]) + bytes(7), b"payload")
                client.sendto(frame, target)
                self.assertEqual([(byte % len(group), frame)], self.taken_by(group))
            for datagram in OTHERS:
                client.sendto(datagram, target)
                self.assertEqual([(0, datagram)], self.taken_by(group))

    def test_the_channel_chooses_the_socket_whatever_address_a_client_has(self) -> None:
        """Of any number of sockets; a client behind a NAT may get another port at any time."""
        for sockets in (2, 3, 7):
            self.assert_steered(self.group(sockets))

    def test_it_is_the_same_on_every_address(self) -> None:
        """Also on IPv6, and for IPv4 on a socket of both."""
        self.assert_steered(self.group(3, "0.0.0.0"))
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6 loopback address")
        self.assert_steered(self.group(3, "::1"), "::1")
        self.assert_steered(self.group(3, "::"))

    def test_a_socket_stays_in_its_place_while_a_duplicate_is_open(self) -> None:
        """As it is when the process that used it died; without one the others would move up."""
        group = self.group(3)
        kept = [each.dup() for each in group]
        for each in kept:
            self.addCleanup(each.close)
        group[1].close()
        self.assert_steered(kept)

    def test_datagrams_that_travel_together_arrive_together(self) -> None:
        """At the socket of the first of them, which is why any process forwards any frame."""
        group, client = self.group(3), self.client()
        frames = [encode_relay_frame(bytes([byte]) + bytes(7), b"payload") for byte in (1, 2)]
        frames.append(b"\x40" + bytes(len(frames[0]) - 1))
        size = (SOL_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(len(frames[0])))
        client.sendmsg(frames, [size], 0, group[0].getsockname())
        self.assertEqual([(1, frame) for frame in frames], self.taken_by(group, 3))


class OpenTests(GroupCase):
    """A port belongs to one Intermediate."""

    def assert_in_use(self, port: int) -> None:
        """Neither one socket nor several can be had on it."""
        for sockets in (1, 2):
            error = self.assertRaises(OSError, open_group, "127.0.0.1", port, sockets)
            self.assertEqual(errno.EADDRINUSE, error.errno)

    def test_a_second_intermediate_does_not_join_the_first(self) -> None:
        """The option alone would let it, and each would get some of the other's datagrams."""
        group = self.group(2)
        self.assert_in_use(group[0].getsockname()[1])

    def test_a_port_in_use_is_refused(self) -> None:
        """By a program that shares nothing."""
        other = self.client()
        other.bind(("127.0.0.1", 0))
        self.assert_in_use(other.getsockname()[1])

    def test_a_system_without_the_filter_is_told(self) -> None:
        """Nothing is left open."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOPROTOOPT, "no such option")

        self.patch(reuseport, "steer", refuse)
        self.assertFalse(reuseport.is_available())
