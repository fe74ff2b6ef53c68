"""A node's connection to one Intermediate: kept up, with backoff, for as long as the node lives."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.timers import Timer
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.timing import TOLERANCE
from p2pnet.wire import messages
from p2pnet.wire.address import Address, canonical_address, is_ip_literal, parse_host_port
from p2pnet.wire.codes import DecodeError, ErrorCode

if TYPE_CHECKING:
    from p2pnet.core.peer.node import PeerCore

PING_INTERVAL = 15.0  # seconds; under the 20 s idle timeout and the 30 s of short NAT mappings
PING_IN_USE = 5.0  # seconds, while streams are relayed: an end that only listens must notice too
PING_TIMEOUT = 5.0  # seconds for its answer, several retransmissions of it included
PINGS = 5  # in that time
PROBE_TIMEOUT = 2.0  # seconds, at least, for the answer when there is reason for doubt
CONNECT_TIMEOUT = 8.0  # seconds for resolving, handshake and greeting together
# A node with sessions that was connected tries so many times in quick succession: sessions wait
# for the Intermediate to be back, and a try that began before that would be long to notice it.
HASTY_TRIES = 20
HASTY_RETRY = 0.4  # seconds
HASTY_TIMEOUT = 1.0  # seconds, at least
HANDSHAKE_ROUND_TRIPS = 2  # to a Welcome
ROUND_TRIPS = 8  # that a time-out allows for on a slow path
FIRST_RETRY = 1.0  # seconds, doubled after each failure ...
LAST_RETRY = 30.0  # ... up to this
SUPERSEDED_FAILURES = 5  # what being superseded counts for: the longest delay
RETRY_JITTER = 0.2  # of the delay either way, so that nodes do not return all at once


class LinkState(enum.Enum):
    """Where the connection to the Intermediate stands."""

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


class ControlLink:
    """The control connection to one Intermediate.

    :ivar name: the Intermediate as configured, "host:port".
    :ivar address: where it was last connected to, None before.
    :ivar observed: this node's own address as that Intermediate sees it, None before.
    :ivar draining: whether the Intermediate is about to stop.
    :ivar last_error: why the last try failed, "" after a success.
    :ivar rtt: the round-trip time to it in seconds, 0 before it is known.
    """

    def __init__(self, name: str, node: PeerCore) -> None:
        self.name = name
        self.host, self.port = parse_host_port(name)
        self.state = LinkState.IDLE
        self.address: Address | None = None
        self.observed: Address | None = None
        self.draining = False
        self.last_error = ""
        self.rtt = 0.0
        self._node = node
        self._connection: Connection | None = None
        self._buffer = messages.MessageBuffer()
        self._sequence = -1
        self._started = 0.0
        self._failures = 0
        self._hasty_tries = 0
        self._probing = False
        self._asked_at = self._answered_at = 0.0
        self._heard_at = 0.0
        self._timer: Timer | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the Intermediate takes requests."""
        return self.state is LinkState.READY

    @property
    def is_usable(self) -> bool:
        """Whether it takes new sessions."""
        return self.is_ready and not self.draining

    def _advance(self, state: LinkState) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    # -- coming up -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin a try: resolve the name, or connect at once to an IP literal."""
        self._started = now
        hasty = max(HASTY_TIMEOUT, ROUND_TRIPS * self.rtt)
        self._arm(now + (hasty if self._is_hasty else CONNECT_TIMEOUT), self._give_up)
        if is_ip_literal(self.host):
            self._connect(canonical_address(self.host, self.port), now)
        else:
            self._advance(LinkState.RESOLVING)
            self._node.emit(events.ResolutionNeeded(self.name, self.host))

    def resolved(self, hosts: list[str], now: float) -> None:
        """The host looked the name up; an empty list means that there is no address."""
        if self.state is not LinkState.RESOLVING:
            return
        if hosts:
            # One address a try: after a failure the next one has its turn.
            host = hosts[self._failures % len(hosts)]
            self._connect(canonical_address(host, self.port), now)
        else:
            self._failed(f"the name {self.host} has no address", now)

    def _connect(self, address: Address, now: float) -> None:
        self._advance(LinkState.CONNECTING)
        self.address = address
        self._buffer = messages.MessageBuffer()
        self._sequence = -1
        self._connection = self._node.connect_control(self.host, address, now)
        self._connection.owner = self

    def _give_up(self, now: float) -> None:
        doing = "looking up the name" if self.state is LinkState.RESOLVING else "connecting"
        self._failed(f"no answer within {round(now - self._started, 1):g} s of {doing}", now)

    # -- events and messages ---------------------------------------------------------------------

    def handle(self, connection: Connection, event: quic_events.Event, now: float) -> None:
        """Take one event of the control connection."""
        if connection is not self._connection:
            return  # an earlier one's last words
        match event:
            case quic_events.HandshakeCompleted():
                self._advance(LinkState.GREETING)
                self.send(messages.Hello(messages.VERSION, self._node.instance))
            case quic_events.StreamDataReceived(stream_id, data, _):
                connection.consume(stream_id, len(data))
                self._received(data, now)
            case quic_events.PingAnswered() if self.is_ready:
                self._probing = False
                self.rtt = connection.smoothed_rtt or self.rtt
                self._rest(now)
            case quic_events.ConnectionClosed(code, reason):
                self._dismissed(event.error_code, reason or f"closed with code {code:#x}", now)

    def _received(self, data: bytes, now: float) -> None:
        try:
            for message in self._buffer.feed(data):
                self._take(message, now)
                if self._connection is None:
                    return
        except DecodeError as error:
            self.close(ErrorCode.PROTOCOL_ERROR, str(error))
            self._failed(str(error), now)

    def _take(self, message: messages.Message, now: float) -> None:
        match message:
            case messages.Welcome(version):
                self._welcome(version, now)
            case messages.ObservedAddress(sequence, host, port):
                self._observe(sequence, host, port)
            case messages.Draining(seconds):
                self.draining = True
                self._node.link_draining(self, seconds)
            case messages.Goodbye(code, reason):
                self._dismissed(code, reason, now)
            case _ if self.is_ready:
                self._node.take_message(self, message, now)

    def _welcome(self, version: tuple[int, int], now: float) -> None:
        if version[0] != messages.VERSION[0]:
            self._failed(f"it speaks p2pnet/{version[0]}, this node p2pnet/1", now)
        elif self.state is LinkState.GREETING:
            assert self._connection is not None
            self._advance(LinkState.READY)
            self._failures, self.last_error, self.draining = 0, "", False
            self._hasty_tries, self._probing = HASTY_TRIES, False
            # Where the first packet was repeated in vain, there is no sample yet.
            guess = (now - self._started) / HANDSHAKE_ROUND_TRIPS
            self.rtt = self._connection.smoothed_rtt or self.rtt or guess
            self._rest(now)
            address = self.observed or ("unknown", 0)
            self._node.link_ready(self, address, now - self._started, now)

    def _observe(self, sequence: int, host: str, port: int) -> None:
        if sequence <= self._sequence or not is_ip_literal(host):
            return
        self._sequence = sequence
        observed = canonical_address(host, port)
        if observed != self.observed:
            self.observed = observed
            self._node.address_observed(self, observed)

    def send(self, message: messages.Message) -> None:
        """Send a message to the Intermediate; dropped when there is no connection."""
        if self._connection is not None:
            self._connection.send(messages.CONTROL_STREAM, messages.encode_message(message))

    # -- staying up, going down ------------------------------------------------------------------

    def _rest(self, now: float) -> None:
        """A ping was answered: look again in a while."""
        self._answered_at = now
        self._arm(now + PING_IN_USE, self._look)

    def heard(self, now: float) -> None:
        """A packet of a session came through the Intermediate, so that it lives."""
        self._heard_at = now

    def _look(self, now: float) -> None:
        is_silent = self._heard_at < now - PING_IN_USE + TOLERANCE
        if self._connection is not None and now - self._answered_at > PING_INTERVAL - TOLERANCE:
            # Whatever is relayed meanwhile, or this connection would be idle for too long. Its own
            # timeout starts anew with this ping: later than sessions can wait.
            self._ask(PING_TIMEOUT, now)
        elif is_silent and self._node.relays_streams(self):
            self.probe(now)
        else:
            when = (now if is_silent else self._heard_at) + PING_IN_USE
            self._arm(min(when, self._answered_at + PING_INTERVAL), self._look)

    def probe(self, now: float) -> None:
        """Ask for a sign of life now; this also shows the Intermediate where this node is."""
        if self._connection is not None and self.is_ready and not self._probing:
            self._probing = True
            self._ask(max(PROBE_TIMEOUT, ROUND_TRIPS * self.rtt), now)

    def hurry(self, now: float) -> None:
        """The network is another one: probe, or try now what was to be tried later."""
        if self.state is LinkState.WAITING:
            self._hasty_tries = HASTY_TRIES
            self._arm(now, self.start)
        elif self._connection is not None and self.is_ready:
            self._probing = False  # what was asked in the old network may be lost
            self._connection.path_changed(now)
        self.probe(now)

    def _ask(self, seconds: float, now: float) -> None:
        """Ping a few times, for QUIC repeats a lost one ever more slowly; an answer is due then."""
        self._asked_at = now
        self._ping(seconds, now)

    def _ping(self, seconds: float, now: float) -> None:
        if now >= self._asked_at + seconds - TOLERANCE:
            self._unanswered(seconds, now)
        elif self._connection is not None:
            self._connection.ping()
            self._arm(now + seconds / PINGS, lambda t: self._ping(seconds, t))

    def _unanswered(self, seconds: float, now: float) -> None:
        if self._heard_at > now - seconds:  # the answer stands in a queue behind what we hear
            self._ask(seconds, now)
        else:
            self._failed(f"no answer to a ping within {round(seconds, 1):g} s", now)

    @property
    def _is_hasty(self) -> bool:
        return self._hasty_tries > 0 and self._node.is_needed

    def close(self, code: ErrorCode, reason: str) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close(code, reason)
            self._connection = None

    def stop(self, reason: str) -> None:
        """Close and never try again."""
        self._cancel_timer()
        if self.state is not LinkState.STOPPED:
            self._advance(LinkState.STOPPED)
        self.close(ErrorCode.SHUTDOWN, reason)

    def _dismissed(self, code: int, reason: str, now: float) -> None:
        if code == ErrorCode.SUPERSEDED:  # do not fight with the other process
            self._failures = SUPERSEDED_FAILURES
        self._failed(reason, now)

    def _failed(self, reason: str, now: float) -> None:
        if self.state in (LinkState.WAITING, LinkState.STOPPED):
            return
        was_ready = self.is_ready
        self.close(ErrorCode.NO_ERROR, reason)
        self._advance(LinkState.WAITING)
        self.last_error, self.observed = reason, None
        jitter = 1 + RETRY_JITTER * (2 * self._node.random() - 1)
        delay = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self._failures, 10)) * jitter
        if self._is_hasty and self._failures < SUPERSEDED_FAILURES:
            self._hasty_tries -= 1
            delay = HASTY_RETRY * jitter
        else:
            self._failures += 1
        self._arm(now + delay, self.start)
        self._node.emit(reports.ControlLost(self.name, reason, round(delay, 3)))
        self._node.link_failed(self, was_ready, now)

    def _arm(self, when: float, callback: Callable[[float], None]) -> None:
        self._cancel_timer()
        self._timer = self._node.timers.call_at(when, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
