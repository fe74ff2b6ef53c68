"""Tests of p2pnet.core.intermediate.introductions: the sessions that an Intermediate relays."""

from __future__ import annotations

import collections
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core.intermediate.introductions import MAX_REQUESTS, OFFER_TIMEOUT
from p2pnet.core.intermediate.shares import MAX_OFFERS
from p2pnet.identity import Role
from p2pnet.quic.connection import HIGH_WATER
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.core.intermediate.fixture import MAX_PER_NODE, MAX_SESSIONS, Fixture
from tests.core.support import SERVICES, Told


class Machine(RuleBasedStateMachine):
    """Nodes that come, ask, answer, lie, leave and get lost in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.fixture = Fixture()
        self.ids: set[bytes] = {bytes(16)}

    def of(self, role: Role) -> list[Told]:
        """The nodes of a role."""
        return [node for node in self.fixture.nodes if node.identity.role is role]

    @precondition(lambda self: len(self.fixture.nodes) < 7)
    @rule(name=st.sampled_from(["alice", "bob"]))
    def agent(self, name: str) -> None:
        """One more process of an agent."""
        self.fixture.node(Role.AGENT, name)

    @precondition(lambda self: len(self.fixture.nodes) < 7)
    @rule(
        name=st.sampled_from(["office", "annex"]),
        services=st.lists(st.sampled_from(SERVICES), unique=True),
    )
    def connector(self, name: str, services: list[str]) -> None:
        """A connector, which may supersede one whose connection is not over yet."""
        self.fixture.node(Role.CONNECTOR, name, *services)

    @precondition(lambda self: self.of(Role.AGENT))
    @rule(data=st.data(), service=st.sampled_from(SERVICES), again=st.booleans())
    def request(self, data: st.DataObject, service: str, again: bool) -> None:
        """Ask for a new session, or with any id at all to resume one."""
        agent = data.draw(st.sampled_from(self.of(Role.AGENT)))
        options: dict[str, Any] = {}
        if again:
            options["session"] = data.draw(st.sampled_from(sorted(self.ids)))
            options["connector"] = data.draw(st.sampled_from([None, "office", "annex"]))
        self.ids.add(self.fixture.request(agent, service, **options))

    @precondition(lambda self: self.fixture.nodes)
    @rule(data=st.data(), code=st.sampled_from([0, ErrorCode.NOT_AUTHORIZED, 0xFFFF]))
    def answer(self, data: st.DataObject, code: int) -> None:
        """Anybody answers for any session; it only counts from the connector it was offered to."""
        node = data.draw(st.sampled_from(self.fixture.nodes))
        session = data.draw(st.sampled_from(sorted(self.ids)))
        before = self.fixture.state()
        offered = session in node.sessions and node.identity.role is Role.CONNECTOR
        self.fixture.answer(node, session, code)
        assert offered or before == self.fixture.state()

    @precondition(lambda self: self.fixture.nodes)
    @rule(data=st.data(), code=st.sampled_from([0, ErrorCode.PEER_LOST, 0xFFFF]))
    def leave(self, data: st.DataObject, code: int) -> None:
        """Anybody ends any session; it only counts from one of its ends."""
        node = data.draw(st.sampled_from(self.fixture.nodes))
        session = data.draw(st.sampled_from(sorted(self.ids)))
        before = self.fixture.state()
        theirs = session in node.sessions
        self.fixture.table.leave(node, messages.SessionClosed(session, code, "over"))
        assert theirs or before == self.fixture.state()
        assert session not in node.sessions

    @precondition(lambda self: self.fixture.nodes)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A node's connection is over."""
        self.fixture.lose(data.draw(st.sampled_from(self.fixture.nodes)))

    @invariant()
    def sessions_have_two_ends_and_two_channels(self) -> None:
        """And are within the limits."""
        table = self.fixture.table
        for role in (Role.AGENT, Role.CONNECTOR):
            held = [session for node in self.of(role) for session in node.sessions]
            assert len(held) == len(set(held)) == len(table)
        assert len(self.fixture.forwarder) == 2 * len(table)
        assert len(table) <= MAX_SESSIONS
        assert all(len(node.sessions) <= MAX_PER_NODE for node in self.fixture.nodes)

    @invariant()
    def no_request_is_answered_twice(self) -> None:
        """Either opened or refused, or not yet anything."""
        for node in self.of(Role.AGENT):
            answers = collections.Counter(
                message.request
                for message in node.told
                if isinstance(message, messages.SessionOpened | messages.SessionRefused)
            )
            assert max(answers.values(), default=1) == 1

    def teardown(self) -> None:
        """Nothing is left when everybody is gone, and what was opened was closed, once."""
        for node in list(self.fixture.nodes):
            self.fixture.lose(node)
        assert (
            len(self.fixture.table) == len(self.fixture.forwarder) == len(self.fixture.ledger) == 0
        )
        assert len(self.fixture.directory) == 0
        seen: collections.Counter[str] = collections.Counter()
        for event in self.fixture.events:
            assert isinstance(event, reports.RelayOpened | reports.RelayClosed)
            seen[event.session] += 1 if isinstance(event, reports.RelayOpened) else -1
            assert seen[event.session] in (0, 1)
        assert not +seen


class IntroductionsTests(SynchronousTestCase):
    """What the machine does not say."""

    def setUp(self) -> None:
        """An agent and a connector."""
        self.fixture = Fixture(max_sessions=100, max_per_node=100)
        self.office = self.fixture.node(Role.CONNECTOR, "office", "web", "dns")
        self.alice = self.fixture.node(Role.AGENT, "alice")

    def told(self, node: Told, kind: type[Message]) -> list[Any]:
        """What the node was told of a kind."""
        return [message for message in node.told if isinstance(message, kind)]

    def test_the_table_keeps_its_promises_in_any_order_of_things(self) -> None:
        """See Machine."""
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=40, stateful_step_count=40)
        )

    def test_both_ends_learn_the_channels_the_other_way_round(self) -> None:
        """Where one sends, the other receives."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        (offer,) = self.told(self.office, messages.SessionOffer)
        (opened,) = self.told(self.alice, messages.SessionOpened)
        self.assertEqual(offer.send_channel, opened.receive_channel)
        self.assertEqual(offer.receive_channel, opened.send_channel)
        self.assertNotEqual(offer.send_channel, offer.receive_channel)
        self.assertEqual(("alice", self.alice.instance), (offer.agent, offer.instance))
        self.assertEqual(("office", self.office.instance), (opened.connector, opened.instance))

    def test_two_services_of_one_connector_share_a_session(self) -> None:
        """Asked for at once or one after the other."""
        session = self.fixture.request(self.alice, "web")
        self.fixture.request(self.alice, "dns")
        self.fixture.answer(self.office, session)
        self.fixture.request(self.alice, "dns")
        opened = self.told(self.alice, messages.SessionOpened)
        self.assertEqual([session] * 3, [message.session for message in opened])
        self.assertEqual(1, len(self.told(self.office, messages.SessionOffer)))

    def test_another_agents_session_cannot_be_had(self) -> None:
        """Not even with its id."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        bob = self.fixture.node(Role.AGENT, "bob")
        self.fixture.request(bob, session=session, connector="office")
        (refused,) = self.told(bob, messages.SessionRefused)
        self.assertEqual(ErrorCode.PROTOCOL_ERROR, refused.code)
        self.assertEqual(set(), bob.sessions)

    def test_regression_a_long_reason_does_not_make_a_refusal_malformed(self) -> None:
        """A node chooses the words with which its connection ends, and how many."""
        self.fixture.request(self.alice)
        self.fixture.table.lost(self.office, ErrorCode.PEER_LOST, "x" * 1300)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(200, len(refused.reason))

    def test_regression_requests_that_wait_for_an_answer_are_capped(self) -> None:
        """A connector that never answers let an agent fill the memory."""
        for _ in range(MAX_REQUESTS + 1):
            self.fixture.request(self.alice)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(ErrorCode.OVER_LIMIT, refused.code)

    def test_offers_that_a_connector_has_yet_to_answer_are_capped_for_each_agent(self) -> None:
        """Also those of sessions that the agent ended meanwhile, and of the agent's processes."""
        for _ in range(MAX_OFFERS):
            session = self.fixture.request(self.alice)
            self.fixture.table.leave(self.alice, messages.SessionClosed(session, 0, ""))
        other = self.fixture.node(Role.AGENT, "alice")
        self.fixture.request(other)
        (refused,) = self.told(other, messages.SessionRefused)
        self.assertEqual(ErrorCode.OVER_LIMIT, refused.code)
        self.fixture.request(self.fixture.node(Role.AGENT, "bob"))
        self.assertEqual(MAX_OFFERS + 1, len(self.told(self.office, messages.SessionOffer)))
        self.fixture.answer(self.office, session)
        self.fixture.request(other)
        self.assertEqual(MAX_OFFERS + 2, len(self.told(self.office, messages.SessionOffer)))

    def test_a_session_is_not_offered_again_before_the_answer(self) -> None:
        """The answer to the first offer would count for the second."""
        session = self.fixture.request(self.alice)
        self.fixture.table.leave(self.alice, messages.SessionClosed(session, 0, ""))
        self.fixture.request(self.alice, session=session)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(ErrorCode.OVER_LIMIT, refused.code)

    def test_a_connector_that_reads_too_little_gets_no_offers(self) -> None:
        """Many agents together would have its connection closed."""
        self.office.connection.backlog = HIGH_WATER + 1
        self.fixture.request(self.alice)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(
            (ErrorCode.OVER_LIMIT, "connector office does not read its messages"),
            (refused.code, refused.reason),
        )

    def test_what_one_end_ends_the_other_is_told_with_the_code(self) -> None:
        """So that it can tell an end from an interruption."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        self.fixture.table.leave(self.alice, messages.SessionClosed(session, 0, "not used"))
        (closed,) = self.told(self.office, messages.SessionClosed)
        self.assertEqual((session, 0, "not used"), (closed.session, closed.code, closed.reason))
        self.assertEqual([], self.told(self.alice, messages.SessionClosed))

    def test_a_connector_that_is_not_there_is_refused_with_a_reason(self) -> None:
        """By service or by name."""
        self.fixture.request(self.alice, "ssh")
        self.fixture.request(self.alice, "web", connector="annex")
        refusals = [(r.code, r.reason) for r in self.told(self.alice, messages.SessionRefused)]
        self.assertEqual(
            [
                (ErrorCode.UNKNOWN_SERVICE, "no connector serves ssh now"),
                (ErrorCode.UNKNOWN_SERVICE, "connector annex is not connected"),
            ],
            refusals,
        )

    def test_a_session_is_resumed_with_its_id_only(self) -> None:
        """A request that names the connector begins a new session for another id."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        self.fixture.request(self.alice, session=session, connector="office")
        self.assertEqual(2, len(self.told(self.alice, messages.SessionOpened)))
        self.fixture.request(self.alice, connector="office")
        self.assertEqual(2, len(self.fixture.table))

    def test_requests_with_another_policy_do_not_share_a_session(self) -> None:
        """Its paths would be chosen otherwise."""
        for policy in ("lowest-rtt", "direct-only", "lowest-rtt"):
            self.fixture.request(self.alice, policy=policy)
        offers = self.told(self.office, messages.SessionOffer)
        self.assertEqual(2, len(offers))

    def test_the_connector_with_the_fewest_sessions_is_chosen(self) -> None:
        """For an agent that has none with any of them."""
        annex = self.fixture.node(Role.CONNECTOR, "annex", "web")
        self.fixture.request(self.alice)
        self.fixture.request(self.fixture.node(Role.AGENT, "bob"))
        self.assertEqual((1, 1), (len(self.office.sessions), len(annex.sessions)))

    def test_a_connector_that_does_not_answer_is_passed_over(self) -> None:
        """The request goes to another one, later ones as well, and the offer is withdrawn."""
        session = self.fixture.request(self.alice)
        annex = self.fixture.node(Role.CONNECTOR, "annex", "web")
        self.fixture.timers.handle_timer(OFFER_TIMEOUT)
        (closed,) = self.told(self.office, messages.SessionClosed)
        self.assertEqual((session, ErrorCode.PEER_LOST), (closed.session, closed.code))
        self.assertTrue(self.office.is_silent)
        self.fixture.answer(annex, session)
        (opened,) = self.told(self.alice, messages.SessionOpened)
        self.assertEqual("annex", opened.connector)

    def test_a_connector_is_silent_until_it_answers_an_offer(self) -> None:
        """Also an offer whose session is over; it may acknowledge packets all the time."""
        session = self.fixture.request(self.alice)
        self.fixture.timers.handle_timer(OFFER_TIMEOUT)
        self.fixture.answer(self.office, bytes(16))
        self.assertTrue(self.office.is_silent)
        self.fixture.answer(self.office, session)
        self.assertFalse(self.office.is_silent)
        self.assertEqual(0, len(self.fixture.table))

    def test_a_connector_that_the_agent_tried_is_the_last_choice(self) -> None:
        """Before others that are silent, that share no session, and that have more of them."""
        annex = self.fixture.node(Role.CONNECTOR, "annex", "web")
        annex.is_silent = True
        for _ in range(2):
            self.fixture.request(self.fixture.node(Role.AGENT, "bob"), connector="annex")
        self.fixture.answer(self.office, self.fixture.request(self.alice))
        self.fixture.request(self.alice, tried=("office",))
        self.assertEqual(3, len(annex.sessions))
        self.fixture.request(self.alice, tried=("annex",))
        self.fixture.request(self.alice, "dns", tried=("office",))
        self.assertEqual(3, len(self.told(self.alice, messages.SessionOpened)))

    def test_a_tried_connector_is_better_than_one_that_leaves_the_offer_unanswered(self) -> None:
        """The agent goes on with the session that it has."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        self.fixture.node(Role.CONNECTOR, "annex", "web")
        self.fixture.request(self.alice, tried=("office",))
        self.fixture.timers.handle_timer(OFFER_TIMEOUT)
        opened = self.told(self.alice, messages.SessionOpened)
        self.assertEqual([session] * 2, [message.session for message in opened])

    def test_the_only_connector_that_does_not_answer_is_unreachable(self) -> None:
        """A slow path has more time."""
        self.office.connection.rtt = 1.0
        self.fixture.request(self.alice)
        self.fixture.timers.handle_timer(OFFER_TIMEOUT)
        self.assertEqual([], self.told(self.alice, messages.SessionRefused))
        self.fixture.timers.handle_timer(6.0)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(
            (ErrorCode.UNREACHABLE, "connector office does not answer"),
            (refused.code, refused.reason),
        )

    def test_an_answer_in_time_is_not_late_afterwards(self) -> None:
        """Nor is one for a session that ended."""
        one, other = (
            self.fixture.request(self.alice),
            self.fixture.request(self.alice, policy="relay-only"),
        )
        self.fixture.answer(self.office, one)
        self.fixture.answer(self.office, other, ErrorCode.OVER_LIMIT)
        self.fixture.timers.handle_timer(OFFER_TIMEOUT)
        self.assertFalse(self.office.is_silent)
        self.assertEqual(1, len(self.fixture.table))

    def test_a_refusal_is_about_the_service_of_the_offer(self) -> None:
        """Another request that would have shared the session is offered by itself."""
        session = self.fixture.request(self.alice, "web")
        self.fixture.request(self.alice, "dns")
        self.fixture.answer(self.office, session, ErrorCode.NOT_AUTHORIZED)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual((ErrorCode.NOT_AUTHORIZED, "because"), (refused.code, refused.reason))
        offers = self.told(self.office, messages.SessionOffer)
        self.assertEqual(["web", "dns"], [offer.service for offer in offers])

    def test_limits_are_of_all_nodes_and_of_each(self) -> None:
        """The reason says which."""
        for limits, reason in (
            ((1, 9), "all 1 sessions are in use"),
            ((9, 1), "alice has 1 sessions"),
        ):
            fixture = Fixture(*limits)
            fixture.node(Role.CONNECTOR, "office", "web")
            alice = fixture.node(Role.AGENT, "alice")
            for policy in ("direct-only", "relay-only"):
                fixture.request(alice, policy=policy)
            (refused,) = self.told(alice, messages.SessionRefused)
            self.assertEqual((ErrorCode.OVER_LIMIT, reason), (refused.code, refused.reason))

    def test_frames_follow_a_node_that_moved(self) -> None:
        """And keep a session busy."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        (opened,) = self.told(self.alice, messages.SessionOpened)
        frame = encode_relay_frame(opened.send_channel, b"payload")
        self.alice.address = ("203.0.113.99", 6000)
        self.fixture.table.moved(self.alice)
        self.assertEqual(0, self.fixture.table.count_busy(5.0))
        target = self.fixture.forwarder.forward(frame, self.alice.address, 6.0)
        self.assertEqual(self.office.address, target)
        self.assertEqual(1, self.fixture.table.count_busy(5.0))
