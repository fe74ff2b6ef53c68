"""Tests of p2pnet.core.ledger: shares of caps, and rates."""

from __future__ import annotations

import collections
import gc

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core import ledger as module
from p2pnet.core.ledger import SHARES, Cap, Kind, Ledger, Rate

NAMES = [f"node{number}" for number in range(6)]
SHARED, OWN = 12, 9


class Machine(RuleBasedStateMachine):
    """Names that take things and give them back, in any order, beside a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger({Kind.SESSION: Cap(SHARED, OWN), Kind.FLOW: Cap(own=2)})
        self.held: dict[int, str] = {}  # things of the first kind, oldest first
        self.flows: dict[int, str] = {}
        self.made = 0

    def counts(self) -> collections.Counter[str]:
        """The things of each name."""
        return collections.Counter(self.held.values())

    @rule(name=st.sampled_from(NAMES))
    def admit(self, name: str) -> None:
        """A name wants one thing more."""
        self.made += 1
        before = self.counts()
        verdict = self.ledger.admit(Kind.SESSION, name, self.made)
        if before[name] >= OWN:
            assert verdict.refusal == f"{name} has {OWN} sessions"
        elif before.total() < SHARED:
            assert verdict == module.ADMITTED
        elif verdict.refusal is not None:
            assert verdict.refusal == f"all {SHARED} sessions are in use"
            # It has its share, or nobody has more than it would have.
            assert before[name] >= SHARED // SHARES or max(before.values()) <= before[name] + 1
        else:
            loser = self.held.pop(verdict.evicted)
            assert loser != name
            assert before[loser] == max(before.values()) > before[name] + 1
            assert all(thing < verdict.evicted for thing, n in self.held.items() if n == loser)
        if verdict.refusal is None:
            self.held[self.made] = name

    @rule(name=st.sampled_from(NAMES))
    def admit_another_kind(self, name: str) -> None:
        """Kinds do not mix; this one is not shared."""
        self.made += 1
        has_room = list(self.flows.values()).count(name) < 2
        assert (self.ledger.admit(Kind.FLOW, name, self.made).refusal is None) == has_room
        if has_room:
            self.flows[self.made] = name

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A thing ends; to say so twice, or for another kind, does no harm."""
        thing = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[thing]
        for kind in (Kind.FLOW, Kind.SESSION, Kind.SESSION):
            self.ledger.release(kind, thing)

    @invariant()
    def what_is_held_is_what_was_admitted(self) -> None:
        """And is within the caps."""
        counts = self.counts()
        for name in NAMES:
            assert len(self.ledger.things(Kind.SESSION, name)) == counts[name] <= OWN
        assert counts.total() <= SHARED
        assert len(self.ledger) == len(self.held) + len(self.flows)


class LedgerTests(SynchronousTestCase):
    """What names hold."""

    def test_the_ledger_keeps_its_promises_in_any_order_of_things(self) -> None:
        """See Machine."""
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=60, stateful_step_count=60)
        )

    def test_four_names_that_hold_everything_lock_nobody_out(self) -> None:
        """A fifth gets as much as each of them then has."""
        ledger = Ledger({Kind.CONNECTION: Cap(40)})
        for number in range(40):
            ledger.admit(Kind.CONNECTION, NAMES[number % 4], number)
        admitted = 0
        while ledger.admit(Kind.CONNECTION, "newcomer", ("thing", admitted)).refusal is None:
            admitted += 1
        self.assertEqual(8, admitted)
        self.assertEqual([8] * 4, [len(ledger.things(Kind.CONNECTION, name)) for name in NAMES[:4]])

    def test_a_name_alone_may_hold_everything(self) -> None:
        """Until somebody else comes, who gets a quarter."""
        ledger = Ledger({Kind.CONNECTION: Cap(8)})
        for number in range(9):
            verdict = ledger.admit(Kind.CONNECTION, "alice", number)
        self.assertEqual("all 8 connections are in use", verdict.refusal)
        evicted = [ledger.admit(Kind.CONNECTION, "bob", -number).evicted for number in (1, 2, 3)]
        self.assertEqual([7, 6, None], evicted)

    def test_each_owner_has_a_cap_of_its_own(self) -> None:
        """Nothing is left of an owner whose things ended."""
        ledger = Ledger({Kind.CONNECTOR_SESSION: Cap(1)})
        for owner in ("office", "annex"):
            ledger.enter(Kind.CONNECTOR_SESSION, "alice", 1, of=owner)
            self.assertIsNotNone(ledger.judge(Kind.CONNECTOR_SESSION, "bob", owner).refusal)
        ledger.release(Kind.CONNECTOR_SESSION, 1, of="annex")
        self.assertIsNone(ledger.judge(Kind.CONNECTOR_SESSION, "bob", "annex").refusal)
        self.assertEqual((1, 1), (len(ledger), len(ledger._pools)))

    def test_the_connections_of_a_name_share_an_account(self) -> None:
        """It lives as long as they do."""
        ledger = Ledger({})
        account = ledger.credit("alice")
        self.assertIs(account, ledger.credit("alice"))
        self.assertIsNot(account, ledger.credit("bob"))
        del account
        gc.collect()
        self.assertEqual({}, dict(ledger._credits))


class RateTests(SynchronousTestCase):
    """How often names do something."""

    @given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
    def test_a_name_never_gets_more_than_its_burst_and_its_rate(self, pauses: list[float]) -> None:
        """In any stretch of time; another name is not concerned."""
        ledger = Ledger({}, {Kind.REQUEST: Rate(per_second=2.0, burst=5.0)})
        now, given_out = 0.0, []
        for pause in pauses:
            now += pause
            if ledger.charge(Kind.REQUEST, "alice", now):
                given_out.append(now)
        for begin, since in enumerate(given_out):
            total = len(given_out) - begin
            self.assertLessEqual(total, 5.0 + 2.0 * (given_out[-1] - since) + 1e-3)
        answers = [ledger.charge(Kind.REQUEST, "bob", now) for _ in range(6)]
        self.assertEqual([True] * 5 + [False], answers)

    def test_who_waited_is_served(self) -> None:
        """Asking in vain costs nothing."""
        ledger = Ledger({}, {Kind.REQUEST: Rate(per_second=10.0, burst=1.0)})
        asked = [ledger.charge(Kind.REQUEST, "alice", tenth / 20) for tenth in range(6)]
        self.assertEqual([True, False, True, False, True, False], asked)

    def test_full_buckets_are_forgotten(self) -> None:
        """Names come and go, and the table does not grow with them."""
        self.patch(module, "SWEEP", 8)
        ledger = Ledger({}, {Kind.REQUEST: Rate(per_second=1.0, burst=2.0)})
        for number in range(100):
            ledger.charge(Kind.REQUEST, f"node{number}", float(number))
            self.assertLessEqual(len(ledger._buckets), 9)
        answers = [ledger.charge(Kind.REQUEST, "node99", 99.0) for _ in range(2)]
        self.assertEqual([True, False], answers)  # with the one above, its burst
