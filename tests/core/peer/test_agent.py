"""Tests of p2pnet.core.peer.agent: streams to services, over sessions that it keeps alive."""

from __future__ import annotations

import gc
import weakref

from p2pnet import reports
from p2pnet.core.peer import finder
from p2pnet.core.peer.agent import HANDSHAKE_TIMEOUT, KEEPALIVE, SESSION_LINGER
from p2pnet.core.peer.connector import AllowList
from p2pnet.core.peer.ends import Need
from p2pnet.core.peer.stream import StreamAccepted
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind
from tests.core.peer.cores import RELAYS, CoreCase
from tests.core.peer.pair import Owner

OTHER_ID = b"another session "
OTHER_INSTANCE = b"office 2"


class AgentCase(CoreCase):
    """What the tests of an agent share."""

    def request(self, number: int, request: messages.SessionRequest) -> None:
        """Keep the request before it is answered."""
        self.requests.append((number, request))
        super().request(number, request)

    def setUp(self) -> None:
        """No request yet."""
        super().setUp()
        self.requests: list[tuple[int, messages.SessionRequest]] = []

    def asked(self) -> messages.SessionRequest:
        """The agent's latest request at the first Intermediate, which does not answer by itself."""
        (request,) = [
            message
            for message in self.agent.links[0].take_sent()
            if isinstance(message, messages.SessionRequest)
        ]
        return request

    def ended(self) -> list[tuple[str, str]]:
        """How sessions of the agent ended."""
        self.agent.pump(self.now)
        return [(e.code, e.reason) for e in self.agent.happened(reports.SessionClosed)]


class StreamTests(AgentCase):
    """From open_stream() to its end."""

    def test_a_stream_is_open_after_one_request(self) -> None:
        """What was written before leaves as early data; a second stream needs no request."""
        stream = self.stream()
        stream.write(b"early")
        self.assertTrue(self.core.is_needed)
        self.run_for(1.0)
        (other,) = self.connector.requested
        self.assertEqual(b"early", other.owner.data)
        other.accept()
        self.run_for(0.1)
        self.assertEqual(1, len(self.agent.happened(StreamAccepted)))
        self.assert_echo(stream, other)
        before = len(self.requests)
        self.assert_echo(*self.talk())
        self.assertEqual(before, len(self.requests))
        (opened,) = self.agent.happened(reports.SessionOpened)
        self.assertEqual(("office", "web", "192.0.2.1:4433"),
                         (opened.peer, opened.service, opened.intermediate))  # fmt: skip

    def test_a_name_that_is_none_is_an_error(self) -> None:
        """For the program that gave it."""
        self.assertRaises(ValueError, self.core.open_stream, "no such name!", self.now)
        self.assertRaises(ValueError, self.core.connect_p2p, "", self.now)

    def test_a_service_that_is_refused_fails_its_streams(self) -> None:
        """With the connector's code and reason."""
        stream = self.stream("ssh")
        self.run_for(1.0)
        self.assertEqual(ErrorCode.UNKNOWN_SERVICE, self.outcome_code(stream))
        self.assertFalse(self.core.is_needed)

    def test_no_more_than_so_many_wait(self) -> None:
        """The next one fails at once."""
        self.patch(finder, "MAX_WAITING", 1)
        self.stream()
        stream = self.stream()
        self.agent.pump(self.now)
        self.assertEqual(ErrorCode.OVER_LIMIT, self.outcome_code(stream))

    def test_a_stream_that_was_given_up_meanwhile_is_not_opened(self) -> None:
        """The others that waited are."""
        stream = self.stream()
        stream.reset()
        self.talk()
        self.assertEqual(1, len(self.connector.requested))

    def test_a_connector_without_a_certificate_for_the_service_gets_no_stream(self) -> None:
        """The Intermediate named it all the same."""
        self.talk()
        self.silent = {0, 1}
        stream = self.stream("printer")
        self.open(0, self.asked().request, self.agent.session.id)
        self.agent.pump(self.now)
        self.assertEqual(ErrorCode.NOT_GRANTED, self.outcome_code(stream))
        self.assertEqual(1, len(self.core.sessions))
        self.stream("printer")
        self.assertEqual("printer", self.asked().service)

    def test_regression_streams_of_one_service_may_have_different_policies(self) -> None:
        """The later one of two forwards decided for both."""
        for policy, expected in (("", "relay-only"), ("lowest-rtt", "lowest-rtt")):
            self.core.open_stream("web", self.now, policy=policy)
            self.assertEqual(expected, self.asked().policy)

    def test_a_stop_ends_everything(self) -> None:
        """Sessions, streams, and streams that wait; the Intermediates are told."""
        stream, other = self.talk()
        waiting = self.stream("ssh")
        self.core.close(self.now, "enough")
        self.run_for(1.0)
        for each in (stream, waiting):
            self.assertEqual((ErrorCode.SHUTDOWN, "enough"), each.owner.outcome)
        self.assertIsNotNone(other.owner.outcome)
        self.assertEqual([("shutdown", "enough")], self.ended())
        self.assertFalse(self.core.is_needed)


class HandshakeTests(AgentCase):
    """Who answers, and whether anybody does."""

    def test_a_connector_that_does_not_answer_is_given_up(self) -> None:
        """After HANDSHAKE_TIMEOUT."""
        self.silent = {0, 1}
        self.stream()
        request = self.asked()
        self.open(0, request.request, request.session)
        self.run_for(HANDSHAKE_TIMEOUT)
        self.assertEqual([("peer_lost", "connector office did not answer in 10 s")], self.ended())

    def test_another_connector_than_was_announced_is_refused(self) -> None:
        """No stream is opened."""
        stream = self.stream()
        request = self.asked()
        self.offer(0, request.session)
        self.open(0, request.request, request.session, connector="annex")
        self.run_for(1.0)
        self.assertEqual(
            [("wrong_peer", "announced was connector annex, it is office")], self.ended()
        )
        self.assertEqual(ErrorCode.WRONG_PEER, self.outcome_code(stream))
        self.assertEqual([], self.connector.requested)

    def test_an_intermediate_may_answer_with_another_session(self) -> None:
        """It has one with that connector already; the connection is made for that one."""
        stream = self.stream()
        request = self.asked()
        self.offer(0, OTHER_ID)
        self.open(0, request.request, OTHER_ID)
        self.run_for(1.0)
        self.assertEqual(OTHER_ID, self.agent.session.id)
        (other,) = self.connector.requested
        other.accept()
        self.assert_echo(stream, other)

    def test_two_services_of_one_connector_share_a_session(self) -> None:
        """Both requests are answered before the handshake is over."""
        self.office._authorizer = AllowList({"web": ["*"], "dns": ["*"]})
        web, dns = self.stream("web"), self.stream("dns")
        first, second = self.agent.links[0].take_sent()
        self.offer(0, first.session)
        for request in (first, second):
            self.open(0, request.request, first.session)
        self.run_for(1.0)
        self.assertEqual(1, len(self.core.sessions))
        self.assertEqual({"web", "dns"}, {other.service for other in self.connector.requested})
        self.assertIsNone(web.owner.outcome or dns.owner.outcome)


class KeepTests(AgentCase):
    """A session lives as long as it is used, and some time longer."""

    def test_an_idle_session_is_kept_while_it_has_a_stream(self) -> None:
        """By a ping now and then."""
        stream, other = self.talk()
        self.run_for(SESSION_LINGER + 2 * KEEPALIVE)
        self.assert_echo(stream, other)

    def test_a_session_without_a_stream_ends_after_a_while(self) -> None:
        """At both ends."""
        stream, _ = self.talk()
        stream.reset()
        self.run_for(SESSION_LINGER - KEEPALIVE)
        self.assertEqual([], self.ended())
        self.run_for(3 * KEEPALIVE)
        self.assertEqual([("no_error", "not used any more")], self.ended())
        self.assertEqual(0, len(self.office.sessions))

    def test_regression_nothing_holds_a_session_that_is_over(self) -> None:
        """The timer for one more relay held it for a minute."""
        self.silent = {1}
        self.talk()
        self.run_for(40.0)
        ref = weakref.ref(self.agent.session)
        self.core.sessions.end(self.agent.session, ErrorCode.PEER_LOST, "", self.now)
        self.run_for(KEEPALIVE + 1.0)
        for node in self.nodes:
            node.events.clear()
            node.requested.clear()
        gc.collect()
        self.assertIsNone(ref())


class RelayTests(AgentCase):
    """Intermediates come and go under a session."""

    def test_a_session_has_every_intermediate_relay_it(self) -> None:
        """The loss of one is not noticed."""
        stream, other = self.talk()
        number, request = self.requests[-1]
        self.assertEqual((1, "office", self.agent.session.id),
                         (number, request.connector, request.session))  # fmt: skip
        self.lose(self.agent, 0)
        self.assertEqual([(RELAYS[1], 4433)], self.agent.ways)
        self.assert_echo(stream, other)

    def test_a_session_without_a_relay_gets_one_as_soon_as_there_is_one(self) -> None:
        """Bytes written meanwhile arrive; a new stream waits no longer than that."""
        stream, other = self.talk()
        for number in range(2):
            self.lose(self.agent, number)
        self.assertEqual([], self.agent.ways)
        late = self.stream()
        stream.write(b"meanwhile")
        self.run_for(3.0)
        self.agent.links[1].bring_up()
        self.core.link_ready(self.agent.links[1], self.agent.address, 0.1, self.now)
        self.run_for(3.0)
        self.assertEqual(b"meanwhile", other.owner.data)
        self.assertEqual(2, len(self.connector.requested))
        self.assertIsNone(late.owner.outcome)

    def test_a_relay_that_lost_the_peer_is_asked_again(self) -> None:
        """The connector may be back there."""
        stream, other = self.talk()
        before = len(self.requests)
        closed = messages.SessionClosed(self.agent.session.id, ErrorCode.PEER_LOST, "gone")
        self.say(self.agent, closed)
        self.assertEqual([(RELAYS[1], 4433)], self.agent.ways)
        self.run_for(1.0)
        self.assertEqual(0, self.requests[before][0])
        self.assertEqual(2, len(self.core.paths_of(self.agent.session).relays))
        self.assert_echo(stream, other)

    def test_a_draining_intermediate_gives_way(self) -> None:
        """And one that is missing is asked."""
        stream, other = self.talk()
        self.agent.links[0].bring_up(draining=True)
        self.core.link_draining(self.agent.links[0], 5.0, self.now)
        self.assertEqual([(RELAYS[1], 4433)], self.agent.ways)
        self.assert_echo(stream, other)
        (draining,) = self.agent.happened(reports.IntermediateDraining)
        self.assertEqual(5.0, draining.seconds)

    def test_a_connector_that_gave_the_session_up_ends_it(self) -> None:
        """Other refusals to relay it pass."""
        stream, _ = self.talk()
        self.silent = {0}
        for code, count in ((ErrorCode.OVER_LIMIT, 1), (ErrorCode.RESTARTED, 0)):
            self.lose(self.agent, 0)
            self.agent.links[0].bring_up()
            self.core.link_ready(self.agent.links[0], self.agent.address, 0.1, self.now)
            refused = messages.SessionRefused(self.asked().request, code, "no")
            self.say(self.agent, refused)
            self.assertEqual(count, len(self.core.sessions))
        self.agent.pump(self.now)
        self.assertEqual((ErrorCode.RESTARTED, "no"), stream.owner.outcome)

    def test_a_connector_that_restarted_gets_a_new_session(self) -> None:
        """Its new process knows nothing of the old one."""
        stream, _ = self.talk()
        self.silent = {0, 1}
        waiting = self.stream("dns")
        self.open(0, self.asked().request, self.agent.session.id, instance=OTHER_INSTANCE)
        self.assertEqual([("restarted", "connector office restarted")], self.ended())
        self.assertEqual(ErrorCode.RESTARTED, self.outcome_code(stream))
        self.assertIsNone(waiting.owner.outcome)
        requests = [m for m in self.agent.links[0].sent if isinstance(m, messages.SessionRequest)]
        self.assertEqual(["dns"], [request.service for request in requests])


class PolicyTests(AgentCase):
    """Services whose paths are chosen otherwise."""

    def test_regression_an_intermediate_cannot_have_services_share_a_session(self) -> None:
        """Under direct-only the data of one would have been relayed in a session of the other."""
        self.talk()
        stream = self.core.open_stream("vault", self.now, policy="direct-only")
        number = max(request.number for request in self.core._finder)
        self.open(0, number, self.agent.session.id)
        self.assertTrue(stream.is_closed)
        self.agent.pump(self.now)
        (refused,) = self.agent.happened(reports.SessionRefused)
        self.assertIn("whose policy is not direct-only", refused.reason)
        self.assertIsNone(self.core._finder.route(Need("vault", "direct-only")))


class LateTests(AgentCase):
    """Answers that come too late."""

    def test_a_session_that_nobody_needs_is_sent_back(self) -> None:
        """And if the same answers a later request, another one is asked for."""
        self.open(0, 77, OTHER_ID)
        (closed,) = self.agent.links[0].take_sent()
        self.assertEqual((OTHER_ID, ErrorCode.NO_ERROR), (closed.session, closed.code))
        self.stream()
        first = self.asked()
        self.open(0, first.request, OTHER_ID)
        second = self.asked()
        self.assertGreater(second.request, first.request)
        self.assertEqual(0, len(self.core.sessions))

    def test_a_relay_for_a_session_that_ended_meanwhile_is_sent_back(self) -> None:
        """The session is not begun anew."""
        self.silent = {1}
        self.talk()
        session = self.agent.session
        (request,) = self.agent.links[1].take_sent()
        self.core.sessions.end(session, ErrorCode.NO_ERROR, "", self.now)
        self.open(1, request.request, session.id)
        (closed,) = self.agent.links[1].take_sent()
        self.assertIsInstance(closed, messages.SessionClosed)
        self.assertEqual(0, len(self.core.sessions))

    def test_a_late_relay_for_a_session_that_lives_changes_nothing(self) -> None:
        """Its request was given up."""
        self.talk()
        self.open(1, 77, self.agent.session.id)
        self.assertEqual(1, len(self.core.sessions))

    def test_a_refusal_of_no_request_is_ignored(self) -> None:
        """So is a message about no session."""
        self.say(self.agent, messages.SessionRefused(77, ErrorCode.RESTARTED, "what?"))
        self.say(self.agent, messages.SessionClosed(OTHER_ID, ErrorCode.SHUTDOWN, "what?"))
        self.agent.pump(self.now)
        self.assertEqual([], self.agent.events)


class FlowTests(AgentCase):
    """connect_p2p() and its like."""

    policy = "prefer-direct"

    def test_datagrams_go_by_the_relay_and_then_directly(self) -> None:
        """Over one flow for each peer."""
        self.assertFalse(self.core.is_p2p_connected("web"))
        self.assertFalse(self.core.send_datagram_p2p(b"to nobody", "web"))
        flow = self.core.connect_p2p("web", self.now)
        Owner(flow)
        self.assertIs(StreamKind.FLOW, flow.kind)
        self.assertFalse(self.core.is_p2p_connected("web"))
        self.assertTrue(self.core.send_datagram_p2p(b"early", "web"))
        self.run_for(1.0)
        self.connector.requested[0].accept()
        self.run_for(3.0)
        self.assertIs(flow, self.core.connect_p2p("web", self.now))
        self.assertTrue(self.core.is_p2p_connected("web"))
        self.assertTrue(self.core.send_datagram_p2p(b"directly", "web"))
        self.run_for(0.1)
        self.assertEqual([b"early", b"directly"], self.connector.requested[0].owner.payloads)
        flow.reset()
        self.assertFalse(self.core.is_p2p_connected("web"))

    def test_regression_flows_that_are_over_are_forgotten(self) -> None:
        """One stayed for each peer that was ever connected to, and its session with it."""
        for name in ("one", "two", "three"):
            flow = self.core.connect_p2p(name, self.now)
            Owner(flow)
            flow.reset()
        again = self.core.connect_p2p("three", self.now)
        self.assertIsNot(flow, again)
        self.assertEqual({"three": again}, self.core._flows)
