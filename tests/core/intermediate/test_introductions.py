"""Tests of p2pnet.core.intermediate.introductions: the sessions that an Intermediate relays."""

from __future__ import annotations

import collections
import random
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
from p2pnet.core import events
from p2pnet.core.intermediate.introductions import MAX_REQUESTS, Introductions
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.intermediate.workers import SharedForwarder
from p2pnet.core.timers import Timers
from p2pnet.identity import Role
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.core.support import SERVICES, Told

MAX_SESSIONS, MAX_PER_NODE = 4, 2


class Fixture:
    """A session table with everything around it that is not a network."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_per_node: int = MAX_PER_NODE) -> None:
        self.directory = MemoryDirectory()
        self.events: list[events.Event] = []
        self.forwarder = SharedForwarder(self.events.append)
        self.connectors: dict[str, Told] = {}
        self.nodes: list[Told] = []
        self.made = 0
        self.table = Introductions(
            self.forwarder, self.directory, self.connectors, self.events.append,
            random.Random(1).randbytes, Timers(),
            max_sessions=max_sessions, max_per_node=max_per_node,
            rate=0,
        )  # fmt: skip

    def node(self, role: Role, name: str, *services: str) -> Told:
        """A node that connects; a connector takes the place of an earlier one of its name."""
        self.made += 1
        node = Told(role, name, self.made, (f"203.0.113.{self.made % 250}", 50000))
        self.nodes.append(node)
        if role is Role.CONNECTOR:
            self.connectors[name] = node
            self.directory.register(node.identity.realm, services, node)
        return node

    def lose(self, node: Told) -> None:
        """The node's connection is over."""
        self.nodes.remove(node)
        self.directory.unregister(node.identity.realm, node)
        if self.connectors.get(node.identity.name) is node:
            del self.connectors[node.identity.name]
        self.table.lost(node, ErrorCode.PEER_LOST, "gone")

    def request(self, agent: Told, service: str = "web", **options: Any) -> bytes:
        """Ask for a session. Returns the id that the agent chose for it."""
        self.made += 1
        session = options.pop("session", self.made.to_bytes(16, "big"))
        self.table.request(
            agent, messages.SessionRequest(self.made, session, service, **options), 0.0
        )
        return bytes(session)

    def answer(self, node: Told, session: bytes, code: int = 0) -> None:
        """Take or refuse a session."""
        self.table.answer(node, messages.SessionAnswer(session, code, "because"), 0.0)

    def state(self) -> Any:
        """Everything that can be seen from outside."""
        return (
            len(self.table), len(self.forwarder), len(self.events),
            [(set(node.sessions), len(node.told)) for node in self.nodes],
        )  # fmt: skip


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
        assert len(self.fixture.table) == len(self.fixture.forwarder) == 0
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

    def told(self, node: Told, kind: type[messages.Message]) -> list[Any]:
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
        self.assertEqual(512, len(refused.reason))

    def test_regression_requests_that_wait_for_an_answer_are_capped(self) -> None:
        """A connector that never answers let an agent fill the memory."""
        for _ in range(MAX_REQUESTS + 1):
            self.fixture.request(self.alice)
        (refused,) = self.told(self.alice, messages.SessionRefused)
        self.assertEqual(ErrorCode.OVER_LIMIT, refused.code)

    def test_what_one_end_ends_the_other_is_told_with_the_code(self) -> None:
        """So that it can tell an end from an interruption."""
        session = self.fixture.request(self.alice)
        self.fixture.answer(self.office, session)
        self.fixture.table.leave(self.alice, messages.SessionClosed(session, 0, "not used"))
        (closed,) = self.told(self.office, messages.SessionClosed)
        self.assertEqual((session, 0, "not used"), (closed.session, closed.code, closed.reason))
        self.assertEqual([], self.told(self.alice, messages.SessionClosed))
