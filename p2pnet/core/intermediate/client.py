"""A node as its Intermediate knows it."""

from __future__ import annotations

from p2pnet.identity import Identity, Role
from p2pnet.quic.connection import Connection
from p2pnet.wire import messages
from p2pnet.wire.address import Address

MAX_BACKLOG = 1 << 20  # bytes of control messages that a node may leave unread


class ConnectedNode:
    """One control connection: a node that greeted, or is about to.

    :ivar address: where the node's packets come from now.
    :ivar instance: the number of the node's process, b"" before it greeted.
    :ivar sessions: ids of the sessions that the node is an end of.
    :ivar is_silent: whether it left an offer unanswered, and was not heard of since.
    """

    def __init__(self, connection: Connection, address: Address) -> None:
        self.connection = connection
        self.address = address
        self.instance = b""
        self.services: tuple[str, ...] = ()
        self.sessions: set[bytes] = set()
        self._buffer = messages.MessageBuffer()
        self.is_silent = False
        self._sequence = -1

    @property
    def identity(self) -> Identity:
        """Who the node proved to be."""
        peer = self.connection.peer
        assert peer is not None
        return peer

    @property
    def has_greeted(self) -> bool:
        """Whether Hello and Welcome were exchanged."""
        return bool(self.instance)

    @property
    def is_agent(self) -> bool:
        """Whether the node is an Agent (else a Connector)."""
        return self.identity.role is Role.AGENT

    def received(self, data: bytes) -> list[messages.Message]:
        """The messages that `data` completes. Raises DecodeError."""
        return self._buffer.feed(data)

    def send(self, message: messages.Message) -> None:
        """Send a message. A node that reads nothing for long is cut off."""
        self.connection.send(messages.CONTROL_STREAM, messages.encode_message(message))
        if self.connection.unsent(messages.CONTROL_STREAM) > MAX_BACKLOG:
            self.connection.close(0, "control messages are not being read")

    def tell_address(self) -> None:
        """Report the observed address (QUIC Address Discovery, as a control message)."""
        self._sequence += 1
        self.send(messages.ObservedAddress(self._sequence, *self.address))
