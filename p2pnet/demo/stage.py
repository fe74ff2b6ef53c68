"""Where the three roles of a demonstration stand, and the direct way between two of them."""

import socket
from collections.abc import Sequence
from typing import Protocol, Self

from p2pnet.demo.port_forwarder import PortForwarder
from p2pnet.testing.processes import RoleProcess
from p2pnet.wire.address import Address, format_address, parse_host_port

CONNECT_TIMEOUT = 120.0  # seconds, also for each read


class Stage(Protocol):
    """What a demonstration needs of the place where it happens.

    :ivar listen: the Intermediate's address.
    :ivar prefixes: of the processes of Intermediate, Connector and Agent (Process.prefix).
    :ivar connector_settings, agent_settings: what their configuration needs here.
    """

    listen: str
    prefixes: tuple[Sequence[str], Sequence[str], Sequence[str]]
    connector_settings: dict[str, object]
    agent_settings: dict[str, object]

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def set_out(self, connector: RoleProcess) -> None:
        """The Connector listens."""

    def connect(self, address: Address) -> socket.socket:
        """A TCP connection from the Agent's side."""

    def cut(self) -> None:
        """Let nothing through on the direct way, without a word to anybody."""

    def mend(self) -> None:
        """Let it through again."""


class Loopback:
    """This machine alone. The only direct way that the nodes know of leads by a port forwarder."""

    def __init__(self) -> None:
        self.listen = "127.0.0.1:0"
        self.prefixes: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ())
        self._forwarder = PortForwarder()
        told: dict[str, object] = {"candidates": ["external"]}
        self.agent_settings = told
        self.connector_settings = {**told, "external": [format_address(self._forwarder.address)]}

    def __enter__(self) -> Self:
        self._forwarder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._forwarder.__exit__()

    def set_out(self, connector: RoleProcess) -> None:
        """Lead the forwarder's address to the Connector."""
        self._forwarder.lead_to(parse_host_port(connector.wait_for("listening")["address"]))

    def connect(self, address: Address) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection(address, CONNECT_TIMEOUT)

    def cut(self) -> None:
        """Pull the forwarder's cable."""
        self._forwarder.is_cut = True

    def mend(self) -> None:
        """Put it back."""
        self._forwarder.is_cut = False
