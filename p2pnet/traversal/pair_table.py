"""The candidate pairs of one session, and which of them is the next to check.

RFC 8445 sections 6.1.2 and 6.1.4. All candidates of a node share one socket, so that the peer's
address alone tells one pair from another.
"""

import collections
from collections.abc import Iterable

from p2pnet.traversal.candidate import Candidate, CandidatePolicy, CandidateType, sanitize
from p2pnet.traversal.pair import CandidatePair, PairState, pair_priority
from p2pnet.wire.address import Address

MAX_PAIRS = 32  # sanitized candidates of the peer, and as many peer-reflexive ones


class PairTable(dict[Address, CandidatePair]):
    """The pairs of one session by the peer's address.

    :param policy: the addresses of the peer that may be checked.
    :ivar triggered: the pairs to check before all others (RFC 8445 section 6.1.4.1), in order.
    """

    def __init__(self, policy: CandidatePolicy) -> None:
        super().__init__()
        self.policy = policy
        self.triggered: collections.deque[CandidatePair] = collections.deque()
        self._bases: dict[bool, Candidate] = {}

    # -- which there are -------------------------------------------------------------------------

    def use_bases(self, bases: Iterable[Candidate]) -> None:
        """Take `bases`, one for each address family of the node, as local ends of new pairs."""
        self._bases = {base.is_ipv6: base for base in bases}

    def add_remote(self, candidates: Iterable[Candidate], *, controlling: bool) -> None:
        """Pair those candidates of the peer that the policy allows.

        :param controlling: whether this end controls.
        """
        for candidate in sanitize(candidates, self.policy):
            if candidate.type is not CandidateType.RELAYED and candidate.address not in self:
                self._make_room()
                self.pair(candidate, controlling=controlling)

    def pair(self, remote: Candidate, *, controlling: bool) -> CandidatePair | None:
        """Return the pair with `remote`, a new one if there is none.

        Returns None if there are MAX_PAIRS pairs, or if this node lacks the address family.
        """
        pair = self.get(remote.address)
        base = self._bases.get(remote.is_ipv6)
        if pair is None and base is not None and len(self) < MAX_PAIRS:
            pair = self[remote.address] = CandidatePair(base, remote, 0)
            pair.priority = _priority(pair, controlling)
        return pair

    def _make_room(self) -> None:
        """Drop a failed pair for a new candidate of the peer: in a long life it moves often."""
        if len(self) >= MAX_PAIRS:
            failed = self.in_state(PairState.FAILED)
            oldest = next((pair for pair in failed if pair not in self.triggered), None)
            if oldest is not None:
                del self[oldest.address]

    def prioritize(self, *, controlling: bool) -> None:
        """Calculate the priorities anew after this end has changed its role."""
        for pair in self.values():
            pair.priority = _priority(pair, controlling)

    # -- in which state they are -----------------------------------------------------------------

    def in_state(self, state: PairState) -> list[CandidatePair]:
        """Return the pairs in `state`, the oldest pair first."""
        return [pair for pair in self.values() if pair.state is state]

    def best_valid(self) -> CandidatePair | None:
        """Return the valid pair of the highest priority, None without a valid pair."""
        valid = self.in_state(PairState.SUCCEEDED)
        return max(valid, key=lambda pair: pair.priority, default=None)

    def retry_failed(self) -> None:
        """Let failed pairs wait for a check again."""
        for pair in self.in_state(PairState.FAILED):
            pair.advance(PairState.WAITING)

    def unfreeze(self, foundation: str) -> None:
        """Let frozen pairs of `foundation` wait for a check (RFC 8445 section 7.2.5.3.3)."""
        for pair in self.in_state(PairState.FROZEN):
            if pair.foundation == foundation:
                pair.advance(PairState.WAITING)

    # -- which is next ---------------------------------------------------------------------------

    def trigger(self, pair: CandidatePair) -> None:
        """Have `pair` checked before all others (RFC 8445 section 7.3.1.4)."""
        if pair not in self.triggered:
            self.triggered.append(pair)

    def next_retransmission(self) -> CandidatePair | None:
        """Return the pair in progress whose retransmission is due first, None if there is none."""
        in_progress = self.in_state(PairState.IN_PROGRESS)
        return min(in_progress, key=lambda pair: pair.next_at, default=None)

    def next_ordinary(self) -> CandidatePair | None:
        """Return the next pair to check for the first time (RFC 8445 section 6.1.4.2)."""
        by_priority = sorted(self.values(), key=lambda pair: -pair.priority)
        for pair in by_priority:
            if pair.state is PairState.WAITING:
                return pair
        busy = {pair.foundation for pair in self.in_state(PairState.IN_PROGRESS)}
        for pair in by_priority:
            if pair.state is PairState.FROZEN and pair.foundation not in busy:
                return pair
        return None


def _priority(pair: CandidatePair, controlling: bool) -> int:
    """Return the priority of `pair` for an end in that role (RFC 8445 section 6.1.2.3)."""
    ends = pair.local.priority, pair.remote.priority
    return pair_priority(*(ends if controlling else ends[::-1]))
