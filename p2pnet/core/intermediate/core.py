"""The Intermediate's core: takes nodes in, keeps the registry, joins sessions, relays frames."""

from __future__ import annotations

import collections
import datetime
import os
from collections.abc import Callable

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.client import ConnectedNode
from p2pnet.core.intermediate.introductions import SessionTable
from p2pnet.core.intermediate.options import IntermediateOptions
from p2pnet.core.intermediate.workers import SharedRelay
from p2pnet.core.timers import Timers
from p2pnet.identity import Credentials, Role
from p2pnet.interfaces import IServiceDirectory
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.wire import messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.demux import Kind, classify

GREETING_TIMEOUT = 10.0  # seconds from the first packet to Hello
QUIET = 1.0  # seconds without a frame after which a session does not hold up a drain


class IntermediateCore:
    """The sans-IO core of an Intermediate, driven like PeerCore.

    :param credentials: who this Intermediate is.
    :param directory: the IServiceDirectory of the realm's services.
    :param options: what the configuration decides.
    :ivar dropped: datagrams that were dropped, by cause.
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
        self.timers = Timers()
        self.relay = SharedRelay(self.emit)
        self._utcnow = utcnow
        self._engine = options.engine
        self._unknown: collections.Counter[str] = collections.Counter()
        self._directory = directory
        self._clients: dict[Connection, ConnectedNode] = {}
        self._connectors: dict[str, ConnectedNode] = {}  # by name: one process a certificate
        self._agents: dict[tuple[str, bytes], ConnectedNode] = {}  # by name and process: many
        self._events: collections.deque[events.Event] = collections.deque()
        self._forwarded: list[tuple[bytes, Address]] = []
        self._draining_until: float | None = None
        self._now = 0.0  # of the last datagram
        self._mux = Multiplexer(limits=options.limits, entropy=entropy)
        self.credentials = credentials
        self.sessions = SessionTable(
            self.relay, directory, self._connectors, self.emit, entropy, self.timers,
            max_sessions=options.max_sessions, max_per_node=options.max_sessions_per_node,
            rate=options.session_rate,
        )  # fmt: skip

    @property
    def credentials(self) -> Credentials:
        """Who this Intermediate is; set it to use another certificate for new connections."""
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._mux.server = ConnectionProfile(
            credentials=credentials,
            roles=frozenset({Role.AGENT, Role.CONNECTOR}),
            utcnow=self._utcnow,
            alpn=messages.ALPN,
            max_streams=1,
            engine=self._engine,
        )

    @property
    def dropped(self) -> dict[str, int]:
        """Datagrams that were dropped, by cause."""
        return {
            **self._unknown,
            "quic": self._mux.dropped,
            "failures": self._mux.failures,
            "refused": self._mux.admission.refused,
            "relay": self.relay.dropped,
        }

    @property
    def clients(self) -> int:
        """Nodes that are connected."""
        return len(self._clients)

    @property
    def retries_sent(self) -> int:
        """Retry packets sent, to make sources prove their address (RFC 9000 section 8.1.2)."""
        return self._mux.admission.retries_sent

    def emit(self, event: events.Event) -> None:
        """Queue an event for the host."""
        self._events.append(event)

    # -- the five verbs --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Take a datagram that arrived from `address` (canonical form)."""
        self._now = now
        kind = classify(data)
        if kind is Kind.RELAY:
            target = self.relay.forward(data, address, now)
            if target is not None:
                self._forwarded.append((data, target))
        elif kind is Kind.QUIC:
            connection = self._mux.receive_datagram(data, address, now)
            if connection is not None:
                self._note_address(connection, now)
        else:
            self._unknown[kind.name.lower()] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The datagrams that are due, each with the address to send it to."""
        datagrams, self._forwarded = self._forwarded, []
        while self._mux.may_send:
            datagrams += self._mux.datagrams_to_send(now)
            self._handle_connections(now)  # which may give more to send
        return datagrams

    def next_event(self) -> events.Event | None:
        """The next event, None when there is none."""
        if not self._events and self._mux.has_events:
            self._handle_connections(self._now)
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call handle_timer(), None for never."""
        times = [t for t in (self._mux.get_timer(), self.timers.get_timer()) if t is not None]
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.timers.handle_timer(now)
        self._mux.handle_timer(now)
        self._handle_connections(now)

    # -- shutting down ---------------------------------------------------------------------------

    def drain(self, seconds: float, now: float) -> None:
        """Take no new sessions; DrainFinished follows once nothing is relayed, or in `seconds`."""
        if self._draining_until is not None:
            return
        self._draining_until = now + seconds
        self.sessions.accepting = False
        for client in self._clients.values():
            client.send(messages.Draining(seconds))
        self.emit(reports.DrainStarted(seconds, len(self.sessions)))
        self._check_drain(now)

    def _check_drain(self, now: float) -> None:
        assert self._draining_until is not None
        busy = self.sessions.count_busy(now - QUIET)
        if not busy or now >= self._draining_until:
            self.emit(reports.DrainFinished(busy))
        else:
            self.timers.call_at(min(now + QUIET / 4, self._draining_until), self._check_drain)

    def close(self, now: float, reason: str = "intermediate stopped") -> None:
        """End all connections; what is to be said about it comes with datagrams_to_send()."""
        for client in list(self._clients.values()):
            if client.has_greeted:
                client.send(messages.Goodbye(ErrorCode.SHUTDOWN, reason))
            client.connection.close(ErrorCode.SHUTDOWN, reason)

    # -- nodes -----------------------------------------------------------------------------------

    def _note_address(self, connection: Connection, now: float) -> None:
        client = self._clients.get(connection)
        if client is not None:
            client.is_silent = False
        if client is None:
            if connection.owner is None and connection.is_open:
                self._clients[connection] = client = ConnectedNode(
                    connection, connection.peer_address
                )
                connection.owner = client
                self.timers.call_at(
                    now + GREETING_TIMEOUT, lambda _: self._check_greeting(connection)
                )
        elif client.address != connection.peer_address:
            client.address = connection.peer_address
            self.sessions.moved(client)
            if client.has_greeted:
                client.tell_address()
                self.emit(reports.NodeMoved(str(client.identity), format_address(client.address)))

    def _check_greeting(self, connection: Connection) -> None:
        client = self._clients.get(connection)
        if client is not None and not client.has_greeted:
            connection.close(ErrorCode.PROTOCOL_ERROR, "no greeting in time")

    def _handle_connections(self, now: float) -> None:
        while (item := self._mux.next_event()) is not None:
            connection, event = item
            client = connection.owner
            if client is None and isinstance(event, quic_events.ConnectionClosed):
                self._refused(connection, event.reason)
            elif connection in self._clients:
                self._handle(client, event, now)

    def _handle(self, client: ConnectedNode, event: quic_events.Event, now: float) -> None:
        match event:
            case quic_events.StreamDataReceived(stream_id, data, _):
                client.connection.consume(stream_id, len(data))
                try:
                    for message in client.received(data):
                        self._take(client, message, now)
                except DecodeError as error:
                    client.connection.close(ErrorCode.PROTOCOL_ERROR, str(error))
            case quic_events.ConnectionClosed():
                self._lost(client, event.error_code, event.reason)

    def _refused(self, connection: Connection, reason: str) -> None:
        address = connection.peer_address
        self.emit(reports.NodeRefused(format_address(address) if address else "?", reason))

    def _lost(self, client: ConnectedNode, code: int, reason: str) -> None:
        del self._clients[client.connection]
        if not client.has_greeted:
            self._refused(client.connection, reason)
            return
        identity = client.identity
        self._directory.unregister(identity.realm, client)
        if self._connectors.get(identity.name) is client:
            del self._connectors[identity.name]
        if self._agents.get((identity.name, client.instance)) is client:
            del self._agents[identity.name, client.instance]
        # A node that stops in order ends its sessions; any other one may come back to them.
        why = ErrorCode.SHUTDOWN if code == ErrorCode.SHUTDOWN else ErrorCode.PEER_LOST
        self.sessions.lost(client, why, f"{identity.role} {identity.name} left: {reason}")
        self.emit(reports.NodeLost(str(identity), reason))

    def _take(self, client: ConnectedNode, message: messages.Message, now: float) -> None:
        if not client.connection.is_open:
            return
        if isinstance(message, messages.Hello):
            self._greet(client, message)
        elif not client.has_greeted:
            client.connection.close(ErrorCode.PROTOCOL_ERROR, "no greeting first")
        elif isinstance(message, messages.CandidateMessage):
            self.sessions.forward(client, message)
        elif client.is_agent:
            self._take_from_agent(client, message, now)
        else:
            self._take_from_connector(client, message, now)

    def _greet(self, client: ConnectedNode, hello: messages.Hello) -> None:
        if client.has_greeted or hello.version[0] != messages.VERSION[0]:
            reason = f"this intermediate speaks p2pnet/{messages.VERSION[0]}, once greeted"
            client.connection.close(ErrorCode.PROTOCOL_ERROR, reason)
            return
        client.instance = hello.instance
        self._supersede(client)
        client.tell_address()
        client.send(messages.Welcome(min(hello.version, messages.VERSION)))
        self.emit(reports.NodeConnected(str(client.identity), format_address(client.address)))

    def _supersede(self, client: ConnectedNode) -> None:
        """A node that came back has the word; its earlier connection is a dead one's."""
        name = client.identity.name
        if client.is_agent:
            earlier = self._agents.get((name, client.instance))
            self._agents[name, client.instance] = client
        else:
            earlier = self._connectors.get(name)
            self._connectors[name] = client
        if earlier is not None:
            reason = f"another process connected with the certificate of {client.identity}"
            earlier.send(messages.Goodbye(ErrorCode.SUPERSEDED, reason))
            earlier.connection.close(ErrorCode.SUPERSEDED, reason)

    def _take_from_agent(
        self, client: ConnectedNode, message: messages.Message, now: float
    ) -> None:
        match message:
            case messages.SessionRequest():
                self.sessions.request(client, message, now)
            case messages.SessionClosed():
                self.sessions.leave(client, message)
            case _:
                self._not_yours(client, message)

    def _take_from_connector(
        self, client: ConnectedNode, message: messages.Message, now: float
    ) -> None:
        match message:
            case messages.Register(services):
                self._register(client, services)
            case messages.SessionAnswer():
                self.sessions.answer(client, message, now)
            case messages.SessionClosed():
                self.sessions.leave(client, message)
            case _:
                self._not_yours(client, message)

    def _not_yours(self, client: ConnectedNode, message: messages.Message) -> None:
        tag = message.__struct_config__.tag
        client.connection.close(
            ErrorCode.PROTOCOL_ERROR, f"{client.identity.role} may not send {tag}"
        )

    def _register(self, client: ConnectedNode, services: tuple[str, ...]) -> None:
        identity = client.identity
        granted = tuple(dict.fromkeys(s for s in services if identity.grants(s)))
        for service in services:
            if service not in granted:
                reason = f"the certificate of connector {identity.name} does not grant {service}"
                client.send(messages.RegistrationRefused(service, ErrorCode.NOT_GRANTED, reason))
        client.services = granted
        self._directory.register(identity.realm, granted, client)
        client.send(messages.Registered(granted))
        self.emit(reports.ServicesRegistered(str(identity), granted))
