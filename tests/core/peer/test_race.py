"""Tests of p2pnet.core.peer.agent and finder: connectors race, and sessions may be silent."""

from __future__ import annotations

from p2pnet.core.peer.agent import HANDSHAKE_TIMEOUT, RACE_AFTER, SILENCE
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.core.peer.test_agent import AgentCase
from tests.core.peer.test_finder import FinderCase, need


class RouteTests(FinderCase):
    """A service may have several routes until one of them is ready."""

    def test_the_first_session_that_is_ready_remains(self) -> None:
        """The others are no route any more, but where they are the only one."""
        slow, fast = self.session(), self.session()
        for session in (slow, slow, fast):
            self.finder.add_route(need("web"), session)
        self.finder.add_route(need("dns"), slow)
        self.assertIs(slow, self.finder.route(need("web")))
        self.assertEqual([], self.finder.keep_route(fast))
        self.assertIs(fast, self.finder.route(need("web")))
        self.assertEqual([need("dns")], self.finder.needs_of(slow))
        self.finder.add_route(need("dns"), fast)
        self.assertEqual([slow], self.finder.keep_route(fast))
        self.assertEqual([], self.finder.needs_of(slow))

    def test_the_loss_of_one_route_leaves_the_others(self) -> None:
        """Nothing is searched for."""
        one, other = self.session(), self.session()
        for session in (one, other):
            self.finder.add_route(need("web"), session)
        self.wait()
        self.finder.reroute(one, self.now)
        self.assertIs(other, self.finder.route(need("web")))
        self.assertEqual([], self.near.sent)


class RequestTests(FinderCase):
    """A request for a service that has a session whose handshake is late."""

    def setUp(self) -> None:
        """A stream waits for the handshake."""
        super().setUp()
        self.late = self.session()
        self.finder.add_route(need("web"), self.late)
        self.stream = self.wait()

    def test_a_request_names_the_connectors_that_do_not_answer(self) -> None:
        """But not one for another relay of a session."""
        self.agent.silent = ("office",)
        self.finder.find(need("web"), self.now)
        self.assertEqual(("office",), self.requested(self.near).tried)
        self.finder.join(self.late, [self.far.address], self.now)
        self.assertEqual((), self.requested(self.near).tried)

    def test_streams_wait_for_the_handshake_though_nobody_else_serves(self) -> None:
        """A refusal of every Intermediate, or of a connector, ends the race alone."""
        for code in (ErrorCode.UNKNOWN_SERVICE, ErrorCode.NOT_AUTHORIZED):
            self.finder.find(need("web"), self.now)
            self.refuse(self.near, code)
            if code is ErrorCode.UNKNOWN_SERVICE:
                self.refuse(self.far, code)
            self.assertIsNone(self.outcome(self.stream))
        self.assertEqual([], self.near.sent + self.far.sent)

    def test_streams_wait_for_a_request_that_is_under_way(self) -> None:
        """The handshake that was late failed; the refusal of the request is final."""
        self.finder.find(need("web"), self.now)
        self.finder.drop_route(need("web"), self.late)
        self.finder.fail(need("web"), ErrorCode.PEER_LOST, "no handshake")
        self.assertIsNone(self.outcome(self.stream))
        self.refuse(self.near, ErrorCode.NOT_AUTHORIZED, "not you")
        self.assertEqual((ErrorCode.NOT_AUTHORIZED, "not you"), self.outcome(self.stream))


class ConnectorTests(AgentCase):
    """Another connector is requested when the first does not shake hands, or falls silent."""

    def setUp(self) -> None:
        """The agent's requests wait for the test to answer."""
        super().setUp()
        self.silent = {0, 1}

    def begin(self) -> messages.SessionRequest:
        """The annex accepts a session and does not shake hands. Returns the second request."""
        self.waiting = self.stream()
        request = self.asked()
        self.assertEqual((), request.tried)
        self.open(0, request.request, request.session, connector="annex")
        self.run_for(RACE_AFTER - 0.01)
        self.assertEqual([], self.agent.links[0].take_sent())
        self.run_for(0.01)
        request = self.asked()
        self.assertEqual(("annex",), request.tried)
        return request

    def shake_hands(self, request: messages.SessionRequest) -> None:
        """The office accepts the session of the request, and an Intermediate relays it."""
        self.offer(1, request.session)
        self.silent = {0}
        self.open(1, request.request, request.session)
        self.run_for(0.5)

    def test_the_second_connector_gets_the_streams(self) -> None:
        """The first session is over."""
        self.shake_hands(self.begin())
        self.assertEqual([("no_error", "connector office was faster")], self.ended())
        self.assertEqual(1, len(self.connector.requested))
        self.assertEqual("office", self.agent.session.peer_name)

    def test_the_first_connector_may_still_win(self) -> None:
        """The session of a late answer is sent back."""
        self.waiting = self.stream()
        first = self.asked()
        self.open(1, first.request, first.session)
        self.asked()  # for a second relay
        self.run_for(RACE_AFTER)
        second = self.asked()
        self.assertEqual(("office",), second.tried)
        self.shake_hands(first)
        self.assertEqual(1, len(self.connector.requested))
        self.agent.links[0].take_sent()
        self.open(0, second.request, second.session, connector="annex")
        (closed,) = self.agent.links[0].take_sent()
        self.assertEqual(second.session, closed.session)
        self.assertEqual("office", self.agent.session.peer_name)

    def test_the_only_connector_is_named_again(self) -> None:
        """Which changes nothing: its handshake has its time."""
        second = self.begin()
        session = self.agent.session
        self.open(0, second.request, session.id, connector="annex")
        self.run_for(HANDSHAKE_TIMEOUT - RACE_AFTER - 0.1)
        self.assertIs(session, self.agent.session)
        self.assertIsNone(self.waiting.owner.outcome)

    def test_a_silent_session_gets_no_new_streams(self) -> None:
        """It lives on. A request names its connector, and so does the next one after a while."""
        self.silent = set()
        self.talk()
        session = self.agent.session
        self.silent = {0, 1}
        for link in self.agent.links:
            link.take_sent()
        self.stream().write(b"is anybody there?")
        self.run_for(SILENCE - 0.01)
        self.stream()
        self.assertEqual([], self.agent.links[0].take_sent())
        self.run_for(0.02)
        for _ in range(2):
            self.stream()
            request = self.asked()
            self.assertEqual(("office",), request.tried)
            self.open(0, request.request, session.id)
            self.stream()
            self.assertEqual([], self.agent.links[0].take_sent())
            self.run_for(SILENCE)
        self.assertIs(session, self.agent.session)

    def test_a_session_is_not_silent_while_no_intermediate_answers(self) -> None:
        """The agent itself may be cut off."""
        self.silent = set()
        self.talk()
        self.silent = {0, 1}
        self.stream().write(b"is anybody there?")
        self.run_for(SILENCE)
        for link in self.agent.links:
            link.take_sent()
            link.draining = True
        self.stream()
        self.assertEqual([], self.agent.links[0].take_sent())

    def test_a_request_names_no_more_than_so_many_connectors(self) -> None:
        """The newest."""
        for number in range(messages.MAX_TRIED + 1):
            self.stream(f"service{number}")
            request = self.asked()
            self.open(0, request.request, request.session, connector=f"annex{number}")
        self.run_for(RACE_AFTER)
        self.stream()
        (*_, request) = self.agent.links[0].take_sent()
        self.assertEqual(
            tuple(f"annex{n}" for n in range(messages.MAX_TRIED, 0, -1)), request.tried
        )
