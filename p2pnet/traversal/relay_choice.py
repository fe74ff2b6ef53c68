"""Which relay carries a session, by the packets of the peer that arrive through each.

Every Intermediate that both ends are connected to relays the session, and all of them are kept
ready. One is used. When packets stay unanswered all are used at once, and the first through which
the peer is heard goes on: an Intermediate that dies costs a few hundred milliseconds and no
handshake. Each end follows the other in the same way, so that no word about it is needed.
"""

import dataclasses
import math
from collections.abc import Iterator

from p2pnet.timing import TOLERANCE
from p2pnet.wire.address import Address

ASK_AFTER = 0.15  # seconds of silence amid traffic, at least, before the Intermediate is asked
DOUBT_AFTER = 0.3  # seconds without an answer, at least, before all relays are used
AMID = 0.5  # seconds; what was heard that lately was traffic
ASK_AGAIN = 2.0  # seconds, while there is no answer: the Intermediate may die after the first
ONE_SIDED = 0.2  # seconds, at least, in which packets of the peer by another relay are late ones
BETTER_BY, BETTER_RATIO = 0.005, 0.1  # seconds and share that a relay must be better by


@dataclasses.dataclass(frozen=True, slots=True)
class RelayStatus:
    """A relay of the session.

    :ivar cost: its round-trip time in seconds, as far as known when it was granted.
    :ivar in_use: whether packets go through it while the session is relayed.
    :ivar retiring: whether its Intermediate is about to stop.
    """

    address: Address
    cost: float
    in_use: bool
    retiring: bool


@dataclasses.dataclass(slots=True)
class _Relay:
    cost: float
    heard_at: float
    retiring: bool = False


class RelayChoice:
    """The relays of one session, by the address of their Intermediate.

    :ivar current: the one in use, None if there is none.
    :ivar is_doubtful: whether the others are used as well.
    :ivar rtt: round-trip time of the session through a relay in seconds, 0 if unknown, when ways
        were last selected: the present one grows with the queue that the session itself builds.
    """

    def __init__(self) -> None:
        self.rtt = 0.0
        self.current: Address | None = None
        self.is_doubtful = False
        self._relays: dict[Address, _Relay] = {}
        self._current_since = 0.0
        self._heard_at = [0.0, 0.0]  # the last time, and the one before
        self._silent_since: float | None = None
        self._unanswered_since: float | None = None
        self._asked_at: float | None = None

    def __iter__(self) -> Iterator[Address]:
        """The relays that packets take now, the relay of choice first."""
        if self.current is not None:
            yield self.current
        if self.is_doubtful:
            yield from (address for address in self._relays if address != self.current)

    @property
    def in_use(self) -> tuple[Address | None, bool]:
        """The relay of choice, and whether packets take all others as well."""
        return self.current, self.is_doubtful

    def snapshot(self) -> tuple[RelayStatus, ...]:
        """The relays, in the order in which they were granted."""
        in_use = set(self)
        return tuple(
            RelayStatus(address, relay.cost, address in in_use, relay.retiring)
            for address, relay in self._relays.items()
        )

    # -- what there is ---------------------------------------------------------------------------

    def add(self, address: Address, cost: float, now: float) -> None:
        """Add the relay at `address`. `cost`: its round-trip time in seconds, as far as known."""
        known = self._relays.get(address)
        if known is None:
            self._relays[address] = _Relay(cost, 0.0)
        else:
            known.cost, known.retiring = cost, False
        self._reconsider(now)

    def retire(self, address: Address, now: float) -> None:
        """Use another relay, if there is another: the one at `address` is about to stop."""
        if address in self._relays:
            self._relays[address].retiring = True
            self._reconsider(now)

    def remove(self, address: Address, now: float) -> None:
        """Remove the relay at `address`; the best of the others follows it."""
        self._relays.pop(address, None)
        if self.current == address:
            self._use(None, now)
        self._reconsider(now)

    def _reconsider(self, now: float) -> None:
        best = min(self._relays, key=self._rank, default=None)
        if best is not None and (self.current is None or self._is_better(best, self.current)):
            self._use(best, now)

    def _rank(self, address: Address) -> tuple[bool, float]:
        relay = self._relays[address]
        return relay.retiring, relay.cost

    def _is_better(self, one: Address, other: Address) -> bool:
        (one_retires, cost), (other_retires, other_cost) = self._rank(one), self._rank(other)
        if one_retires or other_retires:
            return not one_retires
        return cost < other_cost - max(BETTER_BY, BETTER_RATIO * other_cost)

    def _use(self, address: Address | None, now: float) -> None:
        self.current, self.is_doubtful = address, False
        self._current_since = now
        self._rest()

    # -- what happens ----------------------------------------------------------------------------

    def sent(self, now: float, *, unanswered: bool) -> bool:
        """Note a sent packet. `unanswered`: the peer owes an acknowledgement of some packet.

        Returns whether it is the first that is waited for, so that get_timer() may be earlier.
        """
        begins = self._silent_since is None
        if begins:
            self._silent_since = now
        if unanswered and self._unanswered_since is None:
            begins = True
            # What was asked in the lull before says nothing about now.
            self._silent_since = self._unanswered_since = now
            self._asked_at = None
        return begins

    def heard(self, address: Address | None, now: float) -> None:
        """Note an authentic packet of the peer that came through a relay, or directly (None)."""
        if now > self._heard_at[0]:  # the packets of one batch count once
            self._heard_at = [now, self._heard_at[0]]
        self._rest()
        relay = self._relays.get(address) if address is not None else None
        if relay is None:
            return
        relay.heard_at = now
        if address == self.current:
            self.is_doubtful = False
        elif self.is_doubtful:
            self._use(address, now)
        elif self.current is not None:
            lately = max(self._relays[self.current].heard_at, self._current_since)
            self.is_doubtful = now - lately > max(ONE_SIDED, self.rtt)

    def _rest(self) -> None:
        self._silent_since = self._unanswered_since = self._asked_at = None

    # -- time ------------------------------------------------------------------------------------

    def _ask_at(self) -> float:
        """Return the time to ask the Intermediate. A lull is no reason to ask.

        A NAT may have moved this node: then nothing reaches the node until a packet of its own
        shows the new address.
        """
        silent, unanswered = self._silent_since, self._unanswered_since
        if self._asked_at is not None:
            return math.inf if unanswered is None else self._asked_at + ASK_AGAIN
        if silent is not None and silent - self._heard_at[1] < AMID:
            return silent + max(ASK_AFTER, self.rtt + 0.05)
        return math.inf if unanswered is None else unanswered + self._patience

    @property
    def _patience(self) -> float:
        return max(DOUBT_AFTER, 2 * self.rtt + 0.1)

    def _doubt_at(self) -> float:
        if self._unanswered_since is None or self.is_doubtful or len(self._relays) < 2:
            return math.inf
        return self._unanswered_since + self._patience

    def is_overdue(self, now: float) -> bool:
        """Whether the peer should have answered by now."""
        since = self._unanswered_since
        return since is not None and now - since > self._patience

    def get_timer(self) -> float:
        """Return the time to call look() at, math.inf for never."""
        return min(self._ask_at(), self._doubt_at())

    def look(self, now: float) -> bool:
        """Begin to doubt if a doubt is due. Returns whether to ask the Intermediate now."""
        asks = now >= self._ask_at() - TOLERANCE
        if now >= self._doubt_at() - TOLERANCE:
            self.is_doubtful = True
        if asks:
            self._asked_at = now
        return asks
