"""Introductions with everything around them that is not a network."""

from __future__ import annotations

import random
from typing import Any

from p2pnet.core import events
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.intermediate.shares import make_ledger
from p2pnet.core.intermediate.workers import SharedForwarder
from p2pnet.core.timers import Timers
from p2pnet.identity import Role
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.core.support import Told

MAX_SESSIONS, MAX_PER_NODE = 4, 2


class Fixture:
    """Introductions, and nodes whose connections lead nowhere."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_per_node: int = MAX_PER_NODE) -> None:
        self.directory = MemoryDirectory()
        self.events: list[events.Event] = []
        self.forwarder = SharedForwarder(self.events.append)
        self.connectors: dict[str, Told] = {}
        self.nodes: list[Told] = []
        self.made = 0
        self.timers = Timers()
        self.ledger = make_ledger(100, max_sessions, max_per_node)
        self.table = Introductions(
            self.forwarder, self.directory, self.connectors, self.events.append,
            random.Random(1).randbytes, self.timers, self.ledger, rate=0,
        )  # fmt: skip

    def node(self, role: Role, name: str, *services: str) -> Told:
        """A node that connects; a connector takes the place of an earlier one of its name."""
        self.made += 1
        node = Told(role, name, self.made, (f"203.0.113.{self.made % 250}", 50000))
        self.nodes.append(node)
        if role is Role.CONNECTOR:
            self.connectors[name] = node
            self.directory.register(node.identity.realm, services, node)
        return node

    def lose(self, node: Told) -> None:
        """The node's connection is over."""
        self.nodes.remove(node)
        self.directory.unregister(node.identity.realm, node)
        if self.connectors.get(node.identity.name) is node:
            del self.connectors[node.identity.name]
        self.table.lost(node, ErrorCode.PEER_LOST, "gone")

    def request(self, agent: Told, service: str = "web", **options: Any) -> bytes:
        """Ask for a session. Returns the id that the agent chose for it."""
        self.made += 1
        session = options.pop("session", self.made.to_bytes(16, "big"))
        self.table.request(
            agent, messages.SessionRequest(self.made, session, service, **options), 0.0
        )
        return bytes(session)

    def answer(self, node: Told, session: bytes, code: int = 0) -> None:
        """Take or refuse a session."""
        self.table.answer(node, messages.SessionAnswer(session, code, "because"), 0.0)

    def state(self) -> Any:
        """Everything that can be seen from outside."""
        return (
            len(self.table), len(self.forwarder), len(self.events),
            [(set(node.sessions), len(node.told)) for node in self.nodes],
        )  # fmt: skip
