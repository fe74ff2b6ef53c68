"""Whether a direct path still works, judged by what is heard on it.

Something sent and nothing heard is the sign. First the path is asked (a check at once, and again),
and if it still says nothing it is suspect: packets go on the relay as well until it answers.
"""

import enum
import math

from p2pnet.timing import TOLERANCE

KEEPALIVE_USED = 3.0  # seconds between checks while the session is used
KEEPALIVE_IDLE = 15.0  # and while it is idle, at first; NAT mappings of 30 s are common
LONGEST_IDLE, SHORTEST_IDLE = 25.0, 5.0  # seconds that experience may make of it
LENGTHEN_AFTER = 3  # answered idle checks in a row
LENGTHEN_BY, SHORTEN_TO = 2.5, 0.6  # seconds; share of the interval that was too long
IN_USE = 1.0  # seconds between packets that are use; QUIC's own keepalive every 15 s is none
USED_WITHIN = 10.0  # seconds since then for which a session counts as used
ASK_AFTER = 0.1  # seconds of silence after sending before the path is asked
SUSPECT_AFTER = 0.2  # seconds of silence, at least, before it is suspect
ASK_AGAIN = 0.1  # seconds between checks while there is silence, doubled up to ...
ASK_AGAIN_MAX = 1.0
DEAD_AFTER = 10.0  # seconds of silence, then it is given up
CONSENT = 30.0  # seconds since the last answer to a check for which data may be sent (RFC 7675)


class Health(enum.Enum):
    """What the silence of a path says of it."""

    GOOD = enum.auto()
    SUSPECT = enum.auto()
    DEAD = enum.auto()


class Keepalive:
    """The interval of checks on an idle path, just under the lifetime of its NAT mappings.

    Answered checks lengthen the interval, unanswered ones shorten it: RFC 4787 section 4.3 lets
    each NAT choose its lifetime.

    :ivar interval: seconds.
    """

    def __init__(self) -> None:
        self.interval = KEEPALIVE_IDLE
        self._longest = LONGEST_IDLE
        self._kept = 0

    def kept(self) -> None:
        """Note that the path still worked after an idle interval."""
        self._kept += 1
        if self._kept >= LENGTHEN_AFTER:
            self._kept = 0
            self.interval = min(self._longest, self.interval + LENGTHEN_BY)

    def lapsed(self) -> None:
        """Note that the path did not work: no later interval is as long as this one."""
        self._kept = 0
        self.interval = self._longest = max(SHORTEST_IDLE, SHORTEN_TO * self.interval)


class PathHealth:
    """The health of one direct path.

    :param rtt: its round-trip time in seconds.
    :param keepalive: what is known of idle intervals.
    :ivar state: Health.
    :ivar answered_at: when a check on it was last answered.
    :ivar silent_since: when something was first sent without an answer, None if all is answered.
    """

    def __init__(self, rtt: float, now: float, keepalive: Keepalive | None = None) -> None:
        self.rtt = rtt
        self._keepalive = keepalive or Keepalive()
        self._after_idleness = False  # whether what is unanswered followed an idle interval
        self.state = Health.GOOD
        self.silent_since: float | None = None
        self._used_at = self._sent_at = now
        self._asked_at = now
        self.answered_at = now
        self._asks = 0

    def sent(self, now: float) -> bool:
        """Note that a packet of the session left on the path.

        Returns whether no answer was due before, so that get_timer() is earlier than it was.
        """
        if now - self._sent_at < IN_USE:
            self._used_at = now
        self._sent_at = now
        if self.silent_since is not None:
            return False
        self.silent_since, self._after_idleness = now, False
        return True

    def heard(self, now: float, rtt: float | None = None) -> bool:
        """Note an authentic datagram on the path; `rtt`, in seconds, if it answers a check of ours.

        Only such an answer ends a suspicion, because packets of the peer's say nothing about the
        other direction. Returns whether it did.
        """
        was_suspect = self.state is Health.SUSPECT
        if was_suspect and rtt is None:
            return False
        if self._after_idleness and not was_suspect:
            self._keepalive.kept()
        # What was sent a moment ago cannot be answered yet: its silence begins now.
        self.silent_since = now if now - self._sent_at < self.rtt / 2 else None
        self._after_idleness = False
        self._asks = 0
        self.state = Health.GOOD
        if rtt is not None:
            self.rtt, self.answered_at = rtt, now
        return was_suspect

    def doubt(self, now: float) -> None:
        """Ask the path at once, and believe an answer alone: the peer may not receive from us."""
        if self.state is Health.GOOD:
            self.state = Health.SUSPECT
            self.silent_since = now - ASK_AFTER
            self._asks = 0

    @property
    def suspect_after(self) -> float:
        """Seconds of silence that make the path suspect."""
        # Long enough for the answer to a check: a false suspicion costs little, a late one a gap.
        return max(SUSPECT_AFTER, ASK_AFTER + self.rtt + 0.05)

    @property
    def _is_used(self) -> bool:
        return self._asked_at - self._used_at < USED_WITHIN

    def next_ask(self) -> float:
        """Return the time at which the next check of the path is due."""
        regular = self._asked_at + (KEEPALIVE_USED if self._is_used else self._keepalive.interval)
        if self.silent_since is None:
            return regular
        if self._asks == 0:
            return min(regular, self.silent_since + ASK_AFTER)
        return self._asked_at + min(ASK_AGAIN_MAX, ASK_AGAIN * 2.0 ** (self._asks - 1))

    def asked(self, now: float) -> None:
        """Note that a check left on the path."""
        was_idle = not self._is_used and now - self._asked_at > 0.9 * self._keepalive.interval
        self._asked_at = now
        if self.silent_since is None:
            self.silent_since, self._after_idleness = now, was_idle
        elif now - self.silent_since >= ASK_AFTER - TOLERANCE:
            self._asks += 1

    def get_timer(self) -> float:
        """Return the time of the next check, or of the next change of the state."""
        times = [self.next_ask(), self.answered_at + CONSENT]
        if self.silent_since is not None:
            if self.state is Health.GOOD:
                times.append(self.silent_at(self.suspect_after))
            times.append(self.silent_since + DEAD_AFTER)
        return min(times)

    def silent_at(self, seconds: float) -> float:
        """Return the time at which an answer has been due for so many seconds.

        math.inf if no answer is due.
        """
        return math.inf if self.silent_since is None else self.silent_since + seconds

    def look(self, now: float) -> Health:
        """Return the state at time `now`, by the silence and by the age of the consent."""
        if self.silent_since is not None:
            silence = now - self.silent_since
            if silence >= DEAD_AFTER - TOLERANCE:
                self.state = Health.DEAD
            elif silence >= self.suspect_after - TOLERANCE and self._asks > 0:
                if self._after_idleness:
                    self._keepalive.lapsed()
                    self._after_idleness = False
                self.state = Health.SUSPECT
        if now - self.answered_at >= CONSENT - TOLERANCE:
            self.state = Health.DEAD
        return self.state
