"""The search for the direct way of one session, and the upkeep of the way that it found.

A round of checks (RFC 8445) finds a pair that works. From then on that pair carries packets, and
its health, its consent (RFC 7675) and its packet size (RFC 8899) are watched here.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from collections.abc import Iterable

from p2pnet.reports import CandidatesExchanged, ChecksFailed, ChecksStarted
from p2pnet.traversal import checklist
from p2pnet.traversal.candidate import Candidate
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.exchange import EXCHANGE_TIMEOUT, CandidateExchange, Step, from_wire
from p2pnet.traversal.health import ASK_AFTER, Health, Keepalive, PathHealth
from p2pnet.traversal.mtu import Phase
from p2pnet.traversal.pair import CandidatePair, PairStatus
from p2pnet.traversal.way import Way, direct_way
from p2pnet.wire import messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import Check, CheckKind, encode_opener
from p2pnet.wire.packet_size import BASE

# Grace period (s) after the peer went direct: relayed packets that arrive in it are stragglers.
# Every answered check that refutes a doubt doubles it, MAX_DOUBLINGS times at most.
GRACE, MAX_DOUBLINGS = 1.0, 6
# Both ends check a dead pair now and then, so that they use it again soon after it works: their
# checks keep the NATs open for each other's. Afterwards only new rounds find a way.
REVIVE_EVERY, REVIVE_FOR = 4.0, 600.0  # seconds
SILENT_AFTER = 1.0  # seconds of silence on a doubtful path before it carries nothing but checks
# TTL of openers: enough to leave our NAT, too little to reach the peer's, because a NAT that takes
# an unsolicited packet for its own would map the peer's checks to another port than the one
# announced. Neighbors may be three routers apart, so the first opener passes one router only. The
# second, for carriers' NATs, waits until the peer has sent its first.
FIRST_TTL, SECOND_TTL = 2, 4


class DirectState(enum.Enum):
    """What the direct way is good for."""

    NONE = enum.auto()  # no pair works
    GOOD = enum.auto()  # it carries the session
    DOUBTFUL = enum.auto()  # it carries the session, and so does a relay
    SILENT = enum.auto()  # it carries checks; a relay carries the session


TRANSITIONS = {
    DirectState.NONE: {DirectState.GOOD},
    DirectState.GOOD: {DirectState.NONE, DirectState.DOUBTFUL, DirectState.SILENT},
    DirectState.DOUBTFUL: {DirectState.NONE, DirectState.GOOD, DirectState.SILENT},
    DirectState.SILENT: {DirectState.NONE, DirectState.GOOD},
}


@dataclasses.dataclass(frozen=True, slots=True)
class DirectChanged:
    """The state of the direct way, or its pair, is another one.

    :ivar reason: for people.
    :ivar arrives: whether packets already sent on the direct way still reach the peer by a relay.
    """

    reason: str
    arrives: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram to send; `ttl` limits the routers that it passes (None: no limit)."""

    data: bytes
    address: Address
    ttl: int | None = None


Signal = (
    messages.CandidateOffer
    | messages.CandidateAnswer
    | messages.CandidateUpdate
    | messages.PunchingResult
)
Event = DirectChanged | Signal | CandidatesExchanged | ChecksStarted | ChecksFailed


@dataclasses.dataclass(frozen=True, slots=True)
class DirectStatus:
    """The direct way and the search for it.

    :ivar address: of the peer on the direct way, None while there is none.
    :ivar rtt: of the direct way in seconds, None while there is none.
    :ivar packet_size: bytes of UDP payload that the direct way carries.
    :ivar failures: rounds of checks that failed since the last success.
    :ivar next_round: when this end offers again, in seconds of the caller's clock; None: no plan.
    """

    state: DirectState
    address: Address | None
    rtt: float | None
    packet_size: int
    pairs: tuple[PairStatus, ...]
    failures: int
    next_round: float | None


@dataclasses.dataclass(eq=False, slots=True)
class DirectPath:
    """The pair in use.

    :ivar peer_since: since when the peer sends on it too, None before.
    :ivar refutations: checks answered in a row while the path was in doubt, no packet of the peer
        having arrived on it since.
    """

    pair: CandidatePair
    health: PathHealth
    peer_since: float | None = None
    refutations: int = 0


@dataclasses.dataclass(slots=True)
class _Revival:
    next_at: float
    until: float


class DirectSearch:
    """Finds and keeps the direct way of one session.

    :param exchange: the rounds of the session.
    :ivar checks: the check list, None before the first exchange of candidates.
    :ivar path: the pair in use, None while there is none.
    :ivar state: DirectState.
    """

    def __init__(self, exchange: CandidateExchange) -> None:
        self.checks: CheckList | None = None
        self.path: DirectPath | None = None
        self.state = DirectState.NONE
        self._exchange = exchange
        self._begun = False  # relay-only sessions never begin
        self._keepalive = Keepalive()
        self._second_openers_at = math.inf
        self._revivals: dict[CandidatePair, _Revival] = {}
        self._openers: list[Outgoing] = []
        self._events: collections.deque[Event] = collections.deque()

    def _advance(self, state: DirectState, reason: str, *, arrives: bool = False) -> None:
        assert state is self.state or state in TRANSITIONS[self.state], (self.state, state)
        self.state = state
        self._events.append(DirectChanged(reason, arrives))

    @property
    def way(self) -> Way | None:
        """The direct way, None while there is none."""
        return direct_way(self.path.pair.address) if self.path is not None else None

    @property
    def rtt(self) -> float | None:
        """Round-trip time of the direct way in seconds, None while there is none."""
        return self.path.pair.rtt if self.path is not None else None

    @property
    def packet_size(self) -> int:
        """Bytes of UDP payload that the direct way carries."""
        return self.path.pair.mtu.size if self.path is not None else BASE

    @property
    def is_packet_size_final(self) -> bool:
        """Whether the search for a larger packet size is complete."""
        return self.path is not None and self.path.pair.mtu.phase is Phase.SEARCH_COMPLETE

    @property
    def tag(self) -> bytes:
        """What the transaction ids of this end begin with."""
        return self._exchange.tag

    def is_silent_for(self, seconds: float, now: float) -> bool:
        """Whether an answer on the direct way has been due for so long."""
        return self.path is not None and self.path.health.is_silent_for(seconds, now)

    # -- rounds ----------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Signals can be sent, for the first time or again: the controlling end offers."""
        if self._exchange.controlling and self.path is None:
            self._offer(now)

    def _offer(self, now: float) -> None:
        self._begun = True
        self._events.append(self._exchange.offer(now))

    def candidates_changed(self, now: float) -> None:
        """This node has other candidates: tell the peer, and offer again if nothing works."""
        if self.checks is not None:
            self._events.append(self._exchange.update())
            self.begin(now)

    def network_changed(self, now: float) -> None:
        """This node may be in another network: check the path, or look for one."""
        if self.path is not None and self.checks is not None:
            self.path.health.asked(now)
            self.checks.check(self.path.pair, now)
        elif self._begun:
            self.begin(now)

    def take_signal(self, message: messages.Message, now: float) -> None:
        """A message of the peer, or the Intermediate's StartPunching. Others are ignored."""
        controlling = self._exchange.controlling
        match message:
            case messages.CandidateOffer() if not controlling:
                self._take_remote(message, now)
                self._events.append(self._exchange.answer())
            case messages.CandidateAnswer() if controlling and self._begun:
                self._exchange.answered()
                self._take_remote(message, now)
            case messages.CandidateUpdate(candidates=candidates) if self.checks is not None:
                self.checks.add_remote(from_wire(candidates), now)
                self._open_nats(FIRST_TTL)
                self.begin(now)
            case messages.StartPunching(delay=delay) if self.checks is not None:
                self._start(self.checks, delay / 1000, now)
            case messages.PunchingResult(direct=False, reason=reason):
                self._events.append(ChecksFailed(self._session, f"peer: {reason}", None))

    @property
    def _session(self) -> str:
        return self._exchange.session.hex()

    def _take_remote(
        self, message: messages.CandidateOffer | messages.CandidateAnswer, now: float
    ) -> None:
        self._begun = True
        theirs = IceCredentials(message.username_fragment, message.password)
        self.checks = self._exchange.check_list(self.checks, theirs)
        remote = from_wire(message.candidates)
        self.checks.add_remote(remote, now)
        self._open_nats(FIRST_TTL)
        local = self._exchange.own.gather()
        self._events.append(CandidatesExchanged(self._session, _texts(local), _texts(remote)))

    def _start(self, checks: CheckList, delay: float, now: float) -> None:
        checks.start(now + delay)
        self._second_openers_at = now + delay / 2
        pairs = len(checks.pairs)
        self._events.append(ChecksStarted(self._session, delay, pairs))
        if not pairs:
            self._fail("the peer has no candidate that may be checked", now)

    def _open_nats(self, ttl: int) -> None:
        """Queue openers. IPv6 needs none: where no NAT translates, no port can be lost."""
        assert self.checks is not None
        for address, pair in self.checks.pairs.items():
            if not pair.is_valid and not pair.remote.is_ipv6:
                opener = encode_opener(self._exchange.new_transaction_id())
                self._openers.append(Outgoing(opener, address, ttl))

    def _fail(self, reason: str, now: float) -> None:
        result, retry_in = self._exchange.failed(reason, now)
        self._events.append(ChecksFailed(self._session, reason, retry_in))
        self._events.append(result)

    # -- checks ----------------------------------------------------------------------------------

    def receive_check(self, check: Check, source: Address, now: float) -> bool:
        """Take a check that came from `source`. Returns False for one that is not authentic."""
        if self.checks is None or not self.checks.receive(check, source, now):
            return False
        path = self.path
        if path is not None and check.kind is CheckKind.SUCCESS and source == path.pair.address:
            self._answered(path, now)
        if self.checks.has_news:
            self._follow(self.checks, now)
        self._supervise(now)
        return True

    def _follow(self, checks: CheckList, now: float) -> None:
        """Use what the check list found."""
        exhausted = False
        while (event := checks.next_event()) is not None:
            exhausted = exhausted or isinstance(event, checklist.ChecksExhausted)
        self._use_best(checks, now)
        if exhausted and self.path is None:
            self._fail("no check was answered", now)

    def _use_best(self, checks: CheckList, now: float) -> None:
        best, path = checks.best_valid(), self.path
        if best is None or (path is not None and best is path.pair):
            return
        health = PathHealth(best.rtt or 0.0, now, self._keepalive)
        health.answered_at = best.answered_at or now  # which may be long ago
        best.mtu.restart(now)
        self.path = DirectPath(best, health)
        self._exchange.succeeded()
        self._revivals.clear()
        self._advance(
            DirectState.GOOD, f"{best.remote.type} {format_address(best.address)} answered"
        )

    # -- what travels on the path ----------------------------------------------------------------

    def sent(self, now: float) -> float | None:
        """A packet of the session left on the direct way.

        Returns the time of the check that follows if no answer comes, None if an answer is
        overdue already.
        """
        path = self.path
        return now + ASK_AFTER if path is not None and path.health.sent(now) else None

    def heard(self, source: Address, now: float) -> None:
        """An authentic packet of the session arrived directly from `source`."""
        path = self.path
        if path is None or source != path.pair.address:
            return
        if path.peer_since is None:
            path.peer_since = now
        path.refutations = 0
        path.health.heard(now)

    def heard_relayed(self, now: float, rtt: float) -> bool:
        """An authentic packet of the session arrived by a relay, `rtt` seconds round trip.

        A peer that was sending directly and now sends by a relay doubts the path. It may hear
        nothing of this node although this node hears it, so this end doubts the path as well:
        then its packets reach the peer. Returns whether the path is in doubt since this packet.
        """
        path = self.path
        if path is None or path.peer_since is None:
            return False
        if now - path.peer_since <= GRACE * 2.0**path.refutations + rtt:
            return False
        return self.doubt(now)

    def doubt(self, now: float) -> bool:
        """Somebody says that the peer is gone: check the path. Returns whether there is a path."""
        if self.path is None:
            return False
        self.path.health.doubt(now)
        self._supervise(now)
        return True

    def black_hole(self, now: float) -> None:
        """Packets larger than BASE get lost on the path: search for the size again."""
        if self.path is not None:
            self.path.pair.mtu.black_hole(now)
            self._supervise(now)

    def _answered(self, path: DirectPath, now: float) -> None:
        """The peer answered a check on the path."""
        if path.health.heard(now, path.pair.rtt):
            path.peer_since = now  # it will notice soon, and stop sending both ways
            path.refutations = min(path.refutations + 1, MAX_DOUBLINGS)
            path.pair.mtu.restart(now)

    # -- upkeep ----------------------------------------------------------------------------------

    def _supervise(self, now: float) -> None:
        """Check the path if a check is due, and follow its health."""
        path, checks = self.path, self.checks
        if path is None or checks is None:
            return
        health, pair = path.health, path.pair
        if now >= health.next_ask() - 1e-6:
            health.asked(now)
            checks.check(pair, now)
        match health.look(now):
            case Health.DEAD:
                self._lose(path, checks, now)
            case Health.SUSPECT:
                self._suspect(path, checks, now)
            case Health.GOOD:
                self._probe(path, checks, now)

    def _lose(self, path: DirectPath, checks: CheckList, now: float) -> None:
        checks.fail(path.pair)
        self.path = None
        self._revivals[path.pair] = _Revival(now, now + REVIVE_FOR)
        self._advance(DirectState.NONE, f"{format_address(path.pair.address)} is silent")
        self._fail("the direct path went silent", now)

    def _suspect(self, path: DirectPath, checks: CheckList, now: float) -> None:
        if checks.has_fresher(path.pair, path.health.silent_since):
            checks.fail(path.pair)  # the peer has moved and answers elsewhere
            self._use_best(checks, now)
        elif self.state is DirectState.GOOD:
            self._advance(DirectState.DOUBTFUL, "it is silent")
            # A NAT may have moved us. Then the Intermediate drops our relay frames until a packet
            # of the control connection shows it where we are, and the peer learns it in turn.
            self._events.append(self._exchange.update())
        elif self.state is DirectState.DOUBTFUL and path.health.is_silent_for(SILENT_AFTER, now):
            self._advance(DirectState.SILENT, "the direct path is still silent", arrives=True)

    def _probe(self, path: DirectPath, checks: CheckList, now: float) -> None:
        """Look for larger packets that the path carries.

        Only on a healthy path: on a silent one a lost probe says nothing of its size.
        """
        mtu = path.pair.mtu
        if now >= mtu.next_at and (size := mtu.next_probe(now)) is not None:
            checks.check(path.pair, now, size)
        if mtu.phase is Phase.ERROR:
            if self.state is not DirectState.SILENT:
                reason = f"packets of {BASE} bytes do not get through"
                self._advance(DirectState.SILENT, reason)
        elif self.state is not DirectState.GOOD:
            self._advance(DirectState.GOOD, "it answers again")

    # -- time ------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When to call handle_timer(); math.inf for never."""
        times = [self._second_openers_at]
        if self._exchange.deadline is not None:
            times.append(self._exchange.deadline.at)
        times += [revival.next_at for revival in self._revivals.values()]
        checks, path = self.checks, self.path
        if checks is not None and (timer := checks.get_timer()) is not None:
            times.append(timer)
        if path is not None:
            times.append(path.health.get_timer())
            if path.health.state is Health.GOOD:
                times.append(path.pair.mtu.next_at)
        return min(times)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        deadline = self._exchange.deadline
        if deadline is not None and now >= deadline.at:
            if deadline.step is Step.OFFER:
                self._offer(now)
            else:
                self._exchange.deadline = None
                self._fail(f"no answer to the candidates within {EXCHANGE_TIMEOUT:.0f} s", now)
        if self.checks is None:
            return
        if now >= self._second_openers_at:
            self._second_openers_at = math.inf
            self._open_nats(SECOND_TTL)
        self._revive(self.checks, now)
        self.checks.handle_timer(now)
        self._follow(self.checks, now)
        self._supervise(now)

    def _revive(self, checks: CheckList, now: float) -> None:
        for pair, revival in list(self._revivals.items()):
            if now > revival.until:
                del self._revivals[pair]
            elif now >= revival.next_at:
                revival.next_at = now + REVIVE_EVERY
                checks.check(pair, now)

    # -- out -------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether there are events or datagrams, or get_timer() may be earlier than it was."""
        checks = self.checks
        return bool(self._events or self._openers) or (checks is not None and checks.has_news)

    def snapshot(self) -> DirectStatus:
        """What there is now."""
        pairs = self.checks.pairs.values() if self.checks is not None else ()
        deadline = self._exchange.deadline
        offers = deadline is not None and deadline.step is Step.OFFER
        return DirectStatus(
            self.state,
            self.path.pair.address if self.path is not None else None,
            self.rtt,
            self.packet_size,
            tuple(pair.snapshot() for pair in pairs),
            self._exchange.failures,
            deadline.at if deadline is not None and offers else None,
        )

    def next_event(self) -> Event | None:
        """The next event, None if there is none."""
        return self._events.popleft() if self._events else None

    def datagrams_to_send(self) -> list[Outgoing]:
        """Openers, checks and answers that are due."""
        out, self._openers = self._openers, []
        if self.checks is not None:
            out += [Outgoing(*datagram) for datagram in self.checks.datagrams_to_send()]
        return out


def _texts(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Candidates for people, as "type address"."""
    return tuple(f"{c.type} {format_address(c.address)}" for c in candidates)
