"""How soon a silent Intermediate is noticed, and what happens to sessions that ended meanwhile."""

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.endpoints import P2PServerEndpoint
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import ErrorCode


class LivenessTests(SynchronousTestCase):
    """An Intermediate that dies without a word."""

    def setUp(self) -> None:
        """A realm with all three roles, connected."""
        self.network = SimulatedNetwork(3)
        self.simulation = Simulation(self.network)
        self.addCleanup(self.simulation.stop)
        self.relay = self.simulation.intermediate()
        self.office = self.simulation.connector({"web": ["alice"]})
        P2PServerEndpoint(self.office, "web").listen(Factory.forProtocol(Echo))
        self.alice = self.simulation.agent(policy="relay-only")
        self.network.run(2)

    def lost(self, node: object) -> list[reports.ControlLost]:
        """The times that the node lost its Intermediate."""
        return self.simulation.reported(node, reports.ControlLost)  # type: ignore[arg-type]

    def test_regression_a_silent_intermediate_is_noticed_by_an_unanswered_ping(self) -> None:
        """QUIC's idle timeout restarts with each ping; 35 s would outlive the sessions."""
        self.network.unbind(("192.0.2.1", 4433))
        self.network.run(20.1)
        for node in (self.alice, self.office):
            self.assertEqual(
                ["no answer to a ping within 5 s"], [e.reason for e in self.lost(node)]
            )

    def test_answered_pings_keep_the_connection(self) -> None:
        """Ten idle minutes lose nothing."""
        self.network.run(600)
        self.assertEqual([], self.lost(self.alice) + self.lost(self.office))

    def test_a_question_that_gets_lost_is_asked_again_in_time(self) -> None:
        """QUIC's own repetitions double their distance, so that two losses were enough."""
        far = Link(delay=0.12)
        for link, seconds in ((far, 60.0), (Link(loss=1.0), 1.1), (far, 30.0)):
            self.network.connect("203.0.113.1", "192.0.2.1", link)
            if link is not far:
                self.alice.core.links[0].probe(self.network.clock.seconds())
                self.alice.driver.wake()
            self.network.run(seconds)
        self.assertEqual([], self.lost(self.alice))

    def test_regression_relayed_traffic_does_not_let_the_control_connection_become_idle(
        self,
    ) -> None:
        """It was taken for a sign of life, and no ping was sent; QUIC ended the connection."""
        connecting = self.alice.connect("web")
        self.network.run_until(lambda: connecting.called)
        transport = self.successResultOf(connecting)
        transport.connect(Protocol())
        for _ in range(600):  # never a lull, in which the Intermediate would be asked
            transport.write(b"hello")
            self.network.run(0.05)
        self.assertEqual([], self.lost(self.alice) + self.lost(self.office))

    def test_regression_a_session_that_the_connector_ended_is_not_resumed(self) -> None:
        """The agent that comes back with it is told, and its next stream has a new session."""
        connecting = self.alice.connect("web")
        self.network.run_until(lambda: connecting.called)
        transport = self.successResultOf(connecting)
        (session,) = self.office.core.sessions
        (ours,) = self.alice.core.sessions
        self.office.core.sessions.end(
            session, ErrorCode.PEER_LOST, "as if idle", self.network.clock.seconds()
        )
        session.connection.engine.datagrams_to_send(0.0)  # its last word is lost
        self.office.driver.wake()
        self.network.run(5)
        self.assertTrue(transport.stream.is_closed)
        self.assertEqual(0, len(self.relay.core.introductions))
        again = self.alice.connect("web")
        self.network.run_until(lambda: again.called, 20)
        newer = self.successResultOf(again).stream.session
        self.assertIsNotNone(newer)
        self.assertNotIn(newer, (None, ours))
