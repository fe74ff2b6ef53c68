"""Candidate pairs and their five states (RFC 8445 section 6.1.2)."""

import dataclasses
import enum

from p2pnet.traversal.candidate import Candidate
from p2pnet.traversal.mtu import PathMtu
from p2pnet.wire.address import Address


class PairState(enum.Enum):
    """The states of a candidate pair (RFC 8445 section 6.1.2.6)."""

    FROZEN = enum.auto()
    WAITING = enum.auto()
    IN_PROGRESS = enum.auto()
    SUCCEEDED = enum.auto()
    FAILED = enum.auto()


TRANSITIONS = {
    PairState.FROZEN: {PairState.WAITING, PairState.IN_PROGRESS},
    PairState.WAITING: {PairState.IN_PROGRESS},
    PairState.IN_PROGRESS: {PairState.SUCCEEDED, PairState.FAILED, PairState.WAITING},
    PairState.SUCCEEDED: {PairState.FAILED},
    PairState.FAILED: {PairState.WAITING},
}


@dataclasses.dataclass(frozen=True, slots=True)
class PairStatus:
    """A candidate pair for people.

    :ivar kind: type of the peer's candidate: host, srflx, prflx or relay.
    :ivar address: where its packets go.
    :ivar rtt: of the last answered check in seconds, None before.
    """

    kind: str
    address: Address
    state: PairState
    nominated: bool
    rtt: float | None


def pair_priority(controlling: int, controlled: int) -> int:
    """Return the priority of a pair from its candidates' priorities (RFC 8445 section 6.1.2.3)."""
    low, high = min(controlling, controlled), max(controlling, controlled)
    return (low << 32) + 2 * high + (controlling > controlled)


@dataclasses.dataclass(eq=False, slots=True)
class CandidatePair:
    """A local and a remote candidate.

    As all candidates of a node share one socket, the local one only stands for the address
    family: pairs that differ in nothing else are one pair (RFC 8445 section 6.1.2.4).

    :ivar address: where its packets go.
    :ivar rtt: of the last answered check in seconds, None before.
    :ivar answered_at: when our last transaction on it was answered, None before.
    :ivar next_at: when to check it again while it is in progress.
    :ivar mtu: how large our packets on it may be.
    """

    local: Candidate
    remote: Candidate
    priority: int
    state: PairState = PairState.FROZEN
    nominated: bool = False
    rtt: float | None = None
    answered_at: float | None = None
    started_at: float = 0.0
    next_at: float = 0.0
    sends: int = 0
    address: Address = dataclasses.field(init=False)
    mtu: PathMtu = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.address = self.remote.address
        self.mtu = PathMtu(self.address)

    @property
    def foundation(self) -> str:
        """Pairs of one foundation are likely to work or fail together."""
        return f"{self.local.foundation}:{self.remote.foundation}"

    @property
    def is_valid(self) -> bool:
        """Whether our own transaction on it was answered."""
        return self.state is PairState.SUCCEEDED

    def snapshot(self) -> PairStatus:
        """Return the present state of the pair as a frozen value."""
        kind = self.remote.type.value
        return PairStatus(kind, self.address, self.state, self.nominated, self.rtt)

    def advance(self, state: PairState) -> None:
        """Enter `state`, which TRANSITIONS must allow from the present state."""
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state
