"""The exchange of candidates: one round of connectivity checks after another.

The controlling end offers its candidates and credentials, the other end answers with its own and
says when both begin to check. After a failed round the controlling end offers again, later each
time. Ends of an end-to-end connection exchange these messages: no Intermediate sees them.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import enum
import math
from collections.abc import Callable, Collection, Iterable

from p2pnet.reports import CandidatesExchanged, ChecksFailed, ChecksStarted
from p2pnet.timing import Throttle
from p2pnet.traversal.budget import Cause, SendBudget
from p2pnet.traversal.candidate import Candidate, CandidateType
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.pace import Pace
from p2pnet.traversal.pair import CandidatePair
from p2pnet.wire import path_messages as messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import encode_opener
from p2pnet.wire.messages import PolicyName

TAG_LENGTH = 4  # bytes at the start of each transaction id; they name the session
EXCHANGE_TIMEOUT = 5.0  # seconds from the offer to the answer
RETRIES = (5.0, 15.0, 45.0, 120.0)  # seconds after each failed round, the last for all later ones
# TTL of openers: enough to leave our NAT, too little to reach the peer's, because a NAT that takes
# an unsolicited packet for its own would map the peer's checks to another port than the one
# announced. Neighbors may be three routers apart, so the first opener passes one router only. The
# second, for carriers' NATs, waits until the peer has sent its first.
FIRST_TTL, SECOND_TTL = 2, 4
PUNCHING_DELAY = 0.05  # seconds at least from an answer to the first check of both ends
# Seconds from the controlling end's first openers to its first check: they have to leave its NAT
# before the peer's check arrives, also where the way there takes longer than the way back.
HEAD_START = 0.02
# Offers that an end makes or takes, and updates in each direction: seconds between two, and how
# many may come at once. Of those that wait the newest counts, which has all that is new.
MESSAGE_INTERVAL, MESSAGE_BURST = 1.0, 3


class Step(enum.Enum):
    """What the controlling end does at the deadline of a round."""

    MISS_ANSWER = enum.auto()  # the peer left the offer unanswered
    OFFER = enum.auto()  # the next round


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A step and its time in seconds of the caller's clock."""

    at: float
    step: Step


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram to send; `ttl` limits the routers that it passes (None: no limit)."""

    data: bytes
    address: Address
    ttl: int | None = None


Event = messages.PathMessage | CandidatesExchanged | ChecksStarted | ChecksFailed


class Openers:
    """The openers of one session.

    :param budget: of the node.
    :param entropy: the source of random bytes.
    :ivar budget: which checks use too.
    :ivar due: the openers to send. The sender removes them.
    :ivar second_at: when to open NATs with SECOND_TTL, math.inf for never.
    """

    def __init__(self, budget: SendBudget, entropy: Callable[[int], bytes]) -> None:
        self.due: list[Outgoing] = []
        self.second_at = math.inf
        self.budget = budget
        self._entropy = entropy
        self._opened: dict[Address, int] = {}  # in this round, with the largest TTL

    def begin(self, pairs: Collection[CandidatePair], now: float) -> None:
        """Begin a round: queue the first opener to each pair."""
        self._opened.clear()
        self.open(pairs, FIRST_TTL, now)

    def open(self, pairs: Collection[CandidatePair], ttl: int, now: float) -> None:
        """Queue the openers that the round lacks, if the budget has room: checks open NATs too.

        IPv6 needs none: where no NAT translates, no port can be lost.
        """
        self._opened = {pair.address: self._opened.get(pair.address, 0) for pair in pairs}
        for pair in pairs:
            if pair.is_valid or pair.remote.is_ipv6 or self._opened[pair.address] >= ttl:
                continue
            budget, address = self.budget, pair.address
            if budget.take_spare(now) and budget.allows(address, Cause.NAMED, now):
                self._opened[address] = ttl
                self.due.append(Outgoing(encode_opener(self._entropy(12)), address, ttl))


class CandidateExchange:
    """The rounds of one session, as one end makes them.

    All times are seconds of the caller's clock.

    :param session: 16 bytes, the session in reports.
    :param controlling: whether this end offers (RFC 8445 section 6.1.1).
    :param own: the candidates of this node.
    :param policy: the name of the path policy, which an offer tells the other end.
    :param budget: of the node, for packets to unproven addresses.
    :param entropy: the source of random bytes.
    :ivar controlling: whether this end offers.
    :ivar failures: rounds that failed since the last success.
    :ivar checks: the check list, None before the first exchange of candidates.
    :ivar events: messages for the peer, and reports, in order. The reader removes them.
    """

    def __init__(
        self,
        session: bytes,
        *,
        controlling: bool,
        own: OwnCandidates,
        policy: PolicyName,
        budget: SendBudget,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.session = session
        self.policy = policy
        self.controlling = controlling
        self._credentials = IceCredentials(  # the same for all rounds
            base64.b64encode(entropy(6)).decode(), base64.b64encode(entropy(18)).decode()
        )
        self.failures = 0
        self.checks: CheckList | None = None
        self.openers = Openers(budget, entropy)
        self._deadline: Deadline | None = None  # of the present round
        self._own = own
        self._entropy = entropy
        self._rates = _MessageRates()
        self.events: collections.deque[Event] = collections.deque()

    @property
    def tag(self) -> bytes:
        """The first TAG_LENGTH bytes of the transaction id of every check of this end."""
        return tag_of(self._credentials.username_fragment)

    # -- rounds ----------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether there was a round. There is none under the policy relay-only."""
        return self.checks is not None or self._deadline is not None

    @property
    def next_round(self) -> float | None:
        """When this end offers again, None without a plan."""
        deadline = self._deadline
        return deadline.at if deadline is not None and deadline.step is Step.OFFER else None

    def begin(self, now: float) -> None:
        """Begin a round as the controlling end; the answer is due after EXCHANGE_TIMEOUT seconds.

        The other end waits for the offer.
        """
        if self.controlling:
            self._rates.offers.call(self._offer, now)

    def _offer(self, now: float) -> None:
        self._deadline = Deadline(now + EXCHANGE_TIMEOUT, Step.MISS_ANSWER)
        self._rates.owe(messages.CandidateAnswer)
        self.events.append(messages.CandidateOffer(*self._description(), self.policy))

    def update(self, now: float) -> None:
        """Send the present candidates to a peer that has earlier ones."""
        self._rates.own_updates.call(lambda _: self.events.append(self._update()), now)

    def _update(self) -> messages.CandidateUpdate:
        return messages.CandidateUpdate(to_wire(self._own.gather()))

    def take_signal(self, message: messages.PathMessage, rtt: float, now: float) -> None:
        """Take a message of the peer. Ignore a message that the peer's role does not send.

        :param rtt: round-trip time of the connection that carries messages, in seconds.
        """
        match message:
            case messages.CandidateOffer() if not self.controlling:
                self._rates.offers.call(lambda at: self._answer(message, rtt, at), now)
            case messages.CandidateAnswer() if self._rates.is_owed(message):
                self._deadline = None
                self._rates.owe(messages.StartPunching)
                self._take_remote(message, now)
            case messages.CandidateUpdate() if self.checks is not None:
                self._rates.updates.call(lambda at: self._add(message, at), now)
            case messages.StartPunching(delay=delay) if self._rates.is_owed(message):
                assert self.checks is not None  # since the answer
                self._start(self.checks, delay / 1000, now)
            case messages.PunchingResult(direct=False, reason=reason):
                self.events.append(ChecksFailed(self.session.hex(), f"peer: {reason}", None))

    def _answer(self, offer: messages.CandidateOffer, rtt: float, now: float) -> None:
        self._take_remote(offer, now)
        self.events.append(messages.CandidateAnswer(*self._description()))
        self._start_both(rtt, now)

    def _add(self, update: messages.CandidateUpdate, now: float) -> None:
        if self.checks is not None:
            self.checks.add_remote(from_wire(update.candidates))
            self.openers.open(self.checks.pairs.values(), FIRST_TTL, now)

    def _description(self) -> tuple[str, str, tuple[messages.CandidateInfo, ...]]:
        """Return what an offer and an answer say: credentials and candidates."""
        ours = self._credentials
        return ours.username_fragment, ours.password, to_wire(self._own.gather())

    def _take_remote(
        self, message: messages.CandidateOffer | messages.CandidateAnswer, now: float
    ) -> None:
        theirs = IceCredentials(message.username_fragment, message.password)
        if self.checks is None or self.checks.remote != theirs:
            tag, entropy = self.tag, self._entropy
            self.checks = CheckList(
                controlling=self.controlling,
                local=self._credentials,
                remote=theirs,
                policy=self._own.policy,
                pace=Pace(self.openers.budget, self.session),
                entropy=lambda size: tag + entropy(size - TAG_LENGTH),
            )
        self.checks.pairs.use_bases(self._own.bases())
        remote = from_wire(message.candidates)
        self.checks.add_remote(remote)
        self.openers.begin(self.checks.pairs.values(), now)
        ours = _texts(self._own.gather())
        self.events.append(CandidatesExchanged(self.session.hex(), ours, _texts(remote)))

    def _start_both(self, rtt: float, now: float) -> None:
        """Let both ends begin at the same time, without comparing clocks: the message to the peer
        takes half of the round trip, for which this end waits longer."""
        assert self.checks is not None
        way = rtt / 2
        delay = max(PUNCHING_DELAY, way + HEAD_START)
        self.events.append(messages.StartPunching(min(round((delay - way) * 1000), 10_000)))
        self._start(self.checks, delay, now)

    def _start(self, checks: CheckList, delay: float, now: float) -> None:
        checks.start(now + delay)
        self.openers.second_at = now + max(0.0, delay - HEAD_START / 2)
        self.events.append(ChecksStarted(self.session.hex(), delay, len(checks.pairs)))
        if not checks.pairs:
            self.fail("the peer has no candidate that may be checked", now)

    def succeed(self) -> None:
        """End the round with a direct path: the next failed round counts as the first.

        An answer that is still on its way is welcome.
        """
        self.failures = 0
        self._deadline = None
        if self.controlling:
            self._rates.offers.cancel()

    def fail(self, reason: str, now: float) -> None:
        """End the round without a direct path; the controlling end offers again, later each time.

        :param reason: for the peer and for people.
        """
        retry_in = None
        if self.controlling:
            retry_in = RETRIES[min(self.failures, len(RETRIES) - 1)]
            self._deadline = Deadline(now + retry_in, Step.OFFER)
        self.failures += 1
        self.events.append(ChecksFailed(self.session.hex(), reason, retry_in))
        self.events.append(messages.PunchingResult(False, reason))

    # -- time ------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """Return the time to call handle_timer() at, math.inf for never."""
        deadline = self._deadline.at if self._deadline is not None else math.inf
        return min(deadline, self.openers.second_at, self._rates.get_timer())

    def handle_timer(self, now: float) -> None:
        """Begin the next round, miss an answer, or queue the second openers, whatever is due."""
        self._rates.handle_timer(now)
        deadline = self._deadline
        if deadline is not None and now >= deadline.at:
            self._deadline = None
            if deadline.step is Step.OFFER:
                self.begin(now)
            else:
                self.fail(f"no answer to the candidates within {EXCHANGE_TIMEOUT:.0f} s", now)
        if self.checks is not None and now >= self.openers.second_at:
            self.openers.second_at = math.inf
            self.openers.open(self.checks.pairs.values(), SECOND_TTL, now)


class _MessageRates:
    """How often an end makes or takes offers, takes updates, and sends its own.

    The controlling end also takes one answer to each offer, and one beginning for each answer.
    """

    def __init__(self) -> None:
        self.offers = Throttle(MESSAGE_INTERVAL, MESSAGE_BURST)
        self.updates = Throttle(MESSAGE_INTERVAL, MESSAGE_BURST)
        self.own_updates = Throttle(MESSAGE_INTERVAL, MESSAGE_BURST)
        self._owed: collections.Counter[type[messages.PathMessage]] = collections.Counter()

    def owe(self, kind: type[messages.PathMessage]) -> None:
        """The peer owes one more message of a kind, but does not save up many."""
        self._owed[kind] = min(self._owed[kind] + 1, MESSAGE_BURST)

    def is_owed(self, message: messages.PathMessage) -> bool:
        """Whether the peer owed `message`, which it has paid now."""
        is_owed = self._owed[type(message)] > 0
        self._owed[type(message)] -= is_owed
        return is_owed

    def get_timer(self) -> float:
        """Return the time to call handle_timer() at, math.inf for never."""
        offers, updates, own = self.offers, self.updates, self.own_updates
        if offers.waiting is updates.waiting is own.waiting is None:  # as usual
            return math.inf
        return min(offers.get_timer(), updates.get_timer(), own.get_timer())

    def handle_timer(self, now: float) -> None:
        """Make and take the messages that are due."""
        for throttle in (self.offers, self.updates, self.own_updates):
            throttle.handle_timer(now)


def tag_of(username_fragment: str) -> bytes:
    """Return the tag of a username fragment. Raises ValueError for a fragment that is no base64."""
    return base64.b64decode(username_fragment)[:TAG_LENGTH]


def to_wire(candidates: Iterable[Candidate]) -> tuple[messages.CandidateInfo, ...]:
    """Return candidates in the form that messages carry."""
    return tuple(
        messages.CandidateInfo(c.type.value, *c.address, c.priority, c.foundation)
        for c in candidates
    )


def from_wire(infos: Iterable[messages.CandidateInfo]) -> list[Candidate]:
    """Return the candidates of a message. The caller still has to sanitize them."""
    return [
        Candidate(CandidateType(i.type), (i.host, i.port), i.priority, i.foundation) for i in infos
    ]


def _texts(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return candidates for people, as "type address"."""
    return tuple(f"{c.type} {format_address(c.address)}" for c in candidates)
