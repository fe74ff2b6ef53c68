"""The Intermediate's core: one socket for control connections and relay frames."""

from __future__ import annotations

import collections
import datetime
import functools
import os
from collections.abc import Callable

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.control import ControlConnections
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.nodes import ConnectedNodes
from p2pnet.core.intermediate.options import IntermediateOptions
from p2pnet.core.intermediate.shares import make_ledger
from p2pnet.core.intermediate.workers import SharedForwarder
from p2pnet.core.timers import Timers
from p2pnet.identity import Credentials, Role
from p2pnet.interfaces import IServiceDirectory
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.demux import Kind, classify

QUIET = 1.0  # seconds without a frame after which a drain no longer waits for a session


class IntermediateCore:
    """The sans-IO core of an Intermediate, driven like PeerCore.

    A relay frame goes to the forwarder, which names the address to send the frame on to. A QUIC
    packet goes to the multiplexer, whose events (a message, the end of a connection) go to
    ControlConnections, which keeps ConnectedNodes and asks Introductions.

    :param credentials: the certificate and key of this Intermediate. Raises ValueError for those of
        another role.
    :param directory: the IServiceDirectory of the realm's services.
    :param options: the choices of the configuration.
    :param utcnow: the wall clock, for the dates of certificates.
    :param entropy: returns that many random bytes.
    :ivar nodes: the connected nodes.
    :ivar introductions: the relayed sessions.
    :ivar forwarder: forwards the relay frames, with the relay workers if there are any.
    """

    def __init__(
        self,
        credentials: Credentials,
        directory: IServiceDirectory,
        options: IntermediateOptions,
        *,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if credentials.identity.role is not Role.INTERMEDIATE:
            raise ValueError(f"{credentials.identity} cannot be run as intermediate")
        self._profile = functools.partial(
            ConnectionProfile, roles=frozenset({Role.AGENT, Role.CONNECTOR}), utcnow=utcnow,
            alpn=messages.ALPN, max_streams=1, engine=options.engine, entropy=entropy,
        )  # fmt: skip
        self._mux = Multiplexer(limits=options.limits, entropy=entropy)
        self.credentials = credentials
        self._events: collections.deque[events.Event] = collections.deque()
        self._forwarded: list[tuple[bytes, Address]] = []
        self._unwanted: collections.Counter[str] = collections.Counter()
        self._now = 0.0  # of the last datagram
        self._timers = Timers()
        self.forwarder = SharedForwarder(self._events.append)
        ledger = make_ledger(
            options.max_connections, options.max_sessions, options.max_sessions_per_node
        )
        self.nodes = ConnectedNodes()
        self.introductions = Introductions(
            self.forwarder, directory, self.nodes.connectors, self._events.append, entropy,
            self._timers, ledger, rate=options.session_rate,
        )  # fmt: skip
        self._control = ControlConnections(
            self.nodes, directory, self.introductions, self._timers, ledger, self._events.append
        )

    @property
    def credentials(self) -> Credentials:
        """The certificate and key that new connections use; may be replaced at any time."""
        assert self._mux.admission.server is not None
        return self._mux.admission.server.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self._mux.admission.server = self._profile(credentials=credentials)

    @property
    def dropped(self) -> dict[str, int]:
        """The number of dropped datagrams by cause."""
        return {
            **self._unwanted,
            "quic": self._mux.dropped,
            "failures": self._mux.failures,
            "refused": self._mux.admission.refused,
            "relay": self.forwarder.dropped,
        }

    @property
    def retries_sent(self) -> int:
        """The number of Retry packets sent to validate addresses (RFC 9000 section 8.1.2)."""
        return self._mux.admission.retry.sent

    # -- the five verbs --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Handle a datagram that arrived from `address` (canonical form)."""
        self._now = now
        kind = classify(data)
        if kind is Kind.RELAY:
            target = self.forwarder.forward(data, address, now)
            if target is not None:
                self._forwarded.append((data, target))
        elif kind is Kind.QUIC:
            connection = self._mux.receive_datagram(data, address, now)
            if connection is not None:
                self._control.packet_arrived(connection)
        else:
            self._unwanted[kind.name.lower()] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The datagrams that are due, each with the address to send it to."""
        datagrams, self._forwarded = self._forwarded, []
        while self._mux.may_send:
            datagrams += self._mux.datagrams_to_send(now)
            self._handle_connections(now)  # its answers may be more to send
        return datagrams

    def next_event(self) -> events.Event | None:
        """The next event, None when there is none."""
        if not self._events and self._mux.has_events:
            self._handle_connections(self._now)
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """The time of the next handle_timer(), None for never."""
        times = [t for t in (self._mux.get_timer(), self._timers.get_timer()) if t is not None]
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Run all timers that are due at `now`: the core's own and those of connections."""
        self._timers.handle_timer(now)
        self._mux.handle_timer(now)
        self._handle_connections(now)

    def _handle_connections(self, now: float) -> None:
        while (item := self._mux.next_event()) is not None:
            self._control.handle(*item, now)

    # -- shutting down ---------------------------------------------------------------------------

    def drain(self, seconds: float, now: float) -> None:
        """Refuse new sessions from now on, and announce the drain to all nodes.

        The event DrainFinished follows once no session is busy, after `seconds` at the latest. A
        second call does nothing.
        """
        if not self.introductions.accepting:
            return
        self.introductions.accepting = False
        for node in self.nodes:
            node.send(messages.Draining(seconds))
        self._events.append(reports.DrainStarted(seconds, len(self.introductions)))
        self._check_drain(now + seconds, now)

    def _check_drain(self, deadline: float, now: float) -> None:
        busy = self.introductions.count_busy(now - QUIET)
        if not busy or now >= deadline:
            self._events.append(reports.DrainFinished(busy))
        else:
            check = functools.partial(self._check_drain, deadline)
            self._timers.call_at(min(now + QUIET / 4, deadline), check)

    def close(self, now: float, reason: str = "intermediate stopped") -> None:
        """End all connections; datagrams_to_send() then returns the last packets of each."""
        for node in self.nodes:
            node.dismiss(ErrorCode.SHUTDOWN, reason)
