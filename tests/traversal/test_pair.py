"""Candidate pairs: their priority and their states."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.pair import (
    TRANSITIONS,
    CandidatePair,
    PairState,
    PairStatus,
    pair_priority,
)
from tests.traversal.support import host

priorities = st.integers(1, 2**31 - 1)
HOST, SRFLX = 2130706431, 1694498815


class PairPriorityTests(SynchronousTestCase):
    """RFC 8445 section 6.1.2.3."""

    def test_worked_values(self) -> None:
        """2^32 * min + 2 * max, and one more if the controlling side's is the larger."""
        self.assertEqual(9151314442783293438, pair_priority(HOST, HOST))
        self.assertEqual(7277816997797167103, pair_priority(HOST, SRFLX))
        self.assertEqual(7277816997797167102, pair_priority(SRFLX, HOST))
        self.assertEqual((1 << 32) + 4, pair_priority(1, 2))
        self.assertEqual((1 << 32) + 5, pair_priority(2, 1))

    @given(priorities, priorities)
    def test_the_formula(self, controlling: int, controlled: int) -> None:
        """Written out once more, as in the RFC."""
        least, most = sorted((controlling, controlled))
        bonus = 1 if controlling > controlled else 0
        self.assertEqual(2**32 * least + 2 * most + bonus, pair_priority(controlling, controlled))

    @given(st.tuples(priorities, priorities), st.tuples(priorities, priorities))
    def test_both_ends_sort_pairs_alike(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Each computes it from its own view; the worse candidate of a pair decides first."""
        if min(one) != min(other):
            self.assertEqual(min(one) > min(other), pair_priority(*one) > pair_priority(*other))
        self.assertLess(pair_priority(*one), 2**63)


class PairStateTests(SynchronousTestCase):
    """RFC 8445 section 6.1.2.6."""

    def pair(self, state: PairState) -> CandidatePair:
        """A pair in a state."""
        ends = host(("10.0.0.1", 5000)), host(("10.0.0.2", 5000))
        return CandidatePair(*ends, priority=1, state=state)

    def test_the_table_of_transitions_is_total(self) -> None:
        """Every state has an entry, and leads to states only; none leads to itself."""
        self.assertEqual(set(PairState), set(TRANSITIONS))
        for state, following in TRANSITIONS.items():
            self.assertLessEqual(following, set(PairState) - {state})
            self.assertTrue(following, f"{state} is a dead end")

    def test_a_snapshot_says_all_of_a_pair(self) -> None:
        """As a value that does not change with the pair."""
        pair = self.pair(PairState.SUCCEEDED)
        pair.nominated, pair.rtt = True, 0.04
        snapshot = pair.snapshot()
        pair.rtt = 0.05
        expected = PairStatus("host", ("10.0.0.2", 5000), PairState.SUCCEEDED, True, 0.04)
        self.assertEqual(expected, snapshot)

    def test_a_pair_goes_where_the_table_says_and_nowhere_else(self) -> None:
        """Every two states."""
        for state, following in itertools.product(PairState, PairState):
            pair = self.pair(state)
            if following in TRANSITIONS[state]:
                pair.advance(following)
                self.assertIs(following, pair.state)
            else:
                self.assertRaises(AssertionError, pair.advance, following)

    def test_only_a_pair_that_succeeded_is_valid(self) -> None:
        """Which is what may carry data."""
        valid = {state for state in PairState if self.pair(state).is_valid}
        self.assertEqual({PairState.SUCCEEDED}, valid)

    def test_success_comes_only_after_a_check(self) -> None:
        """There is no other way into it."""
        ways = {
            state for state, following in TRANSITIONS.items() if PairState.SUCCEEDED in following
        }
        self.assertEqual({PairState.IN_PROGRESS}, ways)

    def test_the_foundation_of_a_pair_is_that_of_both_candidates(self) -> None:
        """RFC 8445 section 6.1.2.6: pairs with the same one are frozen together."""
        pair = self.pair(PairState.FROZEN)
        self.assertEqual(f"{pair.local.foundation}:{pair.remote.foundation}", pair.foundation)
        self.assertEqual(("10.0.0.2", 5000), pair.address)
