"""Tests of p2pnet.core.peer.connector: who may do what, and which sessions are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet import reports
from p2pnet.core.ledger import Kind
from p2pnet.core.peer import connector
from p2pnet.core.peer.connector import (
    HANDSHAKE_TIMEOUT,
    MAX_AGENT_SESSIONS,
    MAX_UNPROVEN,
    AllowList,
)
from p2pnet.interfaces import IAuthorizer
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.core.peer.cores import CoreCase

ID, OTHER_ID = bytes(16), bytes(15) + b"\x01"
NAMES = st.sampled_from(["alice", "bob", "carol", "*"])
SERVICES = st.sampled_from(["web", "dns", "ssh"])


class AllowListTests(SynchronousTestCase):
    """Who may use what."""

    def test_it_is_an_authorizer(self) -> None:
        """As the interface has it."""
        self.assertTrue(verifyObject(IAuthorizer, AllowList({})))

    def test_a_service_with_nobody_listed_is_for_nobody(self) -> None:
        """The default is no."""
        allow_list = AllowList({"web": []})
        self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize("alice", "web"))

    def test_a_service_that_is_not_listed_is_unknown(self) -> None:
        """Also to an agent that may use others."""
        allow_list = AllowList({"web": ["*"]})
        self.assertEqual(ErrorCode.UNKNOWN_SERVICE, allow_list.authorize("alice", "dns"))

    def test_names_are_compared_as_a_whole(self) -> None:
        """No prefixes, no other case, no patterns, and not the characters of a string."""
        allow_list = AllowList({"web": ["alice"], "dns": ["al*", "A", "l"]})
        for agent in ("alic", "alice2", "Alice", "", "al*ce"):
            self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize(agent, "web"))
        self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize("alice", "dns"))

    @given(st.dictionaries(SERVICES, st.lists(NAMES)), NAMES.filter(lambda n: n != "*"), SERVICES)
    def test_only_the_listed_and_everybody_under_a_star_are_allowed(
        self, allowed: dict[str, list[str]], agent: str, service: str
    ) -> None:
        """For any list."""
        may = service in allowed and (agent in allowed[service] or "*" in allowed[service])
        self.assertEqual(may, AllowList(allowed).authorize(agent, service) is None)


class RegistrationTests(CoreCase):
    """What the connector tells its Intermediates."""

    def test_services_are_registered_whenever_a_link_is_ready(self) -> None:
        """All of them; the Intermediate says which its certificate grants."""
        link = self.connector.links[0]
        for _ in range(2):
            self.office.link_ready(link, ("198.51.100.1", 5000), 0.1, self.now)
            self.assertEqual([messages.Register(("web",))], link.take_sent())
        self.connector.pump(self.now)
        connected = self.connector.happened(reports.ControlConnected)
        self.assertEqual(["198.51.100.1:5000"] * 2, [report.address for report in connected])

    def test_the_answers_are_reported(self) -> None:
        """With the name of the code."""
        self.say(self.connector, messages.Registered(("web",)))
        self.say(self.connector, messages.RegistrationRefused("dns", 0x7777, "no"))
        self.connector.pump(self.now)
        (registered,) = self.connector.happened(reports.Registered)
        self.assertEqual(("web",), registered.services)
        (refused,) = self.connector.happened(reports.RegistrationRefused)
        self.assertEqual(
            ("dns", "cancelled", "no"), (refused.service, refused.code, refused.reason)
        )


class OfferTests(CoreCase):
    """Sessions that Intermediates offer."""

    def test_a_session_is_taken_for_an_agent_that_may_use_the_service(self) -> None:
        """It is reported, and needs the Intermediates from then on."""
        self.assertFalse(self.office.is_needed)
        self.assertEqual((ErrorCode.NO_ERROR, ""), self.offer(0, ID))
        self.assertTrue(self.office.is_needed)
        self.connector.pump(self.now)
        (opened,) = self.connector.happened(reports.SessionOpened)
        self.assertEqual(("alice", "web"), (opened.peer, opened.service))
        self.assertEqual([("192.0.2.1", 4433)], self.connector.ways)

    def test_a_session_is_refused_for_an_agent_that_may_not(self) -> None:
        """With the authorizer's code, and a report."""
        for agent, service, code in (
            ("bob", "web", ErrorCode.NOT_AUTHORIZED),
            ("alice", "dns", ErrorCode.UNKNOWN_SERVICE),
        ):
            reason = f"connector office refuses {service} to agent {agent}"
            self.assertEqual((code, reason), self.offer(0, ID, agent=agent, service=service))
        self.connector.pump(self.now)
        refused = self.connector.happened(reports.SessionRefused)
        self.assertEqual(["not_authorized", "unknown_service"], [report.code for report in refused])
        self.assertEqual(0, len(self.office.sessions))

    def test_another_intermediate_may_relay_the_same_session(self) -> None:
        """Of the same agent and process, and of no other."""
        self.offer(0, ID)
        self.assertEqual((ErrorCode.NO_ERROR, ""), self.offer(1, ID))
        paths = self.office.paths_of(self.connector.session)
        self.assertEqual(2, len(paths.relays))
        code, reason = self.offer(1, ID, instance=b"alice  2")
        self.assertEqual(ErrorCode.PROTOCOL_ERROR, code)
        self.assertEqual("that session belongs to another agent", reason)

    def test_a_session_that_is_over_is_not_resumed(self) -> None:
        """As long as it is remembered."""
        self.patch(connector, "MAX_SESSIONS", 1)
        for session_id in (ID, OTHER_ID):
            self.offer(0, session_id)
            closed = messages.SessionClosed(session_id, ErrorCode.NO_ERROR, "over")
            self.say(self.connector, closed)
            self.assertEqual(0, len(self.office.sessions))
            code = self.offer(0, session_id)[0]
            self.assertEqual(ErrorCode.RESTARTED, code)
        self.assertEqual(ErrorCode.NO_ERROR, self.offer(0, ID)[0])


class ShareTests(CoreCase):
    """How many sessions may be open."""

    def setUp(self) -> None:
        """Few, so that the tests are short."""
        self.patch(connector, "MAX_SESSIONS", 12)
        super().setUp()
        self.office._authorizer = AllowList({"web": ["*"]})

    def offers(self, number: int, count: int, agent: str = "alice") -> list[ErrorCode]:
        """The answers to new offers of an Intermediate."""
        ids = (self.office.entropy(16) for _ in range(count))
        return [ErrorCode(self.offer(number, session, agent=agent)[0]) for session in ids]

    def test_an_agent_may_have_eight_sessions_without_handshake(self) -> None:
        """Through each Intermediate: the name is not proven. In time they make room."""
        taken = [ErrorCode.NO_ERROR] * MAX_UNPROVEN
        self.assertEqual([*taken, ErrorCode.OVER_LIMIT], self.offers(0, MAX_UNPROVEN + 1))
        reason = "alice through 192.0.2.1:4433 has 8 sessions without handshake"
        self.assertEqual(reason, self.offer(0, ID)[1])
        self.assertEqual([ErrorCode.NO_ERROR], self.offers(0, 1, "bob"))
        self.assertEqual([ErrorCode.NO_ERROR], self.offers(1, 1))
        self.run_for(HANDSHAKE_TIMEOUT + 0.1)
        self.assertEqual(taken, self.offers(0, MAX_UNPROVEN))

    def test_an_intermediate_that_fills_the_connector_makes_room_for_another(self) -> None:
        """Its newest sessions end; those that other Intermediates announce go on."""
        for number in range(6):
            self.offers(0, 2, f"agent{number}")
        self.assertEqual([ErrorCode.OVER_LIMIT], self.offers(0, 1, "carol"))
        self.assertEqual([ErrorCode.NO_ERROR] * 3, self.offers(1, 3))
        self.assertEqual([ErrorCode.OVER_LIMIT], self.offers(1, 1))
        self.assertEqual(12, len(self.office.sessions))
        self.connector.pump(self.now)
        ended = self.connector.happened(reports.SessionClosed)
        self.assertEqual(["agent5", "agent5", "agent4"], [report.peer for report in ended])
        self.assertEqual(["over_limit"] * 3, [report.code for report in ended])

    def test_an_established_session_is_none_without_handshake(self) -> None:
        """Offers do not end it, and it leaves room for offers."""
        self.talk()
        session = self.connector.session
        self.assertEqual([ErrorCode.NO_ERROR] * MAX_UNPROVEN, self.offers(0, MAX_UNPROVEN))
        self.offers(0, 8, "bob")
        self.assertTrue(session.is_established)
        self.assertEqual(1, len(self.office.ledger.things(Kind.SESSION, "alice")))

    def test_an_agent_with_many_sessions_is_refused_another(self) -> None:
        """When the handshakes of several end together, and at the next offer."""
        stream = self.stream()
        self.run_for(0.01)
        self.assertEqual(1, len(self.office.sessions))
        for number in range(MAX_AGENT_SESSIONS):
            self.office.ledger.enter(Kind.SESSION, "alice", number)
        self.run_for(1.0)
        (closed,) = self.connector.happened(reports.SessionClosed)
        self.assertEqual(("over_limit", "alice has 64 sessions"), (closed.code, closed.reason))
        self.assertEqual(ErrorCode.OVER_LIMIT, self.outcome_code(stream))
        self.assertEqual((ErrorCode.OVER_LIMIT, "alice has 64 sessions"), self.offer(0, ID))

    def test_an_intermediate_offers_so_many_sessions_a_second(self) -> None:
        """Refused ones count, too."""
        burst = self.offers(0, 14, "bob")
        self.assertEqual(MAX_UNPROVEN, burst.count(ErrorCode.NO_ERROR))
        self.assertEqual(
            (ErrorCode.OVER_LIMIT, "192.0.2.1:4433 offers more than 100 sessions a second"),
            self.offer(0, ID),
        )
        self.run_for(0.1)
        self.assertEqual(ErrorCode.NO_ERROR, self.offer(0, ID)[0])

    def test_nothing_is_counted_of_sessions_that_are_over(self) -> None:
        """However they ended."""
        self.talk()
        self.offers(0, 4, "bob")
        self.office.close(self.now)
        self.assertEqual(0, len(self.office.ledger))


class HandshakeTests(CoreCase):
    """Who the other end proves to be."""

    def ended(self) -> reports.SessionClosed:
        """How the one session of the connector ended."""
        (closed,) = self.connector.happened(reports.SessionClosed)
        return closed

    def test_an_agent_that_does_not_come_is_given_up(self) -> None:
        """After HANDSHAKE_TIMEOUT."""
        self.offer(0, ID)
        self.run_for(HANDSHAKE_TIMEOUT - 0.1)
        self.assertEqual(1, len(self.office.sessions))
        self.run_for(0.2)
        self.assertEqual(
            ("peer_lost", "agent alice did not finish its handshake"),
            (self.ended().code, self.ended().reason),
        )

    def test_an_agent_that_came_is_not(self) -> None:
        """The check at that time finds an established session."""
        self.talk()
        self.run_for(HANDSHAKE_TIMEOUT + 1.0)
        self.assertEqual(1, len(self.office.sessions))

    def test_another_agent_than_was_announced_is_refused(self) -> None:
        """Before it opens a stream."""
        self.office._authorizer = AllowList({"web": ["*"]})
        stream = self.stream()
        self.patch(self, "offer", lambda number, session, **changes: CoreCase.offer(
            self, number, session, **{**changes, "agent": "carol"}
        ))  # fmt: skip
        self.run_for(1.0)
        self.assertEqual(
            ("wrong_peer", "announced was agent carol, it is alice"),
            (self.ended().code, self.ended().reason),
        )
        self.assertEqual([], self.connector.requested)
        self.assertEqual(ErrorCode.WRONG_PEER, self.outcome_code(stream))

    def test_no_candidate_goes_out_before_the_agent_is_verified(self) -> None:
        """An agent under another name gets none, and no check; an agent that proves its name does.

        The handshake alone tells the agent nothing: the connector has no data before its end.
        """
        self.core._policy = "prefer-direct"
        self.office._authorizer = AllowList({"web": ["*"]})
        genuine = CoreCase.offer
        self.patch(self, "offer", lambda number, session, **changes: genuine(
            self, number, session, **{**changes, "agent": "carol"}
        ))  # fmt: skip
        self.stream()
        self.run_for(2.0)
        exchanged = reports.CandidatesExchanged
        self.assertEqual("wrong_peer", self.ended().code)
        self.assertEqual([], self.agent.happened(exchanged) + self.connector.happened(exchanged))
        self.assertEqual([], self.connector.happened(reports.ChecksStarted))
        self.patch(self, "offer", lambda *args, **changes: genuine(self, *args, **changes))
        self.talk()
        self.run_for(2.0)
        self.assertEqual(1, len(self.agent.happened(exchanged)))

    def test_a_session_takes_one_connection(self) -> None:
        """And a packet for no session starts none."""
        self.offer(0, ID)
        session = self.connector.session
        self.assertIsNotNone(self.office._accept_peer(session.address))
        self.run_for(HANDSHAKE_TIMEOUT + 0.1)
        self.assertIsNone(self.office._accept_peer(session.address))
        self.talk()
        self.assertIsNone(self.office._accept_peer(self.connector.session.address))
