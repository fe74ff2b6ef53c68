"""Direct paths of a node's sessions: candidates, rounds of checks, and the health of what works."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2pnet.core.peer.attempt import TAG_LENGTH, Attempt
from p2pnet.core.peer.exchange import Exchange
from p2pnet.core.peer.local import LocalCandidates
from p2pnet.core.timers import Deadlines
from p2pnet.timing import TOLERANCE
from p2pnet.traversal import checklist
from p2pnet.traversal.checklist import IceCredentials
from p2pnet.traversal.health import ASK_AFTER, Health, PathHealth
from p2pnet.traversal.pair import CandidatePair
from p2pnet.traversal.way import DirectPath
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import CheckKind, decode_check
from p2pnet.wire.codes import DecodeError

if TYPE_CHECKING:
    from p2pnet.core.peer.node import PeerCore
    from p2pnet.core.peer.session import Session

# Seconds for which relayed packets of a peer that moved to the direct path are late ones; doubled,
# so many times at most, by each check that shows the path to work in spite of them.
LATE, MAX_DOUBLINGS = 1.0, 6
# A path that died is asked now and then by both ends, so that it is used again soon after it works:
# their packets keep the NATs open for each other's. After that only rounds of checks look for one.
REVIVE_EVERY, REVIVE_FOR = 4.0, 600.0  # seconds
RESTS_AFTER = 1.0  # seconds of silence after which nothing but checks is sent on a doubtful path
FAREWELL = 2.0  # seconds of silence after which word of the peer's end is believed


class DirectPaths:
    """The traversal side of a node.

    :ivar dropped: STUN messages that were malformed or not authentic.
    :ivar local: what peers are told of where this node may be reached.
    :ivar exchange: the signaling about it.
    """

    def __init__(self, node: PeerCore) -> None:
        self.dropped = 0
        self.local = LocalCandidates(node)
        self.exchange = Exchange(node, self)
        self._node = node
        self._attempts: dict[bytes, Attempt] = {}  # by session id
        self._by_tag: dict[bytes, Attempt] = {}
        self._talking: dict[Attempt, None] = {}  # those that may have datagrams to send
        self._deadlines = Deadlines(node.timers, Attempt.get_timer, self._handle)

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
            self.exchange.update(attempt)
            if attempt.pair is None and self._node.controlling:
                self.exchange.offer(attempt)

    def network_changed(self, now: float) -> None:
        """See whether paths still answer, and whether there is one now where there was none."""
        for attempt in list(self._attempts.values()):
            if attempt.pair is not None and attempt.health is not None and attempt.checks:
                attempt.health.asked(now)
                attempt.checks.check(attempt.pair, now)
                self.touch(attempt)
            elif self._node.controlling:
                self.exchange.offer(attempt)

    # -- attempts --------------------------------------------------------------------------------

    def find(self, session_id: bytes) -> Attempt | None:
        """What is done for a session."""
        return self._attempts.get(session_id)

    def add(self, session: Session) -> Attempt:
        """Begin to do something for it."""
        fragment = base64.b64encode(self._node.entropy(6)).decode()
        password = base64.b64encode(self._node.entropy(18)).decode()
        attempt = Attempt(session, IceCredentials(fragment, password))
        self._attempts[session.id] = self._by_tag[attempt.tag] = attempt
        return attempt

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
        self.touch(attempt)
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
            attempt.health.answered_at = best.answered_at or now  # long ago, it may be
            best.mtu.restart(now)
            reason = f"{best.remote.type} {format_address(best.address)} answered"
            attempt.session.now = now
            attempt.session.set_direct(DirectPath(best.address), best.rtt, reason)
        elif exhausted and best is None and attempt.pair is None:
            self.exchange.failed(attempt, "no check was answered", now)

    # -- health ----------------------------------------------------------------------------------

    def sent(self, session: Session, now: float) -> None:
        """A packet of the session went out."""
        attempt = self._attempts.get(session.id)
        if attempt is None or attempt.health is None or session.paths[0].kind != "direct":
            return
        if attempt.health.sent(now):
            self._deadlines.touch(attempt, now + ASK_AFTER)

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
        attempt.refuted = 0
        self._heard(attempt, now, None)

    def heard_relayed(self, session: Session, now: float) -> None:
        """A packet of the session came through the relay.

        From a peer that had been sending directly, this says that it doubts the path. It may hear
        nothing of us although we hear it, so doubt the path too: our packets then reach it.
        """
        attempt = self._attempts.get(session.id)
        if attempt is None or attempt.health is None or attempt.peer_direct_at is None:
            return
        late = LATE * 2.0**attempt.refuted + (session.relay_rtt or 0.0)
        if now - attempt.peer_direct_at > late:
            attempt.health.doubt(now)
            self._look(attempt, now)
            self.touch(attempt)

    def doubt(self, session: Session, now: float) -> None:
        """There is word that the peer is gone: see whether it still answers."""
        attempt = self._attempts.get(session.id)
        if attempt is not None and attempt.health is not None:
            attempt.health.doubt(now)
            self._look(attempt, now)
            self.touch(attempt)

    def black_hole(self, session: Session, now: float) -> None:
        """Large packets of the session get lost: find out again how large they may be."""
        attempt = self._attempts.get(session.id)
        if attempt is not None and attempt.pair is not None:
            attempt.pair.mtu.black_hole(now)
            self._look(attempt, now)
            self.touch(attempt)

    def _heard(self, attempt: Attempt, now: float, rtt: float | None) -> None:
        health, pair = attempt.health, attempt.pair
        assert health is not None and pair is not None
        if rtt is not None:
            attempt.session.farewell = None  # whoever said so, the peer is there
        if health.heard(now, rtt):
            attempt.peer_direct_at = now  # it will notice soon, and stop sending both ways
            attempt.refuted = min(attempt.refuted + 1, MAX_DOUBLINGS)
            pair.mtu.restart(now)

    def _look(self, attempt: Attempt, now: float) -> None:
        health, pair, checks = attempt.health, attempt.pair, attempt.checks
        if health is None or pair is None or checks is None:
            return
        if now >= health.next_ask() - TOLERANCE:
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
            self.exchange.failed(attempt, "the direct path went silent", now)
        elif state is Health.SUSPECT and checks.has_fresher(pair, health.silent_since):
            checks.fail(pair)  # the peer was moved, and found where it is now
            self._follow(attempt, now)
        elif state is Health.SUSPECT and not session.direct_is_doubtful:
            session.set_direct(DirectPath(pair.address), pair.rtt, "it is silent", doubtful=True)
            # A NAT may have moved us. Then the Intermediate drops our relay frames until a packet
            # of the control connection shows it where we are, and the peer learns it in turn.
            self.exchange.update(attempt)
        elif (
            session.direct_is_doubtful
            and session.relays
            and not session.direct_is_silent
            and health.is_silent_for(RESTS_AFTER, now)
        ):
            session.rest_direct("the direct path is still silent")
        attempt.use_path(now)

    def _revive(self, attempt: Attempt, pair: CandidatePair, until: float, now: float) -> None:
        """Ask a path that died, until another one works."""
        checks = attempt.checks
        is_over = attempt.pair is not None or self._attempts.get(attempt.session.id) is not attempt
        if checks is None or is_over or now > until:
            return
        checks.check(pair, now)
        self.touch(attempt)
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

    def touch(self, attempt: Attempt) -> None:
        """It may have something to send, or to do earlier than was thought."""
        if self._attempts.get(attempt.session.id) is attempt:  # else nothing would ever handle it
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
            self.exchange.cancel(attempt)
