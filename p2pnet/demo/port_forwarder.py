"""A port forwarder between two nodes of this machine, which can be cut like a cable.

It simulates the path between an Agent and a Connector behind a NAT with a port forwarding. Packets
to its address go to the target, from a separate port for each sender, and answers go back.
"""

import contextlib
import selectors
import socket
import threading
from typing import Self

from p2pnet.wire.address import Address

HOST = "127.0.0.1"
MAX_SENDERS = 64
BUFFER = 1 << 20  # bytes of the send and of the receive buffer of each socket


class PortForwarder:
    """Forwards UDP in a thread of its own, as a context manager.

    :ivar is_cut: whether it drops all packets.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._target: Address | None = None
        self._selector = selectors.DefaultSelector()
        self._outside = self._socket()
        self._senders: dict[Address, socket.socket] = {}
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._outside, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    @property
    def address(self) -> Address:
        """The local address, whose packets go to the target."""
        host, port = self._outside.getsockname()
        return host, port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for end in (self._outside, self._wake, self._woken, *self._senders.values()):
            end.close()
        self._selector.close()

    def lead_to(self, target: Address) -> None:
        """Forward packets to `target` from now on; without a target they are dropped."""
        self._target = target

    def _socket(self) -> socket.socket:
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.bind((HOST, 0))
        end.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        return end

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._forward_all(key.fileobj, key.data)

    def _forward_all(self, end: socket.socket, sender: Address | None) -> None:
        """Forward all waiting packets of a sender's socket or, for None, of the outside socket."""
        with contextlib.suppress(OSError):
            while True:
                datagram, source = end.recvfrom(65535)
                if self.is_cut or self._target is None:
                    continue
                if sender is not None:
                    self._outside.sendto(datagram, sender)
                elif (out := self._socket_of(source)) is not None:
                    out.sendto(datagram, self._target)

    def _socket_of(self, source: Address) -> socket.socket | None:
        out = self._senders.get(source)
        if out is None and len(self._senders) < MAX_SENDERS:
            out = self._senders[source] = self._socket()
            self._selector.register(out, selectors.EVENT_READ, source)
        return out
