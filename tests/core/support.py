"""What the tests of the core share: cores, and nodes at an Intermediate without a network."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Any

from p2pnet.config.cores import Entropy, agent_core, connector_core, intermediate_core
from p2pnet.config.roles import AgentConfig, ConnectorConfig, IntermediateConfig, ServiceConfig
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import ConnectorCore
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.net.clock import utcnow
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire import messages
from p2pnet.wire.address import Address

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


class Told(ConnectedNode):
    """A node whose control connection leads nowhere; it keeps what it is told."""

    def __init__(self, role: Role, name: str, instance: int, address: Address) -> None:
        settings = ConnectionProfile(
            credentials(Role.INTERMEDIATE, "relay1"), frozenset({role}), utcnow, messages.ALPN, FAST
        )
        super().__init__(Multiplexer().connect(settings, address, 0.0), address)
        self.told: list[messages.Message] = []
        self.instance = instance.to_bytes(8, "big")
        self._identity = credentials(role, name).identity

    @property
    def identity(self) -> Identity:
        """Who the node is."""
        return self._identity

    def send(self, message: messages.Message) -> None:
        """Keep a message, as it arrives."""
        self.told += messages.MessageBuffer().feed(messages.encode_message(message))
