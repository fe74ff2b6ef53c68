"""Clients that wait for their handshake: in which order, how many, and when."""

from __future__ import annotations

import collections
import dataclasses

from p2pnet.quic.packet import InitialHeader
from p2pnet.quic.sources import Sources
from p2pnet.wire.address import Address

MAX_UNREAD = 512  # Initials with a token that were not decrypted yet, and as many without
MAX_WAITING = 256
MAX_WAIT = 5.0  # seconds; nodes give a try up after 8 s
TURN_PAUSE = 100e-6  # seconds from a turn that left newcomers over to the timer
LONGEST_PAUSE, LONGEST_TURN = 0.1, 1.0  # seconds; the machine may have slept


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Newcomer:
    """A client whose first packet may become a connection.

    :ivar datagram: the first packet, with what came with it.
    :ivar source: the sources.prefixes() of the address.
    :ivar original_destination_connection_id: of the client's very first packet.
    :ivar retry_source_connection_id: of the Retry by which the address was proven, None without.
    """

    datagram: bytes
    address: Address
    source: tuple[bytes, ...]
    destination_connection_id: bytes
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes | None
    arrived_at: float


Initial = tuple[bytes, InitialHeader, Address]
"""A datagram, the header of its first packet, and where it came from."""


class Unread:
    """Initials that were not decrypted yet, of which the newest are read.

    In a flood most are never read, so that a client repeats its Initial. A newcomer that waits
    behind all that came before waits longer than the client, and one that has already proven its
    address would wait behind those that have not.
    """

    def __init__(self) -> None:
        self._queues: tuple[collections.deque[Initial], ...] = tuple(
            collections.deque(maxlen=MAX_UNREAD) for _ in range(2)
        )

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def add(self, initial: Initial) -> bool:
        """Add an Initial. Returns False if that costs the oldest of those with or without token."""
        queue = self._queues[not initial[1].token]
        is_full = len(queue) == MAX_UNREAD
        queue.append(initial)
        return not is_full

    def take(self, most: int) -> list[Initial]:
        """Take the newest, up to `most`, in the order of their arrival; half of them with a token,
        if there are as many."""
        found: list[Initial] = []
        while len(found) < most and len(self):
            for queue in self._queues:
                if queue and len(found) < most:
                    found.append(queue.pop())
        return found[::-1]


class WaitingRoom:
    """Newcomers, of which each source has its turn.

    When the room is full, the fullest source loses the newcomer that waited longest.
    """

    def __init__(self) -> None:
        self._by_id: dict[tuple[bytes, Address], Newcomer] = {}
        self._sources: Sources[Newcomer] = Sources()

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, destination_connection_id: bytes, address: Address) -> Newcomer | None:
        """The newcomer whose packets have this destination connection id and source address."""
        return self._by_id.get((destination_connection_id, address))

    def enter(self, newcomer: Newcomer) -> None:
        """Add a newcomer that find() does not know."""
        self._by_id[newcomer.destination_connection_id, newcomer.address] = newcomer
        self._sources.add(newcomer)

    def leave(self, newcomer: Newcomer) -> None:
        """Remove a newcomer. Raises KeyError if it is not there."""
        del self._by_id[newcomer.destination_connection_id, newcomer.address]
        self._sources.remove(newcomer)

    def first(self) -> Newcomer:
        """The newcomer whose turn it is; all other sources have their turn before its source has
        the next. Raises StopIteration in an empty room."""
        newcomer = self._sources.first()
        self._sources.served(newcomer.source)
        return newcomer

    def surplus(self) -> Newcomer | None:
        """The newcomer to send away from a room that is too full, None from any other."""
        return self._sources.oldest_of_fullest() if len(self) > MAX_WAITING else None


class Turns:
    """Leaves at least half of the processor to all that is not newcomers.

    Newcomers are served at most once after each call of begin(), when the connections had their
    turn. A turn without time for all is followed by a pause as long as the turn took, which is the
    time until the next call: the timer makes that call happen soon.

    :ivar are_wanted: whether newcomers wait.
    :ivar is_open: whether to serve them now.
    :ivar resumes_at: when to serve them again, in seconds.
    :ivar seconds: that each handshake of the last turn and its pause took, with all else that the
        node did meanwhile; None if it was measured before.
    """

    def __init__(self) -> None:
        self.are_wanted = self.is_open = False
        self.resumes_at = 0.0
        self.seconds: float | None = None
        self._cut_at: float | None = None
        self._begun = 0

    def begin(self, now: float) -> None:
        """Begin a turn, if newcomers wait and there is no pause."""
        if self._cut_at is not None:
            spent = now - self._cut_at
            self.resumes_at = now + min(spent, LONGEST_PAUSE)
            self.seconds = min(2 * spent, LONGEST_TURN) / self._begun if self._begun else None
            self._cut_at = None
        self.is_open = self.are_wanted and now >= self.resumes_at

    def end(self, now: float, begun: int, *, is_cut: bool) -> None:
        """End the turn that began at `now`.

        :param begun: how many handshakes began in it.
        :param is_cut: whether there was no time for all.
        """
        self.is_open = False
        if is_cut:
            self._cut_at, self._begun, self.resumes_at = now, begun, now + TURN_PAUSE
