"""The UDP socket of a node, on Linux: up to 64 datagrams with one system call, either way.

A call for 64 datagrams costs hardly more than a call for a single datagram, and so does the
reactor's work per call. With UDP_SEGMENT the kernel cuts a buffer into datagrams (generic
segmentation offload), with UDP_GRO it joins datagrams of one sender (generic receive offload); see
udp(7).
"""

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.interfaces import Datagrams, Forward, IDatagramTransport
from p2pnet.net import udp
from p2pnet.net.rest import REST, Gauge
from p2pnet.net.udp import (
    MAX_PACKET,
    observed_address,
    socket_address,
    ttl_option,
)
from p2pnet.wire.address import Address, canonical_address

# Linux' udp.h; Python does not name them. The level of the options is the protocol's number.
SOL_UDP, UDP_SEGMENT, UDP_GRO = socket.IPPROTO_UDP, 103, 104
JOINED = (SOL_UDP, UDP_GRO, 1)  # level, option and value
SEGMENT_SIZE = struct.Struct("=H")  # what UDP_SEGMENT takes
GRO_SIZE = struct.Struct("=i")  # what UDP_GRO gives
ANCILLARY_SPACE = 64  # bytes; the one int needs 24

MAX_SEGMENTS = 64  # in one call: UDP_MAX_SEGMENTS, which older kernels have
MAX_RUN = 65000  # bytes in one call; together they are one IP packet for a while

SPARSE = 100e-6  # seconds of silence after a lone datagram; the next is taken to be lone too
MAX_BATCH = 64  # datagrams of one turn, a millisecond's work or two; other readers come next
MAX_TURN = 1 << 18  # bytes of one turn

# Errors of a kernel, a route or a device that refuses segmentation. Without support every call
# fails; with support only a datagram that is too long, or a route through a tunnel, fails.
REFUSALS = {errno.EIO, errno.EINVAL, errno.EMSGSIZE}
MAX_REFUSALS = 8  # in a row, after which segmentation is not tried again


def is_available(reactor: object) -> bool:
    """Whether this system and this reactor have what BatchedUDPTransport needs."""
    if sys.platform != "linux" or not IReactorFDSet.providedBy(reactor):
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
            probe.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def open_socket(host: str, port: int) -> socket.socket:
    """A UDP socket whose datagrams the kernel joins; see p2pnet.net.udp. Raises OSError."""
    return udp.open_socket(host, port, [JOINED])


def cut_into_runs(
    datagrams: list[bytes], max_segments: int = MAX_SEGMENTS
) -> Iterator[list[bytes]]:
    """Divide datagrams, in order, into what one call can send: all but the last of one length,
    the last not longer, and none of several empty."""
    sizes = [len(datagram) for datagram in datagrams]
    start = 0
    while start < len(sizes):
        size, end = sizes[start], start + 1
        if size:
            limit = min(len(sizes), start + min(max_segments, MAX_RUN // size))
            while end < limit and sizes[end] == size:
                end += 1
            if end < limit and 0 < sizes[end] < size:
                end += 1
        yield datagrams[start:end]
        start = end


def joined_size(data: bytes, ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The size of each datagram, but the last, that the kernel joined into what recvmsg() gave; 0
    if it is only one."""
    for level, kind, value in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            size: int = GRO_SIZE.unpack_from(value)[0]
            return size if 0 < size < len(data) else 0
    return 0


def split(data: bytes, size: int) -> list[bytes]:
    """The datagrams, of that size but the last, or the only one for 0."""
    if not size:
        return [data]
    return [data[start : start + size] for start in range(0, len(data), size)]


@implementer(IDatagramTransport, IReadDescriptor)
class BatchedUDPTransport:
    """One UDP socket on a reactor, read and written in batches.

    :param reactor: provides IReactorFDSet, and IReactorTime if it `rests`.
    :param host: an IP literal; "::" takes IPv4 too. "" is any address of both families, or of
        IPv4 alone where the system has no IPv6.
    :param port: 0 for any.
    :param rests: whether datagrams of a busy flow may gather for a moment before they are read.
    :param open_socket: see the function.
    :ivar lost: datagrams that the system did not take.
    """

    log = Logger()
    gathers = True
    forward: Forward | None = None

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        rests: bool = False,
        open_socket: Callable[[str, int], socket.socket] = open_socket,
    ) -> None:
        self.lost = 0
        self._reactor = reactor
        self._host = host
        self._port = port
        self._open_socket = open_socket
        self._socket: socket.socket | None = None
        self._family = 0  # of the socket; socket.family makes an Enum at each access
        self._alone_at: float | None = None  # when the last turn read, if it read one datagram
        self._receive: Callable[[Datagrams], Any]
        self._refusals = 0
        self._max_segments = MAX_SEGMENTS
        self._gauge = Gauge() if rests else None

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket; `receive` gets what comes. Raises CannotListenError."""
        self._receive = receive
        if self._host:
            self._socket = self._open(self._host)
        else:
            try:
                self._socket = self._open("::")
            except CannotListenError:
                self._socket = self._open("0.0.0.0")
        self._family = int(self._socket.family)
        self._reactor.addReader(self)

    def _open(self, host: str) -> socket.socket:
        try:
            return self._open_socket(host, self._port)
        except OSError as error:
            raise CannotListenError(host, self._port, error) from error

    def get_address(self) -> Address:
        """The local address, once started."""
        assert self._socket is not None
        return canonical_address(*self._socket.getsockname()[:2])

    def stop(self) -> None:
        """Close the socket; a second call does nothing. Datagrams sent later count as lost."""
        opened, self._socket = self._socket, None
        if opened is not None:
            self._reactor.removeReader(self)  # while it still has its descriptor
            opened.close()

    # -- receiving -------------------------------------------------------------------------------

    def logPrefix(self) -> str:
        """The name of this reader in Twisted's log (IReadDescriptor)."""
        return "UDP"

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def doRead(self) -> None:
        """Read the waiting datagrams and pass them on; the reactor calls again for more."""
        # A second recvmsg() that only finds the socket empty costs as much as the first. After a
        # lone datagram read just one; if more wait, the reactor calls again and all are read.
        alone_at = self._alone_at
        is_alone = alone_at is not None and self._reactor.seconds() - alone_at > SPARSE
        most = 1 if is_alone else MAX_BATCH
        if self._socket is not None and self._read(most) and self._socket is not None:
            self._reactor.removeReader(self)
            self._reactor.callLater(REST, self._go_on)

    def _go_on(self) -> None:
        if self._socket is None:
            return
        if self._read(MAX_BATCH):
            self._reactor.callLater(REST, self._go_on)
        elif self._socket is not None:
            self._reactor.addReader(self)

    def _read(self, most: int) -> bool:
        """Pass on the waiting datagrams, `most` or those that one call gives joined; returns
        whether to pause before the next read."""
        assert self._socket is not None
        batch: list[tuple[bytes, Address]] = []
        forwarded = taken = 0
        try:
            while len(batch) + forwarded < most and taken < MAX_TURN:
                data, ancillary, _, source = self._socket.recvmsg(MAX_PACKET, ANCILLARY_SPACE)
                taken += len(data)
                address = observed_address(*source[:2])
                size = joined_size(data, ancillary) if ancillary else 0
                # What came joined, or alone after another, may go on as it is; but not after what
                # is received, so that all stays in order.
                whole = size or (len(data) if most == 1 else 0)
                if whole and not batch and (count := self._forward(data, whole, address)):
                    forwarded += count
                elif size:
                    batch += [(datagram, address) for datagram in split(data, size)]
                else:
                    batch.append((data, address))
        except OSError:
            pass  # the socket is empty, or the kernel reports an ICMP error of an earlier datagram
        try:
            if batch:
                self._receive(batch)
        except Exception:
            self.log.failure("while receiving datagrams")
        now = self._reactor.seconds()
        self._alone_at = now if len(batch) + forwarded == 1 else None
        return self._gauge is not None and self._gauge.calls_for_rest(taken, now)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave the socket up."""
        self.stop()

    def _forward(self, data: bytes, size: int, source: Address) -> int:
        """Offer joined datagrams, or a lone datagram, to `forward`, and send them unchanged to the
        address that it returns. Returns the number of datagrams sent, 0 if they are to be
        received here."""
        count = -(-len(data) // size)
        if self.forward is None or count > self._max_segments:
            return 0
        target = self.forward(data, size, source)
        if target is None:
            return 0
        if count == 1:
            self._send([data], target)
            return 1
        try:
            self._write_joined([data], size, target)
        except (OSError, OverflowError, ValueError):
            self._send(split(data, size), target)
        return count

    # -- sending ---------------------------------------------------------------------------------

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send, best effort: a full buffer, no route, a message too long all count as loss."""
        if ttl is not None or len(datagrams) == 1:
            for datagram, address in datagrams:
                self._send([datagram], address, ttl)
            return
        queues: dict[Address, list[bytes]] = {}
        for datagram, address in datagrams:
            queue = queues.get(address)
            if queue is None:
                queues[address] = [datagram]
            else:
                queue.append(datagram)
        for address, queue in queues.items():
            for run in cut_into_runs(queue, self._max_segments):
                self._send(run, address)

    def _send(self, run: list[bytes], address: Address, ttl: int | None = None) -> None:
        try:
            self._write(run, address, ttl)
        except (OSError, OverflowError, ValueError) as error:  # also ports and hosts that are none
            if len(run) > 1 and isinstance(error, OSError) and error.errno in REFUSALS:
                self._send_singly(run, address, error)
            else:
                self.lost += len(run)

    def _write(self, run: list[bytes], address: Address, ttl: int | None) -> None:
        if self._socket is None:
            raise OSError(errno.EBADF, "closed")
        target = socket_address(address, self._family)
        if ttl is not None:
            self._socket.sendmsg(run, [ttl_option(address, ttl)], 0, target)
        elif len(run) > 1:
            self._write_joined(run, len(run[0]), address)
        else:
            self._socket.sendto(run[0], target)

    def _write_joined(self, data: list[bytes], size: int, address: Address) -> None:
        if self._socket is None:
            raise OSError(errno.EBADF, "closed")
        segment = SOL_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(size)
        self._socket.sendmsg(data, [segment], 0, socket_address(address, self._family))
        self._refusals = 0

    def _send_singly(self, run: list[bytes], address: Address, error: OSError) -> None:
        lost = self.lost
        for datagram in run:
            self._send([datagram], address)
        if self.lost - lost == len(run):
            return  # it was not that they went together
        self._refusals += 1
        if self._refusals == MAX_REFUSALS:
            self._max_segments = 1
            self.log.info("the system does not cut what is sent: {error}", error=error)
