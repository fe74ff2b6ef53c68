"""Tests of who is believed: certificates on both legs, and an Intermediate that lies."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography import x509

from p2pnet import reports
from p2pnet.config.cores import agent_core, connector_core, intermediate_core
from p2pnet.config.roles import AgentConfig, ConnectorConfig, IntermediateConfig, ServiceConfig
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.errors import BadCertificate, ServiceError
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.net.clock import utcnow
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire import messages
from p2pnet.wire.encoding import Message
from tests.sim.support import SimulationCase, Talk, Talks

YEAR = datetime.timedelta(days=365)


def later() -> datetime.datetime:
    """The time of a node whose clock is a year ahead."""
    return utcnow() + YEAR


def forge(realm: Realm, role: Role, name: str, **options: Any) -> Credentials:
    """A certificate by a CA that only calls itself the realm's, of a node that trusts the realm."""
    real = realm.credentials(role, name, **options)
    forged = Realm(realm.name).credentials(role, name, **options)
    return dataclasses.replace(forged, ca=real.ca, ca_pem=real.ca_pem)


class TrustCase(SimulationCase):
    """Nodes with any credentials and clock."""

    def start_intermediate(
        self, simulation: Simulation, credentials: Credentials
    ) -> IntermediateNode:
        """An Intermediate at the usual address."""
        network = simulation.network
        config = simulation.config(IntermediateConfig)
        core = intermediate_core(config, credentials, utcnow=utcnow, entropy=network.entropy)
        node = IntermediateNode(
            network.clock, core, network.transport("192.0.2.1", 4433), drain_seconds=0.0
        )
        simulation.start(node)
        return node

    def start_connector(
        self,
        simulation: Simulation,
        credentials: Credentials,
        clock: Callable[[], datetime.datetime] = utcnow,
    ) -> tuple[ConnectorNode, Talks]:
        """A connector that serves whatever it is asked for, whether granted or not."""
        network = simulation.network
        services = tuple(
            ServiceConfig(name=name, target="", allow=("*",)) for name in ("web", "dns")
        )
        config = simulation.config(
            ConnectorConfig, intermediates=("192.0.2.1:4433",), services=services
        )
        core = connector_core(config, credentials, utcnow=clock, entropy=network.entropy)
        node = ConnectorNode(network.clock, core, network.transport("198.51.100.7"))
        simulation.start(node)
        served = Talks()
        node.serve_protocol("web", served)
        simulation.network.run(1.0)
        return node, served

    def start_agent(
        self,
        simulation: Simulation,
        credentials: Credentials,
        clock: Callable[[], datetime.datetime] = utcnow,
    ) -> AgentNode:
        """An agent."""
        network = simulation.network
        config = simulation.config(
            AgentConfig, intermediates=("192.0.2.1:4433",), path="relay-only"
        )
        core = agent_core(config, credentials, utcnow=clock, entropy=network.entropy)
        node = AgentNode(network.clock, core, network.transport("203.0.113.7"))
        simulation.start(node)
        simulation.network.run(1.0)
        return node


class ControlLegTests(TrustCase):
    """Node and Intermediate: each refusal is told, in words, on both sides."""

    def assert_kept_out(self, simulation: Simulation, text: str) -> None:
        """Neither side took the other, and both know why."""
        intermediate, node = simulation.nodes
        refused = simulation.reported(intermediate, reports.NodeRefused)
        self.assertIn(text, refused[0].reason)
        self.assertIn(text, simulation.reported(node, reports.ControlLost)[0].reason)
        self.assertEqual([], simulation.reported(node, reports.ControlConnected))
        self.assertEqual([], simulation.reported(intermediate, reports.NodeConnected))

    def agent_with(self, make: Callable[[Realm], Credentials]) -> Simulation:
        """A good Intermediate, and an agent with other credentials."""
        simulation = self.simulate()
        simulation.intermediate()
        self.start_agent(simulation, make(simulation.realm))
        return simulation

    def intermediate_with(self, make: Callable[[Realm], Credentials]) -> Simulation:
        """A good agent, and an Intermediate with other credentials."""
        simulation = self.simulate()
        self.start_intermediate(simulation, make(simulation.realm))
        simulation.agent()
        simulation.network.run(1.0)
        return simulation

    def test_an_expired_certificate_is_refused_with_its_date(self) -> None:
        """And with what to do."""
        past = utcnow() - YEAR
        simulation = self.agent_with(
            lambda realm: realm.credentials(Role.AGENT, "alice", days=30, now=past)
        )
        self.assert_kept_out(simulation, f"expired on {past + datetime.timedelta(30):%Y-%m-%d}")
        self.assert_kept_out(simulation, "issue a new one with `p2pnet pki issue`")

    def test_a_certificate_from_the_future_is_refused(self) -> None:
        """Somebody's clock is wrong."""
        simulation = self.agent_with(
            lambda realm: realm.credentials(Role.AGENT, "alice", now=later())
        )
        self.assert_kept_out(simulation, "certificate of agent alice is not valid before")

    def test_a_node_of_another_realm_hears_about_realms(self) -> None:
        """Rather than about signatures."""
        simulation = self.agent_with(lambda _: Realm("other").credentials(Role.AGENT, "alice"))
        self.assert_kept_out(simulation, "belongs to realm example, this node to realm other")

    def test_a_forged_node_certificate_is_refused(self) -> None:
        """The right words, signed by another CA."""
        simulation = self.agent_with(lambda realm: forge(realm, Role.AGENT, "alice"))
        self.assert_kept_out(simulation, "certificate of agent alice is not signed by this realm")

    def test_a_forged_intermediate_certificate_is_refused(self) -> None:
        """The other way round."""
        simulation = self.intermediate_with(
            lambda realm: forge(realm, Role.INTERMEDIATE, "relay1", hosts=["192.0.2.1"])
        )
        self.assert_kept_out(simulation, "intermediate relay1 is not signed by this realm")

    def test_an_expired_intermediate_certificate_is_refused(self) -> None:
        """By the nodes, which name it."""
        past = utcnow() - YEAR
        simulation = self.intermediate_with(
            lambda realm: realm.credentials(
                Role.INTERMEDIATE, "relay1", hosts=["192.0.2.1"], days=30, now=past
            )
        )
        self.assert_kept_out(simulation, "certificate of intermediate relay1 expired on")

    def test_an_intermediate_at_another_host_than_its_own_is_refused(self) -> None:
        """It was dialed by an address that its certificate does not have."""
        simulation = self.intermediate_with(
            lambda realm: realm.credentials(Role.INTERMEDIATE, "relay1", hosts=["relay.example"])
        )
        self.assert_kept_out(simulation, "is for host relay.example, not 192.0.2.1")

    def test_a_node_that_poses_as_an_intermediate_is_refused(self) -> None:
        """Its certificate is good, for another role."""
        simulation = self.intermediate_with(
            lambda realm: dataclasses.replace(
                impostor := realm.credentials(Role.CONNECTOR, "office", services=["web"]),
                identity=dataclasses.replace(impostor.identity, role=Role.INTERMEDIATE),
            )
        )
        self.assert_kept_out(simulation, "connector office has the wrong role")

    def test_a_core_is_not_made_with_a_certificate_for_another_role(self) -> None:
        """The first thing to go wrong when files are mixed up."""
        realm = Realm()
        agent = realm.credentials(Role.AGENT, "alice")
        with self.assertRaisesRegex(ValueError, "agent alice .* cannot be run as connector"):
            config = Simulation.config(ConnectorConfig, intermediates=())
            connector_core(config, agent, utcnow=utcnow)
        with self.assertRaisesRegex(ValueError, "agent alice .* cannot be run as intermediate"):
            intermediate_core(Simulation.config(IntermediateConfig), agent, utcnow=utcnow)
        connector = realm.credentials(Role.CONNECTOR, "office", services=["web"])
        with self.assertRaisesRegex(ValueError, "connector office .* cannot be run as agent"):
            agent_core(Simulation.config(AgentConfig, intermediates=()), connector, utcnow=utcnow)


@dataclasses.dataclass(frozen=True)
class Gullible(ConnectionProfile):
    """Takes in every certificate."""

    def verify(self, certificate: x509.Certificate, chain: list[x509.Certificate]) -> Identity:
        """Whatever it says."""
        return Identity.from_certificate(certificate)


def let_everybody_in(intermediate: IntermediateNode) -> None:
    """Make it an Intermediate that believes every certificate."""
    admission = intermediate.core._mux.admission
    fields = dataclasses.fields(ConnectionProfile)
    values = {field.name: getattr(admission.server, field.name) for field in fields}
    admission.server = Gullible(**values)


class EndToEndTests(TrustCase):
    """Agent and connector, with nobody between them to rely on."""

    def refusal(self, simulation: Simulation, agent: AgentNode, connector: ConnectorNode) -> str:
        """The reason for which there is no session, which both ends and the user are told."""
        error = self.refused(simulation, agent, BadCertificate)
        simulation.network.run(1.0)
        (closed,) = simulation.reported(agent, reports.SessionClosed)
        self.assertEqual("bad_certificate", closed.code)
        self.assertIn(closed.reason, str(error))
        self.assertIn(
            closed.reason,
            [closed.reason for closed in simulation.reported(connector, reports.SessionClosed)],
        )
        return str(closed.reason)

    def test_a_forged_connector_is_refused_by_the_agent(self) -> None:
        """Even if the Intermediate let it in."""
        simulation = self.simulate()
        let_everybody_in(simulation.intermediate())
        credentials = forge(simulation.realm, Role.CONNECTOR, "office", services=["web"])
        connector, served = self.start_connector(simulation, credentials)
        agent = self.start_agent(simulation, simulation.realm.credentials(Role.AGENT, "alice"))
        reason = self.refusal(simulation, agent, connector)
        self.assertIn("certificate of connector office is not signed by this realm's CA", reason)
        self.assertEqual([], served.made)

    def test_a_forged_agent_is_refused_by_the_connector(self) -> None:
        """Although the Intermediate let it in and the connector allows everybody of the realm."""
        simulation = self.simulate()
        let_everybody_in(simulation.intermediate())
        credentials = simulation.realm.credentials(Role.CONNECTOR, "office", services=["web"])
        connector, served = self.start_connector(simulation, credentials)
        agent = self.start_agent(simulation, forge(simulation.realm, Role.AGENT, "alice"))
        reason = self.refusal(simulation, agent, connector)
        self.assertIn("certificate of agent alice is not signed by this realm's CA", reason)
        self.assertEqual([], served.made)

    def test_a_connector_whose_certificate_expired_is_refused_by_the_agent(self) -> None:
        """By the agent's clock; the Intermediate's is behind."""
        simulation = self.simulate()
        simulation.intermediate()
        credentials = simulation.realm.credentials(
            Role.CONNECTOR, "office", services=["web"], days=30
        )
        connector, _ = self.start_connector(simulation, credentials)
        alice = simulation.realm.credentials(Role.AGENT, "alice")
        agent = self.start_agent(simulation, alice, clock=later)
        reason = self.refusal(simulation, agent, connector)
        self.assertIn("certificate of connector office expired on", reason)

    def test_an_agent_whose_certificate_expired_is_refused_by_the_connector(self) -> None:
        """By the connector's clock."""
        simulation = self.simulate()
        simulation.intermediate()
        credentials = simulation.realm.credentials(Role.CONNECTOR, "office", services=["web"])
        connector, served = self.start_connector(simulation, credentials, clock=later)
        alice = simulation.realm.credentials(Role.AGENT, "alice", days=30)
        agent = self.start_agent(simulation, alice)
        reason = self.refusal(simulation, agent, connector)
        self.assertIn("certificate of agent alice expired on", reason)
        self.assertEqual([], served.made)


class Astray(Introductions):
    """Sends every agent to the connector "annex"."""

    def _choose(
        self, agent: ConnectedNode, request: messages.SessionRequest
    ) -> ConnectedNode | None:
        return self._connectors["annex"]


class Liar(ConnectedNode):
    """Tells a node something else than the Intermediate means to."""

    told: Callable[[Message], Message]

    def send(self, message: Message) -> None:
        """Send what `told` makes of the message."""
        super().send(self.told(message))


def lie(intermediate: IntermediateNode, kind: type[Message], **changes: Any) -> None:
    """Let the Intermediate say `changes` to all nodes in messages of a kind."""

    def told(message: Message) -> Message:
        return msgspec.structs.replace(message, **changes) if type(message) is kind else message

    for node in intermediate.core.nodes:
        node.__class__ = Liar
        node.told = told


class LyingIntermediateTests(TrustCase):
    """A valid Intermediate in the wrong hands: it can refuse to serve, and nothing more."""

    def astray(self) -> tuple[Simulation, ConnectorNode, Talks, AgentNode]:
        """An agent that asks for "web" and is sent to a connector of the realm that is up to no
        good: its certificate grants "dns", and it would serve "web" as well."""
        simulation = self.simulate()
        simulation.intermediate().core.introductions.__class__ = Astray
        credentials = simulation.realm.credentials(Role.CONNECTOR, "annex", services=["dns"])
        connector, served = self.start_connector(simulation, credentials)
        agent = self.start_agent(simulation, simulation.realm.credentials(Role.AGENT, "alice"))
        return simulation, connector, served, agent

    def ask(self, simulation: Simulation, agent: AgentNode) -> ServiceError:
        """Send a request without waiting for anything, and return the error."""
        talk = Talk()
        transport = agent.open("web")
        transport.connect(talk)
        transport.write(b"GET /secret")
        self.run_until(simulation, lambda: talk.why)
        assert talk.why is not None and isinstance(talk.why.value, BadCertificate)
        return talk.why.value

    def assert_heard_nothing(self, connector: ConnectorNode, served: Talks) -> None:
        """No stream of a request ever came to that connector."""
        self.assertEqual([], served.made)
        self.assertEqual([], [s for s in connector.core.sessions if s.streams])

    def test_a_connector_without_a_grant_for_the_service_gets_no_byte_of_the_request(self) -> None:
        """The agent looks at the certificate before it opens a stream."""
        simulation, connector, served, agent = self.astray()
        error = self.ask(simulation, agent)
        self.assertEqual("NOT_GRANTED", error.code.name)
        self.assertIn("connector annex of realm example has no certificate", str(error))
        (refused,) = simulation.reported(agent, reports.StreamRefused)
        self.assertEqual("not_granted", refused.code)
        simulation.network.run(1.0)
        self.assert_heard_nothing(connector, served)
        self.assertEqual([], simulation.reported(connector, reports.StreamFinished))

    def test_a_connector_under_another_ones_name_gets_no_byte_of_the_request(self) -> None:
        """The agent compares who was announced with who proved to be there."""
        simulation, connector, served, agent = self.astray()
        lie(simulation.nodes[0], messages.SessionOpened, connector="office")  # type: ignore[arg-type]
        error = self.ask(simulation, agent)
        self.assertEqual("WRONG_PEER", error.code.name)
        self.assertIn("announced was connector office, it is annex", str(error))
        self.assert_heard_nothing(connector, served)

    def test_a_connector_does_not_take_an_agent_under_another_ones_name(self) -> None:
        """Mallory has a certificate of the realm, and the Intermediate says that she is alice."""
        simulation = self.simulate()
        intermediate = simulation.intermediate()
        connector, served = self.serve(simulation)
        mallory = simulation.agent(name="mallory")
        self.run_until(simulation, lambda: mallory.core.links[0].is_ready)
        lie(intermediate, messages.SessionOffer, agent="alice")
        error = self.refused(simulation, mallory, BadCertificate)
        self.assertEqual("WRONG_PEER", error.code.name)
        (closed,) = simulation.reported(connector, reports.SessionClosed)
        self.assertIn("announced was agent alice, it is mallory", closed.reason)
        self.assertEqual([], served.made)
