"""Tests of p2pnet.core.peer.connector: who may do what, and which sessions are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet import reports
from p2pnet.core.peer import connector
from p2pnet.core.peer.connector import HANDSHAKE_TIMEOUT, AllowList
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

    def test_there_are_no_more_than_so_many_sessions(self) -> None:
        """The others are refused; those that there are go on."""
        self.patch(connector, "MAX_SESSIONS", 1)
        self.offer(0, ID)
        self.assertEqual((ErrorCode.OVER_LIMIT, "1 sessions are open"), self.offer(0, OTHER_ID))
        self.assertEqual((ErrorCode.NO_ERROR, ""), self.offer(1, ID))

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

    def test_a_session_takes_one_connection(self) -> None:
        """And a packet for no session starts none."""
        self.offer(0, ID)
        session = self.connector.session
        self.assertIsNotNone(self.office._accept_peer(session.address))
        self.run_for(HANDSHAKE_TIMEOUT + 0.1)
        self.assertIsNone(self.office._accept_peer(session.address))
        self.talk()
        self.assertIsNone(self.office._accept_peer(self.connector.session.address))
