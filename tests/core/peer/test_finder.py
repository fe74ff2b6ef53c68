"""Tests of p2pnet.core.peer.finder: from the name of a service to a session, by fake links."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core.peer import finder
from p2pnet.core.peer.ends import AgentSession, Need
from p2pnet.core.peer.finder import (
    ANSWER_TIMEOUT,
    MAX_DECLINED,
    MAX_WAITING,
    REQUEST_TIMEOUT,
    SEARCH_AGAIN,
    ServiceFinder,
    trouble,
)
from p2pnet.core.peer.session import Announcement
from p2pnet.core.peer.stream import Stream, StreamClosed
from p2pnet.core.timers import Timers
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind
from tests.core.peer.links import FakeAgent, FakeLink

NEAR, FAR = "192.0.2.1", "192.0.2.2"


def need(service: str = "web") -> Need:
    """That of a stream to a service, with a policy of the service's name."""
    return Need(service, f"policy of {service}")


class FinderCase(SynchronousTestCase):
    """A finder with two Intermediates, one nearer than the other."""

    def setUp(self) -> None:
        """Both are ready."""
        self.now = 0.0
        self.timers = Timers()
        self.agent = FakeAgent()
        self.near, self.far = FakeLink(NEAR, rtt=0.02), FakeLink(FAR, rtt=0.2)
        self.finder = ServiceFinder([self.far, self.near], self.timers, self.agent)

    def run_to(self, time: float) -> None:
        """Let time pass."""
        while (when := self.timers.get_timer()) is not None and when <= time:
            self.now = when
            self.timers.handle_timer(when)
        self.now = time

    def wait(self, service: str = "web") -> Stream:
        """A stream that waits for a service."""
        stream = Stream(service, StreamKind.BYTES, self.now, self.agent.emit)
        self.assertTrue(self.finder.wait(stream, need(service), self.now))
        return stream

    def requested(self, link: FakeLink) -> messages.SessionRequest:
        """The one request that was sent since the last call."""
        (request,) = link.take_sent()
        assert isinstance(request, messages.SessionRequest)
        return request

    def refuse(self, link: FakeLink, code: ErrorCode, reason: str = "because") -> None:
        """Let the Intermediate refuse its latest request."""
        self.finder.refused(self.requested(link).request, code, reason, self.now)

    def outcome(self, stream: Stream) -> tuple[int, str] | None:
        """How the stream ended."""
        for event in self.agent.events:
            if isinstance(event, StreamClosed) and event.stream is stream:
                return event.code, event.reason
        return None

    def session(self, service: str = "web") -> AgentSession:
        """A session that was found for a service."""
        announced = Announcement(self.agent.new_session_id(), "office", b"instance")
        return AgentSession(announced, self.now, self.agent.emit, need(service))

    def leftovers(self) -> dict[str, Any]:
        """The tables of the finder that are not empty."""
        tables = {name: value for name, value in vars(self.finder).items() if value}
        return {name: value for name, value in tables.items() if isinstance(value, dict)}


class SearchTests(FinderCase):
    """Which Intermediates are asked, and in which order."""

    def test_the_nearest_intermediate_is_asked_once_for_all_that_wait(self) -> None:
        """With the policy; the connection is prepared while the answer is on its way."""
        for _ in range(3):
            self.wait()
        request = self.requested(self.near)
        self.assertEqual(
            ("web", None, "policy of web"), (request.service, request.connector, request.policy)
        )
        self.assertEqual([], self.far.sent)
        self.assertEqual([], self.agent.prepared)
        self.run_to(self.now)
        self.assertEqual([request.session], self.agent.prepared)
        self.assertTrue(self.finder.is_awaited)

    def test_an_answered_request_is_under_way_no_more(self) -> None:
        """A second answer belongs to none."""
        self.wait()
        self.run_to(0.0)
        number = self.requested(self.near).request
        request = self.finder.answered(number)
        assert request is not None
        self.assertIsNotNone(request.engine)
        self.assertIsNone(self.finder.answered(number))
        self.assertEqual([], list(self.finder))

    def test_a_request_that_was_answered_at_once_prepares_nothing(self) -> None:
        """Its connection would be of no use."""
        self.wait()
        self.finder.answered(self.requested(self.near).request)
        self.run_to(0.0)
        self.assertEqual([], self.agent.prepared)

    def test_a_service_that_one_does_not_know_is_asked_for_elsewhere(self) -> None:
        """If nobody knows it, the streams fail, and the reasons name the Intermediates."""
        stream = self.wait()
        self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE, "never heard of it")
        self.assertIsNone(self.outcome(stream))
        self.refuse(self.far, ErrorCode.UNKNOWN_SERVICE, "nor have I")
        reason = f"intermediate {NEAR}:4433: never heard of it; intermediate {FAR}:4433: nor have I"
        self.assertEqual((ErrorCode.UNKNOWN_SERVICE, reason), self.outcome(stream))
        (refused,) = [e for e in self.agent.events if isinstance(e, reports.SessionRefused)]
        self.assertEqual(("web", "unknown_service"), (refused.service, refused.code))
        self.assertEqual({}, self.leftovers())

    def test_different_codes_are_unreachable_together(self) -> None:
        """None of them is the whole truth."""
        stream = self.wait()
        self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE)
        self.refuse(self.far, ErrorCode.OVER_LIMIT)
        outcome = self.outcome(stream)
        assert outcome is not None
        self.assertEqual(ErrorCode.UNREACHABLE, outcome[0])

    def test_a_final_refusal_is_not_asked_for_elsewhere(self) -> None:
        """The connector itself said no."""
        stream = self.wait()
        self.refuse(self.near, ErrorCode.NOT_AUTHORIZED, "not you")
        self.assertEqual((ErrorCode.NOT_AUTHORIZED, "not you"), self.outcome(stream))
        self.assertEqual([], self.far.sent)

    def test_the_only_intermediate_is_not_named_in_its_reason(self) -> None:
        """There is no other that it could be."""
        self.finder = ServiceFinder([self.near], self.timers, self.agent)
        stream = self.wait()
        self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE, "never heard of it")
        self.assertEqual((ErrorCode.UNKNOWN_SERVICE, "never heard of it"), self.outcome(stream))

    def test_without_an_intermediate_nothing_can_be_found(self) -> None:
        """The stream fails at once."""
        self.finder = ServiceFinder([], self.timers, self.agent)
        self.assertEqual((ErrorCode.UNREACHABLE, ""), self.outcome(self.wait()))

    def test_a_draining_intermediate_is_not_asked_again(self) -> None:
        """Its refusal says nothing of the service."""
        self.wait()
        self.refuse(self.near, ErrorCode.DRAINING)
        self.assertTrue(self.near.draining)
        self.assertEqual("web", self.requested(self.far).service)

    def test_an_intermediate_that_does_not_answer_is_passed_over(self) -> None:
        """After ANSWER_TIMEOUT. The time-out of a request that was answered does nothing."""
        self.wait()
        self.run_to(ANSWER_TIMEOUT)
        request = self.requested(self.far)
        self.assertEqual("web", request.service)
        self.near.take_sent()
        self.finder.answered(request.request)
        self.run_to(2 * ANSWER_TIMEOUT)
        self.assertEqual([], self.near.sent + self.far.sent)

    def test_requests_of_a_lost_link_are_made_elsewhere(self) -> None:
        """Those for another relay are left to the session."""
        self.wait()
        self.finder.join(self.session(), [self.far.address], self.now)
        self.near.bring_down("gone")
        self.finder.give_up(self.near, self.now)
        self.assertEqual(1, len(list(self.finder)))
        self.assertEqual("web", self.requested(self.far).service)
        self.finder.give_up(self.near, self.now)
        self.assertEqual(1, len(list(self.finder)))

    def test_streams_that_wait_are_served_as_soon_as_a_link_is_ready(self) -> None:
        """Only those whose service has no route."""
        for link in (self.near, self.far):
            link.bring_down("gone")
        self.wait()
        self.finder.add_route(need("dns"), self.session("dns"))
        self.wait("dns")
        self.far.bring_up()
        self.finder.find_all(self.now)
        self.assertEqual("web", self.requested(self.far).service)


class AgainTests(FinderCase):
    """A refusal is not final while an Intermediate cannot be asked."""

    def setUp(self) -> None:
        """Only the near one can be asked."""
        super().setUp()
        self.far.bring_down("gone")

    def test_the_search_begins_again_from_the_start(self) -> None:
        """Every SEARCH_AGAIN, for as long as streams wait."""
        stream = self.wait()
        for again in range(1, 4):
            self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE)
            self.assertIsNone(self.outcome(stream))
            self.run_to(again * SEARCH_AGAIN - 0.01)
            self.assertEqual([], self.near.sent)
            self.run_to(again * SEARCH_AGAIN)
        self.far.bring_up()
        self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE)
        self.assertEqual("web", self.requested(self.far).service)

    def test_regression_streams_that_wait_together_are_searched_for_together(self) -> None:
        """Each had a search of its own, so that many made a request every few milliseconds."""
        self.wait()
        self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE)
        for _ in range(20):
            self.run_to(self.now + 0.01)
            self.wait()
        requests = 0
        while self.now < 3.0:
            self.run_to(self.now + 0.01)
            if self.near.sent:
                requests += 1
                self.refuse(self.near, ErrorCode.UNKNOWN_SERVICE)
        self.assertEqual(3.0 / SEARCH_AGAIN, requests + 1)

    def test_regression_nothing_is_kept_of_a_service_that_nobody_waits_for(self) -> None:
        """Refusals and empty queues stayed, one for each name that was ever asked for."""
        stream = self.wait()
        self.near.take_sent()
        self.run_to(REQUEST_TIMEOUT - 0.1)
        self.finder.find(need("web"), self.now)
        self.run_to(REQUEST_TIMEOUT)
        self.assertIsNotNone(self.outcome(stream))
        for _ in range(2):
            self.run_to(self.now + ANSWER_TIMEOUT + SEARCH_AGAIN)
        self.assertEqual({}, self.leftovers())


class WaitingTests(FinderCase):
    """Streams that wait, and for how long."""

    def test_a_stream_waits_for_ten_seconds(self) -> None:
        """Others that came later go on waiting."""
        self.finder.add_route(need("web"), self.session())
        first = self.wait()
        self.run_to(1.0)
        second = self.wait()
        self.run_to(REQUEST_TIMEOUT)
        outcome = self.outcome(first)
        assert outcome is not None
        self.assertEqual(ErrorCode.UNREACHABLE, outcome[0])
        self.assertIsNone(self.outcome(second))
        self.run_to(REQUEST_TIMEOUT + 1.0)
        self.assertIsNotNone(self.outcome(second))
        self.assertFalse(self.finder.is_awaited)

    def test_a_stream_that_waited_in_vain_learns_why(self) -> None:
        """What each Intermediate lacks; without any lack, that no session came."""
        self.near.bring_down("no answer to a ping")
        self.far.bring_up(draining=True)
        stream = self.wait()
        self.run_to(REQUEST_TIMEOUT)
        self.assertEqual(
            (
                ErrorCode.UNREACHABLE,
                f"intermediate {FAR}:4433 is shutting down; "
                f"intermediate {NEAR}:4433 is unreachable: no answer to a ping",
            ),
            self.outcome(stream),
        )
        self.assertEqual("unreachable: no answer yet", self.trouble_of_a_new_link())
        for link in (self.near, self.far):
            link.bring_up()
        self.finder.add_route(need("web"), self.session())
        stream = self.wait()
        self.run_to(self.now + REQUEST_TIMEOUT)
        self.assertEqual(
            (ErrorCode.UNREACHABLE, "no session for web within 10 s"), self.outcome(stream)
        )

    def trouble_of_a_new_link(self) -> str:
        """Why an Intermediate cannot be asked that was not reached yet."""
        link = FakeLink()
        link.bring_down("")
        return trouble(link)

    def test_no_more_than_so_many_wait_for_one_service(self) -> None:
        """Those of another have a queue of their own."""
        self.patch(finder, "MAX_WAITING", 3)
        for _ in range(3):
            self.wait()
        self.assertFalse(self.finder.wait(self.outside(), need(), self.now))
        self.wait("dns")
        self.assertGreater(MAX_WAITING, 3)

    def outside(self) -> Stream:
        """A stream that does not wait."""
        return Stream("web", StreamKind.BYTES, self.now, self.agent.emit)

    def test_streams_that_are_taken_wait_no_more(self) -> None:
        """Their time-outs do nothing."""
        streams = [self.wait(), self.wait(), self.wait("dns")]
        self.assertEqual(streams[:2], self.finder.take_waiting(need("web")))
        self.assertEqual(streams[2:], self.finder.take_all_waiting())
        self.assertEqual([], self.finder.take_waiting(need("web")))
        self.run_to(REQUEST_TIMEOUT)
        self.assertEqual([None] * 3, [self.outcome(stream) for stream in streams])


class RouteTests(FinderCase):
    """The session that was found is the route of its services."""

    def test_a_session_may_be_the_route_of_several_services(self) -> None:
        """Until it is dropped."""
        session = self.session()
        for service in ("web", "dns"):
            self.finder.add_route(need(service), session)
        self.assertEqual([need("web"), need("dns")], self.finder.needs_of(session))
        self.finder.drop_route(need("web"), session)
        self.finder.drop_route(need("web"), session)
        self.assertIsNone(self.finder.route(need("web")))
        self.assertIs(session, self.finder.route(need("dns")))

    def test_nothing_is_searched_for_while_there_is_a_route(self) -> None:
        """The stream waits for the handshake alone; without the route another is found."""
        session = self.session()
        self.finder.add_route(need("web"), session)
        self.finder.add_route(need("dns"), session)
        self.wait()
        self.assertFalse(self.finder.awaits(need("web")))
        self.assertEqual([], self.near.sent)
        self.finder.reroute(session, self.now)
        self.assertEqual("web", self.requested(self.near).service)
        self.assertEqual([], self.finder.needs_of(session))


class JoinTests(FinderCase):
    """More relays for a session."""

    def test_each_intermediate_that_is_missing_is_asked_once(self) -> None:
        """For the session by its id and connector; one that relays it is not asked."""
        session = self.session()
        for _ in range(2):
            self.assertTrue(self.finder.join(session, [self.near.address], self.now))
        request = self.requested(self.far)
        self.assertEqual(
            (session.id, "web", "office"), (request.session, request.service, request.connector)
        )
        self.assertEqual([], self.near.sent)
        both = [self.near.address, self.far.address]
        self.assertFalse(self.finder.join(session, both, self.now))

    def test_a_refusal_to_relay_a_session_is_the_sessions_concern(self) -> None:
        """Nothing is asked elsewhere, and a late refusal belongs to nothing."""
        session = self.session()
        self.finder.join(session, [self.near.address], self.now)
        number = self.requested(self.far).request
        request = self.finder.refused(number, ErrorCode.RESTARTED, "gone", self.now)
        assert request is not None
        self.assertIs(session, request.resumes)
        self.assertIsNone(self.finder.refused(number, ErrorCode.RESTARTED, "gone", self.now))
        self.assertEqual([], self.near.sent)

    def test_it_does_not_matter_for_the_route_that_others_search(self) -> None:
        """A request for another relay is none for the service."""
        self.finder.join(self.session(), [self.far.address], self.now)
        self.near.take_sent()
        self.wait()
        self.assertIsNone(self.requested(self.near).connector)


class DeclineTests(FinderCase):
    """Sessions that nobody needs any more."""

    def test_a_declined_session_is_sent_back_and_remembered(self) -> None:
        """For its Intermediate, and for a while: there are never more than so many."""
        for number in range(MAX_DECLINED + 1):
            self.finder.decline(self.near, number.to_bytes(16, "big"))
        closed = self.near.take_sent()
        self.assertEqual(MAX_DECLINED + 1, len(closed))
        self.assertEqual((bytes(16), ErrorCode.NO_ERROR), (closed[0].session, closed[0].code))
        last = MAX_DECLINED.to_bytes(16, "big")
        self.assertTrue(self.finder.has_declined(self.near, last))
        self.assertFalse(self.finder.has_declined(self.far, last))
        self.assertFalse(self.finder.has_declined(self.near, bytes(16)))
