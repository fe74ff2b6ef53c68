"""UDP at the two ends of a flow: the Agent's local port, the Connector's target."""

import functools
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from p2pnet.core.peer.stream import Stream
from p2pnet.wire.codes import ErrorCode

IDLE_TIMEOUT = 60.0  # seconds; flows have no end of their own. Above the 30 s of DNS and games
MAX_FLOWS = 1024  # of one listener
LOST = (OSError, MessageLengthError)  # what Twisted raises for a datagram that was not sent
MAX_EARLY = 16  # datagrams kept while the target's name is looked up


def parse_udp(description: str) -> tuple[str, int]:
    """(host, port) of ``udp:PORT[:interface=HOST]`` or ``udp:HOST:PORT``.

    As in all Twisted endpoint strings a backslash takes the meaning from a colon, so that
    ``udp:\\:\\:1:53`` is port 53 of ::1. Raises ValueError that says what is wrong.
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
    if int(port) > 65535:
        raise ValueError(f"{description!r}: {port} is not a port (0 to 65535)")
    host = plain[0] if len(plain) == 2 else options.get("interface", "")
    return host, int(port)


class FlowListener(DatagramProtocol):
    """The Agent's end: each local sender has a flow of its own to the service.

    :param open_flow: opens a flow; called again when a flow ended and its sender goes on.
    :ivar dropped: datagrams that no flow took.
    """

    noisy = False

    def __init__(self, open_flow: Callable[[], Stream], wake: Callable[[], None], clock: Any):
        self.dropped = 0
        self._open_flow = open_flow
        self._wake = wake
        self._clock = clock
        self._flows: dict[Any, _LocalFlow] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Pass a datagram on, opening a flow for a new sender."""
        flow = self._flows.get(addr)
        if flow is None:
            if len(self._flows) >= MAX_FLOWS:
                self.dropped += 1
                return
            answer = functools.partial(self._answer, addr)
            flow = _LocalFlow(answer, self._open_flow(), self._clock, self._wake)
            flow.finished = functools.partial(self._flows.pop, addr, None)
            self._flows[addr] = flow
        flow.touch()
        if not flow.stream.send_datagram(datagram):
            self.dropped += 1
        self._wake()

    def _answer(self, addr: Any, payload: bytes) -> None:
        """Send a datagram of the service to the local sender."""
        try:
            if self.transport is not None:
                self.transport.write(payload, addr)
        except LOST:
            self.dropped += 1

    def close(self) -> None:
        """End all flows."""
        for flow in list(self._flows.values()):
            flow.end()
        self._wake()


class _FlowEnd:
    """What both ends of a flow do: watch for silence."""

    def __init__(self, stream: Stream, clock: Any, wake: Callable[[], None]) -> None:
        self.stream = stream
        self._wake = wake
        self.finished: Callable[[], Any] | None = None  # called when the flow is over
        stream.owner = self
        self._used_at = clock.seconds()
        self._clock = clock
        self._timer: IDelayedCall = clock.callLater(IDLE_TIMEOUT, self._check)

    def touch(self) -> None:
        """The flow is in use."""
        self._used_at = self._clock.seconds()

    def _check(self) -> None:
        left = self._used_at + IDLE_TIMEOUT - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
        else:
            self.end()

    def end(self) -> None:
        """Close the flow properly."""
        self.stream.write_end()
        self.stream.discard_input()
        self._wake()

    def received(self, data: bytes, end: bool) -> None:
        """The other end closed the flow."""
        if end:
            self.end()

    def writable(self) -> None:
        """Datagrams are not queued here."""

    def closed(self, code: int, reason: str) -> None:
        """The flow is over."""
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
        self.touch()
        self._answer(payload)


class FlowTarget(_FlowEnd, DatagramProtocol):
    """The Connector's end: a socket of its own for each flow, connected to the target."""

    noisy = False

    def __init__(self, stream: Stream, port: int, reactor: Any, wake: Callable[[], None]) -> None:
        super().__init__(stream, reactor, wake)
        self._port = port
        self._reactor = reactor
        self._early: list[bytes] = []
        self._open = False

    def connect(self, host: str) -> None:
        """Open the socket towards an IP literal, and accept the flow."""
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
        """A datagram from the Agent."""
        self.touch()
        if self._open and self.transport is not None:
            try:
                self.transport.write(payload, None)
            except LOST:
                pass  # as UDP would
        elif len(self._early) < MAX_EARLY:
            self._early.append(payload)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A datagram from the target."""
        self.touch()
        self.stream.send_datagram(datagram)
        self._wake()

    def connectionRefused(self) -> None:
        """The target's host says that nobody listens there."""
        self.stream.reset(ErrorCode.TARGET_REFUSED, f"nothing listens on UDP port {self._port}")
        self._wake()

    def stopProtocol(self) -> None:
        """The socket is closed: by closed(), or else by a reactor that makes this of a refusal."""
        self.connectionRefused()

    def closed(self, code: int, reason: str) -> None:
        """The flow is over."""
        super().closed(code, reason)
        self._open = False
        if self.transport is not None:
            self.transport.stopListening()
