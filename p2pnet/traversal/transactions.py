"""The connectivity checks of one end that are not answered yet (RFC 8445 section 7.2.4)."""

import collections
import dataclasses
from collections.abc import Callable

from p2pnet.traversal.pair import CandidatePair

MAX_TRANSACTIONS = 256  # that may be unanswered; older ones count as lost
ID_LENGTH = 12  # bytes of a transaction id (RFC 8489 section 5)


@dataclasses.dataclass(frozen=True, slots=True)
class Transaction:
    """One request that was sent.

    :ivar sent_at: time in seconds of the caller's clock.
    :ivar controlling: the role that the request claimed.
    :ivar nominates: whether the request nominated its pair.
    :ivar size: bytes of the request with its padding, 0 for a request without padding.
    """

    pair: CandidatePair
    sent_at: float
    controlling: bool
    nominates: bool
    size: int


class Transactions(collections.OrderedDict[bytes, Transaction]):
    """The unanswered requests of one end by transaction id, the oldest first.

    :param entropy: the source of random bytes.
    :ivar tie_breaker: of this end, 64 bits; each of its requests has it (RFC 8445 section 7.1.3).
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        super().__init__()
        self.tie_breaker = int.from_bytes(entropy(8), "big")
        self._entropy = entropy

    def begin(self, transaction: Transaction) -> bytes:
        """Return the new id of `transaction`. The oldest of too many transactions is dropped."""
        transaction_id = self._entropy(ID_LENGTH)
        self[transaction_id] = transaction
        if len(self) > MAX_TRANSACTIONS:
            self.popitem(last=False)
        return transaction_id
