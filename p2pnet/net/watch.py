"""Notices that the network of this machine changed, or that the machine slept."""

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

INTERVAL = 3.0  # seconds between looks at the clock, and at the addresses where nobody tells
LATE = 5.0  # seconds that a look must be late for it to count as sleep; a busy machine takes some
SETTLE = 0.1  # seconds without another message; one change is several, milliseconds apart
LONGEST_SETTLE = 1.0  # seconds from the first message, if they do not end
BATCH = 256  # messages read at a time, so that in a storm others have their turn

# Linux' rtnetlink.h: interfaces; of IPv4 and IPv6 each addresses, routes, and policy rules (by
# which VPNs turn the default route).
GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000

# RTM_NEWADDR in a message's header. Each router advertisement has one for each IPv6 address, each
# DHCP lease that is renewed one for its address; a new one has a message about its route as well.
NEW_ADDRESS = (20).to_bytes(2, sys.byteorder)

# Packets to addresses for documentation (RFC 5737, RFC 3849) would take the default route.
ELSEWHERE = {socket.AF_INET: "203.0.113.1", socket.AF_INET6: "2001:db8::1"}


def open_messages() -> socket.socket:
    """A socket that gets the kernel's messages about the network. Raises OSError if there are none.

    It stays with the network namespace in which the calling thread is.
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
    """The addresses of this machine, and those that it would send from. Sends nothing."""
    try:
        hosts = InterfaceSource().hosts()
    except OSError:  # where netlink is forbidden the C library has nobody to ask either
        hosts = []
    return hosts, [_source_address(family, host) for family, host in ELSEWHERE.items()]


def _source_address(family: int, destination: str) -> str:
    """The IP literal that packets to there would be sent from, "" if there is no way."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


@implementer(IReadDescriptor)
class _Messages:
    """The reactor's view of the socket.

    :param heard: called once for all messages that wait, with whether they mean a change for sure.
    :param lost: called with why there is nothing more to hear.
    """

    def __init__(
        self, opened: socket.socket, heard: Callable[[bool], Any], lost: Callable[[object], Any]
    ) -> None:
        self._socket = opened
        self._heard = heard
        self._lost = lost

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "network watch"

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Empty the socket."""
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
        self._heard(certain)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave the socket up."""
        self._lost(reason.value)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class NetworkWatch:
    """Tells when addresses, interfaces or routes of this machine changed, or when it slept.

    Linux tells at once; where the system does not, or forbids it, this looks every few seconds.

    :param reactor: provides IReactorTime, and IReactorFDSet unless it has to be done without.
    :param open_messages: see the function; `snapshot`: something that differs after a change;
        `clock`: seconds, sleep included.
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
        self._looked_at = 0.0
        self._heard_at = 0.0
        self._look_call: IDelayedCall | None = None
        self._settle_call: IDelayedCall | None = None

    def start(self, changed: Callable[[str], Any]) -> None:
        """Watch from now on. Raises nothing.

        :param changed: called with "addresses" or "sleep", once for changes that come together. It
            may be called when nothing of interest changed. What it raises is logged.
        """
        self._changed = changed
        if IReactorFDSet.providedBy(self._reactor):
            self._listen()
        self._seen = self._snapshot()
        self._looked_at = self._clock()
        self._look_call = self._reactor.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """End; `changed` is not called any more. May be called again, and before start()."""
        for call in (self._look_call, self._settle_call):
            if call is not None and call.active():
                call.cancel()
        self._look_call = self._settle_call = None
        self._close()

    def _listen(self) -> None:
        try:
            self._messages = _Messages(self._open_messages(), self._heard, self._deafened)
            self._reactor.addReader(self._messages)
        except Exception as error:  # OSError, and every reactor has errors of its own
            self._close()
            self._say_polling(error)

    def _close(self) -> None:
        messages, self._messages = self._messages, None
        if messages is not None:
            self._reactor.removeReader(messages)  # nothing, if it is not there
            messages.close()

    def _deafened(self, why: object) -> None:
        """There will be no more messages: go on without."""
        if self._messages is not None:
            self._close()
            self._say_polling(why)
            self._heard(True)  # nobody knows what was missed

    def _say_polling(self, why: object) -> None:
        self.log.info(
            "no news from the system about the network ({why}): looking every {interval} s",
            why=why, interval=INTERVAL,
        )  # fmt: skip

    def _heard(self, certain: bool) -> None:
        """Something changed, or may have: settle that when there is nothing more."""
        self._certain = self._certain or certain
        now = self._reactor.seconds()
        if self._settle_call is None:
            self._heard_at = now
            self._settle_call = self._reactor.callLater(SETTLE, self._settle)
        else:
            left = self._heard_at + LONGEST_SETTLE - now
            self._settle_call.reset(max(0.0, min(SETTLE, left)))

    def _settle(self) -> None:
        self._settle_call = None
        certain, self._certain = self._certain, False
        if self._differs() or certain:
            self._report(ADDRESSES)

    def _look(self) -> None:
        self._look_call = self._reactor.callLater(INTERVAL, self._look)
        now = self._clock()
        slept = now - self._looked_at > INTERVAL + LATE
        self._looked_at = now
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
