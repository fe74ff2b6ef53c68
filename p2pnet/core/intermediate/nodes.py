"""The nodes that are connected to an Intermediate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from p2pnet.identity import Identity, Role
from p2pnet.quic.connection import HIGH_WATER, Connection
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message

MAX_BACKLOG = 1 << 20  # bytes of control messages that a node may leave unread


class ConnectedNode:
    """One control connection, and the node at its other end.

    :ivar address: where the node is: the address that QUIC validated last.
    :ivar instance: the random number of the node's process, b"" before its Hello.
    :ivar sessions: ids of the sessions of which the node is an end.
    :ivar is_silent: whether the node left an offer unanswered and has answered none since.
    """

    def __init__(self, connection: Connection, address: Address) -> None:
        self.connection = connection
        self.address = address
        self.instance = b""
        self.sessions: set[bytes] = set()
        self.is_silent = False
        self._buffer = MessageBuffer(messages.decode_message)
        self._sequence = -1

    @property
    def identity(self) -> Identity:
        """The identity that the node proved in the handshake."""
        peer = self.connection.peer
        assert peer is not None
        return peer

    @property
    def has_greeted(self) -> bool:
        """Whether the node's Hello came, and was accepted."""
        return bool(self.instance)

    @property
    def is_agent(self) -> bool:
        """Whether the node is an Agent (else a Connector)."""
        return self.identity.role is Role.AGENT

    @property
    def is_behind(self) -> bool:
        """Whether the node leaves so much unread that it gets no more offers.

        The ends of its sessions still go to it. With them its backlog stays below MAX_BACKLOG.
        """
        return self.connection.unsent(messages.CONTROL_STREAM) > HIGH_WATER

    def receive(self, stream_id: int, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises DecodeError for a malformed one."""
        self.connection.consume(stream_id, len(data))
        return self._buffer.feed(data)

    def send(self, message: Message) -> None:
        """Send a message; a node that leaves MAX_BACKLOG bytes unread is disconnected instead."""
        self.connection.send(messages.CONTROL_STREAM, encode_message(message))
        if self.connection.unsent(messages.CONTROL_STREAM) > MAX_BACKLOG:
            self.connection.close(0, "control messages are not being read")

    def send_address(self) -> None:
        """Send the node its observed address (as in draft-ietf-quic-address-discovery)."""
        self._sequence += 1
        self.send(messages.ObservedAddress(self._sequence, *self.address))

    def dismiss(self, code: ErrorCode, reason: str) -> None:
        """Close the connection; a node that greeted gets a Goodbye first."""
        if self.has_greeted:
            self.send(messages.Goodbye(code, reason))
        self.connection.close(code, reason)


class ConnectedNodes:
    """All control connections, and the node that represents each name.

    One process at a time may use a connector's certificate; several may use an agent's.
    """

    def __init__(self) -> None:
        self._nodes: dict[Connection, ConnectedNode] = {}
        self._connectors: dict[str, ConnectedNode] = {}
        self._agents: dict[tuple[str, bytes], ConnectedNode] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[ConnectedNode]:
        return iter(list(self._nodes.values()))

    @property
    def connectors(self) -> Mapping[str, ConnectedNode]:
        """The connectors that greeted, by name; the mapping follows every change."""
        return self._connectors

    def find(self, connection: Connection) -> ConnectedNode | None:
        """The node of a control connection, None before add() and after remove()."""
        return self._nodes.get(connection)

    def add(self, connection: Connection) -> ConnectedNode:
        """Add and return the node of a new control connection, as the connection's owner."""
        node = ConnectedNode(connection, connection.peer_address)
        self._nodes[connection] = connection.owner = node
        return node

    def greet(self, node: ConnectedNode, instance: bytes) -> ConnectedNode | None:
        """Let the node represent its name from now on.

        :param instance: the random number of the node's process.
        :returns: the node that represented the name until now, None if there was none.
        """
        node.instance = instance
        name = node.identity.name
        if node.is_agent:
            earlier = self._agents.get((name, instance))
            self._agents[name, instance] = node
        else:
            earlier = self._connectors.get(name)
            self._connectors[name] = node
        return earlier

    def remove(self, node: ConnectedNode) -> None:
        """Remove a node whose connection is over. Raises KeyError for an unknown node."""
        del self._nodes[node.connection]
        if not node.has_greeted:
            return
        name = node.identity.name
        if self._connectors.get(name) is node:
            del self._connectors[name]
        if self._agents.get((name, node.instance)) is node:
            del self._agents[name, node.instance]
