"""The UDP socket of a node, on Twisted's Port."""

import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from p2pnet.interfaces import IDatagramTransport
from p2pnet.wire.address import Address, canonical_address

MAX_PACKET = 65535  # bytes
BUFFER_SIZE = 4 << 20  # bytes asked of the kernel; a burst must survive until the next read

# Level and type of the ancillary data; also of an IPv6 socket's packet to a mapped address.
HOP_LIMIT = {
    False: (socket.IPPROTO_IP, socket.IP_TTL),
    True: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_HOPLIMIT", 0)),
}


class _Receiver(DatagramProtocol):
    noisy = False

    def __init__(self, receive: Callable[[bytes, Address], Any]) -> None:
        self._receive = receive

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._receive(datagram, canonical_address(addr[0], addr[1]))


@implementer(IDatagramTransport)
class UDPTransport:
    """One UDP socket on a reactor.

    :param host: an IP literal; "::" takes IPv4 too. "" is any address of both families, or of
        IPv4 alone where the system has no IPv6.
    :param port: 0 for any.
    :ivar lost: datagrams that the system did not take.
    """

    def __init__(self, reactor: IReactorUDP, host: str, port: int) -> None:
        self._reactor = reactor
        self._host = host
        self._port_number = port
        self._port: Any = None
        self._mapped = False
        self.lost = 0

    def start(self, receive: Callable[[bytes, Address], Any]) -> None:
        """Open the socket; `receive` gets each datagram. Raises CannotListenError."""
        receiver = _Receiver(receive)
        if self._host:
            self._port = self._listen(receiver, self._host)
        else:
            try:
                self._port = self._listen(receiver, "::")
            except CannotListenError:
                self._port = self._listen(receiver, "0.0.0.0")
        handle = self._port.getHandle()
        self._mapped = handle.family == socket.AF_INET6
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            handle.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)

    def _listen(self, receiver: _Receiver, host: str) -> IListeningPort:
        return self._reactor.listenUDP(self._port_number, receiver, host, MAX_PACKET)

    def send(self, datagram: bytes, address: Address, hops: int | None = None) -> None:
        """Send, best effort: a full buffer, no route, a message too long all count as loss."""
        host, port = address
        is_ipv6 = ":" in host
        if self._mapped and not is_ipv6:
            host = "::ffff:" + host
        try:
            if hops is None:
                self._port.write(datagram, (host, port))
            else:
                limit = (*HOP_LIMIT[is_ipv6], hops.to_bytes(4, sys.byteorder))
                self._port.getHandle().sendmsg([datagram], [limit], 0, (host, port))
        except Exception:  # OSError, but also Twisted's own errors for addresses of the other kind
            self.lost += 1

    def get_address(self) -> Address:
        """The local address, once started."""
        host = self._port.getHost()
        return canonical_address(host.host, host.port)

    def stop(self) -> Deferred[None] | None:
        """Close the socket."""
        port, self._port = self._port, None
        return None if port is None else port.stopListening()
