"""Whether a direct path still works, judged by what is heard on it.

Something sent and nothing heard is the sign. First the path is asked (a check at once, and again),
and if it still says nothing it is suspect: packets go on the relay as well until it answers.
"""

import enum

KEEPALIVE_USED = 3.0  # seconds between checks while the session is used
KEEPALIVE_IDLE = 15.0  # and while it is idle; NAT mappings of 30 s are common (RFC 4787 REQ-5)
USED_WITHIN = 10.0  # seconds since the last packet for which a session counts as used
ASK_AFTER = 0.1  # seconds of silence after sending, at least, before the path is asked
SUSPECT_AFTER = 0.2  # seconds of silence, at least, before it is suspect
ASK_AGAIN = 0.1  # seconds between checks while there is silence, doubled up to ...
ASK_AGAIN_MAX = 1.0
DEAD_AFTER = 10.0  # seconds of silence, then it is given up


class Health(enum.Enum):
    """What is thought of a path."""

    GOOD = enum.auto()
    SUSPECT = enum.auto()
    DEAD = enum.auto()


class PathHealth:
    """The health of one direct path.

    :param rtt: its round-trip time in seconds.
    :ivar state: Health.
    :ivar silent_since: when something was first sent without an answer, None if all is answered.
    """

    def __init__(self, rtt: float, now: float) -> None:
        self.rtt = rtt
        self.state = Health.GOOD
        self.silent_since: float | None = None
        self._used_at = now
        self._asked_at = now
        self._asks = 0

    def sent(self, now: float) -> None:
        """A packet of the session went out on the path."""
        self._used_at = now
        if self.silent_since is None:
            self.silent_since = now

    def heard(self, now: float, rtt: float | None = None) -> bool:
        """Something authentic came in on it; `rtt` if that was an answer to a check of ours.

        Only such an answer ends a suspicion, because packets of the peer's say nothing about the
        other direction. Returns whether it did.
        """
        was_suspect = self.state is Health.SUSPECT
        if was_suspect and rtt is None:
            return False
        self.silent_since = None
        self._asks = 0
        self.state = Health.GOOD
        if rtt is not None:
            self.rtt = rtt
        return was_suspect

    def doubt(self, now: float) -> None:
        """The peer seems not to hear us: ask at once, and believe nothing but an answer."""
        if self.state is Health.GOOD:
            self.state = Health.SUSPECT
            self.silent_since = now - self._ask_after()
            self._asks = 0

    def _ask_after(self) -> float:
        return max(ASK_AFTER, self.rtt + 0.03)

    def _suspect_after(self) -> float:
        # Long enough for the answer to a check: a false suspicion costs little, a late one a gap.
        return max(SUSPECT_AFTER, 2 * self.rtt + 0.08)

    def next_ask(self) -> float:
        """When the path is to be checked next."""
        used = self._asked_at - self._used_at < USED_WITHIN
        regular = self._asked_at + (KEEPALIVE_USED if used else KEEPALIVE_IDLE)
        if self.silent_since is None:
            return regular
        if self._asks == 0:
            return min(regular, self.silent_since + self._ask_after())
        return self._asked_at + min(ASK_AGAIN_MAX, ASK_AGAIN * 2.0 ** (self._asks - 1))

    def asked(self, now: float) -> None:
        """A check was sent on it."""
        self._asked_at = now
        if self.silent_since is None:
            self.silent_since = now
        elif now - self.silent_since >= self._ask_after() - 1e-6:
            self._asks += 1

    def get_timer(self) -> float:
        """When to look at the path again."""
        times = [self.next_ask()]
        if self.silent_since is not None:
            if self.state is Health.GOOD:
                times.append(self.silent_since + self._suspect_after())
            times.append(self.silent_since + DEAD_AFTER)
        return min(times)

    def look(self, now: float) -> Health:
        """The state now."""
        if self.silent_since is not None:
            silence = now - self.silent_since
            if silence >= DEAD_AFTER - 1e-6:
                self.state = Health.DEAD
            elif silence >= self._suspect_after() - 1e-6 and self._asks > 0:
                self.state = Health.SUSPECT
        return self.state
