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

from p2pnet.timing import TOLERANCE
from p2pnet.traversal.budget import Cause
from p2pnet.traversal.candidate import (
    Candidate,
    CandidatePolicy,
    CandidateType,
    calculate_priority,
    peer_reflexive_candidate,
)
from p2pnet.traversal.pace import Pace
from p2pnet.traversal.pair import CandidatePair, PairState
from p2pnet.traversal.pair_table import PairTable
from p2pnet.traversal.transactions import Transaction, Transactions
from p2pnet.wire.address import Address
from p2pnet.wire.check import (
    ROLE_CONFLICT,
    Check,
    CheckKind,
    encode_error,
    encode_request,
    encode_success,
)

FIRST_RETRANSMISSION = 0.05  # seconds, doubled each time ...
LAST_RETRANSMISSION = 1.0  # ... up to this
GIVE_UP = 8.0  # seconds of checks without an answer, then the pair failed


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
    """The controlling end nominated the pair and the peer answered (RFC 8445 section 8.1)."""

    pair: CandidatePair


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksExhausted:
    """Every pair failed; nothing is checked until start() or a check of the peer."""


Event = PairSucceeded | PairNominated | ChecksExhausted


@dataclasses.dataclass(slots=True)
class _Nomination:
    pair: CandidatePair
    started_at: float
    next_at: float
    sends: int = 0


def _interval(sends: int) -> float:
    """Return the seconds from one check to the next, after that many."""
    return min(LAST_RETRANSMISSION, FIRST_RETRANSMISSION * 2.0 ** min(sends, 10))


class CheckList:
    """The pairs of a session and the checks on them.

    :param controlling: whether this side nominates (RFC 8445 section 6.1.1); the Agent does.
    :param bases: the local candidate that stands for each address family of the socket.
    :param pace: when the session may send, and where to.
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
        pace: Pace,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.controlling = controlling
        self.local = local
        self.remote = remote
        self.pairs = PairTable(policy)
        self.pairs.use_bases(bases)
        self.selected: CandidatePair | None = None
        self.has_news = True
        self._pace = pace
        self._transactions = Transactions(entropy)
        self._out: list[tuple[bytes, Address]] = []
        self._events: collections.deque[Event] = collections.deque()
        self._start_at: float | None = None
        self._nomination: _Nomination | None = None  # while no answer to it came

    # -- pairs -----------------------------------------------------------------------------------

    def add_remote(self, candidates: Iterable[Candidate]) -> None:
        """Pair the peer's candidates, more of which may come at any time (trickle)."""
        self.pairs.add_remote(candidates, controlling=self.controlling)
        self.has_news = True

    def best_valid(self) -> CandidatePair | None:
        """Return the nominated pair, else the valid pair of the highest priority, else None."""
        if self.selected is not None and self.selected.is_valid:
            return self.selected
        return self.pairs.best_valid()

    def has_fresher(self, pair: CandidatePair, moment: float | None) -> bool:
        """Whether another valid pair answered after `moment`, in seconds of the caller's clock."""
        valid = (other for other in self.pairs.values() if other.is_valid and other is not pair)
        return moment is not None and any((other.answered_at or 0.0) > moment for other in valid)

    # -- time ------------------------------------------------------------------------------------

    def start(self, at: float) -> None:
        """Begin checking at time `at`, also those pairs that failed before."""
        self._start_at = at
        self.has_news = True
        self.pairs.retry_failed()

    def get_timer(self) -> float | None:
        """Return the time to call handle_timer() at, None without anything to do."""
        self.has_news = False
        in_progress = self.pairs.in_state(PairState.IN_PROGRESS)
        due = [pair.next_at for pair in in_progress]
        if self.pairs.triggered:
            due.append(self._pace.free_at)
        if self._start_at is not None and self.pairs.next_ordinary() is not None:
            due.append(self._start_at)
        times = [pair.started_at + GIVE_UP for pair in in_progress]
        if due:
            times.append(max(min(due), self._pace.free_at, self._pace.turn_at))
        if self._nomination is not None:
            times.append(self._nomination.started_at + GIVE_UP)
            times.append(max(self._nomination.next_at, self._pace.free_at))
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Send the checks that are due, one each PACING, or fewer while other sessions check."""
        self._expire(now)
        if now < self._pace.free_at:
            return
        if self._nomination is not None and now >= self._nomination.next_at:
            self._nominate(self._nomination, now)
        elif (pair := self._next_pair(now)) is not None and self._pace.take_turn(now):
            if self.pairs.triggered:
                self._send(self.pairs.triggered.popleft(), Cause.ASKED, now)
            else:
                self._send(pair, Cause.NAMED, now)

    def _next_pair(self, now: float) -> CandidatePair | None:
        """Return the pair to check now: a triggered one, one that is due again, or a new one.

        While sessions wait for each other, each pair is checked before any is checked again.
        """
        if self.pairs.triggered:
            return self.pairs.triggered[0]
        again = self.pairs.next_retransmission()
        if again is not None and again.next_at > now:
            again = None
        if self._start_at is None or now < self._start_at:
            return again
        if again is None or self._pace.has_waited:
            return self.pairs.next_ordinary() or again
        return again

    def _expire(self, now: float) -> None:
        in_progress = self.pairs.in_state(PairState.IN_PROGRESS)
        failed = [pair for pair in in_progress if now - pair.started_at >= GIVE_UP - TOLERANCE]
        for pair in failed:
            pair.advance(PairState.FAILED)
        nomination = self._nomination
        if nomination is not None and now - nomination.started_at >= GIVE_UP - TOLERANCE:
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
        """Nominate the pair to the peer, again until the peer answers."""
        nomination.next_at = now + _interval(nomination.sends)
        nomination.sends += 1
        self._transmit(nomination.pair, True, now)

    def _send(self, pair: CandidatePair, cause: Cause, now: float) -> None:
        if pair.state is PairState.FAILED:
            pair.advance(PairState.WAITING)
        if pair.state in (PairState.FROZEN, PairState.WAITING):
            pair.advance(PairState.IN_PROGRESS)
            pair.started_at, pair.sends = now, 0
        pair.next_at = now + _interval(pair.sends)
        pair.sends += 1
        if self._pace.allows(pair.address, cause, now):
            self._transmit(pair, False, now)
        else:  # as if it got lost
            self._pace.sent(now)
            self.has_news = True

    def _transmit(self, pair: CandidatePair, nominates: bool, now: float, size: int = 0) -> None:
        self._pace.sent(now)
        self.has_news = True
        transaction = Transaction(pair, now, self.controlling, nominates, size)
        request = Check(
            CheckKind.REQUEST,
            self._transactions.begin(transaction),
            username=f"{self.remote.username_fragment}:{self.local.username_fragment}",
            priority=calculate_priority(CandidateType.PEER_REFLEXIVE, 65535),
            controlling=self.controlling,
            tie_breaker=self._transactions.tie_breaker,
            nominates=nominates,
        )
        self._out.append((encode_request(request, self.remote.password, size), pair.address))

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Return the checks and answers that are due, each with its destination."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> Event | None:
        """Return the next event, None if there is none."""
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
            self._pace.answered(source, now)
            if check.error_code == ROLE_CONFLICT:
                # To the role that this request did not claim: others like it may be under way.
                self._switch_role(not transaction.controlling)
                self.pairs.trigger(transaction.pair)
            return True
        self._succeeded(transaction, now)
        return True

    def _receive_request(self, check: Check, source: Address, now: float) -> bool:
        if not check.is_authentic(self.local.password):
            return False
        pair = self.pairs.get(source)
        if pair is None and not self.pairs.policy.allows(source):
            return True
        self.has_news = True
        if check.controlling == self.controlling and not self._resolve_conflict(check):
            answer = encode_error(
                check.transaction_id, ROLE_CONFLICT, "Role Conflict", self.local.password
            )
            self._answer(answer, source, now)
            return True
        answer = encode_success(check.transaction_id, source, self.local.password)
        self._answer(answer, source, now)
        if pair is None:
            remote = peer_reflexive_candidate(source, check.priority)
            pair = self.pairs.pair(remote, controlling=self.controlling)
        if pair is None:
            return True
        if pair.state is not PairState.SUCCEEDED:
            self.pairs.trigger(pair)
        if check.nominates and not self.controlling:
            pair.nominated = True
            if pair.state is PairState.SUCCEEDED:
                self._nominated(pair)
        return True

    def _answer(self, answer: bytes, address: Address, now: float) -> None:
        if self._pace.allows(address, Cause.ASKED, now):
            self._out.append((answer, address))

    def _resolve_conflict(self, check: Check) -> bool:
        """RFC 8445 section 7.3.1.1: the larger tie-breaker controls. False: the peer must yield."""
        we_win = self._transactions.tie_breaker >= check.tie_breaker
        if we_win == self.controlling:
            return False
        self._switch_role(not self.controlling)
        return True

    def _switch_role(self, controlling: bool) -> None:
        self.controlling = controlling
        self._nomination = None
        self.pairs.prioritize(controlling=controlling)

    def _succeeded(self, transaction: Transaction, now: float) -> None:
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
            self.pairs.unfreeze(pair.foundation)
            self._pace.answered(pair.address, now)  # and fail() says when the last answer came
        if pair.state is not PairState.SUCCEEDED:  # it failed meanwhile
            self._pace.answered(pair.address, now)
            return
        if transaction.nominates if self.controlling else pair.nominated:
            self._nominated(pair)
        elif self.controlling and self.selected is None and self._nomination is None:
            self._nomination = _Nomination(pair, now, now)
            self.has_news = True

    def _nominated(self, pair: CandidatePair) -> None:
        self._nomination = None
        if self.selected is not pair:
            if self.selected is not None:
                self.selected.nominated = False
            self.selected = pair
            pair.nominated = True
            self._events.append(PairNominated(pair))

    def fail(self, pair: CandidatePair) -> None:
        """Give up a valid pair until a check on it succeeds again.

        Pairs that have not answered since are given up too: they may have died of the same cause.
        """
        if not pair.is_valid:
            return
        for other in self.pairs.values():
            if other.is_valid and (other.answered_at or 0.0) <= (pair.answered_at or 0.0):
                self._pace.answered(other.address, other.answered_at or 0.0)
                other.advance(PairState.FAILED)
                other.nominated = False
                if other is not pair:
                    other.advance(PairState.WAITING)
        if self._nomination is not None and not self._nomination.pair.is_valid:
            self._nomination = None
        if self.selected is not None and not self.selected.is_valid:
            self.selected = None
