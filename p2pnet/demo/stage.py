"""The stages of a demonstration: hosts of the three roles, and the direct path between two."""

import socket
from collections.abc import Sequence
from typing import Protocol, Self

from p2pnet.demo.port_forwarder import PortForwarder
from p2pnet.testing.processes import RoleProcess
from p2pnet.wire.address import Address, format_address, parse_host_port

CONNECT_TIMEOUT = 120.0  # seconds for the connection and for each read


class Stage(Protocol):
    """The hosts of a demonstration and the direct path, as a context manager.

    :ivar listen: the Intermediate's setting `listen`.
    :ivar prefixes: prefixes of the processes of Intermediate, Connector and Agent (see Process).
    :ivar connector_settings: further settings of the Connector.
    :ivar agent_settings: further settings of the Agent.
    """

    listen: str
    prefixes: tuple[Sequence[str], Sequence[str], Sequence[str]]
    connector_settings: dict[str, object]
    agent_settings: dict[str, object]

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def set_out(self, connector: RoleProcess) -> None:
        """Prepare the direct path to the Connector, a started process."""

    def connect(self, address: Address) -> socket.socket:
        """A TCP connection to `address` from the Agent's host. Raises OSError."""

    def cut(self) -> None:
        """Drop all packets on the direct path, without an error to the senders."""

    def mend(self) -> None:
        """Deliver packets on the direct path again."""


class Loopback:
    """A stage on this machine's loopback, where a port forwarder is the only direct path."""

    def __init__(self) -> None:
        self.listen = "127.0.0.1:0"
        self.prefixes: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ())
        self._forwarder = PortForwarder()
        self.agent_settings: dict[str, object] = {"candidates": ["external"]}
        external = [format_address(self._forwarder.address)]
        self.connector_settings = {**self.agent_settings, "external": external}

    def __enter__(self) -> Self:
        self._forwarder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._forwarder.__exit__()

    def set_out(self, connector: RoleProcess) -> None:
        """Let the port forwarder forward to the Connector's UDP socket. Raises ProcessError."""
        self._forwarder.lead_to(parse_host_port(connector.wait_for("listening")["address"]))

    def connect(self, address: Address) -> socket.socket:
        """A TCP connection to `address`. Raises OSError."""
        return socket.create_connection(address, CONNECT_TIMEOUT)

    def cut(self) -> None:
        """Let the port forwarder drop all packets."""
        self._forwarder.is_cut = True

    def mend(self) -> None:
        """Let the port forwarder deliver packets again."""
        self._forwarder.is_cut = False
