"""A realm of real nodes on a simulated network, each node made by one call."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import IReactorTime

from p2pnet import pki, reports
from p2pnet.assembly import Platform, agent_node, connector_node, intermediate_node
from p2pnet.config.roles import (
    AgentConfig,
    ConnectorConfig,
    IntermediateConfig,
    RoleConfig,
    ServiceConfig,
)
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.interfaces import IDatagramTransport
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node
from p2pnet.node.connector import ConnectorNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.testing.network import SimulatedNetwork, SimulatedTransport

C = TypeVar("C", bound=RoleConfig)


class Realm:
    """A realm whose certificate authority is in memory.

    :ivar name: the realm's name.
    """

    def __init__(self, name: str = "example") -> None:
        self.name = name
        self._authority = pki.create_authority(name, key_type="ed25519")

    def credentials(self, role: Role, name: str, **options: Any) -> Credentials:
        """Credentials of a new node; `options` are those of pki.issue().

        The key is Ed25519, whose signatures have a fixed size, so that packets do not vary.
        """
        authority = self._authority[0]
        certificate, key = pki.issue(*self._authority, role, name, key_type="ed25519", **options)
        return Credentials(
            Identity.from_certificate(certificate), certificate, (), key,
            authority, authority.public_bytes(Encoding.PEM),
        )  # fmt: skip


class Simulation:
    """Nodes of one realm on a simulated network.

    :cvar defaults: settings of all nodes, in place of the shipped defaults.
    :ivar nodes: all nodes, in the order of their start.
    :ivar reports: the reports of each node, oldest first.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, network: SimulatedNetwork, realm: Realm | None = None) -> None:
        self.network = network
        self.realm = realm or Realm()
        self.nodes: list[Node] = []
        self.reports: dict[Node, list[reports.Report]] = {}

    @classmethod
    def config(cls, kind: type[C], **settings: Any) -> C:
        """A configuration of a kind, without files for the credentials."""
        files = dict.fromkeys(("ca", "cert", "key"), Path())
        return kind(**{**files, **cls.defaults, **settings})

    def start(self, node: Node) -> None:
        """Start a node and record its reports in `reports`."""
        self.nodes.append(node)
        kept = self.reports[node] = []
        node.observers.append(kept.append)
        node.startService()

    def stop(self) -> None:
        """Stop all nodes and advance the clock by 30 s, so that the last packets arrive."""
        for node in self.nodes:
            node.stopService()
        self.network.run(30.0)

    def process(self, host: str, port: int = 0) -> tuple[IReactorTime, SimulatedTransport]:
        """The clock and the transport of a new node on `host`; port 0 stands for an unused one."""
        return self.network.clock, self.network.transport(host, port)

    def _platform(self, credentials: Credentials, transport: IDatagramTransport) -> Platform:
        return Platform(credentials, transport, entropy=self.network.entropy)

    def reported(self, node: Node, kind: type[reports.Report]) -> list[Any]:
        """The reports of a node that have the class `kind`, oldest first."""
        return [report for report in self.reports[node] if isinstance(report, kind)]

    def intermediate(
        self, host: str = "192.0.2.1", name: str = "relay1", **settings: Any
    ) -> IntermediateNode:
        """Start an Intermediate on port 4433 of `host`; `settings` are those of its config."""
        config = self.config(IntermediateConfig, **settings)
        credentials = self.realm.credentials(Role.INTERMEDIATE, name, hosts=[host])
        clock, transport = self.process(host, 4433)
        node = intermediate_node(clock, config, self._platform(credentials, transport))
        self.start(node)
        return node

    def connector(
        self,
        services: Mapping[str, Iterable[str]],
        host: str = "198.51.100.1",
        name: str = "office",
        intermediates: Iterable[str] = ("192.0.2.1:4433",),
        grants: Iterable[str] | None = None,
        **settings: Any,
    ) -> ConnectorNode:
        """Start a Connector; a call of serve_protocol() for each service comes next.

        :param services: the agents that may use each service, by its name.
        :param grants: the services that its certificate grants, None for all of `services`.
        :param settings: further settings of its config.
        """
        granted = list(services if grants is None else grants)
        config = self.config(
            ConnectorConfig, intermediates=tuple(intermediates),
            services=tuple(
                ServiceConfig(name=service, target="", allow=tuple(agents))
                for service, agents in services.items()
            ),
            **settings,
        )  # fmt: skip
        credentials = self.realm.credentials(Role.CONNECTOR, name, services=granted)
        clock, transport = self.process(host)
        node = connector_node(clock, config, self._platform(credentials, transport))
        self.start(node)
        return node

    def agent(
        self,
        host: str = "203.0.113.1",
        name: str = "alice",
        intermediates: Iterable[str] = ("192.0.2.1:4433",),
        policy: str = "prefer-direct",
    ) -> AgentNode:
        """Start an Agent.

        :param policy: name of the path policy of all its sessions.
        """
        config = self.config(AgentConfig, intermediates=tuple(intermediates), path=policy)
        credentials = self.realm.credentials(Role.AGENT, name)
        clock, transport = self.process(host)
        node = agent_node(clock, config, self._platform(credentials, transport))
        self.start(node)
        return node
