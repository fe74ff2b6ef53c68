"""Whether an Intermediate still answers: when to ping it, and when to give it up."""

import enum
import math

from p2pnet.timing import TOLERANCE

PING_INTERVAL = 15.0  # seconds; under the 20 s idle timeout and the 30 s of short NAT mappings
PING_IN_USE = 5.0  # seconds, while streams are relayed: an end that only receives must notice too
PING_TIMEOUT = 5.0  # seconds for an answer, several retransmissions of the ping included
PINGS = 5  # in that time: QUIC alone would repeat a lost one ever more slowly
PROBE_TIMEOUT = 2.0  # seconds, at least, for an answer when there is reason for doubt
PROBE_ROUND_TRIPS = 8  # round trips that a probe may take on a slow path


class Due(enum.Enum):
    """What the caller of Liveness is to do with the connection."""

    PING = enum.auto()
    GIVE_UP = enum.auto()


class Liveness:
    """The pings of one control connection that is up. Times are seconds of the caller's clock.

    :ivar rtt: the round-trip time to the Intermediate in seconds, 0 before it is known.
    :ivar timeout: seconds that the Intermediate has for its answer, 0 while no ping is open.
    """

    def __init__(self) -> None:
        self.rtt = 0.0
        self.timeout = 0.0
        self._is_probing = False
        self._asked_at = 0.0
        self._answered_at = 0.0
        self._due_at = math.inf

    def answered(self, rtt: float, now: float) -> None:
        """A ping was answered, or the connection came up: the next ping can wait.

        :param rtt: the round-trip time now, in seconds.
        """
        self.rtt = rtt
        self.timeout, self._is_probing = 0.0, False
        self._answered_at = now
        self._due_at = now + PING_IN_USE

    def probe(self, now: float) -> Due | None:
        """Ask for an answer within a shorter time than usual; None if that happens already."""
        if self._is_probing:
            return None
        self._is_probing = True
        return self._ask(max(PROBE_TIMEOUT, PROBE_ROUND_TRIPS * self.rtt), now)

    def network_changed(self, now: float) -> Due | None:
        """Probe anew: a ping that left through the old network may be lost."""
        self._is_probing = False
        return self.probe(now)

    def get_timer(self) -> float:
        """When to call handle_timer(); math.inf before the first answered()."""
        return self._due_at

    def handle_timer(self, now: float, *, relayed_at: float | None, in_use: bool) -> Due | None:
        """What is due now.

        :param relayed_at: when the Intermediate last relayed a packet to this node, None for never:
            it lives then, though its answers may queue behind relayed packets.
        :param in_use: whether streams are relayed by the Intermediate, so that its silence matters.
        """
        if now < self._due_at - TOLERANCE:
            return None
        traffic_at = -math.inf if relayed_at is None else relayed_at
        if self.timeout:
            return self._continue(traffic_at, now)
        is_silent = traffic_at < now - PING_IN_USE + TOLERANCE
        if now - self._answered_at > PING_INTERVAL - TOLERANCE:
            # Relayed packets do not keep the connection from QUIC's idle time-out, and this ping
            # restarts that time-out, which is longer than sessions can wait.
            return self._ask(PING_TIMEOUT, now)
        if is_silent and in_use:
            return self.probe(now)
        silent_since = now if is_silent else traffic_at
        self._due_at = min(silent_since + PING_IN_USE, self._answered_at + PING_INTERVAL)
        return None

    def _ask(self, timeout: float, now: float) -> Due:
        self._asked_at, self.timeout = now, timeout
        return self._ping(now)

    def _ping(self, now: float) -> Due:
        self._due_at = now + self.timeout / PINGS
        return Due.PING

    def _continue(self, traffic_at: float, now: float) -> Due:
        if now < self._asked_at + self.timeout - TOLERANCE:
            return self._ping(now)
        if traffic_at > now - self.timeout:  # the answer queues behind relayed packets
            return self._ask(self.timeout, now)
        return Due.GIVE_UP
