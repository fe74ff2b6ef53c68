"""The exchange of candidates: one round of connectivity checks after another.

The controlling end offers its candidates and credentials, the other end answers with its own, then
both check. After a failed round the controlling end offers again, later each time.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
from collections.abc import Callable, Iterable

from p2pnet.traversal.candidate import Candidate, CandidateType
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.wire import messages

TAG_LENGTH = 4  # bytes at the start of each transaction id; they name the session
EXCHANGE_TIMEOUT = 5.0  # seconds from the offer to the answer
RETRIES = (5.0, 15.0, 45.0, 120.0)  # seconds after each failed round, the last for all later ones


class Step(enum.Enum):
    """What the controlling end does at the deadline of a round."""

    MISS_ANSWER = enum.auto()  # the peer left the offer unanswered
    OFFER = enum.auto()  # the next round


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A step and its time in seconds of the caller's clock."""

    at: float
    step: Step


class CandidateExchange:
    """The rounds of one session, as one end makes them.

    :param session: 16 bytes, the session in messages.
    :param controlling: whether this end offers (RFC 8445 section 6.1.1).
    :param own: the candidates of this node.
    :param entropy: the source of random bytes.
    :ivar credentials: of this end, the same for all rounds.
    :ivar tag: starts the transaction id of every check of this end.
    :ivar deadline: of the present round, None while there is none.
    :ivar failures: rounds that failed since the last success.
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
        self.controlling = controlling
        self.credentials = IceCredentials(
            base64.b64encode(entropy(6)).decode(), base64.b64encode(entropy(18)).decode()
        )
        self.tag = tag_of(self.credentials.username_fragment)
        self.deadline: Deadline | None = None
        self.failures = 0
        self.own = own
        self._entropy = entropy

    def offer(self, now: float) -> messages.CandidateOffer:
        """Begin a round; the answer is due after EXCHANGE_TIMEOUT seconds."""
        self.deadline = Deadline(now + EXCHANGE_TIMEOUT, Step.MISS_ANSWER)
        ours = self.credentials
        return messages.CandidateOffer(
            self.session, ours.username_fragment, ours.password, to_wire(self.own.gather())
        )

    def answer(self) -> messages.CandidateAnswer:
        """The answer to an offer of the peer."""
        ours = self.credentials
        return messages.CandidateAnswer(
            self.session, ours.username_fragment, ours.password, to_wire(self.own.gather())
        )

    def update(self) -> messages.CandidateUpdate:
        """The present candidates, for a peer that has earlier ones."""
        return messages.CandidateUpdate(self.session, to_wire(self.own.gather()))

    def answered(self) -> None:
        """The peer's candidates arrived."""
        self.deadline = None

    def failed(self, reason: str, now: float) -> tuple[messages.PunchingResult, float | None]:
        """End the round without a direct path.

        Returns the message for the peer, and the seconds until this end offers again (None: the
        peer is the one to offer).
        """
        retry_in = None
        if self.controlling:
            retry_in = RETRIES[min(self.failures, len(RETRIES) - 1)]
            self.deadline = Deadline(now + retry_in, Step.OFFER)
        self.failures += 1
        return messages.PunchingResult(self.session, False, reason), retry_in

    def succeeded(self) -> None:
        """A pair works: the next failed round counts as the first."""
        self.failures = 0

    def check_list(self, present: CheckList | None, remote: IceCredentials) -> CheckList:
        """The check list for a peer with these credentials; the present one if it has the same."""
        if present is None or present.remote != remote:
            tag, entropy = self.tag, self._entropy
            present = CheckList(
                controlling=self.controlling,
                local=self.credentials,
                remote=remote,
                policy=self.own.policy,
                entropy=lambda size: tag + entropy(size - TAG_LENGTH),
            )
        present.use_bases(self.own.bases())
        return present

    def new_transaction_id(self) -> bytes:
        """For a message outside all transactions."""
        return self._entropy(12)


def tag_of(username_fragment: str) -> bytes:
    """The tag that belongs to a username fragment. Raises ValueError for no base64."""
    return base64.b64decode(username_fragment)[:TAG_LENGTH]


def to_wire(candidates: Iterable[Candidate]) -> tuple[messages.CandidateInfo, ...]:
    """Candidates as a message carries them."""
    return tuple(
        messages.CandidateInfo(c.type.value, *c.address, c.priority, c.foundation)
        for c in candidates
    )


def from_wire(infos: Iterable[messages.CandidateInfo]) -> list[Candidate]:
    """Candidates of a message, not sanitized."""
    return [
        Candidate(CandidateType(i.type), (i.host, i.port), i.priority, i.foundation) for i in infos
    ]
