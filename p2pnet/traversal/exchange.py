"""The exchange of candidates: one round of connectivity checks after another.

The controlling end offers its candidates and credentials, the other end answers with its own, then
both check. After a failed round the controlling end offers again, later each time.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import enum
import math
from collections.abc import Callable, Iterable

from p2pnet.reports import CandidatesExchanged, ChecksFailed, ChecksStarted
from p2pnet.traversal.candidate import Candidate, CandidateType
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.wire import messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import encode_opener

TAG_LENGTH = 4  # bytes at the start of each transaction id; they name the session
EXCHANGE_TIMEOUT = 5.0  # seconds from the offer to the answer
RETRIES = (5.0, 15.0, 45.0, 120.0)  # seconds after each failed round, the last for all later ones
# TTL of openers: enough to leave our NAT, too little to reach the peer's, because a NAT that takes
# an unsolicited packet for its own would map the peer's checks to another port than the one
# announced. Neighbors may be three routers apart, so the first opener passes one router only. The
# second, for carriers' NATs, waits until the peer has sent its first.
FIRST_TTL, SECOND_TTL = 2, 4


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


Event = messages.CandidateMessage | CandidatesExchanged | ChecksStarted | ChecksFailed


class CandidateExchange:
    """The rounds of one session, as one end makes them.

    All times are seconds of the caller's clock.

    :param session: 16 bytes, the session in messages.
    :param controlling: whether this end offers (RFC 8445 section 6.1.1).
    :param own: the candidates of this node.
    :param entropy: the source of random bytes.
    :ivar tag: starts the transaction id of every check of this end.
    :ivar failures: rounds that failed since the last success.
    :ivar checks: the check list, None before the first exchange of candidates.
    :ivar events: messages for the peer, and reports, in order. The reader removes them.
    :ivar openers: the openers that are due. The sender removes them.
    """

    def __init__(
        self,
        session: bytes,
        *,
        controlling: bool,
        own: OwnCandidates,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.session = session
        self._controlling = controlling
        self._credentials = IceCredentials(  # the same for all rounds
            base64.b64encode(entropy(6)).decode(), base64.b64encode(entropy(18)).decode()
        )
        self.tag = tag_of(self._credentials.username_fragment)
        self.failures = 0
        self.checks: CheckList | None = None
        self.openers: list[Outgoing] = []
        self._deadline: Deadline | None = None  # of the present round
        self._second_openers_at = math.inf
        self._own = own
        self._entropy = entropy
        self.events: collections.deque[Event] = collections.deque()

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
        if self._controlling:
            self._deadline = Deadline(now + EXCHANGE_TIMEOUT, Step.MISS_ANSWER)
            self.events.append(messages.CandidateOffer(*self._description()))

    def update(self) -> None:
        """Send the present candidates to a peer that has earlier ones."""
        self.events.append(messages.CandidateUpdate(self.session, to_wire(self._own.gather())))

    def take_signal(self, message: messages.Message, now: float) -> None:
        """Take a message of the peer, or the Intermediate's StartPunching. Ignore all others."""
        match message:
            case messages.CandidateOffer() if not self._controlling:
                self._take_remote(message)
                self.events.append(messages.CandidateAnswer(*self._description()))
            case messages.CandidateAnswer() if self._controlling and self.has_begun:
                self._deadline = None
                self._take_remote(message)
            case messages.CandidateUpdate(candidates=candidates) if self.checks is not None:
                self.checks.add_remote(from_wire(candidates))
                self._open_nats(self.checks, FIRST_TTL)
            case messages.StartPunching(delay=delay) if self.checks is not None:
                self._start(self.checks, delay / 1000, now)
            case messages.PunchingResult(direct=False, reason=reason):
                self.events.append(ChecksFailed(self.session.hex(), f"peer: {reason}", None))

    def _description(self) -> tuple[bytes, str, str, tuple[messages.CandidateInfo, ...]]:
        """Return what an offer and an answer say: session, credentials and candidates."""
        ours = self._credentials
        candidates = to_wire(self._own.gather())
        return self.session, ours.username_fragment, ours.password, candidates

    def _take_remote(self, message: messages.CandidateOffer | messages.CandidateAnswer) -> None:
        theirs = IceCredentials(message.username_fragment, message.password)
        if self.checks is None or self.checks.remote != theirs:
            tag, entropy = self.tag, self._entropy
            self.checks = CheckList(
                controlling=self._controlling,
                local=self._credentials,
                remote=theirs,
                policy=self._own.policy,
                entropy=lambda size: tag + entropy(size - TAG_LENGTH),
            )
        self.checks.pairs.use_bases(self._own.bases())
        remote = from_wire(message.candidates)
        self.checks.add_remote(remote)
        self._open_nats(self.checks, FIRST_TTL)
        ours = _texts(self._own.gather())
        self.events.append(CandidatesExchanged(self.session.hex(), ours, _texts(remote)))

    def _start(self, checks: CheckList, delay: float, now: float) -> None:
        checks.start(now + delay)
        self._second_openers_at = now + delay / 2
        self.events.append(ChecksStarted(self.session.hex(), delay, len(checks.pairs)))
        if not checks.pairs:
            self.fail("the peer has no candidate that may be checked", now)

    def _open_nats(self, checks: CheckList, ttl: int) -> None:
        """Queue openers. IPv6 needs none: where no NAT translates, no port can be lost."""
        for address, pair in checks.pairs.items():
            if not pair.is_valid and not pair.remote.is_ipv6:
                self.openers.append(Outgoing(encode_opener(self._entropy(12)), address, ttl))

    def succeed(self) -> None:
        """End the round with a direct path: the next failed round counts as the first.

        An answer that is still on its way is welcome.
        """
        self.failures = 0
        self._deadline = None

    def fail(self, reason: str, now: float) -> None:
        """End the round without a direct path; the controlling end offers again, later each time.

        :param reason: for the peer and for people.
        """
        retry_in = None
        if self._controlling:
            retry_in = RETRIES[min(self.failures, len(RETRIES) - 1)]
            self._deadline = Deadline(now + retry_in, Step.OFFER)
        self.failures += 1
        self.events.append(ChecksFailed(self.session.hex(), reason, retry_in))
        self.events.append(messages.PunchingResult(self.session, False, reason))

    # -- time ------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """Return the time to call handle_timer() at, math.inf for never."""
        deadline = self._deadline.at if self._deadline is not None else math.inf
        return min(deadline, self._second_openers_at)

    def handle_timer(self, now: float) -> None:
        """Begin the next round, miss an answer, or queue the second openers, whatever is due."""
        deadline = self._deadline
        if deadline is not None and now >= deadline.at:
            self._deadline = None
            if deadline.step is Step.OFFER:
                self.begin(now)
            else:
                self.fail(f"no answer to the candidates within {EXCHANGE_TIMEOUT:.0f} s", now)
        if self.checks is not None and now >= self._second_openers_at:
            self._second_openers_at = math.inf
            self._open_nats(self.checks, SECOND_TTL)


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
