"""The pair that carries the packets of a session, and what both ends think of it."""

from __future__ import annotations

import dataclasses

from p2pnet.traversal.health import Health, Keepalive, PathHealth
from p2pnet.traversal.pair import CandidatePair
from p2pnet.traversal.way import direct_way

# Grace period (s) after the peer went direct: relayed packets that arrive in it are stragglers.
# Every answered check that refutes a doubt doubles it, MAX_DOUBLINGS times at most.
GRACE, MAX_DOUBLINGS = 1.0, 6
# Both ends check a dead pair now and then, so that they use it again soon after it works: their
# checks keep the NATs open for each other's. Afterwards only new rounds find a way.
REVIVE_EVERY, REVIVE_FOR = 4.0, 600.0  # seconds


class DirectPath:
    """The direct path in use. Its packets begin with the size BASE.

    :param pair: a valid pair.
    :param keepalive: the idle intervals of the session.
    :param now: the time in seconds, as in all methods.
    :ivar way: the way that leads to the peer.
    """

    def __init__(self, pair: CandidatePair, keepalive: Keepalive, now: float) -> None:
        self.pair = pair
        self.way = direct_way(pair.address)
        self.health = PathHealth(pair.rtt or 0.0, now, keepalive)
        self.health.answered_at = pair.answered_at or now  # which may be long ago
        self._peer_since: float | None = None  # the peer sends on the path too, None before
        # Checks answered in a row while the path was in doubt, no packet of the peer having
        # arrived on it since.
        self._refutations = 0
        pair.mtu.restart(now)

    def heard(self, now: float) -> None:
        """An authentic packet of the peer arrived on the path."""
        if self._peer_since is None:
            self._peer_since = now
        self._refutations = 0
        self.health.heard(now)

    def refuted(self, now: float) -> None:
        """An answered check refuted the doubt of the path."""
        self._peer_since = now  # it will notice soon, and stop sending both ways
        self._refutations = min(self._refutations + 1, MAX_DOUBLINGS)
        self.pair.mtu.restart(now)

    def is_left(self, now: float, rtt: float) -> bool:
        """Whether a relayed packet of the peer shows that the peer has left the path.

        In the grace period it is a straggler. `rtt`: through the relay, in seconds.
        """
        since, grace = self._peer_since, GRACE * 2.0**self._refutations
        return since is not None and now - since > grace + rtt

    def get_timer(self) -> float:
        """Return the time of the next check, of the next probe of a size, or of a verdict."""
        due = self.health.get_timer()
        return min(due, self.pair.mtu.next_at) if self.health.state is Health.GOOD else due


@dataclasses.dataclass(slots=True)
class Revival:
    """The checks on a pair that was given up.

    :ivar next_at: time of the next check in seconds of the caller's clock.
    :ivar until: time of the last check.
    """

    next_at: float
    until: float
