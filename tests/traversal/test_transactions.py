"""The unanswered requests of one end: their ids, and how many are kept."""

import random

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.pair import CandidatePair
from p2pnet.traversal.transactions import ID_LENGTH, MAX_TRANSACTIONS, Transaction, Transactions
from tests.traversal.support import host

PAIR = CandidatePair(host(("10.0.0.1", 5000)), host(("10.0.0.2", 5000)), 1)


def transaction(at: float) -> Transaction:
    """A plain request that was sent then."""
    return Transaction(PAIR, at, controlling=True, nominates=False, size=0)


class TransactionsTests(SynchronousTestCase):
    """A table with an upper bound."""

    def setUp(self) -> None:
        self.table = Transactions(random.Random(1).randbytes)

    def test_a_transaction_is_found_by_its_id(self) -> None:
        """Until it is removed."""
        ids = [self.table.begin(transaction(at)) for at in (1.0, 2.0)]
        self.assertEqual([ID_LENGTH] * 2, [len(each) for each in ids])
        self.assertEqual([1.0, 2.0], [self.table[each].sent_at for each in ids])
        del self.table[ids[0]]
        self.assertIsNone(self.table.get(ids[0]))

    def test_the_oldest_of_too_many_is_dropped(self) -> None:
        """Its answer comes too late."""
        first = self.table.begin(transaction(0.0))
        last = [self.table.begin(transaction(1.0 + n)) for n in range(MAX_TRANSACTIONS)][-1]
        self.assertEqual(MAX_TRANSACTIONS, len(self.table))
        self.assertNotIn(first, self.table)
        self.assertIn(last, self.table)

    def test_the_tie_breaker_has_64_bits_of_the_entropy(self) -> None:
        """RFC 8445 section 7.1.3."""
        self.assertEqual(2**64 - 1, Transactions(lambda size: b"\xff" * size).tie_breaker)
        self.assertEqual(0, Transactions(bytes).tie_breaker)
