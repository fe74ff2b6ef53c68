"""The check list of one session: which pairs are checked when, and which of them work.

Sans-IO: checks and time in, checks and events out. RFC 8445 sections 6 and 7, with these
differences, each because there is one component on one socket:

* A retransmission is a transaction of its own, so that the RTT of its answer is unambiguous.
* Either side uses the best valid pair at once; nomination only settles which one stays. The answer
  to our own transaction proved both directions of the path.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable

from p2pnet.traversal.candidate import (
    Candidate,
    CandidatePolicy,
    CandidateType,
    calculate_priority,
    peer_reflexive_candidate,
    sanitize,
)
from p2pnet.traversal.pair import CandidatePair, PairState, pair_priority
from p2pnet.wire.address import Address
from p2pnet.wire.check import (
    ROLE_CONFLICT,
    Check,
    CheckKind,
    encode_error,
    encode_request,
    encode_success,
)

PACING = 0.02  # seconds between checks, Ta (RFC 8445 section 14.2 asks for 50 ms; we have few)
FIRST_RETRANSMISSION = 0.05  # seconds, doubled each time ...
LAST_RETRANSMISSION = 1.0  # ... up to this
GIVE_UP = 8.0  # seconds of checks without an answer, then the pair failed
MAX_TRANSACTIONS = 256  # that may be unanswered; older ones count as lost
MAX_PAIRS = 32  # sanitized candidates of the peer, and as many peer-reflexive ones


@dataclasses.dataclass(frozen=True, slots=True)
class IceCredentials:
    """The short-term credential of one side in one session (RFC 8445 section 5.3)."""

    username_fragment: str
    password: str


@dataclasses.dataclass(frozen=True, slots=True)
class PairSucceeded:
    """The pair is valid, for the first time or again after it had failed."""

    pair: CandidatePair


@dataclasses.dataclass(frozen=True, slots=True)
class PairNominated:
    """Both ends settled on the pair."""

    pair: CandidatePair


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksExhausted:
    """Every pair failed."""


Event = PairSucceeded | PairNominated | ChecksExhausted


@dataclasses.dataclass(frozen=True, slots=True)
class _Transaction:
    pair: CandidatePair
    sent_at: float
    controlling: bool
    nominates: bool
    size: int  # with padding, 0 without


@dataclasses.dataclass(slots=True)
class _Nomination:
    pair: CandidatePair
    started_at: float
    next_at: float
    sends: int = 0


def _interval(sends: int) -> float:
    """Seconds from one check to the next, after so many."""
    return min(LAST_RETRANSMISSION, FIRST_RETRANSMISSION * 2.0 ** min(sends, 10))


class CheckList:
    """The pairs of a session and the checks on them.

    :param controlling: whether this side nominates (RFC 8445 section 6.1.1); the Agent does.
    :param bases: the local candidate that stands for each address family of the socket.
    :ivar selected: the nominated pair, None before.
    :ivar has_news: whether there may be datagrams or events, or an earlier timer, since
        get_timer() was called last.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        local: IceCredentials,
        remote: IceCredentials,
        bases: Iterable[Candidate] = (),
        policy: CandidatePolicy,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.controlling = controlling
        self.local = local
        self.remote = remote
        self.pairs: dict[Address, CandidatePair] = {}
        self.selected: CandidatePair | None = None
        self.has_news = True
        self._tie_breaker = int.from_bytes(entropy(8), "big")
        self.use_bases(bases)
        self._policy = policy
        self._entropy = entropy
        self._triggered: collections.deque[CandidatePair] = collections.deque()
        self._transactions: collections.OrderedDict[bytes, _Transaction] = collections.OrderedDict()
        self._out: list[tuple[bytes, Address]] = []
        self._events: collections.deque[Event] = collections.deque()
        self._start_at: float | None = None
        self._next_send = 0.0
        self._nomination: _Nomination | None = None  # while no answer to it came

    # -- candidates ------------------------------------------------------------------------------

    def add_remote(self, candidates: Iterable[Candidate], now: float) -> None:
        """Pair the peer's candidates, more of which may come at any time (trickle)."""
        for candidate in sanitize(candidates, self._policy):
            if candidate.type is not CandidateType.RELAYED and candidate.address not in self.pairs:
                self._make_room()
                self._pair(candidate)
        self.has_news = True

    def use_bases(self, bases: Iterable[Candidate]) -> None:
        """The local candidate that stands for each address family that the node has now."""
        self._bases = {base.is_ipv6: base for base in bases}

    def _pair(self, remote: Candidate) -> CandidatePair | None:
        pair = self.pairs.get(remote.address)
        base = self._bases.get(remote.is_ipv6)
        if pair is not None or base is None or len(self.pairs) >= MAX_PAIRS:
            return pair
        ends = (base.priority, remote.priority)
        priority = pair_priority(*(ends if self.controlling else ends[::-1]))
        pair = self.pairs[remote.address] = CandidatePair(base, remote, priority)
        return pair

    def _make_room(self) -> None:
        """Give up a pair that failed for one the peer tells of: in a long life it moves often."""
        if len(self.pairs) >= MAX_PAIRS:
            failed = (pair for pair in self.pairs.values() if pair.state is PairState.FAILED)
            oldest = next((pair for pair in failed if pair not in self._triggered), None)
            if oldest is not None:
                del self.pairs[oldest.address]

    def best_valid(self) -> CandidatePair | None:
        """The pair to use: the nominated one, else the valid one of the highest priority."""
        if self.selected is not None and self.selected.is_valid:
            return self.selected
        valid = [pair for pair in self.pairs.values() if pair.is_valid]
        return max(valid, key=lambda pair: pair.priority, default=None)

    def has_fresher(self, pair: CandidatePair, moment: float | None) -> bool:
        """Whether another valid pair answered after that moment."""
        valid = (other for other in self.pairs.values() if other.is_valid and other is not pair)
        return moment is not None and any((other.answered_at or 0.0) > moment for other in valid)

    # -- time ------------------------------------------------------------------------------------

    def start(self, at: float) -> None:
        """Begin checking at that time; what failed before gets another chance."""
        self._start_at = at
        self.has_news = True
        for pair in self.pairs.values():
            if pair.state is PairState.FAILED:
                pair.advance(PairState.WAITING)

    def get_timer(self) -> float | None:
        """When handle_timer() is to be called, None when there is nothing to do."""
        self.has_news = False
        due = [p.next_at for p in self.pairs.values() if p.state is PairState.IN_PROGRESS]
        if self._nomination is not None:
            due.append(self._nomination.next_at)
        if self._triggered:
            due.append(self._next_send)
        if self._start_at is not None and self._next_ordinary() is not None:
            due.append(self._start_at)
        return max(min(due), self._next_send) if due else None

    def handle_timer(self, now: float) -> None:
        """Send the checks that are due, one each PACING."""
        self._expire(now)
        if now < self._next_send:
            return
        started = self._start_at is not None and now >= self._start_at
        if self._nomination is not None and now >= self._nomination.next_at:
            self._nominate(self._nomination, now)
        elif self._triggered:
            self._send(self._triggered.popleft(), now)
        elif pair := self._due(now) or (self._next_ordinary() if started else None):
            self._send(pair, now)

    def _due(self, now: float) -> CandidatePair | None:
        """The pair in progress whose retransmission has waited longest."""
        due = [
            pair
            for pair in self.pairs.values()
            if pair.state is PairState.IN_PROGRESS and pair.next_at <= now
        ]
        return min(due, key=lambda pair: pair.next_at, default=None)

    def _next_ordinary(self) -> CandidatePair | None:
        """The next pair to check for the first time (RFC 8445 section 6.1.4.2)."""
        by_priority = sorted(self.pairs.values(), key=lambda pair: -pair.priority)
        for pair in by_priority:
            if pair.state is PairState.WAITING:
                return pair
        busy = {p.foundation for p in by_priority if p.state is PairState.IN_PROGRESS}
        for pair in by_priority:
            if pair.state is PairState.FROZEN and pair.foundation not in busy:
                return pair
        return None

    def _expire(self, now: float) -> None:
        failed = [
            pair
            for pair in self.pairs.values()
            if pair.state is PairState.IN_PROGRESS and now - pair.started_at >= GIVE_UP
        ]
        for pair in failed:
            pair.advance(PairState.FAILED)
        nomination = self._nomination
        if nomination is not None and now - nomination.started_at >= GIVE_UP:
            failed.append(nomination.pair)
            self.fail(nomination.pair)
        if failed and all(pair.state is PairState.FAILED for pair in self.pairs.values()):
            self._events.append(ChecksExhausted())

    # -- sending ---------------------------------------------------------------------------------

    def check(self, pair: CandidatePair, now: float, size: int = 0) -> None:
        """Check a valid pair again, at once: a keepalive, the proof of consent, a reminder of the
        nomination for a peer that had given the path up meanwhile; padded to `size`, a probe."""
        self._transmit(pair, self.controlling and pair is self.selected, now, size)

    def _nominate(self, nomination: _Nomination, now: float) -> None:
        """Tell the peer which pair stays, again until it answered."""
        nomination.next_at = now + _interval(nomination.sends)
        nomination.sends += 1
        self._transmit(nomination.pair, True, now)

    def _send(self, pair: CandidatePair, now: float) -> None:
        if pair.state is PairState.FAILED:
            pair.advance(PairState.WAITING)
        if pair.state in (PairState.FROZEN, PairState.WAITING):
            pair.advance(PairState.IN_PROGRESS)
            pair.started_at, pair.sends = now, 0
        pair.next_at = now + _interval(pair.sends)
        pair.sends += 1
        self._transmit(pair, False, now)

    def _transmit(self, pair: CandidatePair, nominates: bool, now: float, size: int = 0) -> None:
        self._next_send = now + PACING
        self.has_news = True
        transaction_id = self._entropy(12)
        transaction = _Transaction(pair, now, self.controlling, nominates, size)
        self._transactions[transaction_id] = transaction
        if len(self._transactions) > MAX_TRANSACTIONS:
            self._transactions.popitem(last=False)
        request = Check(
            CheckKind.REQUEST,
            transaction_id,
            username=f"{self.remote.username_fragment}:{self.local.username_fragment}",
            priority=calculate_priority(CandidateType.PEER_REFLEXIVE, 65535),
            controlling=self.controlling,
            tie_breaker=self._tie_breaker,
            nominates=nominates,
        )
        self._out.append((encode_request(request, self.remote.password, size), pair.address))

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """The checks and answers that are due."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> Event | None:
        """The next event, None when there is none."""
        return self._events.popleft() if self._events else None

    # -- receiving -------------------------------------------------------------------------------

    def receive(self, check: Check, source: Address, now: float) -> bool:
        """Take a check that came from `source`. Returns False for one that is not authentic."""
        if check.kind is CheckKind.REQUEST:
            return self._receive_request(check, source, now)
        transaction = self._transactions.get(check.transaction_id)
        if transaction is None or not check.is_authentic(self.remote.password):
            return False
        # RFC 8445 section 7.2.5.2.1: the answer must come from where the request went.
        if source != transaction.pair.address:
            return False
        del self._transactions[check.transaction_id]
        if check.kind is CheckKind.ERROR:
            self.has_news = True
            if check.error_code == ROLE_CONFLICT:
                # To the role that this request did not claim: others like it may be under way.
                self._switch_role(not transaction.controlling)
                self._trigger(transaction.pair)
            return True
        self._succeeded(transaction, now)
        return True

    def _receive_request(self, check: Check, source: Address, now: float) -> bool:
        if not check.is_authentic(self.local.password):
            return False
        pair = self.pairs.get(source)
        if pair is None and not self._policy.allows(source):
            return True
        self.has_news = True
        if check.controlling == self.controlling and not self._resolve_conflict(check):
            answer = encode_error(
                check.transaction_id, ROLE_CONFLICT, "Role Conflict", self.local.password
            )
            self._out.append((answer, source))
            return True
        self._out.append(
            (encode_success(check.transaction_id, source, self.local.password), source)
        )
        if pair is None:
            pair = self._pair(peer_reflexive_candidate(source, check.priority))
        if pair is None:
            return True
        if pair.state is not PairState.SUCCEEDED:
            self._trigger(pair)
        if check.nominates and not self.controlling:
            pair.nominated = True
            if pair.state is PairState.SUCCEEDED:
                self._nominated(pair)
        return True

    def _trigger(self, pair: CandidatePair) -> None:
        """Check a pair before all others (RFC 8445 section 7.3.1.4)."""
        if pair not in self._triggered:
            self._triggered.append(pair)

    def _resolve_conflict(self, check: Check) -> bool:
        """RFC 8445 section 7.3.1.1: the larger tie-breaker controls. False: the peer must yield."""
        we_win = self._tie_breaker >= check.tie_breaker
        if we_win == self.controlling:
            return False
        self._switch_role(not self.controlling)
        return True

    def _switch_role(self, controlling: bool) -> None:
        self.controlling = controlling
        self._nomination = None
        for pair in self.pairs.values():
            ends = (pair.local.priority, pair.remote.priority)
            pair.priority = pair_priority(*(ends if controlling else ends[::-1]))

    def _succeeded(self, transaction: _Transaction, now: float) -> None:
        pair = transaction.pair
        pair.rtt = now - transaction.sent_at
        pair.answered_at = now
        if transaction.size:
            pair.mtu.answered(transaction.size, now)
            self.has_news = True
        if pair.state is PairState.IN_PROGRESS:
            pair.advance(PairState.SUCCEEDED)
            self.has_news = True
            self._events.append(PairSucceeded(pair))
            self._unfreeze(pair.foundation)
        if pair.state is not PairState.SUCCEEDED:  # it failed meanwhile
            return
        if transaction.nominates if self.controlling else pair.nominated:
            self._nominated(pair)
        elif self.controlling and self.selected is None and self._nomination is None:
            self._nomination = _Nomination(pair, now, now)
            self.has_news = True

    def _unfreeze(self, foundation: str) -> None:
        for pair in self.pairs.values():
            if pair.state is PairState.FROZEN and pair.foundation == foundation:
                pair.advance(PairState.WAITING)

    def _nominated(self, pair: CandidatePair) -> None:
        self._nomination = None
        if self.selected is not pair:
            if self.selected is not None:
                self.selected.nominated = False
            self.selected = pair
            pair.nominated = True
            self._events.append(PairNominated(pair))

    def fail(self, pair: CandidatePair) -> None:
        """The pair stopped working: it is not used until a check on it succeeds again.

        Nor is one that has not answered since: it may have died of the same cause.
        """
        if not pair.is_valid:
            return
        for other in self.pairs.values():
            if other.is_valid and (other.answered_at or 0.0) <= (pair.answered_at or 0.0):
                other.advance(PairState.FAILED)
                other.nominated = False
                if other is not pair:
                    other.advance(PairState.WAITING)
        if self._nomination is not None and not self._nomination.pair.is_valid:
            self._nomination = None
        if self.selected is not None and not self.selected.is_valid:
            self.selected = None
