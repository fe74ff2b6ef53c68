"""Floods through an Intermediate at a node that reads slowly: the sender pays, not the receiver."""

from __future__ import annotations

import itertools
from typing import Any

from p2pnet import reports
from p2pnet.core.intermediate.shares import MAX_OFFERS
from p2pnet.core.ledger import Kind
from p2pnet.node.agent import AgentNode
from p2pnet.testing.network import Link
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.sim.support import SimulationCase

SLOW = Link(rate=4000, queue=16 * 1024)  # bytes a second
STALLED = Link(loss=1.0)
FLOOD = 3000  # sessions; their offers and ends are more than a node may leave unread


class FloodTests(SimulationCase):
    """Mallory opens sessions with a connector and ends them, as fast as her connection takes."""

    def begin(self) -> None:
        """A connector, and an agent whose messages the test chooses."""
        self.simulation = self.simulate()
        self.intermediate: Any = self.simulation.intermediate()
        self.office, _ = self.serve(self.simulation)
        self.mallory = self.attacker("mallory", "203.0.113.66")

    def attacker(self, name: str, host: str) -> AgentNode:
        """An agent that reacts to no message."""
        agent = self.simulation.agent(host, name)
        self.run_until(self.simulation, lambda: agent.core.links[0].is_ready)
        self.answers: list[Any] = []
        agent.core.take_message = (  # type: ignore[method-assign]
            lambda link, message, now: self.answers.append(message)
        )
        return agent

    def flood(self, *, same: bool = False) -> None:
        """Open and end sessions, all of one id or each of its own."""
        (link,) = self.mallory.core.links
        for number in itertools.islice(itertools.count(), FLOOD):
            session = bytes(16) if same else number.to_bytes(16, "big")
            link.send(messages.SessionRequest(number, session, "web"))
            link.send(messages.SessionClosed(session, 0, "x" * messages.MAX_REASON))
            if number % 100 == 0:
                self.mallory.driver.wake()
                self.simulation.network.run(0.1)

    def unanswered(self) -> int:
        """The offers for the flooding agent that the victim has not answered."""
        core = self.intermediate.core
        node = core.nodes.connectors["office"]
        return len(core.introductions.ledger.things(Kind.OFFER, "mallory", node))

    def assert_connected(self) -> None:
        """The victim kept its control connection, and so little of the flood is left to read."""
        self.assertEqual([], self.simulation.reported(self.office, reports.ControlLost))
        node = self.intermediate.core.nodes.connectors["office"]
        self.assertLessEqual(self.unanswered(), MAX_OFFERS)
        unread = node.connection.unsent(messages.CONTROL_STREAM)
        self.assertLess(unread, MAX_OFFERS * 4 * messages.MAX_REASON)

    def test_regression_a_slow_connector_is_not_cut_off_for_the_flood_of_an_agent(self) -> None:
        """It lost its control connection, and every agent its service."""
        for same in (False, True):
            self.begin()
            self.simulation.network.connect("198.51.100.1", "192.0.2.1", SLOW)
            self.flood(same=same)
            self.assert_connected()
            refused = [each for each in self.answers if isinstance(each, messages.SessionRefused)]
            self.assertEqual({ErrorCode.OVER_LIMIT}, {each.code for each in refused})
            self.simulation.network.connect("198.51.100.1", "192.0.2.1", Link())
            self.simulation.network.run(5.0)
            alice = self.simulation.agent()
            self.talk(self.simulation, alice)
            self.assert_connected()

    def test_a_stalled_connector_stays_connected(self) -> None:
        """For as long as its control connection lives anyway; it answers what waited."""
        self.begin()
        self.simulation.network.connect("198.51.100.1", "192.0.2.1", STALLED)
        self.flood()
        self.assert_connected()
        self.simulation.network.connect("198.51.100.1", "192.0.2.1", Link())
        self.simulation.network.run(5.0)
        self.assert_connected()
        self.assertEqual(0, self.unanswered())
