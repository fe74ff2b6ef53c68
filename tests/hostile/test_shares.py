"""One name that takes all that it can get of an Intermediate or a Connector."""

from __future__ import annotations

from p2pnet import reports
from p2pnet.core.intermediate.shares import MAX_OFFERS, REQUEST_BURST, REQUEST_RATE
from p2pnet.core.ledger import Kind
from p2pnet.core.peer.connector import MAX_SESSIONS, MAX_UNPROVEN
from p2pnet.testing.realm import Simulation
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import encode_message
from tests.hostile.support import HostileCase


class ConnectionTests(HostileCase):
    """The connections of an Intermediate."""

    def test_regression_one_certificate_does_not_take_the_connections_of_all(self) -> None:
        """It may be allowed to nothing, and had 59 of 60."""
        simulation = self.realm(max_connections=20)
        eves = [self.attacker(simulation, "eve") for _ in range(19)]
        self.assertEqual(20, len(self.intermediate.core.nodes))
        for number in range(4):
            self.connected(simulation, f"203.0.113.{10 + number}", f"honest{number}")
        simulation.network.run(5.0)
        ledger, eve = self.intermediate.core.introductions.ledger, eves[0].node.core.credentials
        self.assertLessEqual(len(ledger.things(Kind.CONNECTION, str(eve.identity))), 15)
        self.assertLessEqual(len(self.intermediate.core.nodes), 20)
        self.assert_served(simulation)


class SessionTests(HostileCase):
    """The sessions of a Connector."""

    def test_regression_made_up_policies_end_the_connection(self) -> None:
        """Each made one more session: 256 of them locked the connector for 15 s."""
        simulation = self.realm()
        mallory = self.attacker(simulation)
        request = encode_message(messages.SessionRequest(1, bytes(16), "web"))
        mallory.say_bytes(request.replace(b"prefer-direct", b"prefer-dirett"))
        simulation.network.run(0.1)
        self.assertFalse(mallory.is_connected)
        (lost,) = simulation.reported(mallory.node, reports.ControlLost)
        self.assertIn("message: Invalid enum value", lost.reason)
        self.assertEqual(0, len(self.connector.core.sessions))

    def test_sessions_without_handshake_are_few_and_lock_nobody_out(self) -> None:
        """Ids that the agent makes up make sessions, too."""
        simulation = self.realm()
        mallory = self.attacker(simulation)
        for _ in range(16):
            mallory.ask(16)
            simulation.network.run(0.05)
            unproven = len(self.connector.core.sessions)
            self.assertLessEqual(unproven, MAX_UNPROVEN)
        self.assertEqual({ErrorCode.OVER_LIMIT}, {each.code for each in mallory.refusals()})
        self.assert_served(simulation)

    def test_unanswered_offers_are_few(self) -> None:
        """A connector that is slow, or dead, has no queue that one agent fills."""
        simulation = self.realm()
        mallory = self.attacker(simulation)
        self.connector.transport.stop()
        mallory.ask(100)
        simulation.network.run(0.5)
        self.assertEqual(MAX_OFFERS, len(self.intermediate.core.introductions))
        self.assertEqual(100 - MAX_OFFERS, len(mallory.refusals()))


class RequestTests(HostileCase):
    """Requests of an agent that may use nothing."""

    def test_regression_a_flood_of_requests_ends_at_the_intermediate(self) -> None:
        """27,000 of them in 6 s reached the connector, and its log."""
        simulation = self.realm()
        eve = self.attacker(simulation, "eve")
        begun = simulation.network.clock.seconds()
        for _ in range(60):
            eve.ask(40)
            simulation.network.run(0.1)
        seconds = simulation.network.clock.seconds() - begun
        refused = simulation.reported(self.connector, reports.SessionRefused)
        self.assertLessEqual(len(refused), REQUEST_BURST + REQUEST_RATE * seconds + 1)
        self.assertEqual(2400, len(eve.refusals()))
        self.assert_served(simulation)


class IntermediateTests(HostileCase):
    """A bad Intermediate, and a good one beside it."""

    def offer(self, number: int) -> messages.SessionOffer:
        """An offer that no agent asked for; each names another agent or session."""
        session = number.to_bytes(16, "big")
        name = f"agent{number // MAX_UNPROVEN}"
        return messages.SessionOffer(session, name, bytes(8), "web", session[:8], session[8:])

    def forge(self, simulation: Simulation, count: int) -> None:
        """Let the bad Intermediate offer sessions."""
        bad = simulation.nodes[0].core
        for number in range(count):
            bad.nodes.connectors["office"].send(self.offer(number))
        simulation.nodes[0].driver.wake()
        simulation.network.run(0.5)

    def test_regression_forged_offers_do_not_fill_a_connector(self) -> None:
        """1,024 sessions without an agent shut out those of other Intermediates."""
        simulation = self.simulate()
        simulation.intermediate()
        simulation.intermediate("192.0.2.2", "relay2")
        both = ("192.0.2.1:4433", "192.0.2.2:4433")
        connector = simulation.connector({"web": ["*"]}, intermediates=both)
        connector.serve_protocol("web", self.talks)
        simulation.network.run(1.0)
        self.forge(simulation, MAX_SESSIONS)
        self.assertEqual(MAX_SESSIONS, len(connector.core.sessions))
        other = "192.0.2.2:4433"
        for number in range(3):
            self.assert_served(simulation, f"honest{number}", intermediates=[other])
        self.assertLessEqual(len(connector.core.sessions), MAX_SESSIONS + 3)
        simulation.network.run(16.0)
        self.assertEqual(3, len(connector.core.sessions))

    def test_forged_offers_for_an_agent_leave_its_sessions_elsewhere(self) -> None:
        """The bad Intermediate uses up what itself may announce for alice, and no more."""
        simulation = self.simulate()
        simulation.intermediate()
        simulation.intermediate("192.0.2.2", "relay2")
        both = ("192.0.2.1:4433", "192.0.2.2:4433")
        connector = self.served(simulation, intermediates=both)
        simulation.network.run(1.0)
        bad = simulation.nodes[0].core.nodes.connectors["office"]
        for number in range(100):
            session = number.to_bytes(16, "big")
            bad.send(messages.SessionOffer(session, "bob", bytes(8), "web", bytes(8), session[8:]))
        simulation.nodes[0].driver.wake()
        simulation.network.run(0.5)
        self.assertEqual(MAX_UNPROVEN, len(connector.core.sessions))
        self.assert_served(simulation, intermediates=["192.0.2.2:4433"])
