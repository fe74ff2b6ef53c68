"""What a configuration is made into."""

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet import assembly, pki
from p2pnet.config import AgentConfig, ConnectorConfig, IntermediateConfig
from p2pnet.identity import Role
from p2pnet.net import batched
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.udp import UDPTransport
from tests.net.support import FakeReactor


class TransportTests(SynchronousTestCase):
    """Which UDP socket a node has."""

    def setUp(self) -> None:
        """A realm with a node of each role."""
        directory = Path(self.mktemp())
        authority = pki.create_authority("example")
        pki.save(directory, pki.AUTHORITY, *authority)
        self.files: dict[Role, Any] = {}
        needed: dict[Role, dict[str, Any]] = {
            Role.INTERMEDIATE: {"hosts": ["127.0.0.1"]},
            Role.CONNECTOR: {"services": ["web"]},
            Role.AGENT: {},
        }
        for role, options in needed.items():
            pki.save(directory, role.value, *pki.issue(*authority, role, role.value, **options))
            self.files[role] = {
                "ca": directory / "ca.pem",
                "cert": directory / f"{role.value}.pem",
                "key": directory / f"{role.value}.key",
            }

    def transports(self, reactor: Any, **settings: Any) -> list[type]:
        """The kind that the Intermediate, the Connector and the Agent have."""
        peer = {"intermediates": ("127.0.0.1:4433",), **settings}
        nodes = (
            assembly.intermediate_node(
                reactor, IntermediateConfig(**self.files[Role.INTERMEDIATE], **settings)
            ),
            assembly.connector_node(reactor, ConnectorConfig(**self.files[Role.CONNECTOR], **peer)),
            assembly.agent_node(reactor, AgentConfig(**self.files[Role.AGENT], **peer)),
        )
        return [type(node.transport) for node in nodes]

    def test_it_is_batched_where_that_can_be(self) -> None:
        """Without being asked for."""
        if not batched.is_available(FakeReactor()):
            raise SkipTest("this system has no UDP_SEGMENT and UDP_GRO")
        self.assertEqual([BatchedUDPTransport] * 3, self.transports(FakeReactor()))

    def test_it_is_plain_elsewhere_or_if_the_operator_says_so(self) -> None:
        """A reactor that does not take descriptors is elsewhere."""
        self.assertEqual([UDPTransport] * 3, self.transports(Clock()))
        self.assertEqual([UDPTransport] * 3, self.transports(FakeReactor(), udp="plain"))
