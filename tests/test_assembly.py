"""What a configuration is made into."""

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet import assembly, pki
from p2pnet.config.cores import peer_options
from p2pnet.config.roles import MAX_WORKERS, AgentConfig, ConnectorConfig, IntermediateConfig
from p2pnet.config.setting import ConfigError
from p2pnet.identity import Role
from p2pnet.net import batched
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.udp import UDPTransport
from p2pnet.net.workers import pool as workers
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.testing.network import SimulatedNetwork, SimulatedTransport
from p2pnet.testing.realm import Simulation
from tests.net.support import FakeReactor


class RealmCase(SynchronousTestCase):
    """Tests with a configuration of each role."""

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


class TransportTests(RealmCase):
    """Which UDP socket a node has."""

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


class PlatformTests(SynchronousTestCase):
    """What a node runs on in place of files and a UDP socket."""

    def test_a_simulated_node_has_the_shipped_defaults(self) -> None:
        """No file is read: there is none."""
        simulation = Simulation(SimulatedNetwork())
        self.addCleanup(simulation.stop)
        relay = simulation.intermediate()
        office, alice = simulation.connector({"web": ["alice"]}), simulation.agent()
        shipped: dict[str, Any] = {
            "ca": Path(),
            "cert": Path(),
            "key": Path(),
            "intermediates": ("relay",),
        }
        options = peer_options(AgentConfig(**shipped))
        self.assertEqual([options] * 2, [node.core.profiles.options for node in (office, alice)])
        self.assertIsInstance(relay.transport, SimulatedTransport)


class WorkersTests(RealmCase):
    """How many processes an Intermediate is."""

    def pool(self, reactor: Any, workers: Any) -> WorkerPool | None:
        """The workers of an Intermediate, None for an ordinary socket."""
        config = IntermediateConfig(**self.files[Role.INTERMEDIATE], workers=workers)
        transport = assembly.intermediate_node(reactor, config).transport
        return transport if isinstance(transport, WorkerPool) else None

    def test_one_is_none_beside_the_intermediate(self) -> None:
        """The socket is as ever."""
        self.assertIsNone(self.pool(FakeReactor(), 1))

    def test_auto_is_one_a_processor(self) -> None:
        """Of those that this process may use."""
        if not workers.is_available(FakeReactor()):
            raise SkipTest("this system cannot share a port among processes")
        for processors, count in (({0, 5, 9}, 2), (set(range(1000)), MAX_WORKERS - 1)):
            self.patch(os, "sched_getaffinity", lambda _, which=processors: which)
            pool = self.pool(FakeReactor(), "auto")
            assert pool is not None
            self.assertEqual(count, pool.count)
        self.patch(os, "sched_getaffinity", lambda _: {3})
        self.assertIsNone(self.pool(FakeReactor(), "auto"))

    def test_where_it_cannot_be_auto_is_one_and_a_number_is_an_error(self) -> None:
        """Which says what to write instead. A reactor that takes no descriptors is such a place."""
        self.assertIsNone(self.pool(Clock(), "auto"))
        error = self.assertRaises(ConfigError, self.pool, Clock(), 3)
        self.assertIn("workers = 3: this system cannot share a UDP port", str(error))
