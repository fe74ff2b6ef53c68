"""The exchange of candidates with the other end of a session, which begins a round of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.attempt import TAG_LENGTH, Attempt
from p2pnet.traversal.candidate import Candidate, CandidateType
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.selection import RelayOnly
from p2pnet.wire import messages
from p2pnet.wire.address import format_address
from p2pnet.wire.check import encode_opener

if TYPE_CHECKING:
    from p2pnet.core.peer.direct import DirectPaths
    from p2pnet.core.peer.link import ControlLink
    from p2pnet.core.peer.node import PeerCore
    from p2pnet.core.peer.session import Session

EXCHANGE_TIMEOUT = 5.0  # seconds from the offer to the answer
RETRIES = (5.0, 15.0, 45.0, 120.0)  # seconds after each failed round, the last for good
# Routers that an opener crosses. It is to leave an own NAT, and to end before the peer's: one that
# takes an unsolicited packet for its own would give the peer's checks another port than was told.
# Neighbors may be three routers apart, so the first crosses one only, and a second, for carriers'
# NATs, waits until the peer has sent its first.
FIRST_HOPS, SECOND_HOPS = 2, 4


class Exchange:
    """The signaling of a node's direct paths."""

    def __init__(self, node: PeerCore, paths: DirectPaths) -> None:
        self._node = node
        self._paths = paths

    def begin(self, session: Session) -> None:
        """The session has a relay, its first or one again: the controlling side offers."""
        if not self._node.controlling or isinstance(session.selector, RelayOnly):
            return
        attempt = self._paths.find(session.id) or self._paths.add(session)
        if attempt.pair is None:
            self.offer(attempt)

    def offer(self, attempt: Attempt) -> None:
        node = self._node
        reason = f"no answer to the candidates within {EXCHANGE_TIMEOUT:.0f} s"
        self._plan(attempt, node.now + EXCHANGE_TIMEOUT, lambda t: self.failed(attempt, reason, t))
        ours = attempt.credentials
        node.signal(
            attempt.session,
            messages.CandidateOffer(
                attempt.session.id,
                ours.username_fragment,
                ours.password,
                to_wire(self._paths.local.gather()),
            ),
        )

    def _plan(self, attempt: Attempt, when: float, step: Callable[[float], object]) -> None:
        self.cancel(attempt)
        attempt.next_step = self._node.timers.call_at(when, step)

    def cancel(self, attempt: Attempt) -> None:
        if attempt.next_step is not None:
            attempt.next_step.cancel()

    def take_message(self, link: ControlLink, message: messages.Message, now: float) -> None:
        """A message about candidates or checks. One for no session of ours is ignored."""
        session_id = getattr(message, "session", b"")
        attempt = self._paths.find(session_id)
        match message:
            case messages.CandidateOffer() if not self._node.controlling:
                self._take_offer(link, message, now)
            case messages.CandidateAnswer() if attempt and self._node.controlling:
                self.cancel(attempt)
                self._take_remote(attempt, message, now)
            case messages.CandidateUpdate(candidates=candidates) if attempt and attempt.checks:
                attempt.checks.add_remote(from_wire(candidates), now)
                self._paths.touch(attempt)
                self._open_nats(attempt, FIRST_HOPS)
                if attempt.pair is None and self._node.controlling:
                    self.offer(attempt)
            case messages.StartPunching(delay=delay) if attempt and attempt.checks:
                self._start(attempt, delay / 1000, now)
            case messages.PunchingResult(direct=False, reason=reason) if attempt is not None:
                self._node.emit(reports.ChecksFailed(session_id.hex(), f"peer: {reason}", None))

    def _take_offer(self, link: ControlLink, offer: messages.CandidateOffer, now: float) -> None:
        session = self._node.find_session(offer.session)
        if session is None or not session.is_relayed_by(link.address):
            return
        attempt = self._paths.find(offer.session) or self._paths.add(session)
        self._take_remote(attempt, offer, now)
        ours = attempt.credentials
        link.send(
            messages.CandidateAnswer(
                offer.session,
                ours.username_fragment,
                ours.password,
                to_wire(self._paths.local.gather()),
            )
        )

    def _take_remote(
        self,
        attempt: Attempt,
        message: messages.CandidateOffer | messages.CandidateAnswer,
        now: float,
    ) -> None:
        theirs = IceCredentials(message.username_fragment, message.password)
        local = self._paths.local.gather()
        if attempt.checks is None or attempt.checks.remote != theirs:
            attempt.checks = CheckList(
                controlling=self._node.controlling,
                local=attempt.credentials,
                remote=theirs,
                policy=self._paths.local.policy,
                entropy=lambda size: attempt.tag + self._node.entropy(size - TAG_LENGTH),
            )
        attempt.checks.use_bases(self._paths.local.bases())
        remote = from_wire(message.candidates)
        attempt.checks.add_remote(remote, now)
        self._paths.touch(attempt)
        self._open_nats(attempt, FIRST_HOPS)
        self._node.emit(
            reports.CandidatesExchanged(
                attempt.session.id.hex(), for_people(local), for_people(remote)
            )
        )

    def _start(self, attempt: Attempt, delay: float, now: float) -> None:
        assert attempt.checks is not None
        attempt.checks.start(now + delay)
        self._paths.touch(attempt)
        self._node.timers.call_at(now + delay / 2, lambda _: self._open_nats(attempt, SECOND_HOPS))
        pairs = len(attempt.checks.pairs)
        self._node.emit(reports.ChecksStarted(attempt.session.id.hex(), delay, pairs))
        if not pairs:
            self.failed(attempt, "the peer has no candidate that may be checked", now)

    def _open_nats(self, attempt: Attempt, hops: int) -> None:
        """Send openers. IPv6 needs none: where no address is translated, no port can be lost."""
        assert attempt.checks is not None
        for address, pair in attempt.checks.pairs.items():
            if not pair.is_valid and not pair.remote.is_ipv6:
                opener = encode_opener(self._node.entropy(12))
                self._node.emit(events.OpenerNeeded(opener, address, hops))

    def failed(self, attempt: Attempt, reason: str, now: float) -> None:
        retry_in = None
        if self._node.controlling:
            retry_in = RETRIES[min(attempt.failures, len(RETRIES) - 1)]
            self._plan(attempt, now + retry_in, lambda _: self.offer(attempt))
        attempt.failures += 1
        session = attempt.session.id
        self._node.emit(reports.ChecksFailed(session.hex(), reason, retry_in))
        self._node.signal(attempt.session, messages.PunchingResult(session, False, reason))

    def update(self, attempt: Attempt) -> None:
        """Tell the peer where this node may be reached now."""
        infos = to_wire(self._paths.local.gather())
        self._node.signal(attempt.session, messages.CandidateUpdate(attempt.session.id, infos))


def to_wire(candidates: Iterable[Candidate]) -> tuple[messages.CandidateInfo, ...]:
    """For a message."""
    return tuple(
        messages.CandidateInfo(c.type.value, *c.address, c.priority, c.foundation)
        for c in candidates
    )


def from_wire(infos: Iterable[messages.CandidateInfo]) -> list[Candidate]:
    """From a message, as it came: not sanitized yet."""
    return [
        Candidate(CandidateType(i.type), (i.host, i.port), i.priority, i.foundation) for i in infos
    ]


def for_people(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """As "type address"."""
    return tuple(f"{c.type} {format_address(c.address)}" for c in candidates)
