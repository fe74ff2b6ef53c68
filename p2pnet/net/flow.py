"""The UDP sockets at the two ends of a flow: the Agent's local port, the Connector's target."""

import functools
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from p2pnet.core.peer.stream import Stream
from p2pnet.wire.address import MAX_PORT
from p2pnet.wire.codes import ErrorCode

IDLE_TIMEOUT = 60.0  # seconds without a datagram; UDP has no end of a flow, and NATs wait 30 s
MAX_FLOWS = 1024  # of one listener
LOST = (OSError, MessageLengthError)  # errors of Twisted for a datagram that was not sent
MAX_EARLY = 16  # datagrams of a flow kept while the target's name is resolved


def parse_udp(description: str) -> tuple[str, int]:
    """(host, port) of ``udp:PORT[:interface=HOST]`` or ``udp:HOST:PORT``.

    As in all Twisted endpoint strings a backslash escapes a colon, so that ``udp:\\:\\:1:53`` is
    port 53 of ::1. Raises ValueError, with the reason, for any other description.
    """
    kind, *fields = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", description)]
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


class FlowListener(DatagramProtocol):
    """The Agent's end: a UDP port whose local senders each have a flow to the service.

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

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram on the flow of its sender; a new sender's flow is opened first."""
        flow = self._flows.get(addr)
        if flow is None:
            if len(self._flows) >= MAX_FLOWS:
                self.dropped += 1
                return
            answer = functools.partial(self._answer, addr)
            flow = _LocalFlow(answer, self._open_flow(), self._clock, self._wake)
            flow.finished = functools.partial(self._flows.pop, addr, None)
            self._flows[addr] = flow
        flow.mark_used()
        if not flow.stream.send_datagram(datagram):
            self.dropped += 1
        self._wake()

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
    """

    def __init__(self, stream: Stream, clock: Any, wake: Callable[[], None]) -> None:
        self.stream = stream
        self._wake = wake
        self.finished: Callable[[], Any] | None = None
        stream.owner = self
        self._used_at = clock.seconds()
        self._clock = clock
        self._timer: IDelayedCall = clock.callLater(IDLE_TIMEOUT, self._check)

    def mark_used(self) -> None:
        """Start the idle timeout anew, because a datagram came or went."""
        self._used_at = self._clock.seconds()

    def _check(self) -> None:
        left = self._used_at + IDLE_TIMEOUT - self._clock.seconds()
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


class _LocalFlow(_FlowEnd):
    def __init__(
        self,
        answer: Callable[[bytes], None],
        stream: Stream,
        clock: Any,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(stream, clock, wake)
        self._answer = answer

    def datagram(self, payload: bytes) -> None:
        self.mark_used()
        self._answer(payload)


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
        self._reactor.listenUDP(0, self, interface="::" if ":" in host else "0.0.0.0")
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
