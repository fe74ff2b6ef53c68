"""What the tests of the core share: cores, credentials, and connections without a network."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Iterable
from typing import Any

from p2pnet.config.cores import Entropy, agent_core, connector_core, intermediate_core
from p2pnet.config.roles import AgentConfig, ConnectorConfig, IntermediateConfig, ServiceConfig
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import ConnectorCore
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.net.clock import utcnow
from p2pnet.quic.connection import Connection
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.encoding import Message, MessageBuffer

SERVICES = ("web", "dns", "ssh")


@functools.cache
def credentials(role: Role, name: str) -> Credentials:
    """Credentials of one realm; a connector's grant SERVICES."""
    services = SERVICES if role is Role.CONNECTOR else ()
    hosts = ["192.0.2.1"] if role is Role.INTERMEDIATE else ()
    return _realm().credentials(role, name, services=services, hosts=hosts)


@functools.cache
def _realm() -> Realm:
    return Realm()


def make_agent(
    intermediates: Iterable[str], entropy: Entropy = os.urandom, **settings: Any
) -> AgentCore:
    """The core of agent alice, whose settings are the defaults but for these."""
    config = Simulation.config(AgentConfig, intermediates=tuple(intermediates), **settings)
    return agent_core(config, credentials(Role.AGENT, "alice"), utcnow=utcnow, entropy=entropy)


def make_connector(
    intermediates: Iterable[str], entropy: Entropy = os.urandom, **settings: Any
) -> ConnectorCore:
    """The core of connector office, which lets alice use the service "web"."""
    web = ServiceConfig(name="web", target="", allow=("alice",))
    config = Simulation.config(
        ConnectorConfig, intermediates=tuple(intermediates), services=(web,), **settings
    )
    office = credentials(Role.CONNECTOR, "office")
    return connector_core(config, office, utcnow=utcnow, entropy=entropy)


def make_intermediate(entropy: Entropy = os.urandom, **settings: Any) -> IntermediateCore:
    """The core of the Intermediate relay1."""
    config = Simulation.config(IntermediateConfig, **settings)
    relay1 = credentials(Role.INTERMEDIATE, "relay1")
    return intermediate_core(config, relay1, utcnow=utcnow, entropy=entropy)


class FakeConnection(Connection):
    """A control connection that leads nowhere; it keeps what its owner does with it.

    :ivar sent: the messages; `consumed`: received bytes that were used.
    :ivar rtt: the round-trip time in seconds; `backlog`: unsent bytes; both for tests to choose.
    :ivar answered: whether the server sent anything; for tests to choose.
    :ivar closed: code and reason, once it is closed.
    """

    def __init__(self, address: Address, peer: Identity | None = None) -> None:
        self.address = address
        self.identity = peer
        self.owner: Any = None
        self.sent: list[Message] = []
        self.consumed = self.pings = self.path_changes = self.backlog = 0
        self.rtt: float | None = 0.05
        self.answered = False
        self.closed: tuple[int, str] | None = None

    @property
    def peer(self) -> Identity | None:
        """The identity that the peer proved."""
        return self.identity

    @property
    def peer_address(self) -> Address:
        """Where the peer is now."""
        return self.address

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self.closed is None

    @property
    def is_answered(self) -> bool:
        """Whether a test says that the server answered."""
        return self.answered

    @property
    def smoothed_rtt(self) -> float | None:
        """The round-trip time that a test chose."""
        return self.rtt

    def unsent(self, stream_id: int) -> int:
        """The backlog that a test chose."""
        return self.backlog

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> bool:
        """Keep the message, as it arrives."""
        assert stream_id == messages.CONTROL_STREAM and not end
        self.sent += MessageBuffer(messages.decode_message).feed(data)
        return True

    def consume(self, stream_id: int, size: int) -> bool:
        """Count the bytes."""
        self.consumed += size
        return False

    def ping(self) -> None:
        """Count the ping."""
        self.pings += 1

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = True) -> None:
        """Count the call."""
        self.path_changes += 1

    def close(self, code: int, reason: str) -> None:
        """Keep why, the first time."""
        self.closed = self.closed or (code, reason)


class Told(ConnectedNode):
    """A node whose control connection leads nowhere.

    :ivar told: the messages that it was sent.
    """

    connection: FakeConnection

    def __init__(self, role: Role, name: str, instance: int, address: Address) -> None:
        super().__init__(FakeConnection(address, credentials(role, name).identity), address)
        self.instance = instance.to_bytes(8, "big")
        self.told = self.connection.sent
