"""The search for the direct way of one session, and the upkeep of the way that it found.

A round of checks (RFC 8445) finds a pair that works. From then on that pair carries packets, and
its health, its consent (RFC 7675) and its packet size (RFC 8899) are watched here.
"""

from __future__ import annotations

import collections
import dataclasses
import enum

from p2pnet.timing import TOLERANCE
from p2pnet.traversal import exchange
from p2pnet.traversal.checklist import CheckList, ChecksExhausted
from p2pnet.traversal.direct_path import REVIVE_EVERY, REVIVE_FOR, DirectPath, Revival
from p2pnet.traversal.exchange import CandidateExchange, Outgoing
from p2pnet.traversal.health import ASK_AFTER, Health, Keepalive
from p2pnet.traversal.mtu import Phase
from p2pnet.traversal.pair import CandidatePair, PairStatus
from p2pnet.wire import path_messages
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.packet_size import BASE

# Seconds of silence, at least, before a doubtful path carries nothing but checks; on a slow path
# the doubt lasts as long as the silence before it.
SILENT_AFTER = 1.0


class DirectState(enum.Enum):
    """What the direct way carries: nothing, the session with or without relays, or checks."""

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
    """The direct way has another state or another pair.

    :ivar reason: for people.
    :ivar arrives: whether packets already sent on the direct way still reach the peer by a relay.
    """

    reason: str
    arrives: bool = False


Event = DirectChanged | exchange.Event


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


class DirectSearch:
    """Finds and keeps the direct way of one session.

    All times are seconds of the caller's clock.

    :param rounds: the rounds of the session.
    :ivar path: the pair in use, None while there is none.
    :ivar state: DirectState.
    """

    def __init__(self, rounds: CandidateExchange) -> None:
        self.path: DirectPath | None = None
        self.state = DirectState.NONE
        self._rounds = rounds
        self._keepalive = Keepalive()
        self._revivals: dict[CandidatePair, Revival] = {}
        self._events: collections.deque[DirectChanged] = collections.deque()

    def _advance(self, state: DirectState, reason: str, *, arrives: bool = False) -> None:
        assert state is self.state or state in TRANSITIONS[self.state], (self.state, state)
        self.state = state
        self._events.append(DirectChanged(reason, arrives))

    # -- rounds ----------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Begin a round unless there is a path: signals can be sent, at first or again."""
        if self.path is None:
            self._rounds.begin(now)

    def candidates_changed(self, now: float) -> None:
        """Send the new candidates of this node to the peer; without a path, begin a round."""
        if self._rounds.checks is not None:
            self._rounds.update(now)
            self.begin(now)

    def network_changed(self, now: float) -> None:
        """Check the path, or look for one: this node may be in another network."""
        if self.path is not None and self._rounds.checks is not None:
            self.path.health.asked(now)
            self._rounds.checks.check(self.path.pair, now)
        elif self._rounds.has_begun:
            self.begin(now)

    def take_signal(self, message: path_messages.PathMessage, rtt: float, now: float) -> None:
        """Take a message of the peer.

        :param rtt: round-trip time of the connection that carries messages, in seconds.
        """
        self._rounds.take_signal(message, rtt, now)
        if isinstance(message, path_messages.CandidateUpdate) and self._rounds.checks is not None:
            self.begin(now)

    # -- checks ----------------------------------------------------------------------------------

    def receive_check(self, check: Check, source: Address, now: float) -> bool:
        """Take a check that came from `source`. Returns False for one that is not authentic."""
        checks = self._rounds.checks
        if checks is None or not checks.receive(check, source, now):
            return False
        path = self.path
        if path is not None and check.kind is CheckKind.SUCCESS and source == path.pair.address:
            self._answered(path, now)
        if checks.has_news:
            self._follow(checks, now)
        self._supervise(now)
        return True

    def _follow(self, checks: CheckList, now: float) -> None:
        """Take the events of the check list, and use the best pair."""
        exhausted = False
        while (event := checks.next_event()) is not None:
            exhausted = exhausted or isinstance(event, ChecksExhausted)
        self._use_best(checks, now)
        if exhausted and self.path is None:
            self._rounds.fail("no check was answered", now)

    def _use_best(self, checks: CheckList, now: float) -> None:
        best, path = checks.best_valid(), self.path
        if best is None or (path is not None and best is path.pair):
            return
        self.path = DirectPath(best, self._keepalive, now)
        self._rounds.succeed()
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
        if path is not None and source == path.pair.address:
            path.heard(now)

    def heard_relayed(self, now: float, rtt: float) -> bool:
        """An authentic packet of the session arrived by a relay, `rtt` seconds round trip.

        A peer that was sending directly and now sends by a relay doubts the path. It may hear
        nothing of this node although this node hears it, so this end doubts the path as well:
        then its packets reach the peer. Returns whether the path is in doubt since this packet.
        """
        return self.path is not None and self.path.is_left(now, rtt) and self.doubt(now)

    def doubt(self, now: float) -> bool:
        """Check the path: the peer may be gone. Returns False without a path."""
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
            path.refuted(now)

    # -- upkeep ----------------------------------------------------------------------------------

    def _supervise(self, now: float) -> None:
        """Check the path if a check is due, and follow its health."""
        path, checks = self.path, self._rounds.checks
        if path is None or checks is None:
            return
        health, pair = path.health, path.pair
        if now >= health.next_ask() - TOLERANCE:
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
        self._revivals[path.pair] = Revival(now, now + REVIVE_FOR)
        self._advance(DirectState.NONE, f"{format_address(path.pair.address)} is silent")
        self._rounds.fail("the direct path went silent", now)

    def _suspect(self, path: DirectPath, checks: CheckList, now: float) -> None:
        if checks.has_fresher(path.pair, path.health.silent_since):
            checks.fail(path.pair)  # the peer has moved and answers elsewhere
            self._use_best(checks, now)
        elif self.state is DirectState.GOOD:
            self._advance(DirectState.DOUBTFUL, "it is silent")
        elif self.state is DirectState.DOUBTFUL and now >= _silent_at(path) - TOLERANCE:
            self._advance(DirectState.SILENT, "the direct path is still silent", arrives=True)

    def _probe(self, path: DirectPath, checks: CheckList, now: float) -> None:
        """Probe for larger packets that the path carries.

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
        """Return the time to call handle_timer() at, math.inf for never."""
        times = [self._rounds.get_timer()]
        times += [revival.next_at for revival in self._revivals.values()]
        checks = self._rounds.checks
        if checks is not None and (timer := checks.get_timer()) is not None:
            times.append(timer)
        if self.path is not None:
            times.append(self.path.get_timer())
            if self.state is DirectState.DOUBTFUL:
                times.append(_silent_at(self.path))
        return min(times)

    def handle_timer(self, now: float) -> None:
        """Do what is due: of the rounds, of the checks and of the path."""
        self._rounds.handle_timer(now)
        checks = self._rounds.checks
        if checks is not None:
            self._revive(checks, now)
            checks.handle_timer(now)
            self._follow(checks, now)
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
        rounds = self._rounds
        return bool(
            self._events
            or rounds.events
            or rounds.openers.due
            or (rounds.checks is not None and rounds.checks.has_news)
        )

    def snapshot(self) -> DirectStatus:
        """Return the present state of the search, the path and the pairs."""
        path, rounds = self.path, self._rounds
        pairs = rounds.checks.pairs.values() if rounds.checks is not None else ()
        return DirectStatus(
            self.state,
            path.pair.address if path is not None else None,
            path.pair.rtt if path is not None else None,
            path.pair.mtu.size if path is not None else BASE,
            tuple(pair.snapshot() for pair in pairs),
            rounds.failures,
            rounds.next_round,
        )

    def next_event(self) -> Event | None:
        """Return the next event, None if there is none."""
        if self._events:
            return self._events.popleft()
        return self._rounds.events.popleft() if self._rounds.events else None

    def datagrams_to_send(self) -> list[Outgoing]:
        """Return the openers, checks and answers that are due."""
        rounds = self._rounds
        out, rounds.openers.due = rounds.openers.due, []
        if rounds.checks is not None:
            out += [Outgoing(*datagram) for datagram in rounds.checks.datagrams_to_send()]
        return out


def _silent_at(path: DirectPath) -> float:
    """Return the time at which a doubtful path is silent; math.inf if no answer is due."""
    return path.health.silent_at(max(SILENT_AFTER, 2 * path.health.suspect_after))
