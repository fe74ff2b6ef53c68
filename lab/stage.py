"""Where a demonstration may take place that needs network namespaces: behind two real NATs."""

import contextlib
import socket
from collections.abc import Sequence
from typing import Self

from lab.namespaces import Lab
from lab.nat import Behavior
from lab.topology import Topology
from p2pnet.demo.stage import CONNECT_TIMEOUT
from p2pnet.testing.processes import RoleProcess
from p2pnet.wire.address import Address

PORT = 4433


class BehindNats:
    """Network namespaces: Agent and Connector behind two real NATs, the Intermediate in public.

    namespaces.acquire() comes first.
    """

    def __init__(self, agent: Behavior, connector: Behavior) -> None:
        self._behaviors = (agent, connector)
        self._stack = contextlib.ExitStack()
        self.listen = ""
        self.prefixes: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ())
        self.connector_settings: dict[str, object] = {}
        self.agent_settings: dict[str, object] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            lab = stack.enter_context(Lab())
            self._topology = Topology(lab)
            relay = self._topology.site("relay")
            self._agent = self._topology.site("agent", self._behaviors[0])
            self._connector = self._topology.site("connector", self._behaviors[1])
            lab.start_wires()
            self.listen = f"{relay.address}:{PORT}"
            hosts = (relay.host, self._connector.host, self._agent.host)
            self.prefixes = (hosts[0].prefix, hosts[1].prefix, hosts[2].prefix)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def set_out(self, connector: RoleProcess) -> None:
        """They find their way themselves."""

    def connect(self, address: Address) -> socket.socket:
        """A TCP connection from the Agent's host."""
        with self._agent.host.enter():
            return socket.create_connection(address, CONNECT_TIMEOUT)

    def cut(self) -> None:
        """Cut the two sites off from each other."""
        self._topology.cut(self._agent, self._connector)

    def mend(self) -> None:
        """Join them again."""
        self._topology.mend()
