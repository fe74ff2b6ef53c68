"""The UDP socket of a node, on Twisted's Port: the portable way."""

import contextlib
import functools
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from p2pnet.interfaces import Datagrams, Forward, IDatagramTransport
from p2pnet.wire.address import Address, canonical_address

MAX_PACKET = 65535  # bytes
BUFFER_SIZE = 4 << 20  # bytes asked of the kernel; a burst must survive until the next read
KNOWN_ADDRESSES = 4096  # remembered in their other form; parsing one costs as much as sending

# Level and type of the ancillary data; also of an IPv6 socket's packet to a mapped address.
TTL_OPTION = {
    False: (socket.IPPROTO_IP, socket.IP_TTL),
    True: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_HOPLIMIT", 0)),
}

# Linux' in.h and in6.h; Python does not name them. PROBE: packets are not to be cut on their way,
# and what the kernel believes of the way does not matter.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3

observed_address = functools.lru_cache(KNOWN_ADDRESSES)(canonical_address)


@functools.lru_cache(KNOWN_ADDRESSES)
def socket_address(address: Address, family: int) -> Address:
    """What a socket of `family` is told to send to `address`: v4-mapped, if it is one of IPv6.

    Raises ValueError for what it cannot send to, such as a name, which the system would look up.
    """
    host, port = address
    is_ipv4 = ipaddress.ip_address(host).version == 4
    if family == socket.AF_INET6:
        return (f"::ffff:{host}", port) if is_ipv4 else address
    if not is_ipv4:
        raise ValueError(f"an IPv4 socket cannot send to {host}")
    return address


def ttl_option(address: Address, ttl: int) -> tuple[int, int, bytes]:
    """The ancillary data by which a datagram to `address` crosses that many routers at most."""
    return (*TTL_OPTION[":" in address[0]], ttl.to_bytes(4, sys.byteorder))


def forbid_fragments(opened: socket.socket) -> None:
    """Have datagrams that are too large for their way get lost, so that probes tell the truth.

    RFC 9000 section 14 asks for that, too. Where the system cannot, nothing is changed.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)


def open_socket(
    host: str, port: int, options: Iterable[tuple[int, int, int]] = ()
) -> socket.socket:
    """A non-blocking UDP socket bound to an IP literal; "::" takes IPv4 too. Raises OSError.

    :param options: level, name and value of each socket option that it gets first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        if host == "::":
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_SIZE)
        for option in options:
            opened.setsockopt(*option)
        forbid_fragments(opened)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


class _Receiver(DatagramProtocol):
    noisy = False

    def __init__(self, receive: Callable[[Datagrams], Any]) -> None:
        self.receive: Callable[[Datagrams], Any] | None = receive

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.receive is not None:
            self.receive([(datagram, observed_address(addr[0], addr[1]))])


@implementer(IDatagramTransport)
class UDPTransport:
    """One UDP socket on a reactor.

    :param reactor: provides IReactorUDP.
    :param host: an IP literal; "::" takes IPv4 too. "" is any address of both families, or of
        IPv4 alone where the system has no IPv6.
    :param port: 0 for any.
    :param adopt: a bound socket to use a duplicate of, instead of opening one; the reactor provides
        IReactorSocket then.
    :ivar lost: datagrams that the system did not take.
    """

    gathers = False
    forward: Forward | None = None  # nothing comes joined

    def __init__(
        self, reactor: Any, host: str, port: int, *, adopt: socket.socket | None = None
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port_number = port
        self._adopt = adopt
        self._port: Any = None
        self._receiver: _Receiver | None = None
        self.lost = 0

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket; `receive` gets what comes. Raises CannotListenError."""
        self._receiver = receiver = _Receiver(receive)
        if self._host:
            self._port = self._listen(receiver, self._host)
        else:
            try:
                self._port = self._listen(receiver, "::")
            except CannotListenError:
                self._port = self._listen(receiver, "0.0.0.0")
        handle = self._port.getHandle()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            handle.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
        forbid_fragments(handle)

    def _listen(self, receiver: _Receiver, host: str) -> Any:
        if self._adopt is not None:
            descriptor, family = self._adopt.fileno(), self._adopt.family
            return self._reactor.adoptDatagramPort(descriptor, family, receiver, MAX_PACKET)
        return self._reactor.listenUDP(self._port_number, receiver, host, MAX_PACKET)

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send, best effort: a full buffer, no route, a message too long all count as loss."""
        for datagram, address in datagrams:
            try:
                self._send(datagram, address, ttl)
            except Exception:  # OSError, but also what ports and hosts that are none cause
                self.lost += 1

    def _send(self, datagram: bytes, address: Address, ttl: int | None) -> None:
        handle = self._port.getHandle()
        target = socket_address(address, handle.family)
        if ttl is None:
            self._port.write(datagram, target)
        else:
            handle.sendmsg([datagram], [ttl_option(address, ttl)], 0, target)

    def get_address(self) -> Address:
        """The local address, once started."""
        host = self._port.getHost()
        return canonical_address(host.host, host.port)

    def stop(self) -> Deferred[None] | None:
        """Close the socket. Returns a Deferred of the port's end, None if it was not open."""
        port, self._port = self._port, None
        if self._receiver is not None:
            self._receiver.receive = None  # the port may be in the middle of reading
        return None if port is None else port.stopListening()
