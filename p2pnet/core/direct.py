"""Direct paths of a node's sessions: candidates, rounds of checks, and the health of what works."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from p2pnet import events
from p2pnet.core.attempt import TAG_LENGTH, Attempt
from p2pnet.core.exchange import for_people, from_wire, to_wire
from p2pnet.core.local import LocalCandidates
from p2pnet.core.path import DirectPath
from p2pnet.core.timers import Deadlines
from p2pnet.traversal import checklist
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.health import Health, PathHealth
from p2pnet.traversal.pair import CandidatePair
from p2pnet.traversal.selection import RelayOnly
from p2pnet.wire import messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import CheckKind, decode_check, encode_opener
from p2pnet.wire.errors import DecodeError

if TYPE_CHECKING:
    from p2pnet.core.link import Link
    from p2pnet.core.node import NodeCore
    from p2pnet.core.session import Session

EXCHANGE_TIMEOUT = 5.0  # seconds from the offer to the answer
RETRIES = (5.0, 15.0, 45.0, 120.0)  # seconds after each failed round, the last for good
LATE = (
    1.0  # seconds for which relayed packets of a peer that moved to the direct path are late ones
)
# Routers that an opener crosses. It is to leave an own NAT, and to end before the peer's: one that
# takes an unsolicited packet for its own would give the peer's checks another port than was told.
# Neighbors may be three routers apart, so the first crosses one only, and a second, for carriers'
# NATs, waits until the peer has sent its first.
FIRST_HOPS, SECOND_HOPS = 2, 4
# A path that died is asked now and then by both ends, so that it is used again soon after it works:
# their packets keep the NATs open for each other's. After that only rounds of checks look for one.
REVIVE_EVERY, REVIVE_FOR = 4.0, 600.0  # seconds
FAREWELL = 2.0  # seconds of silence after which word of the peer's end is believed


class DirectPaths:
    """The traversal side of a node.

    :ivar dropped: STUN messages that were malformed or not authentic.
    :ivar local: what peers are told of where this node may be reached.
    """

    def __init__(self, node: NodeCore) -> None:
        self.dropped = 0
        self.local = LocalCandidates(node)
        self._node = node
        self._attempts: dict[bytes, Attempt] = {}  # by session id
        self._by_tag: dict[bytes, Attempt] = {}
        self._talking: dict[Attempt, None] = {}  # those that may have datagrams to send
        self._deadlines = Deadlines(node.timers, Attempt.get_timer, self._handle)
        self._controlling = node.controlling

    # -- candidates ------------------------------------------------------------------------------

    def set_local_addresses(
        self, hosts: Iterable[str], port: int, external: Iterable[Address] = ()
    ) -> None:
        """The addresses of this machine, the socket's port, and addresses the operator gives."""
        if self.local.set_addresses(hosts, port, external):
            self.candidates_changed()

    def candidates_changed(self) -> None:
        """This node may be reachable elsewhere: tell the peers, and try again where needed."""
        for attempt in self._attempts.values():
            if attempt.checks is None:
                continue
            self._update(attempt)
            if attempt.pair is None and self._controlling:
                self._offer(attempt)

    def network_changed(self, now: float) -> None:
        """See whether paths still answer, and whether there is one now where there was none."""
        for attempt in list(self._attempts.values()):
            if attempt.pair is not None and attempt.health is not None and attempt.checks:
                attempt.health.asked(now)
                attempt.checks.check(attempt.pair, now)
                self._touch(attempt)
            elif self._controlling:
                self._offer(attempt)

    def _update(self, attempt: Attempt) -> None:
        infos = to_wire(self.local.gather())
        self._node.signal(attempt.session, messages.CandidateUpdate(attempt.session.id, infos))

    # -- signaling -------------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """The session has a relay, its first or one again: the controlling side offers."""
        if not self._controlling or isinstance(session.selector, RelayOnly):
            return
        attempt = self._attempts.get(session.id) or self._add(session)
        if attempt.pair is None:
            self._offer(attempt)

    def _add(self, session: Session) -> Attempt:
        fragment = base64.b64encode(self._node.entropy(6)).decode()
        password = base64.b64encode(self._node.entropy(18)).decode()
        attempt = Attempt(session, IceCredentials(fragment, password))
        self._attempts[session.id] = self._by_tag[attempt.tag] = attempt
        return attempt

    def _offer(self, attempt: Attempt) -> None:
        node = self._node
        reason = f"no answer to the candidates within {EXCHANGE_TIMEOUT:.0f} s"
        self._plan(attempt, node.now + EXCHANGE_TIMEOUT, lambda t: self._failed(attempt, reason, t))
        ours = attempt.credentials
        node.signal(
            attempt.session,
            messages.CandidateOffer(
                attempt.session.id,
                ours.username_fragment,
                ours.password,
                to_wire(self.local.gather()),
            ),
        )

    def _plan(self, attempt: Attempt, when: float, step: Callable[[float], object]) -> None:
        self._unplan(attempt)
        attempt.next_step = self._node.timers.call_at(when, step)

    def _unplan(self, attempt: Attempt) -> None:
        if attempt.next_step is not None:
            attempt.next_step.cancel()

    def take_message(self, link: Link, message: messages.Message, now: float) -> None:
        """A message about candidates or checks. One for no session of ours is ignored."""
        session_id = getattr(message, "session", b"")
        match message:
            case messages.CandidateOffer() if not self._controlling:
                self._take_offer(link, message, now)
            case messages.CandidateAnswer() if self._controlling:
                attempt = self._attempts.get(session_id)
                if attempt is not None:
                    self._unplan(attempt)
                    self._take_remote(attempt, message, now)
            case messages.CandidateUpdate(candidates=candidates):
                attempt = self._attempts.get(session_id)
                if attempt is not None and attempt.checks is not None:
                    attempt.checks.add_remote(from_wire(candidates), now)
                    self._touch(attempt)
                    self._open_nats(attempt, FIRST_HOPS)
                    if attempt.pair is None and self._controlling:
                        self._offer(attempt)
            case messages.StartPunching(delay=delay):
                attempt = self._attempts.get(session_id)
                if attempt is not None and attempt.checks is not None:
                    self._start(attempt, delay / 1000, now)
            case messages.PunchingResult(direct=False, reason=reason) if (
                session_id in self._attempts
            ):
                self._node.emit(events.ChecksFailed(session_id.hex(), f"peer: {reason}", None))

    def _take_offer(self, link: Link, offer: messages.CandidateOffer, now: float) -> None:
        session = self._node.find_session(offer.session)
        if session is None or not session.is_relayed_by(link.address):
            return
        attempt = self._attempts.get(offer.session) or self._add(session)
        self._take_remote(attempt, offer, now)
        ours = attempt.credentials
        link.send(
            messages.CandidateAnswer(
                offer.session,
                ours.username_fragment,
                ours.password,
                to_wire(self.local.gather()),
            )
        )

    def _take_remote(
        self,
        attempt: Attempt,
        message: messages.CandidateOffer | messages.CandidateAnswer,
        now: float,
    ) -> None:
        theirs = IceCredentials(message.username_fragment, message.password)
        local = self.local.gather()
        if attempt.checks is None or attempt.checks.remote != theirs:
            attempt.checks = CheckList(
                controlling=self._controlling,
                local=attempt.credentials,
                remote=theirs,
                bases=self.local.bases(),
                policy=self.local.policy,
                entropy=lambda size: attempt.tag + self._node.entropy(size - TAG_LENGTH),
            )
        remote = from_wire(message.candidates)
        attempt.checks.add_remote(remote, now)
        self._touch(attempt)
        self._open_nats(attempt, FIRST_HOPS)
        self._node.emit(
            events.CandidatesExchanged(
                attempt.session.id.hex(), for_people(local), for_people(remote)
            )
        )

    def _start(self, attempt: Attempt, delay: float, now: float) -> None:
        assert attempt.checks is not None
        attempt.checks.start(now + delay)
        self._touch(attempt)
        self._node.timers.call_at(now + delay / 2, lambda _: self._open_nats(attempt, SECOND_HOPS))
        pairs = len(attempt.checks.pairs)
        self._node.emit(events.ChecksStarted(attempt.session.id.hex(), delay, pairs))
        if not pairs:
            self._failed(attempt, "the peer has no candidate that may be checked", now)

    def _open_nats(self, attempt: Attempt, hops: int) -> None:
        """Send openers. IPv6 needs none: where no address is translated, no port can be lost."""
        assert attempt.checks is not None
        for address, pair in attempt.checks.pairs.items():
            if not pair.is_valid and not pair.remote.is_ipv6:
                opener = encode_opener(self._node.entropy(12))
                self._node.emit(events.OpenerNeeded(opener, address, hops))

    # -- checks ----------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """Take a STUN message that came from `source`."""
        try:
            check = decode_check(data)
        except DecodeError:
            self.dropped += 1
            return
        if check.kind is CheckKind.REQUEST:
            fragment = check.username.partition(":")[0]
            attempt = self._by_fragment(fragment)
        else:
            attempt = self._by_tag.get(check.transaction_id[:TAG_LENGTH])
        if attempt is None or attempt.checks is None:
            self.dropped += 1
            return
        self._touch(attempt)
        if not attempt.checks.receive(check, source, now):
            self.dropped += 1
            return
        pair = attempt.pair
        if pair is not None and check.kind is CheckKind.SUCCESS and source == pair.address:
            self._heard(attempt, now, pair.rtt)
        self._follow(attempt, now)
        self._look(attempt, now)

    def _by_fragment(self, fragment: str) -> Attempt | None:
        try:
            attempt = self._by_tag.get(base64.b64decode(fragment)[:TAG_LENGTH])
        except ValueError:
            return None
        if attempt is None or attempt.credentials.username_fragment != fragment:
            return None
        return attempt

    def _follow(self, attempt: Attempt, now: float) -> None:
        """Use what the check list found out."""
        checks = attempt.checks
        assert checks is not None
        exhausted = False
        while (event := checks.next_event()) is not None:
            exhausted = exhausted or isinstance(event, checklist.ChecksExhausted)
        best = checks.best_valid()
        if best is not None and best is not attempt.pair:
            attempt.pair, attempt.failures, attempt.peer_direct_at = best, 0, None
            attempt.health = PathHealth(best.rtt or 0.0, now, attempt.keepalive)
            reason = f"{best.remote.type} {format_address(best.address)} answered"
            attempt.session.now = now
            attempt.session.set_direct(DirectPath(best.address), best.rtt, reason)
        elif exhausted and best is None and attempt.pair is None:
            self._failed(attempt, "no check was answered", now)

    def _failed(self, attempt: Attempt, reason: str, now: float) -> None:
        retry_in = None
        if self._controlling:
            retry_in = RETRIES[min(attempt.failures, len(RETRIES) - 1)]
            self._plan(attempt, now + retry_in, lambda _: self._offer(attempt))
        attempt.failures += 1
        session = attempt.session.id
        self._node.emit(events.ChecksFailed(session.hex(), reason, retry_in))
        self._node.signal(attempt.session, messages.PunchingResult(session, False, reason))

    # -- health ----------------------------------------------------------------------------------

    def sent(self, session: Session, now: float) -> None:
        """A packet of the session went out."""
        attempt = self._attempts.get(session.id)
        if attempt is None or attempt.health is None or session.paths[0].kind != "direct":
            return
        if attempt.health.sent(now):
            self._deadlines.touch(attempt)

    def session_at(self, source: Address) -> Session | None:
        """The session that has no connection yet, and whose proven path leads to `source`."""
        for attempt in self._attempts.values():
            proven = attempt.pair.address if attempt.pair is not None else None
            if proven == source and not attempt.session.has_connection:
                return attempt.session
        return None

    def heard(self, session: Session, source: Address, now: float) -> None:
        """An authentic packet of the session came directly from `source`."""
        attempt = self._attempts.get(session.id)
        if attempt is None or attempt.pair is None or source != attempt.pair.address:
            return
        if attempt.peer_direct_at is None:
            attempt.peer_direct_at = now
        self._heard(attempt, now, None)

    def heard_relayed(self, session: Session, now: float) -> None:
        """A packet of the session came through the relay.

        From a peer that had been sending directly, this says that it doubts the path. It may hear
        nothing of us although we hear it, so doubt the path too: our packets then reach it.
        """
        attempt = self._attempts.get(session.id)
        if attempt is None or attempt.health is None or attempt.peer_direct_at is None:
            return
        late = LATE + (session.relay_rtt or 0.0)
        if now - attempt.peer_direct_at > late:
            attempt.health.doubt(now)
            self._look(attempt, now)
            self._touch(attempt)

    def doubt(self, session: Session, now: float) -> None:
        """There is word that the peer is gone: see whether it still answers."""
        attempt = self._attempts.get(session.id)
        if attempt is not None and attempt.health is not None:
            attempt.health.doubt(now)
            self._look(attempt, now)
            self._touch(attempt)

    def _heard(self, attempt: Attempt, now: float, rtt: float | None) -> None:
        health, pair = attempt.health, attempt.pair
        assert health is not None and pair is not None
        if rtt is not None:
            attempt.session.farewell = None  # whoever said so, the peer is there
        if health.heard(now, rtt):
            attempt.peer_direct_at = now  # it will notice soon, and stop sending both ways
            attempt.session.now = now
            attempt.session.set_direct(DirectPath(pair.address), pair.rtt, "it answers again")

    def _look(self, attempt: Attempt, now: float) -> None:
        health, pair, checks = attempt.health, attempt.pair, attempt.checks
        if health is None or pair is None or checks is None:
            return
        if now >= health.next_ask() - 1e-6:
            health.asked(now)
            checks.check(pair, now)
        state = health.look(now)
        session = attempt.session
        session.now = now
        if session.farewell and health.is_silent_for(FAREWELL, now):
            self._node.end_session(session, *session.farewell, now)
            return
        if state is Health.DEAD:
            checks.fail(pair)
            attempt.pair = attempt.health = attempt.peer_direct_at = None
            self._revive(attempt, pair, now + REVIVE_FOR, now)
            session.set_direct(None, None, f"{format_address(pair.address)} is silent")
            if not session.paths:
                self._node.path_lost(session, now)
            self._failed(attempt, "the direct path went silent", now)
        elif state is Health.SUSPECT and checks.has_fresher(pair, health.silent_since):
            checks.fail(pair)  # the peer was moved, and found where it is now
            self._follow(attempt, now)
        elif state is Health.SUSPECT and not session.direct_is_doubtful:
            session.set_direct(DirectPath(pair.address), pair.rtt, "it is silent", doubtful=True)
            # A NAT may have moved us. Then the Intermediate drops our relay frames until a packet
            # of the control connection shows it where we are, and the peer learns it in turn.
            self._update(attempt)

    def _revive(self, attempt: Attempt, pair: CandidatePair, until: float, now: float) -> None:
        """Ask a path that died, until another one works."""
        checks = attempt.checks
        is_over = attempt.pair is not None or self._attempts.get(attempt.session.id) is not attempt
        if checks is None or is_over or now > until:
            return
        checks.check(pair, now)
        self._touch(attempt)
        self._node.timers.call_at(
            now + REVIVE_EVERY, lambda t: self._revive(attempt, pair, until, t)
        )

    # -- time ------------------------------------------------------------------------------------

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Checks and answers that are due."""
        datagrams: list[tuple[bytes, Address]] = []
        while self._talking:
            checks = self._talking.popitem()[0].checks
            if checks is not None:
                datagrams += checks.datagrams_to_send()
        return datagrams

    def settle(self) -> None:
        """Set the timers of what changed."""
        self._deadlines.settle()

    def _touch(self, attempt: Attempt) -> None:
        """It may have something to send, or to do earlier than was thought."""
        self._talking[attempt] = None
        self._deadlines.touch(attempt)

    def _handle(self, attempt: Attempt, now: float) -> None:
        if attempt.checks is not None:
            attempt.checks.handle_timer(now)
            self._follow(attempt, now)
        self._look(attempt, now)
        self._talking[attempt] = None

    def forget(self, session: Session) -> None:
        """The session is over."""
        attempt = self._attempts.pop(session.id, None)
        if attempt is not None:
            self._by_tag.pop(attempt.tag, None)
            self._deadlines.forget(attempt)
            self._unplan(attempt)
