"""Tests of thermometer.py on a simulated network: trial test_thermometer."""

from thermometer import TIMEOUT, ask, served
from twisted.internet.defer import Deferred, TimeoutError
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import AgentNode, NotAuthorized, P2PClientEndpoint, P2PServerEndpoint, reports
from p2pnet.testing.nat import Filtering, Mapping, NATBox
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.testing.realm import Simulation


class ThermometerTests(SynchronousTestCase):
    """A cellar behind a NAT, whose thermometer alice may read."""

    def setUp(self) -> None:
        """An Intermediate, the Connector in the cellar and the Agent alice."""
        self.network = SimulatedNetwork(seed=1, link=Link(delay=0.02))
        nat = NATBox(self.network, "198.51.100.1", Mapping.EIM, Filtering.APDF)
        self.network.behind("10.0.0.2", nat)
        self.simulation = Simulation(self.network)
        self.addCleanup(self.simulation.stop)
        self.simulation.intermediate()
        cellar = self.simulation.connector({"thermometer": ["alice"]}, host="10.0.0.2")
        listening = P2PServerEndpoint(cellar, "thermometer").listen(served(lambda: 21.54))
        self.successResultOf(listening)
        self.alice = self.simulation.agent()
        self.network.run(1.0)

    def asked(self, agent: AgentNode) -> Deferred[float]:
        """A question of the agent, once it has its answer or failed."""
        asked = ask(P2PClientEndpoint(agent, "thermometer"), self.network.clock)
        self.assertTrue(self.network.run_until(lambda: asked.called, 2 * TIMEOUT))
        return asked

    def test_it_tells_the_temperature(self) -> None:
        """With one digit after the point."""
        self.assertEqual(21.5, self.successResultOf(self.asked(self.alice)))

    def test_the_session_becomes_direct(self) -> None:
        """Through the NAT, within five seconds."""
        self.asked(self.alice)
        self.network.run(5.0)
        paths = self.simulation.reported(self.alice, reports.PathSelected)
        self.assertEqual("direct", paths[-1].path)

    def test_packets_may_get_lost(self) -> None:
        """One in ten, on each way; nobody notices but the clock."""
        self.network.link = Link(delay=0.1, jitter=0.05, loss=0.1)
        self.assertEqual(21.5, self.successResultOf(self.asked(self.alice)))

    def test_nobody_else_may_ask(self) -> None:
        """The Connector refuses mallory, who has a certificate of the realm."""
        mallory = self.simulation.agent(host="203.0.113.2", name="mallory")
        self.failureResultOf(self.asked(mallory), NotAuthorized)

    def test_a_cellar_without_a_network_is_a_timeout(self) -> None:
        """It answered a moment ago, and the session with it is still there."""
        self.asked(self.alice)
        for host in ("192.0.2.1", "203.0.113.1"):  # the Intermediate's and alice's
            self.network.connect("198.51.100.1", host, Link(loss=1.0))
        self.failureResultOf(self.asked(self.alice), TimeoutError)
