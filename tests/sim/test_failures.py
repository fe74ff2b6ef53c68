"""Tests of what fails and comes back: nodes that stop, die, restart, drain, move or are cut off."""

from __future__ import annotations

from typing import Any

from p2pnet import reports
from p2pnet.errors import IntermediateUnreachable, SessionLost
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node
from p2pnet.testing.network import Link
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import ErrorCode
from tests.sim.support import SimulationCase, Socket, Talk, crash

SLOW = Link(rate=40_000)  # bytes a second, for a transfer that is under way for a while
SIZE = 400_000  # bytes, which take ten seconds over that link
E2E_IDLE = 30.0  # seconds after which QUIC gives a silent end-to-end connection up


class InterruptionTests(SimulationCase):
    """A transfer under which something happens."""

    def begin(self, link: Link = SLOW) -> tuple[Simulation, Any, bytes]:
        """A transfer of which a part has arrived: the simulation, the talk, what was said."""
        simulation = self.simulate(link=link)
        agent, _, served = self.trio(simulation)
        talk = self.talk(simulation, agent)
        data = simulation.network.random.randbytes(SIZE)
        talk.transport.write(data)
        talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: len(served.made[0].heard) > SIZE // 8)
        return simulation, talk, data

    def resumes(
        self, simulation: Simulation, talk: Any, data: bytes, within: float, handshakes: int = 1
    ) -> None:
        """The transfer goes on and ends well, over the same end-to-end connection."""
        before = len(talk.heard)
        self.assertLess(before, SIZE)
        self.run_until(simulation, lambda: len(talk.heard) > before + 50_000, within)
        self.run_until(simulation, lambda: talk.why, 120.0)
        self.assertTrue(data == talk.heard)
        for node in simulation.nodes[1:3]:
            completed = simulation.reported(node, reports.HandshakeCompleted)
            self.assertEqual(handshakes, len(completed))

    def path(self, simulation: Simulation, node: Node) -> str:
        """The path that the node chose last."""
        return str(simulation.reported(node, reports.PathSelected)[-1].path)

    def cut_off(self, simulation: Simulation, node: Node, host: str) -> None:
        """Nothing passes between the node and the Intermediate until the node has noticed."""
        simulation.network.connect(host, "192.0.2.1", Link(loss=1.0))
        self.run_until(simulation, lambda: simulation.reported(node, reports.ControlLost), 25.0)
        simulation.network.connect(host, "192.0.2.1", SLOW)

    def test_a_transfer_outlives_a_restart_of_the_intermediate(self) -> None:
        """One that is stopped properly; it drains first, then all sessions find the new one."""
        simulation, talk, data = self.begin(Link(rate=20_000))
        old = simulation.nodes[0]
        stopped = old.stopService()
        self.run_until(simulation, lambda: stopped.called, 11.0)
        simulation.intermediate()
        self.resumes(simulation, talk, data, within=10.0)

    def test_a_transfer_outlives_a_crash_of_the_intermediate(self) -> None:
        """Nobody says goodbye, and yet the new one is found before QUIC gives up."""
        simulation, talk, data = self.begin()
        crash(simulation.nodes[0])
        simulation.intermediate()
        self.resumes(simulation, talk, data, within=E2E_IDLE)

    def test_a_transfer_outlives_the_loss_of_the_agents_control_connection(self) -> None:
        """For as long as it takes that connection to time out."""
        simulation, talk, data = self.begin()
        agent = simulation.nodes[2]
        self.cut_off(simulation, agent, "203.0.113.1")
        self.resumes(simulation, talk, data, within=10.0)
        reasons = [r.reason for r in simulation.reported(agent, reports.PathSelected)]
        self.assertIn("through 192.0.2.1:4433", reasons[-1])
        self.assertIn("lost 192.0.2.1:4433", reasons[-2])

    def test_a_transfer_outlives_the_loss_of_the_connectors_control_connection(self) -> None:
        """The same at the other end, which offers its services again when it is back."""
        simulation, talk, data = self.begin()
        connector = simulation.nodes[1]
        self.cut_off(simulation, connector, "198.51.100.1")
        self.resumes(simulation, talk, data, within=8.0)
        self.assertEqual(2, len(simulation.reported(connector, reports.Registered)))

    def test_regression_a_new_stream_does_not_cost_an_interrupted_session_its_path(self) -> None:
        """It was given a session of its own, and the old one that session's path."""
        simulation, talk, data = self.begin()
        _, connector, agent = simulation.nodes
        assert isinstance(agent, AgentNode)
        simulation.network.connect("198.51.100.1", "192.0.2.1", Link(loss=1.0))
        self.run_until(simulation, lambda: self.path(simulation, agent) == "none", 25.0)
        simulation.network.run(2.5)  # between two tries of the agent's, which come ever more seldom
        simulation.network.connect("198.51.100.1", "192.0.2.1", SLOW)
        self.run_until(
            simulation, lambda: len(simulation.reported(connector, reports.Registered)) == 2
        )
        self.assertEqual("none", self.path(simulation, agent))
        other = self.talk(simulation, agent)
        other.transport.write(b"hello")
        self.resumes(simulation, talk, data, within=8.0, handshakes=2)
        self.assertEqual(b"hello", other.heard)

    def test_a_transfer_goes_on_when_a_nat_gives_the_agent_another_address(self) -> None:
        """The Intermediate follows, and tells the agent the new address."""
        simulation, talk, data = self.begin()
        intermediate, _, agent = simulation.nodes
        assert isinstance(agent.transport, Socket)
        agent.transport.move("203.0.113.99", 1024)
        self.resumes(simulation, talk, data, within=E2E_IDLE)
        moved = [r.address for r in simulation.reported(intermediate, reports.NodeMoved)]
        observed = [r.address for r in simulation.reported(agent, reports.AddressObserved)]
        self.assertEqual(["203.0.113.99:1024"], moved)
        self.assertEqual("203.0.113.99:1024", observed[-1])
        self.assertEqual([], simulation.reported(agent, reports.ControlLost))

    def test_a_drain_lets_a_transfer_end_and_takes_no_new_sessions(self) -> None:
        """It is over as soon as nothing is relayed any more."""
        simulation, talk, data = self.begin(Link(rate=200_000))
        intermediate, bob = simulation.nodes[0], simulation.agent(host="203.0.113.2")
        self.run_until(simulation, lambda: bob.core.links[0].is_ready)
        stopped = intermediate.stopService()
        simulation.network.run(0.1)
        waiting = self.connecting(bob)
        self.run_until(simulation, lambda: talk.why, 9.0)
        self.assertTrue(data == talk.heard)
        self.run_until(simulation, lambda: stopped.called, 9.0)
        (finished,) = simulation.reported(intermediate, reports.DrainFinished)
        self.assertEqual(0, finished.sessions)
        self.assertEqual(1, len(simulation.reported(intermediate, reports.RelayOpened)))
        simulation.network.run(10.0)
        error = self.failureResultOf(waiting, IntermediateUnreachable).value
        self.assertIn("intermediate 192.0.2.1:4433 is unreachable", str(error))


class ConnectorTests(SimulationCase):
    """Connectors that come and go."""

    def test_sessions_with_a_restarted_connector_end_and_new_streams_work(self) -> None:
        """The new process cannot know the old connections: that is said, at once."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        talk = self.talk(simulation, agent)
        crash(connector)
        self.serve(simulation, host="198.51.100.2")
        self.run_until(simulation, lambda: talk.why, 2.0)
        talk.why.trap(SessionLost)
        self.assertIn("connector office restarted", str(talk.why.value))
        other = self.talk(simulation, agent)
        other.transport.write(b"hello")
        self.run_until(simulation, lambda: other.heard == b"hello", 1.0)

    def test_regression_nothing_tries_to_resume_a_session_whose_connector_restarted(self) -> None:
        """The next session with the new process has the same id, and was taken for the old one."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        self.talk(simulation, agent)
        crash(connector)
        self.serve(simulation, host="198.51.100.2")
        self.talk(simulation, agent)
        simulation.network.run(40.0)
        # The pings of the control connection and of the session, and nothing else.
        self.assertEqual(2, len(agent.core.timers))

    def test_regression_last_words_leave_no_timer(self) -> None:
        """The Connector's end of a session had its Intermediate asked for ever whether the relay
        still works, over a farewell that nobody acknowledged."""
        simulation = self.simulate(link=Link(delay=0.025))
        agent, connector, served = self.trio(simulation, Talk)
        talk = self.talk(simulation, agent)
        simulation.network.run(1.0)
        talk.transport.write(b"the last that is heard, 50 ms later")
        simulation.network.run(0.04)
        crash(agent)
        served.made[0].transport.write(b"not acknowledged")
        self.run_until(simulation, lambda: served.made[0].heard)
        (session,) = connector.core.sessions
        now = simulation.network.clock.seconds()
        connector.core.sessions.end(session, ErrorCode.PEER_LOST, "as if it were", now)
        connector.driver.wake()
        simulation.network.run(20.0)
        self.assertEqual(1, len(connector.core.timers))  # the Intermediate's ping

    def test_regression_a_superseded_connector_does_not_fight(self) -> None:
        """It leaves the services to the second process for half a minute, not a second."""
        simulation = self.simulate()
        _, first, _ = self.trio(simulation)
        second, _ = self.serve(simulation, host="198.51.100.2")
        simulation.network.run(20.0)
        (lost,) = simulation.reported(first, reports.ControlLost)
        self.assertIn("another process connected with the certificate of connector", lost.reason)
        self.assertTrue(24.0 <= lost.retry_in <= 36.0, lost)
        self.assertEqual([], simulation.reported(second, reports.ControlLost))

    def test_agents_are_spread_over_the_connectors_of_a_service(self) -> None:
        """Each new session goes to the one with the fewest."""
        simulation = self.simulate()
        self.trio(simulation)
        self.serve(simulation, name="annex", host="198.51.100.2")
        for number in range(2, 6):
            self.agent_talks(simulation, f"203.0.113.{number}")
        opened = simulation.reported(simulation.nodes[0], reports.RelayOpened)
        connectors = sorted(report.connector for report in opened)
        self.assertEqual(["annex", "annex", "office", "office"], connectors)

    def test_a_dead_connector_is_not_used(self) -> None:
        """Not by new agents, and not by one that had a session with it."""
        simulation = self.simulate()
        agent, office, _ = self.trio(simulation)
        self.talk(simulation, agent)
        _, served = self.serve(simulation, name="annex", host="198.51.100.2")
        crash(office)
        simulation.network.run(25.0)
        self.agent_talks(simulation, "203.0.113.2")
        self.agent_talks(simulation, "203.0.113.3")
        self.talk(simulation, agent)
        self.assertEqual(3, len(served.made))

    def agent_talks(self, simulation: Simulation, host: str) -> Any:
        """A talk of one more process of alice's."""
        agent = simulation.agent(host=host)
        self.run_until(simulation, lambda: agent.core.links[0].is_ready)
        return self.talk(simulation, agent)


class UnreachableTests(SimulationCase):
    """Nobody is there."""

    def test_an_unreachable_intermediate_is_named_with_the_reason_in_ten_seconds(self) -> None:
        """Also while it is still being tried."""
        simulation = self.simulate()
        agent = simulation.agent(intermediates=["192.0.2.99:4433", "192.0.2.98:4433"])
        error = self.refused(simulation, agent, IntermediateUnreachable)
        self.assertLess(simulation.network.clock.seconds(), 10.5)
        for host in ("192.0.2.99", "192.0.2.98"):
            why = f"intermediate {host}:4433 is unreachable: no answer within 8 s of connecting"
            self.assertIn(why, str(error))

    def test_a_waiting_stream_is_served_when_the_intermediate_appears(self) -> None:
        """Within those ten seconds; the agent may be started first."""
        simulation = self.simulate()
        agent = simulation.agent()
        waiting = self.connecting(agent)
        simulation.network.run(2.0)
        simulation.intermediate()
        self.serve(simulation)
        self.run_until(simulation, lambda: waiting.called, 10.0)
        self.successResultOf(waiting)

    def test_regression_a_stop_fails_what_still_waits_for_a_session(self) -> None:
        """The Deferred of connect() never fired."""
        simulation = self.simulate()
        agent = simulation.agent()
        waiting = self.connecting(agent)
        simulation.network.run(1.0)
        agent.stopService()
        self.failureResultOf(waiting, SessionLost)
