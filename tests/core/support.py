"""What the tests of the core share: clients of an Intermediate without a network."""

from __future__ import annotations

import functools

from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.lab.simulation import Realm
from p2pnet.node import utcnow
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import ConnectionProfile
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


class Told(ConnectedNode):
    """A node whose control connection leads nowhere; it keeps what it is told."""

    def __init__(self, role: Role, name: str, instance: int, address: Address) -> None:
        settings = ConnectionProfile(
            credentials(Role.INTERMEDIATE, "relay1"), frozenset({role}), utcnow, messages.ALPN
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
