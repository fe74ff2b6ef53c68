"""The pairs of one session: which there are, in which state, and which is next."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.candidate import (
    Candidate,
    CandidatePolicy,
    CandidateType,
    gather_relay_candidate,
    peer_reflexive_candidate,
)
from p2pnet.traversal.pair import CandidatePair, PairState, pair_priority
from p2pnet.traversal.pair_table import MAX_PAIRS, PairTable
from p2pnet.wire.address import Address
from tests.traversal.support import candidate, host

LOCAL: Address = ("198.51.100.1", 5000)
PEERS: list[Address] = [("203.0.113.1", 2000 + number) for number in range(MAX_PAIRS + 8)]


class PairTableTests(SynchronousTestCase):
    """A table of a node with an IPv4 address."""

    def setUp(self) -> None:
        self.table = PairTable(CandidatePolicy())
        self.table.use_bases([host(LOCAL)])

    def add(self, addresses: Iterable[Address]) -> list[CandidatePair]:
        """Pair host candidates of the peer, each better than the one before."""
        found = []
        for index, address in enumerate(addresses):
            new = candidate(CandidateType.HOST, address, index)
            self.table.add_remote([new], controlling=True)
            found.append(self.table[address])
        return found

    def put(self, pair: CandidatePair, *states: PairState) -> None:
        """Lead a pair through these states."""
        for state in states:
            pair.advance(state)

    # -- which there are -------------------------------------------------------------------------

    def test_a_pair_needs_a_base_of_its_family_and_an_allowed_address(self) -> None:
        """Relays are never checked."""
        remote = [
            host(PEERS[0]), host(("2a00::1", 5000)), host(("127.0.0.1", 5000)),
            gather_relay_candidate(PEERS[1]),
        ]  # fmt: skip
        self.table.add_remote(remote, controlling=True)
        self.assertEqual([PEERS[0]], list(self.table))
        self.table.use_bases([host(LOCAL), host(("2a00::2", 5000))])
        self.table.add_remote(remote, controlling=True)
        self.assertEqual([PEERS[0], ("2a00::1", 5000)], list(self.table))

    def test_a_known_address_keeps_its_pair(self) -> None:
        """Whatever its candidate is called."""
        (pair,) = self.add(PEERS[:1])
        again = self.table.pair(peer_reflexive_candidate(PEERS[0], 1), controlling=True)
        self.assertIs(pair, again)

    def test_there_are_at_most_so_many_pairs(self) -> None:
        """Strangers find no room; the peer's own candidates replace a pair that failed."""
        pairs = self.add(PEERS[:MAX_PAIRS])
        self.assertIsNone(self.table.pair(peer_reflexive_candidate(PEERS[-1], 1), controlling=True))
        self.table.add_remote([host(PEERS[-1])], controlling=True)
        self.assertNotIn(PEERS[-1], self.table)
        for pair in pairs[:2]:
            self.put(pair, PairState.IN_PROGRESS, PairState.FAILED)
        self.table.trigger(pairs[0])
        self.table.add_remote([host(PEERS[-1])], controlling=True)
        self.assertIn(PEERS[-1], self.table)
        self.assertIn(pairs[0].address, self.table)
        self.assertNotIn(pairs[1].address, self.table)

    def test_priorities_follow_the_role(self) -> None:
        """RFC 8445 section 6.1.2.3: the controlling end's candidate comes first."""
        (pair,) = self.add(PEERS[:1])
        ends = pair.local.priority, pair.remote.priority
        self.assertEqual(pair_priority(*ends), pair.priority)
        self.table.prioritize(controlling=False)
        self.assertEqual(pair_priority(*ends[::-1]), pair.priority)

    # -- in which state they are -----------------------------------------------------------------

    def test_the_best_valid_pair_has_the_highest_priority(self) -> None:
        """There is none before a check was answered."""
        pairs = self.add(PEERS[:3])
        self.assertIsNone(self.table.best_valid())
        for pair in pairs[:2]:
            self.put(pair, PairState.IN_PROGRESS, PairState.SUCCEEDED)
        self.assertIs(pairs[1], self.table.best_valid())
        self.assertEqual(pairs[:2], self.table.in_state(PairState.SUCCEEDED))

    def test_failed_pairs_get_another_chance(self) -> None:
        """All others stay as they are."""
        first, second = self.add(PEERS[:2])
        self.put(first, PairState.IN_PROGRESS, PairState.FAILED)
        self.table.retry_failed()
        self.assertEqual([PairState.WAITING, PairState.FROZEN], [first.state, second.state])

    # -- which is next ---------------------------------------------------------------------------

    def test_a_pair_is_triggered_once(self) -> None:
        """In the order of the checks that came in."""
        first, second = self.add(PEERS[:2])
        for pair in (second, first, second):
            self.table.trigger(pair)
        self.assertEqual([second, first], list(self.table.triggered))

    def test_the_retransmission_that_waited_longest_is_next(self) -> None:
        """Of pairs in progress."""
        pairs = self.add(PEERS[:3])
        self.assertIsNone(self.table.next_retransmission())
        for pair, at in zip(pairs[:2], (2.0, 1.0), strict=True):
            self.put(pair, PairState.IN_PROGRESS)
            pair.next_at = at
        self.assertIs(pairs[1], self.table.next_retransmission())

    def test_waiting_pairs_come_before_frozen_ones(self) -> None:
        """And of each the best first."""
        pairs = self.add(PEERS[:3])
        self.assertIs(pairs[2], self.table.next_ordinary())
        self.put(pairs[0], PairState.WAITING)
        self.assertIs(pairs[0], self.table.next_ordinary())

    def test_one_pair_of_a_foundation_is_checked_at_a_time(self) -> None:
        """Until one of them answered (RFC 8445 sections 6.1.4.2 and 7.2.5.3.3)."""
        first = host(PEERS[0])
        alike = Candidate(first.type, PEERS[1], first.priority - 1, first.foundation)
        self.table.add_remote([first, alike], controlling=True)
        one, other = self.table.values()
        self.put(one, PairState.IN_PROGRESS)
        self.assertIsNone(self.table.next_ordinary())
        self.table.unfreeze("another")
        self.assertIs(PairState.FROZEN, other.state)
        self.table.unfreeze(one.foundation)
        self.assertIs(other, self.table.next_ordinary())
