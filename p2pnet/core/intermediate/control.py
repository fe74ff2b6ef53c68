"""The control connections of an Intermediate and their messages: a node's life from Hello on."""

from __future__ import annotations

from collections.abc import Callable

from p2pnet import reports
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.nodes import ConnectedNode, ConnectedNodes
from p2pnet.core.ledger import Kind, Ledger
from p2pnet.core.timers import Timers
from p2pnet.interfaces import IServiceDirectory
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.wire import messages
from p2pnet.wire.address import format_address
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.encoding import Message

GREETING_TIMEOUT = 10.0  # seconds from the end of the handshake to Hello


class ControlConnections:
    """Handles the packets, events and messages of the control connections of an Intermediate.

    :param ledger: counts the connections of each name.
    :param emit: called with each report.
    """

    def __init__(
        self,
        nodes: ConnectedNodes,
        directory: IServiceDirectory,
        introductions: Introductions,
        timers: Timers,
        ledger: Ledger,
        emit: Callable[[reports.Report], None],
    ) -> None:
        self._nodes = nodes
        self._directory = directory
        self._introductions = introductions
        self._timers = timers
        self._ledger = ledger
        self._emit = emit

    # -- packets and events of connections -------------------------------------------------------

    def packet_arrived(self, connection: Connection) -> None:
        """Handle the arrival of a packet: update the state of the node that sent it, if any."""
        node = self._nodes.find(connection)
        if node is not None and node.address != connection.peer_address:
            self._moved(node)

    def handle(self, connection: Connection, event: quic_events.Event, now: float) -> None:
        """Handle one event of a connection."""
        node = self._nodes.find(connection)
        match event:
            case quic_events.HandshakeCompleted():
                node = self._nodes.add(connection)
                self._timers.call_at(now + GREETING_TIMEOUT, lambda _: self._check_greeting(node))
                self._admit(node)
            case quic_events.StreamDataReceived(stream_id, data, _) if node is not None:
                self._receive(node, stream_id, data, now)
            case quic_events.ConnectionClosed(_, reason) if node is not None:
                self._lost(node, event.error_code, reason)
            case quic_events.ConnectionClosed(_, reason) if connection.owner is None:
                self._refused(connection, reason)  # the handshake failed

    def _admit(self, node: ConnectedNode) -> None:
        """Count the connection for the name that the node proved, or close the connection."""
        verdict = self._ledger.admit(Kind.CONNECTION, str(node.identity), node)
        if verdict.refusal is not None:
            node.dismiss(ErrorCode.OVER_LIMIT, verdict.refusal)
        if verdict.evicted is not None:
            reason = "other names want their share of the intermediate's connections"
            verdict.evicted.dismiss(ErrorCode.OVER_LIMIT, reason)

    def _moved(self, node: ConnectedNode) -> None:
        node.address = node.connection.peer_address
        self._introductions.moved(node)
        if node.has_greeted:
            node.send_address()
            self._emit(reports.NodeMoved(str(node.identity), format_address(node.address)))

    def _check_greeting(self, node: ConnectedNode) -> None:
        if not node.has_greeted and self._nodes.find(node.connection) is node:
            node.connection.close(ErrorCode.PROTOCOL_ERROR, "no greeting in time")

    def _refused(self, connection: Connection, reason: str) -> None:
        address = connection.peer_address
        self._emit(reports.NodeRefused(format_address(address) if address else "?", reason))

    def _lost(self, node: ConnectedNode, code: ErrorCode, reason: str) -> None:
        self._nodes.remove(node)
        self._ledger.release(Kind.CONNECTION, node)
        if not node.has_greeted:
            self._refused(node.connection, reason)
            return
        identity = node.identity
        self._directory.unregister(identity.realm, node)
        # A node that stops in order ends its sessions; any other node may resume them.
        why = ErrorCode.SHUTDOWN if code is ErrorCode.SHUTDOWN else ErrorCode.PEER_LOST
        self._introductions.lost(node, why, f"{identity.role} {identity.name} left: {reason}")
        self._emit(reports.NodeLost(str(identity), reason))

    # -- messages --------------------------------------------------------------------------------

    def _receive(self, node: ConnectedNode, stream_id: int, data: bytes, now: float) -> None:
        try:
            for message in node.receive(stream_id, data):
                self._handle_message(node, message, now)
        except DecodeError as error:
            node.connection.close(ErrorCode.PROTOCOL_ERROR, str(error))

    def _handle_message(self, node: ConnectedNode, message: Message, now: float) -> None:
        if not node.connection.is_open:
            return
        match message:
            case messages.Hello():
                self._greet(node, message)
            case _ if not node.has_greeted:
                node.connection.close(ErrorCode.PROTOCOL_ERROR, "no greeting first")
            case messages.SessionRequest() if node.is_agent:
                self._introductions.request(node, message, now)
            case messages.Register(services) if not node.is_agent:
                self._register(node, services)
            case messages.SessionAnswer() if not node.is_agent:
                self._introductions.answer(node, message, now)
            case messages.SessionClosed():
                self._introductions.leave(node, message)
            case _:
                reason = f"{node.identity.role} may not send {message.__struct_config__.tag}"
                node.connection.close(ErrorCode.PROTOCOL_ERROR, reason)

    def _greet(self, node: ConnectedNode, hello: messages.Hello) -> None:
        if node.has_greeted or hello.version[0] != messages.VERSION[0]:
            reason = f"this intermediate speaks p2pnet/{messages.VERSION[0]}, once greeted"
            node.connection.close(ErrorCode.PROTOCOL_ERROR, reason)
            return
        earlier = self._nodes.greet(node, hello.instance)
        if earlier is not None:
            reason = f"another process connected with the certificate of {node.identity}"
            earlier.dismiss(ErrorCode.SUPERSEDED, reason)
        node.send_address()
        node.send(messages.Welcome(min(hello.version, messages.VERSION)))
        self._emit(reports.NodeConnected(str(node.identity), format_address(node.address)))

    def _register(self, node: ConnectedNode, services: tuple[str, ...]) -> None:
        identity = node.identity
        granted = tuple(dict.fromkeys(s for s in services if identity.grants(s)))
        for service in services:
            if service not in granted:
                reason = f"the certificate of connector {identity.name} does not grant {service}"
                node.send(messages.RegistrationRefused(service, ErrorCode.NOT_GRANTED, reason))
        self._directory.register(identity.realm, granted, node)
        node.send(messages.Registered(granted))
        self._emit(reports.ServicesRegistered(str(identity), granted))
