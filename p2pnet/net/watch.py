"""Detection of changes of this machine's network, and of the machine's sleep."""

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet.net.clock import elapsed
from p2pnet.sources.interfaces import InterfaceSource

ADDRESSES, SLEEP = "addresses", "sleep"  # reasons

INTERVAL = 3.0  # seconds between polls of the clock and, without netlink, of the addresses
LATE = 5.0  # seconds by which a poll is late after a sleep; a busy machine delays it by less
DEBOUNCE = 0.1  # seconds of silence that end a change, which makes messages milliseconds apart
MAX_DEBOUNCE = 1.0  # seconds from the first message, in a storm of messages
BATCH = 256  # messages read at a time, so that a storm does not starve the reactor

# Multicast groups of Linux' rtnetlink.h: interfaces; addresses, routes and policy rules (with which
# VPNs redirect the default route), each for IPv4 and IPv6.
GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000

# RTM_NEWADDR in a message's header proves no change: router advertisements and renewed DHCP leases
# make such messages for existing addresses. A new address also makes a message about its route.
NEW_ADDRESS = (20).to_bytes(2, sys.byteorder)

# Packets to addresses for documentation (RFC 5737, RFC 3849) would take the default route.
ELSEWHERE = {socket.AF_INET: "203.0.113.1", socket.AF_INET6: "2001:db8::1"}


def open_messages() -> socket.socket:
    """A netlink socket with the kernel's messages about the calling thread's network namespace.

    Raises OSError where there is no netlink, or the system forbids it.
    """
    if sys.platform != "linux":
        raise OSError(errno.EAFNOSUPPORT, f"{sys.platform} has no netlink")
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        opened.bind((0, GROUPS))
    except OSError:
        opened.close()
        raise
    return opened


def take_snapshot() -> object:
    """The machine's addresses and the source addresses of its default routes. Sends nothing."""
    try:
        hosts = InterfaceSource().hosts()
    except OSError:  # the C library, too, needs netlink to list the addresses
        hosts = []
    return hosts, [_source_address(family, host) for family, host in ELSEWHERE.items()]


def _source_address(family: int, destination: str) -> str:
    """The source address (an IP literal) of packets to `destination`, "" without a route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


@implementer(IReadDescriptor)
class _Messages:
    """The reader of a netlink socket.

    :param received: called once for a batch of messages, with whether they prove a change.
    :param lost: called with the reason when no further messages can come.
    """

    def __init__(
        self, opened: socket.socket, received: Callable[[bool], Any], lost: Callable[[object], Any]
    ) -> None:
        self._socket = opened
        self._received = received
        self._lost = lost

    def logPrefix(self) -> str:
        """The name of this reader in Twisted's log."""
        return "network watch"

    def fileno(self) -> int:
        """The descriptor of the socket, -1 after close()."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Read up to BATCH waiting messages and report them by one call of `received`."""
        certain = False
        try:
            for _ in range(BATCH):
                header = self._socket.recv(6)  # length and type; the rest is discarded
                certain = certain or header[4:] != NEW_ADDRESS
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                self._lost(error)
                return
            certain = True  # there were more messages than the socket holds
        self._received(certain)

    def connectionLost(self, reason: Failure) -> None:
        """Report that the reactor removed the socket, because of an error in doRead()."""
        self._lost(reason.value)

    def close(self) -> None:
        """Close the socket; the caller removes this reader from the reactor first."""
        self._socket.close()


class NetworkWatch:
    """Reports changes of this machine's addresses, interfaces or routes, and its sleep.

    On Linux a change is reported within DEBOUNCE seconds of its last message. Where there is no
    netlink, or the system forbids it, the watch polls the addresses every INTERVAL seconds.

    :param reactor: provides IReactorTime; without IReactorFDSet the watch polls.
    :param open_messages: as the function of this module.
    :param snapshot: returns a value that differs after a change.
    :param clock: returns seconds that include the machine's sleep.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        open_messages: Callable[[], socket.socket] = open_messages,
        snapshot: Callable[[], object] = take_snapshot,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._reactor = reactor
        self._changed: Callable[[str], Any]
        self._open_messages = open_messages
        self._snapshot = snapshot
        self._clock = clock
        self._messages: _Messages | None = None
        self._seen: object = None
        self._certain = False
        self._polled_at = 0.0
        self._first_message_at = 0.0
        self._poll_call: IDelayedCall | None = None
        self._debounce_call: IDelayedCall | None = None

    def start(self, changed: Callable[[str], Any]) -> None:
        """Start watching. Raises nothing: without netlink the watch polls.

        :param changed: called with "addresses" or "sleep", once for several changes in a row. A
            call does not prove that an address changed. Exceptions that it raises are logged.
        """
        self._changed = changed
        if IReactorFDSet.providedBy(self._reactor):
            self._listen()
        self._seen = self._snapshot()
        self._polled_at = self._clock()
        self._poll_call = self._reactor.callLater(INTERVAL, self._poll)

    def stop(self) -> None:
        """Stop watching: `changed` gets no further call. Does nothing unless started."""
        for call in (self._poll_call, self._debounce_call):
            if call is not None and call.active():
                call.cancel()
        self._poll_call = self._debounce_call = None
        self._close()

    def _listen(self) -> None:
        try:
            self._messages = _Messages(self._open_messages(), self._received, self._lost)
            self._reactor.addReader(self._messages)
        except Exception as error:  # OSError, and every reactor has errors of its own
            self._close()
            self._log_polling(error)

    def _close(self) -> None:
        messages, self._messages = self._messages, None
        if messages is not None:
            self._reactor.removeReader(messages)  # does nothing if addReader() failed
            messages.close()

    def _lost(self, why: object) -> None:
        """Poll from now on, because no further messages can come."""
        if self._messages is not None:
            self._close()
            self._log_polling(why)
            self._received(True)  # lost messages may have reported a change

    def _log_polling(self, why: object) -> None:
        self.log.info(
            "the system does not report changes of the network ({why}): polling every {interval} s",
            why=why, interval=INTERVAL,
        )  # fmt: skip

    def _received(self, certain: bool) -> None:
        """Have a change reported after the last of its messages."""
        self._certain = self._certain or certain
        now = self._reactor.seconds()
        if self._debounce_call is None:
            self._first_message_at = now
            self._debounce_call = self._reactor.callLater(DEBOUNCE, self._debounced)
        else:
            left = self._first_message_at + MAX_DEBOUNCE - now
            self._debounce_call.reset(max(0.0, min(DEBOUNCE, left)))

    def _debounced(self) -> None:
        self._debounce_call = None
        certain, self._certain = self._certain, False
        if self._differs() or certain:
            self._report(ADDRESSES)

    def _poll(self) -> None:
        self._poll_call = self._reactor.callLater(INTERVAL, self._poll)
        now = self._clock()
        slept = now - self._polled_at > INTERVAL + LATE
        self._polled_at = now
        moved = self._messages is None and self._differs()
        if slept or moved:
            self._report(SLEEP if slept else ADDRESSES)

    def _differs(self) -> bool:
        before, self._seen = self._seen, self._snapshot()
        return before != self._seen

    def _report(self, reason: str) -> None:
        try:
            self._changed(reason)
        except Exception:
            self.log.failure("while handling a change of the network: {reason}", reason=reason)
