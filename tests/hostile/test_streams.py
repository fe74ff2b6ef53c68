"""One agent that takes all the streams and the memory of a Connector that it can get."""

from __future__ import annotations

from typing import Any

from p2pnet.core.ledger import Kind
from p2pnet.core.peer.ends import HEADER_TIMEOUT
from p2pnet.errors import OverLimit
from p2pnet.node.agent import AgentNode
from p2pnet.quic import flow_control
from p2pnet.quic.flow_control import CONNECTION_WINDOW, STREAM_WINDOW
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import ErrorCode
from tests.hostile.support import HostileCase
from tests.sim.support import Talk, Talks


class Deaf(Talk):
    """A target that reads nothing."""

    def connectionMade(self) -> None:
        """Let everything wait."""
        self.transport.pauseProducing()


class StreamTests(HostileCase):
    """Streams of one agent."""

    def test_regression_two_processes_do_not_double_max_streams(self) -> None:
        """The second gets what the first leaves; another agent is not concerned."""
        simulation = self.simulate()
        simulation.intermediate()
        connector = self.served(simulation, max_streams=8)
        one, other = (simulation.agent(f"203.0.113.{66 + k}", "mallory") for k in range(2))
        first, second = (self.settled(simulation, process, 6) for process in (one, other))
        for each in (*first, *second[:2]):
            self.successResultOf(each)
        for each in second[2:]:
            self.failureResultOf(each, OverLimit)
        self.assertEqual(8, len(connector.core.ledger.things(Kind.STREAM, "web", "mallory")))
        self.assert_served(simulation)

    def test_regression_a_stream_without_its_header_is_reset(self) -> None:
        """It stayed for ever."""
        simulation = self.realm()
        mallory = simulation.agent("203.0.113.66", "mallory")
        self.talk(simulation, mallory)
        (session,) = mallory.core.sessions
        (other,) = self.connector.core.sessions
        for _ in range(100):
            session.connection.send(session.connection.open_stream(), b"\x01")
        mallory.driver.wake()
        simulation.network.run(1.0)
        self.assertEqual(101, len(other.streams))
        simulation.network.run(HEADER_TIMEOUT)
        self.assertEqual(1, len(other.streams))
        self.assertEqual(1, len(self.connector.core.ledger.things(Kind.STREAM, "web", "mallory")))


class MemoryTests(HostileCase):
    """What a Connector holds for one agent whose target does not read."""

    def held(self, connector: Any) -> int:
        """Bytes that the connector received and nobody read."""
        return sum(session.connection.engine._held_total for session in connector.core.sessions)

    def flood(self, simulation: Simulation, agent: AgentNode) -> None:
        """Write more than fits to several streams."""
        for _ in range(6):
            transport = agent.open("web")
            transport.connect(Talk())
            transport.write(bytes(2 * STREAM_WINDOW))
        simulation.network.run(10.0)

    def test_regression_several_sessions_hold_what_one_may(self) -> None:
        """Four of them held 132 MiB. The limit is lowered, so that the test is short."""
        limit = 2 * CONNECTION_WINDOW
        self.patch(flow_control, "MAX_HELD", limit)
        self.talks = Talks(Deaf)
        simulation = self.realm()
        for number in range(4):
            self.flood(simulation, simulation.agent(f"203.0.113.{66 + number}", "mallory"))
            # Each connection has its first window, whatever the others hold.
            self.assertLessEqual(self.held(self.connector), limit + number * CONNECTION_WINDOW)
        self.assertEqual(4, len(self.connector.core.sessions))
        credit = self.connector.core.ledger.credit("mallory").total
        self.assertLessEqual(credit, limit + 3 * CONNECTION_WINDOW)
        self.assert_served(simulation)

    def test_a_session_that_ends_gives_its_credit_back(self) -> None:
        """However it ends."""
        self.talks = Talks(Deaf)
        simulation = self.realm()
        agents = [simulation.agent(f"203.0.113.{66 + k}", "mallory") for k in range(2)]
        for agent in agents:
            self.flood(simulation, agent)
        credit = self.connector.core.ledger.credit("mallory")
        before = credit.total
        agents[0].stopService()
        simulation.network.run(1.0)
        self.assertLess(credit.total, before)
        (session,) = self.connector.core.sessions
        self.connector.core.sessions.end(session, ErrorCode.SHUTDOWN, "", 0.0)
        self.assertEqual(0, credit.total)
