"""The half-open connections of a server: how many, for how long, and which go first."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from p2pnet.quic.connection import Connection
from p2pnet.quic.sources import Sources

LIFE = 3.0  # seconds that a handshake may take
PATIENCE = 2.0  # seconds without a new packet, after which a handshake makes way for others
HORIZON = 2.0  # seconds; no more handshakes are begun than the processor makes in that time
START = 64  # ... before that number is known
LEAST, MOST = 16, 1024
GAIN = 1 / 8  # weight of the newest measurement of that number


@dataclasses.dataclass(eq=False, slots=True)
class HalfOpen:
    """A connection whose handshake has neither completed nor failed.

    :ivar source: the sources.prefixes() of the client.
    :ivar is_proven: whether a token proved the client's address before the handshake.
    :ivar newest: the engine's newest packet when has_progressed() was last called.
    :ivar news_at: when the handshake was last seen to make progress, in seconds.
    """

    connection: Connection
    source: tuple[bytes, ...]
    is_proven: bool
    began_at: float
    newest: int = 0
    news_at: float = 0.0

    def is_stale(self, now: float) -> bool:
        """Whether the client has sent nothing new for PATIENCE."""
        newest = self.connection.engine.newest_packet
        if newest > self.newest:
            self.newest, self.news_at = newest, now
        return self.news_at + PATIENCE <= now


class HalfOpenTable:
    """The half-open connections from the open network.

    The table is a budget in time: it has room for as many handshakes as the processor makes in
    HORIZON, whether their clients finish them or not. A table that is full makes room only at the
    cost of a handshake without progress, or of a source that has more of the table than the
    newcomer's.

    :ivar capacity: how many handshakes may be half-open at a time.
    :ivar begun: handshakes so far.
    """

    def __init__(self) -> None:
        self.capacity = START
        self.begun = 0
        self._entries: dict[Connection, HalfOpen] = {}  # the oldest first
        self._sources: Sources[HalfOpen] = Sources()
        self._seconds = HORIZON / START  # that a handshake takes

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether another handshake needs the room of one that is there."""
        return len(self._entries) >= self.capacity

    def begin(self, entry: HalfOpen) -> None:
        """Add a handshake that began at `entry.began_at`."""
        entry.news_at = entry.began_at
        entry.newest = entry.connection.engine.newest_packet
        self.begun += 1
        self._entries[entry.connection] = entry
        self._sources.add(entry)

    def end(self, connection: Connection) -> HalfOpen | None:
        """Remove a connection whose handshake completed or failed; None if it is not half-open."""
        entry = self._entries.pop(connection, None)
        if entry is not None:
            self._sources.remove(entry)
        return entry

    def measured(self, seconds: float) -> None:
        """Adapt the capacity to the time that a handshake took, which is more under load."""
        mean = self._seconds + (seconds - self._seconds) * GAIN
        self._seconds = min(max(mean, HORIZON / MOST), HORIZON / LEAST)
        self.capacity = round(HORIZON / self._seconds)

    def expired(self, now: float) -> list[Connection]:
        """The connections that are to be given up for their age."""
        return [entry.connection for entry in self._older(LIFE, now)]

    def makes_way(self, source: tuple[bytes, ...], now: float) -> Connection | None:
        """The connection to give up for a newcomer from `source`, None if there is none."""
        for entry in self._older(PATIENCE, now):
            if entry.is_stale(now):
                return entry.connection
        fuller = self._sources.oldest_of_fuller(source)
        return None if fuller is None else fuller.connection

    @property
    def expires_at(self) -> float:
        """When expired() has the next connection, in seconds; infinity for never."""
        return next((entry.began_at + LIFE for entry in self._entries.values()), math.inf)

    @property
    def has_room_at(self) -> float:
        """When a newcomer of any source may begin: infinity for never, minus infinity for now."""
        if not self.is_full:
            return -math.inf
        return min(entry.news_at for entry in self._entries.values()) + PATIENCE

    def _older(self, age: float, now: float) -> Iterator[HalfOpen]:
        return itertools.takewhile(
            lambda entry: entry.began_at + age <= now, self._entries.values()
        )
