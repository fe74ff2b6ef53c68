"""The UDP sockets at the two ends of a flow: the Agent's local port, the Connector's target."""

import dataclasses
import functools
import heapq
import operator
import re
import socket
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from p2pnet.core.peer.stream import Stream
from p2pnet.wire.address import MAX_PORT
from p2pnet.wire.codes import ErrorCode

IDLE_TIMEOUT = 300.0  # seconds without a datagram; recommended by RFC 4787, REQ-5
MAX_FLOWS = 1024  # of one listener
LOOPBACK = "127.0.0.1"  # where a listener is that names no interface
EVICTED = 16  # a full table loses this part of its flows at once: a search for them is long
MAX_DATAGRAM = 65_535  # bytes; what Twisted reads at most is cut off
BUFFER_SIZE = 4 << 20  # bytes; the system may give less
PAUSE, MAX_PAUSE = 1.0, 8.0  # seconds after the first refusal in a row, and after many
LOST = (OSError, MessageLengthError)  # errors of Twisted for a datagram that was not sent
MAX_EARLY = 16  # datagrams of a flow kept while the target's name is resolved


def parse_udp(description: str) -> tuple[str, int]:
    """(host, port) of ``udp:PORT[:interface=HOST]``, ``udp:HOST:PORT`` or ``udp:[IPv6]:PORT``.

    As in all Twisted endpoint strings a backslash escapes a colon, so that ``udp:\\:\\:1:53`` is
    port 53 of ::1. Raises ValueError, with the reason, for any other description.
    """
    escaped = re.sub(r"\[([^\[\]]+)\]", lambda m: m[1].replace(":", "\\:"), description)
    kind, *fields = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", escaped)]
    options = dict(field.split("=", 1) for field in fields if "=" in field)
    plain = [field for field in fields if "=" not in field]
    unknown = set(options) - {"interface"}
    port = plain[-1] if plain else ""
    if kind != "udp" or len(plain) not in (1, 2) or unknown or not port.isdigit():
        raise ValueError(
            f"{description!r} is not udp:PORT, udp:PORT:interface=HOST or udp:HOST:PORT"
        )
    if int(port) > MAX_PORT:
        raise ValueError(f"{description!r}: {port} is not a port (0 to {MAX_PORT})")
    host = plain[0] if len(plain) == 2 else options.get("interface", "")
    return host, int(port)


def open_port(reactor: Any, port: int, protocol: DatagramProtocol, host: str) -> Any:
    """Open a UDP port that takes whole datagrams and many at once. Raises CannotListenError."""
    opened = reactor.listenUDP(port, protocol, interface=host, maxPacketSize=MAX_DATAGRAM)
    opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_SIZE)
    return opened


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A sender whose flow was refused: its datagrams are dropped for `seconds`, up to `until`."""

    seconds: float
    until: float


class FlowListener(DatagramProtocol):
    """The Agent's end: a UDP port whose local senders each have a flow to the service.

    A sender that goes on after a refusal is not heard for a while: each of its datagrams would open
    a flow. A full table loses the flows that are idle for the longest time, as that of a NAT does.

    :param open_flow: opens a flow, also for a sender that goes on after its flow ended.
    :param wake: lets the node send the written datagrams.
    :param clock: provides IReactorTime.
    :ivar dropped: datagrams that were lost here, in either direction.
    """

    noisy = False

    def __init__(self, open_flow: Callable[[], Stream], wake: Callable[[], None], clock: Any):
        self.dropped = 0
        self._open_flow = open_flow
        self._wake = wake
        self._clock = clock
        self._flows: dict[Any, _LocalFlow] = {}
        self._refusals: dict[Any, Refusal] = {}  # the oldest first

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram on the flow of its sender; a new sender's flow is opened first."""
        flow = self._flows.get(addr)
        if flow is None:
            refusal = self._refusals.get(addr)
            if refusal is not None and self._clock.seconds() < refusal.until:
                self.dropped += 1
                return
            flow = self._begin(addr)
        flow.mark_used()
        if not flow.stream.send_datagram(datagram):
            self.dropped += 1
        self._wake()

    def _begin(self, addr: Any) -> "_LocalFlow":
        if len(self._flows) >= MAX_FLOWS:
            for idle in longest_idle(self._flows.values()):
                del self._flows[idle.sender]
                idle.end()
        answer = functools.partial(self._answer, addr)
        flow = _LocalFlow(addr, answer, self._open_flow(), self._clock, self._wake)
        flow.finished = functools.partial(self._ended, flow)
        self._flows[addr] = flow
        return flow

    def _ended(self, flow: "_LocalFlow") -> None:
        """Forget a flow that is over; drop the datagrams of a refused one's sender for a while."""
        if self._flows.get(flow.sender) is flow:
            del self._flows[flow.sender]
        before = self._refusals.pop(flow.sender, None)
        if not flow.is_refused:
            return
        seconds = PAUSE if before is None else min(2 * before.seconds, MAX_PAUSE)
        self._refusals[flow.sender] = Refusal(seconds, self._clock.seconds() + seconds)
        if len(self._refusals) > MAX_FLOWS:
            del self._refusals[next(iter(self._refusals))]

    def _answer(self, addr: Any, payload: bytes) -> None:
        """Send a datagram of the service to the local sender at `addr`."""
        try:
            if self.transport is not None:
                self.transport.write(payload, addr)
        except LOST:
            self.dropped += 1

    def close(self) -> None:
        """End the flows of all local senders."""
        for flow in list(self._flows.values()):
            flow.end()
        self._wake()


class _FlowEnd:
    """Base of both ends of a flow: ends the flow after IDLE_TIMEOUT without a datagram.

    :ivar finished: called when the flow is over, unless None.
    :ivar used_at: when a datagram came or went last, in seconds of the clock.
    """

    def __init__(self, stream: Stream, clock: Any, wake: Callable[[], None]) -> None:
        self.stream = stream
        self._wake = wake
        self.finished: Callable[[], Any] | None = None
        stream.owner = self
        self.used_at = clock.seconds()
        self._clock = clock
        self._timer: IDelayedCall = clock.callLater(IDLE_TIMEOUT, self._check)

    def mark_used(self) -> None:
        """Start the idle timeout anew, because a datagram came or went."""
        self.used_at = self._clock.seconds()

    def _check(self) -> None:
        left = self.used_at + IDLE_TIMEOUT - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
        else:
            self.end()

    def end(self) -> None:
        """End the flow in both directions, without an error for the other end."""
        self.stream.write_end()
        self.stream.discard_input()
        self._wake()

    def received(self, data: bytes, end: bool) -> None:
        """End this direction too once the other end ended its own; a flow carries no bytes."""
        if end:
            self.end()

    def writable(self) -> None:
        """Do nothing: datagrams that the stream cannot take are dropped, not queued."""

    def closed(self, code: int, reason: str) -> None:
        """Stop the idle timeout of a flow that is over, and call `finished`."""
        if self._timer.active():
            self._timer.cancel()
        if self.finished is not None:
            self.finished()


Flow = TypeVar("Flow", bound=_FlowEnd)


def longest_idle(flows: Collection[Flow]) -> list[Flow]:
    """The flows that a full table loses: those whose last datagram is the oldest."""
    count = max(1, len(flows) // EVICTED)
    return heapq.nsmallest(count, flows, key=operator.attrgetter("used_at"))


class _LocalFlow(_FlowEnd):
    """:ivar sender: the address of the local program.
    :ivar is_refused: whether the flow ended with an error before any answer came.
    """

    def __init__(
        self,
        sender: Any,
        answer: Callable[[bytes], None],
        stream: Stream,
        clock: Any,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(stream, clock, wake)
        self.sender = sender
        self.is_refused = False
        self._is_answered = False
        self._answer = answer

    def datagram(self, payload: bytes) -> None:
        self._is_answered = True
        self.mark_used()
        self._answer(payload)

    def closed(self, code: int, reason: str) -> None:
        self.is_refused = code != ErrorCode.NO_ERROR and not self._is_answered
        super().closed(code, reason)


class FlowTarget(_FlowEnd, DatagramProtocol):
    """The Connector's end: a UDP socket for each flow, connected to the target.

    :param port: the target's.
    :param wake: lets the node send the written datagrams.
    """

    noisy = False

    def __init__(self, stream: Stream, port: int, reactor: Any, wake: Callable[[], None]) -> None:
        super().__init__(stream, reactor, wake)
        self._port = port
        self._reactor = reactor
        self._early: list[bytes] = []
        self._open = False

    def connect(self, host: str) -> None:
        """Open the socket, connect it to `host` (an IP literal), and accept the flow.

        Does nothing for a flow that is over. Raises CannotListenError.
        """
        if self.stream.is_closed:
            return
        open_port(self._reactor, 0, self, "::" if ":" in host else "0.0.0.0")
        assert self.transport is not None
        self.transport.connect(host, self._port)
        self._open = True
        self.stream.accept()
        for payload in self._early:
            self.datagram(payload)
        self._early.clear()
        self._wake()

    def datagram(self, payload: bytes) -> None:
        """Send a datagram of the Agent to the target, or keep it until the socket is open."""
        self.mark_used()
        if self._open and self.transport is not None:
            try:
                self.transport.write(payload, None)
            except LOST:
                pass  # UDP does not report lost datagrams either
        elif len(self._early) < MAX_EARLY:
            self._early.append(payload)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram of the target to the Agent."""
        self.mark_used()
        self.stream.send_datagram(datagram)
        self._wake()

    def connectionRefused(self) -> None:
        """Reset the flow with TARGET_REFUSED after an ICMP port unreachable message."""
        self.stream.reset(ErrorCode.TARGET_REFUSED, f"nothing listens on UDP port {self._port}")
        self._wake()

    def stopProtocol(self) -> None:
        """Reset the flow if it is not over: some reactors close the socket on a refusal."""
        self.connectionRefused()

    def closed(self, code: int, reason: str) -> None:
        """Close the socket of a flow that is over."""
        super().closed(code, reason)
        self._open = False
        if self.transport is not None:
            self.transport.stopListening()
