"""Tests of what is refused, and how: services, roles, quotas, caps and strangers."""

from __future__ import annotations

from typing import Any

from p2pnet import reports
from p2pnet.core.peer.link import ControlLink
from p2pnet.errors import (
    IntermediateUnreachable,
    NotAuthorized,
    OverLimit,
    UnknownService,
)
from p2pnet.node.agent import AgentNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.testing.realm import Simulation
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.encoding import Message
from tests.sim.support import Network, SimulationCase, Talk, Talks, leftovers


class ServiceTests(SimulationCase):
    """What an agent may use, and hears if it may not."""

    def test_a_service_that_nobody_serves_is_unknown(self) -> None:
        """The Intermediate says so."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        error = self.refused(simulation, agent, UnknownService, "printer")
        self.assertEqual("unknown service: no connector serves printer now", str(error))

    def test_an_agent_that_is_not_listed_is_not_authorized(self) -> None:
        """The connector says so, before there is a session."""
        simulation = self.simulate()
        _, connector, _ = self.trio(simulation)
        bob = simulation.agent(host="203.0.113.2", name="bob")
        self.run_until(simulation, lambda: bob.core.links[0].is_ready)
        error = self.refused(simulation, bob, NotAuthorized)
        self.assertIn("connector office refuses web to agent bob", str(error))
        (refused,) = simulation.reported(connector, reports.SessionRefused)
        self.assertEqual("not_authorized", refused.code)
        self.assertEqual([], simulation.reported(connector, reports.SessionOpened))

    def test_a_session_for_one_service_does_not_authorize_for_another(self) -> None:
        """Each stream is looked at by itself."""
        simulation = self.simulate()
        simulation.intermediate()
        connector = simulation.connector({"web": ["alice"], "admin": ["bob"]})
        served = Talks()
        connector.serve_protocol("web", served)
        connector.serve_protocol("admin", served)
        agent = simulation.agent()
        simulation.network.run(1.0)
        self.talk(simulation, agent, "web")
        self.refused(simulation, agent, NotAuthorized, "admin")
        self.assertEqual(1, len(served.made))
        (refused,) = simulation.reported(connector, reports.StreamRefused)
        self.assertEqual(("alice", "admin", "not_authorized"), refused_by(refused))

    def test_regression_a_refusal_is_only_about_the_service_that_was_asked_for(self) -> None:
        """A request that waited to share the refused session was refused with it."""
        simulation = self.simulate()
        simulation.intermediate()
        connector = simulation.connector({"admin": ["bob"], "web": ["alice"]})
        connector.serve_protocol("web", Talks())
        agent = simulation.agent()
        simulation.network.run(1.0)
        admin, web = self.connecting(agent, "admin"), self.connecting(agent, "web")
        simulation.network.run(1.0)
        self.failureResultOf(admin, NotAuthorized)
        self.successResultOf(web)

    def test_a_service_that_the_connector_does_not_listen_on_yet_is_unknown(self) -> None:
        """It is registered, and nothing was given to serve() it."""
        simulation = self.simulate()
        simulation.intermediate()
        simulation.connector({"web": ["alice"]})
        agent = simulation.agent()
        simulation.network.run(1.0)
        self.refused(simulation, agent, UnknownService)

    def test_regression_early_data_for_a_refused_stream_is_dropped(self) -> None:
        """It raised in the connector, as the stream had no owner."""
        simulation = self.simulate()
        simulation.intermediate()
        simulation.connector({"web": ["alice"]})
        agent = simulation.agent()
        simulation.network.run(1.0)
        talk, transport = Talk(), agent.open("web")
        transport.connect(talk)
        transport.write(b"GET /")
        agent.open_flow("web").send_datagram(b"hello")
        self.run_until(simulation, lambda: talk.why)
        simulation.network.run(1.0)

    def test_a_service_that_the_certificate_does_not_grant_is_not_registered(self) -> None:
        """The connector is told; for agents there is no such service."""
        simulation = self.simulate()
        simulation.intermediate()
        connector = simulation.connector({"web": ["*"], "dns": ["*"]}, grants=["dns"])
        agent = simulation.agent()
        simulation.network.run(1.0)
        (refused,) = simulation.reported(connector, reports.RegistrationRefused)
        self.assertEqual(("web", "not_granted"), (refused.service, refused.code))
        self.assertIn("certificate of connector office does not grant web", refused.reason)
        (registered,) = simulation.reported(connector, reports.Registered)
        self.assertEqual(("dns",), registered.services)
        self.refused(simulation, agent, UnknownService, "web")


def refused_by(report: reports.StreamRefused) -> tuple[str, str, str]:
    """What matters of the report."""
    return report.peer, report.service, report.code


class Mute(ControlLink):
    """A control connection that never says a word."""

    def send(self, message: Message) -> None:
        """Say nothing."""

    def _give_up(self, now: float) -> None:
        """Nor do that."""


class Rude(ControlLink):
    """One that begins without a greeting."""

    def send(self, message: Message) -> None:
        """Say the wrong thing."""
        super().send(messages.SessionRequest(1, bytes(16), "web"))


class ProtocolTests(SimulationCase):
    """Nodes that do not keep to the protocol of the control stream."""

    def cut_off(self, simulation: Simulation, node: Any, reason: str) -> None:
        """The node is, for that reason, and the Intermediate goes on as before."""
        lost = simulation.reported(node, reports.ControlLost)
        self.assertEqual([reason], [report.reason for report in lost[:1]])
        other = simulation.agent(host="203.0.113.3")
        self.run_until(simulation, lambda: other.core.links[0].is_ready, 2.0)

    def test_an_agent_cannot_register_a_service(self) -> None:
        """Whatever its certificate: the role decides."""
        simulation = self.simulate()
        intermediate = simulation.intermediate()
        agent = simulation.agent()
        simulation.network.run(1.0)
        agent.core.links[0].send(messages.Register(("web",)))
        agent.driver.wake()
        simulation.network.run(0.1)
        self.cut_off(simulation, agent, "agent may not send register")
        self.assertEqual([], simulation.reported(intermediate, reports.ServicesRegistered))

    def test_a_connector_cannot_request_a_session(self) -> None:
        """It only answers."""
        simulation = self.simulate()
        intermediate = simulation.intermediate()
        connector, _ = self.serve(simulation)
        connector.core.links[0].send(messages.SessionRequest(1, bytes(16), "web"))
        connector.driver.wake()
        simulation.network.run(0.1)
        self.cut_off(simulation, connector, "connector may not send session-request")
        self.assertEqual(0, len(intermediate.core.introductions))

    def test_who_does_not_greet_first_is_cut_off(self) -> None:
        """No message counts before Hello."""
        simulation = self.simulate()
        intermediate = simulation.intermediate()
        agent = self.agent_with(simulation, Rude)
        simulation.network.run(0.5)
        self.cut_off(simulation, agent, "no greeting first")
        (refused,) = simulation.reported(intermediate, reports.NodeRefused)
        self.assertEqual("no greeting first", refused.reason)

    def test_who_does_not_greet_in_time_is_cut_off(self) -> None:
        """An authenticated connection that says nothing is not kept for long."""
        simulation = self.simulate()
        intermediate = simulation.intermediate()
        agent = self.agent_with(simulation, Mute)
        simulation.network.run(9.0)
        self.assertEqual([], simulation.reported(intermediate, reports.NodeRefused))
        simulation.network.run(2.0)
        (refused,) = simulation.reported(intermediate, reports.NodeRefused)
        self.assertEqual("no greeting in time", refused.reason)
        agent.stopService()
        simulation.network.run(5.0)
        self.assertEqual({}, leftovers(intermediate.core))

    def agent_with(self, simulation: Simulation, kind: type[ControlLink]) -> AgentNode:
        """An agent with another kind of control connection."""
        agent = simulation.agent(intermediates=[])
        core = agent.core
        link = kind("192.0.2.1:4433", core, core.timers, instance=bytes(8), random=core._random)
        core.links.append(link)
        agent.core.connect(agent.driver.now)
        agent.driver.wake()
        return agent


class QuotaTests(SimulationCase):
    """What one node may take of an Intermediate."""

    def test_relaying_keeps_to_the_quota_of_a_session(self) -> None:
        """Frames beyond it are dropped and counted; QUIC finds the rate, and all arrives."""
        simulation = self.simulate()
        intermediate = simulation.intermediate(session_rate=50_000)
        _, served = self.serve(simulation)
        agent = simulation.agent()
        simulation.network.run(1.0)
        talk = self.talk(simulation, agent)
        begun = simulation.network.clock.seconds()
        data = bytes(200_000)
        talk.transport.write(data)
        self.run_until(simulation, lambda: len(served.made[0].heard) == len(data), 60.0)
        seconds = simulation.network.clock.seconds() - begun
        self.assertGreater(seconds, (len(data) - 50_000 * 0.25) / 50_000)
        self.assertLess(seconds, 20.0)
        agent.stopService()
        simulation.network.run(1.0)
        (closed,) = simulation.reported(intermediate, reports.RelayClosed)
        self.assertGreater(closed.dropped, 0)
        self.assertGreater(closed.bytes, len(data))

    def two(self, simulation: Simulation, **limits: Any) -> AgentNode:
        """An agent, and two connectors with a service each, "web" and "dns"."""
        simulation.intermediate(**limits)
        self.serve(simulation)
        annex = simulation.connector({"dns": ["*"]}, name="annex", host="198.51.100.2")
        annex.serve_protocol("dns", Talks())
        agent = simulation.agent()
        simulation.network.run(1.0)
        return agent

    def test_an_agent_has_so_many_sessions_and_no_more(self) -> None:
        """The limit of a node; other nodes are not concerned."""
        simulation = self.simulate()
        agent = self.two(simulation, max_sessions_per_node=1)
        self.talk(simulation, agent, "web")
        error = self.refused(simulation, agent, OverLimit, "dns")
        self.assertEqual("over a limit: agent alice has 1 sessions", str(error))
        other = simulation.agent(host="203.0.113.2")
        simulation.network.run(1.0)
        self.talk(simulation, other, "dns")

    def test_all_nodes_together_have_so_many_sessions_and_no_more(self) -> None:
        """The limit of the Intermediate; a session that ends makes room."""
        simulation = self.simulate()
        agent = self.two(simulation, max_sessions=1)
        self.talk(simulation, agent, "web")
        other = simulation.agent(host="203.0.113.2", name="bob")
        simulation.network.run(1.0)
        error = self.refused(simulation, other, OverLimit, "dns")
        self.assertEqual("over a limit: the intermediate relays 1 sessions", str(error))
        agent.stopService()
        simulation.network.run(1.0)
        self.talk(simulation, other, "dns")

    def test_a_draining_intermediate_takes_no_sessions_and_says_so(self) -> None:
        """It still takes the connection. Agents wait in case the next one is up in time, and fail
        with the reason."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        intermediate = simulation.nodes[0]
        talk = self.talk(simulation, agent)
        carol = simulation.agent(host="203.0.113.3")
        self.run_until(simulation, lambda: carol.core.links[0].is_ready)
        intermediate.core.drain(60.0, intermediate.driver.now)
        bob = simulation.agent(host="203.0.113.2")
        self.run_until(simulation, lambda: bob.core.links[0].is_ready)
        talk.transport.write(b"still here")
        for late in (bob, carol):
            error = self.refused(simulation, late, IntermediateUnreachable)
            self.assertIn("intermediate 192.0.2.1:4433 is shutting down", str(error))


class StrangerTests(SimulationCase):
    """Frames that the Intermediate has no reason to forward."""

    def capture(self, simulation: Simulation) -> tuple[list[bytes], AgentNode, Any]:
        """The relay frames that an agent sent, the agent, and its talk."""
        frames: list[bytes] = []

        def tap(data: bytes, source: Address, destination: Address) -> None:
            if source[0] == "203.0.113.1" and data[0] == 0x20:
                frames.append(data)

        simulation.network.tap = tap
        agent, _, _ = self.trio(simulation)
        talk = self.talk(simulation, agent)
        talk.transport.write(b"hello")
        self.run_until(simulation, lambda: talk.heard)
        simulation.network.tap = None
        return frames, agent, talk

    def test_frames_from_another_address_and_for_no_channel_are_dropped_in_silence(self) -> None:
        """A stranger that saw the frames gets nothing by sending them again, or others."""
        simulation = self.simulate(keep_trace=True)
        frames, _, talk = self.capture(simulation)
        intermediate = simulation.nodes[0]
        assert isinstance(intermediate, IntermediateNode)
        assert isinstance(simulation.network, Network)
        stranger = simulation.network.transport("198.51.100.66")
        answers: list[tuple[bytes, Address]] = []
        stranger.start(answers.extend)
        simulation.network.run(1.0)
        before, dropped = len(simulation.network.trace), intermediate.core.forwarder.dropped
        channel = frames[0][:9]
        sent = [*frames, channel, channel[:5], b"\x20" + bytes(8) + b"payload", b"\x2f" + channel]
        for frame in sent:
            stranger.send([(frame, ("192.0.2.1", 4433))])
        simulation.network.run(0.5)
        self.assertEqual(dropped + len(sent), intermediate.core.forwarder.dropped)
        self.assertEqual(before + len(sent), len(simulation.network.trace))
        self.assertEqual([], answers)
        self.assertEqual(b"hello", talk.heard)

    def test_replayed_frames_from_the_right_address_do_no_harm(self) -> None:
        """They are forwarded, and QUIC at the other end knows them."""
        simulation = self.simulate()
        frames, agent, talk = self.capture(simulation)
        for frame in frames:
            agent.transport.send([(frame, ("192.0.2.1", 4433))])
        simulation.network.run(0.5)
        self.assertEqual(b"hello", talk.heard)
        self.assertIsNone(talk.why)
