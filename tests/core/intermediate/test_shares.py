"""Tests of p2pnet.core.intermediate.shares: what one agent may take of an Intermediate."""

from __future__ import annotations

import collections
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.intermediate.shares import MAX_OFFERS, REQUEST_BURST
from p2pnet.identity import Role
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message
from tests.core.intermediate.fixture import Fixture
from tests.core.support import SERVICES, Told


class ShareTests(SynchronousTestCase):
    """Requests and sessions of an agent."""

    def setUp(self) -> None:
        """An agent and a connector."""
        self.fixture = Fixture(max_sessions=100, max_per_node=100)
        self.office = self.fixture.node(Role.CONNECTOR, "office", "web")
        self.alice = self.fixture.node(Role.AGENT, "alice")

    def told(self, node: Told, kind: type[Message]) -> list[Any]:
        """What the node was told of a kind."""
        return [message for message in node.told if isinstance(message, kind)]

    def test_another_agent_gets_its_share_of_a_connectors_sessions(self) -> None:
        """The agent with the most loses its newest session; both ends may resume it."""
        fixture = Fixture(100, 8)
        office = fixture.node(Role.CONNECTOR, "office", "web")
        alice, bob = (fixture.node(Role.AGENT, name) for name in ("alice", "bob"))
        sessions = []
        for _ in range(8):
            sessions.append(fixture.request(alice, connector="office"))
            fixture.answer(office, sessions[-1])
        for _ in range(3):
            fixture.answer(office, fixture.request(bob, connector="office"))
        (refused,) = self.told(bob, messages.SessionRefused)
        self.assertEqual("all 8 sessions with the connector are in use", refused.reason)
        self.assertEqual((set(sessions[:6]), 2), (alice.sessions, len(bob.sessions)))
        for node in (alice, office):
            closed = self.told(node, messages.SessionClosed)
            self.assertEqual(sessions[:5:-1], [message.session for message in closed])
            self.assertEqual({ErrorCode.PEER_LOST}, {message.code for message in closed})

    def test_the_processes_of_an_agent_share_its_sessions(self) -> None:
        """Limits are of names."""
        fixture = Fixture(100, 2)
        for number, name in enumerate(("office", "annex", "branch")):
            fixture.node(Role.CONNECTOR, name, SERVICES[number])
        one, other = (fixture.node(Role.AGENT, "alice") for _ in range(2))
        for agent, service in ((one, "web"), (one, "dns"), (other, "ssh")):
            fixture.request(agent, service)
        (refused,) = self.told(other, messages.SessionRefused)
        self.assertEqual("alice has 2 sessions", refused.reason)

    def test_an_agent_has_few_unanswered_offers_with_a_connector(self) -> None:
        """Others are not concerned; an answer makes room, the end of the session does not."""
        sessions = [
            self.fixture.request(self.alice, connector="office") for _ in range(MAX_OFFERS + 1)
        ]
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual("alice has 8 unanswered offers", refused.reason)
        self.fixture.request(self.fixture.node(Role.AGENT, "bob"))
        self.fixture.answer(self.office, sessions[0])
        self.fixture.table.leave(self.alice, messages.SessionClosed(sessions[1], 0, "over"))
        self.fixture.request(self.alice, connector="office")
        self.assertEqual(1, len(self.told(self.alice, messages.SessionRefused)))
        self.fixture.request(self.alice, connector="office")
        self.assertEqual(2, len(self.told(self.alice, messages.SessionRefused)))

    def test_an_agent_sends_so_many_requests_a_second(self) -> None:
        """Those that are refused count, too; another agent is not concerned."""
        for _ in range(REQUEST_BURST + 1):
            self.fixture.request(self.alice, "printer")
        refused = self.told(self.alice, messages.SessionRefused)
        codes = collections.Counter(message.code for message in refused)
        self.assertEqual({ErrorCode.UNKNOWN_SERVICE: REQUEST_BURST, ErrorCode.OVER_LIMIT: 1}, codes)
        self.assertEqual("alice sends more than 10 requests a second", refused[-1].reason)
        bob = self.fixture.node(Role.AGENT, "bob")
        self.fixture.request(bob)
        self.assertEqual([], bob.told)
