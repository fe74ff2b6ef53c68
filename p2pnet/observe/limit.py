"""How much of the event log the reports of one kind may fill: a bucket of bytes for each peer."""

from __future__ import annotations

import collections
from collections.abc import Mapping

from p2pnet.reports import MoreReports

BURST = 128 * 1024  # bytes of lines of one kind about one peer, at once
RATE = 256  # and in each second later: about a line
SHARE = 4  # all peers together have so many times that for a kind, whatever their number

PEER_FIELDS = ("peer", "node", "agent", "intermediate", "session")
"""The fields that name the peer of a report; the first one with a value counts."""

TIDY_INTERVAL = 60.0  # seconds after which full buckets are forgotten

Key = tuple[str, str]
"""The kind of a report and its peer, "" for all peers together."""


def key_of(name: str, fields: Mapping[str, object]) -> Key:
    """The bucket of a report. Strangers share one: an address costs them nothing."""
    for field in PEER_FIELDS:
        if peer := fields.get(field):
            return name, str(peer)
    return name, ""


class ReportLimit:
    """Decides which reports are written, and counts the others.

    A bucket is forgotten once it is full again, so that the bucket of all peers, which lets only so
    many lines pass, bounds the number of buckets too.
    """

    def __init__(self) -> None:
        self._full_at: dict[Key, float] = {}  # seconds; a bucket without an entry is full
        self._tidy_at = 0.0
        self._omitted: collections.Counter[Key] = collections.Counter()

    def __len__(self) -> int:
        return len(self._full_at)

    def admits(self, name: str, fields: Mapping[str, object], size: int, now: float) -> bool:
        """Whether to write a report's line of `size` bytes at `now`, in seconds of any clock.

        :param name: of the report, with its `fields`.
        """
        if now >= self._tidy_at:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
            self._tidy_at = now + TIDY_INTERVAL
        key, total = key_of(name, fields), (name, "")
        full_at = self._filled(key, size / RATE, now)
        total_at = self._filled(total, size / (RATE * SHARE), now)
        latest = now + BURST / RATE
        if max(full_at, total_at) > latest:
            # A line for each of many peers would fill the log as their reports do.
            self._omitted[key if full_at > latest else total] += 1
            return False
        # For a report without a peer both keys are the same, and the narrower bucket counts.
        self._full_at[total] = total_at
        self._full_at[key] = full_at
        return True

    def _filled(self, key: Key, seconds: float, now: float) -> float:
        return max(self._full_at.get(key, now), now) + seconds

    def take_omitted(self) -> list[MoreReports]:
        """The numbers of reports that were not written since the last call."""
        omitted, self._omitted = self._omitted, collections.Counter()
        return [MoreReports(count, kind, peer) for (kind, peer), count in omitted.items()]
