"""A node's connection to one Intermediate: kept up, with backoff, for as long as the node lives."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.backoff import Backoff
from p2pnet.core.peer.liveness import Due, Liveness
from p2pnet.core.timers import Alarm, Timers
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.timing import Throttle
from p2pnet.wire import messages
from p2pnet.wire.address import Address, canonical_address, is_ip_literal, parse_host_port
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message

# Observed addresses that the node follows: seconds between two, and how many may come at once.
OBSERVATION_INTERVAL, OBSERVATION_BURST = 1.0, 3
HANDSHAKE_ROUND_TRIPS = 2  # from the first packet to a Welcome


class LinkState(enum.Enum):
    """The states of the connection to one Intermediate."""

    IDLE = enum.auto()
    RESOLVING = enum.auto()
    CONNECTING = enum.auto()
    GREETING = enum.auto()
    READY = enum.auto()
    WAITING = enum.auto()  # for the next try
    STOPPED = enum.auto()


TRANSITIONS = {
    LinkState.IDLE: {LinkState.RESOLVING, LinkState.CONNECTING, LinkState.STOPPED},
    LinkState.RESOLVING: {LinkState.CONNECTING, LinkState.WAITING, LinkState.STOPPED},
    LinkState.CONNECTING: {LinkState.GREETING, LinkState.WAITING, LinkState.STOPPED},
    LinkState.GREETING: {LinkState.READY, LinkState.WAITING, LinkState.STOPPED},
    LinkState.READY: {LinkState.WAITING, LinkState.STOPPED},
    LinkState.WAITING: {LinkState.RESOLVING, LinkState.CONNECTING, LinkState.STOPPED},
    LinkState.STOPPED: set(),
}


class LinkOwner(Protocol):
    """What a ControlLink needs of its node, and what it reports to the node."""

    @property
    def is_needed(self) -> bool:
        """Whether a session or a stream waits for an Intermediate."""

    def relays_streams(self, link: ControlLink) -> bool:
        """Whether the Intermediate of `link` relays a session that has streams."""

    def relayed_at(self, link: ControlLink) -> float | None:
        """When the Intermediate of `link` last relayed a packet to this node, None for never."""

    def connect_control(self, host: str, address: Address, now: float) -> Connection:
        """Open a control connection to an Intermediate whose certificate must name `host`."""

    def emit(self, event: events.Event) -> None:
        """Queue a ControlLost report or a ResolutionNeeded for the host."""

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """The Intermediate takes requests from now on.

        :param address: this node's own, as the Intermediate sees it.
        :param seconds: how long the try took.
        """

    def link_failed(self, link: ControlLink, now: float) -> None:
        """A try failed or the connection was lost, for `link.last_error`; another try follows."""

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """The Intermediate takes no new sessions, and ends the others within `seconds`."""

    def address_observed(self, link: ControlLink, address: Address, now: float) -> None:
        """The Intermediate sees this node at another address than before, or for the first time."""

    def take_message(self, link: ControlLink, message: Message, now: float) -> None:
        """A message about sessions or services came."""


class ControlStream:
    """The messages of one control connection.

    :ivar observed: this node's address as the Intermediate sees it, None before it said so.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.observed: Address | None = None
        self._sequence = -1
        self._buffer = MessageBuffer(messages.decode_message)

    def send(self, message: Message) -> None:
        """Queue a message; Connection.send() drops it once the connection is closed."""
        self.connection.send(messages.CONTROL_STREAM, encode_message(message))

    def receive(self, event: quic_events.StreamDataReceived) -> list[Message]:
        """The messages that the bytes complete. Raises DecodeError."""
        self.connection.consume(event.stream_id, len(event.data))
        return self._buffer.feed(event.data)

    def observe(self, message: messages.ObservedAddress) -> bool:
        """Take the observed address, unless a newer one came before. Returns whether it changed."""
        if message.sequence <= self._sequence or not is_ip_literal(message.host):
            return False
        self._sequence = message.sequence
        before, self.observed = self.observed, canonical_address(message.host, message.port)
        return self.observed != before


class ControlLink:
    """The control connection to one Intermediate, made again whenever it is lost.

    :param name: the Intermediate as configured, "host:port".
    :param timers: for tries and pings.
    :param instance: the number of this process (8 bytes).
    :param random: returns a number from 0 to 1, for jitter.
    :ivar address: where it was last connected to, None before.
    :ivar draining: whether the Intermediate is about to stop.
    :ivar observations: how often the node follows another observed address.
    :ivar last_error: why the last try failed, "" after a success.
    """

    def __init__(
        self,
        name: str,
        owner: LinkOwner,
        timers: Timers,
        *,
        instance: bytes,
        random: Callable[[], float],
    ) -> None:
        self.name = name
        self.state = LinkState.IDLE
        self.address: Address | None = None
        self.draining = False
        self.observations = Throttle(OBSERVATION_INTERVAL, OBSERVATION_BURST)
        self.last_error = ""
        parse_host_port(name)  # raises ValueError now rather than later
        self._owner = owner
        self._instance = instance
        self._stream: ControlStream | None = None
        self._backoff = Backoff(random)
        self._liveness = Liveness()
        self._alarm = Alarm(timers)

    @property
    def is_ready(self) -> bool:
        """Whether the Intermediate takes requests."""
        return self.state is LinkState.READY

    @property
    def is_usable(self) -> bool:
        """Whether the Intermediate takes requests for new sessions."""
        return self.is_ready and not self.draining

    @property
    def rtt(self) -> float:
        """The round-trip time to the Intermediate in seconds, 0 before it is known."""
        return self._liveness.rtt

    @property
    def observed(self) -> Address | None:
        """This node's own address as the Intermediate sees it, None before it said so."""
        return None if self._stream is None else self._stream.observed

    @property
    def _target(self) -> Address:
        return parse_host_port(self.name)

    def _advance(self, state: LinkState) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    # -- coming up -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin a try: resolve the name, or connect at once to an IP literal."""
        deadline = self._backoff.begin(now, self.rtt, is_needed=self._owner.is_needed)
        self._alarm.set(deadline, self._give_up)
        host, port = self._target
        if is_ip_literal(host):
            self._connect(canonical_address(host, port), now)
        else:
            self._advance(LinkState.RESOLVING)
            self._owner.emit(events.ResolutionNeeded(self.name, host))

    def resolved(self, hosts: list[str], now: float) -> None:
        """Take the IP literals that the name stands for, [] for none."""
        if self.state is not LinkState.RESOLVING:
            return
        name, port = self._target
        if hosts:
            # One address a try: after a failure the next one has its turn.
            host = hosts[self._backoff.failures % len(hosts)]
            self._connect(canonical_address(host, port), now)
        else:
            self._failed(f"the name {name} has no address", now)

    def _connect(self, address: Address, now: float) -> None:
        self._advance(LinkState.CONNECTING)
        self.address = address
        connection = self._owner.connect_control(self._target[0], address, now)
        connection.owner = self
        self._stream = ControlStream(connection)

    def _give_up(self, now: float) -> None:
        latest = self._backoff.latest
        if self._stream is not None and self._stream.connection.is_answered and now < latest:
            self._alarm.set(latest, self._give_up)
            return
        doing = "looking up the name" if self.state is LinkState.RESOLVING else "connecting"
        seconds = round(now - self._backoff.began_at, 1)
        self._failed(f"no answer within {seconds:g} s of {doing}", now)

    # -- events and messages ---------------------------------------------------------------------

    def handle(self, connection: Connection, event: quic_events.Event, now: float) -> None:
        """Take one event of the control connection; those of an earlier connection are ignored."""
        if self._stream is None or connection is not self._stream.connection:
            return
        match event:
            case quic_events.HandshakeCompleted():
                self._advance(LinkState.GREETING)
                self.send(messages.Hello(messages.VERSION, self._instance))
            case quic_events.StreamDataReceived():
                self._received(self._stream, event, now)
            case quic_events.PingAnswered() if self.is_ready:
                self._answered(connection.smoothed_rtt or self.rtt, now)
            case quic_events.ConnectionClosed(code, reason):
                self._dismissed(event.error_code, reason or f"closed with code {code:#x}", now)

    def _received(
        self, stream: ControlStream, event: quic_events.StreamDataReceived, now: float
    ) -> None:
        try:
            for message in stream.receive(event):
                self._take(stream, message, now)
                if self._stream is not stream:
                    return
        except DecodeError as error:
            self._close(ErrorCode.PROTOCOL_ERROR, str(error))
            self._failed(str(error), now)

    def _take(self, stream: ControlStream, message: Message, now: float) -> None:
        match message:
            case messages.Welcome(version):
                self._welcome(stream, version, now)
            case messages.ObservedAddress():
                if stream.observe(message):
                    assert stream.observed is not None
                    self._owner.address_observed(self, stream.observed, now)
            case messages.Draining(seconds):
                self.draining = True
                self._owner.link_draining(self, seconds, now)
            case messages.Goodbye(code, reason):
                self._dismissed(code, reason, now)
            case _ if self.is_ready:
                self._owner.take_message(self, message, now)

    def _welcome(self, stream: ControlStream, version: tuple[int, int], now: float) -> None:
        ours = messages.VERSION[0]
        if version[0] != ours:
            self._failed(f"it speaks p2pnet/{version[0]}, this node p2pnet/{ours}", now)
        elif self.state is LinkState.GREETING:
            self._advance(LinkState.READY)
            self.last_error, self.draining = "", False
            self._backoff.succeeded()
            # There is no sample yet if the first packet was lost, and its repetition too.
            seconds = now - self._backoff.began_at
            guess = seconds / HANDSHAKE_ROUND_TRIPS
            self._answered(stream.connection.smoothed_rtt or self.rtt or guess, now)
            self._owner.link_ready(self, stream.observed or ("unknown", 0), seconds, now)

    def send(self, message: Message) -> None:
        """Send a message to the Intermediate; dropped when there is no connection."""
        if self._stream is not None:
            self._stream.send(message)

    # -- staying up ------------------------------------------------------------------------------

    def probe(self, now: float) -> None:
        """Ask for an answer now; this also shows the Intermediate where this node is."""
        if self.is_ready:
            self._act(self._liveness.probe(now), now)

    def network_changed(self, now: float) -> None:
        """The node may have moved: probe the connection, or begin the next try now."""
        if self.state is LinkState.WAITING:
            self._backoff.network_changed()
            self._alarm.set(now, self.start)
        elif self.is_ready:
            assert self._stream is not None
            self._stream.connection.path_changed(now)
            self._act(self._liveness.network_changed(now), now)

    def _answered(self, rtt: float, now: float) -> None:
        self._liveness.answered(rtt, now)
        self._alarm.set(self._liveness.get_timer(), self._check)

    def _check(self, now: float) -> None:
        in_use, relayed_at = self._owner.relays_streams(self), self._owner.relayed_at(self)
        self._act(self._liveness.handle_timer(now, relayed_at=relayed_at, in_use=in_use), now)

    def _act(self, due: Due | None, now: float) -> None:
        if due is Due.GIVE_UP:
            self._failed(f"no answer to a ping within {round(self._liveness.timeout, 1):g} s", now)
            return
        if due is Due.PING:
            assert self._stream is not None
            self._stream.connection.ping()
        self._alarm.set(self._liveness.get_timer(), self._check)

    # -- going down ------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Close the connection, with `reason` for the Intermediate, and never try again."""
        self._alarm.cancel()
        if self.state is not LinkState.STOPPED:
            self._advance(LinkState.STOPPED)
        self._close(ErrorCode.SHUTDOWN, reason)

    def _close(self, code: ErrorCode, reason: str) -> None:
        if self._stream is not None:
            self._stream.connection.close(code, reason)
            self._stream = None

    def _dismissed(self, code: int, reason: str, now: float) -> None:
        if code == ErrorCode.SUPERSEDED:
            self._backoff.superseded()
        self._failed(reason, now)

    def _failed(self, reason: str, now: float) -> None:
        self._close(ErrorCode.NO_ERROR, reason)
        self._advance(LinkState.WAITING)
        self.last_error = reason
        delay = self._backoff.failed(is_needed=self._owner.is_needed)
        self._alarm.set(now + delay, self.start)
        self._owner.emit(reports.ControlLost(self.name, reason, round(delay, 3)))
        self._owner.link_failed(self, now)
