"""Delivery-rate samples (draft-ietf-ccwg-bbr-03 section 4.1)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Snapshot(NamedTuple):
    """What the sampler had counted when a packet was sent; the packet carries it.

    :ivar sampler: whose count this is. A packet sent before a change of path has another's.
    :ivar in_flight: bytes in flight, with the packet.
    """

    sampler: RateSampler
    delivered: int
    delivered_time: float
    first_sent_time: float
    app_limited: bool
    in_flight: int
    lost: int


class RateSample(NamedTuple):
    """What one acknowledgement tells.

    :ivar rate: delivery rate in bytes/s, 0.0 if the interval was too short to tell.
    :ivar delivered: bytes delivered since the newest acknowledged packet was sent.
    :ivar lost: bytes lost since then.
    :ivar prior: the snapshot of that packet.
    :ivar acked: bytes newly acknowledged, and `newly_lost`.
    """

    rate: float
    delivered: int
    lost: int
    prior: Snapshot
    acked: int
    newly_lost: int

    @property
    def app_limited(self) -> bool:
        """Whether the sender had less to send than the path could take."""
        return self.prior.app_limited


class RateSampler:
    """Counts what is delivered, and takes one sample for each acknowledgement.

    Per packet would be too early: losses are only known when the whole ACK frame was processed.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.lost = 0
        self.delivered_time = 0.0
        self.first_sent_time = 0.0
        self.app_limited_until = 0  # what `delivered` must exceed; 0 if there is enough to send
        self._newest: Any = None
        self._acked = 0
        self._newly_lost = 0

    @property
    def is_app_limited(self) -> bool:
        """Whether what is sent now was limited by lack of data."""
        return self.app_limited_until > 0

    def app_limited(self, in_flight: int) -> None:
        """There is less to send than could be sent. Ends when what is in flight is delivered."""
        self.app_limited_until = max(self.delivered + in_flight, 1)

    def sent(self, packet: Any, in_flight: int) -> None:
        """A packet leaves; `in_flight` is without it."""
        if in_flight <= 0:  # or the idle time would count as time of delivery
            self.first_sent_time = self.delivered_time = packet.sent_time
        packet.snapshot = Snapshot(
            self,
            self.delivered,
            self.delivered_time,
            self.first_sent_time,
            self.app_limited_until > 0,
            in_flight + packet.sent_bytes,
            self.lost,
        )

    def snapshot_of(self, packet: Any) -> Snapshot | None:
        """The packet's snapshot, None if it was sent on another path."""
        snapshot: Snapshot | None = getattr(packet, "snapshot", None)
        return snapshot if snapshot is not None and snapshot.sampler is self else None

    def acked(self, packet: Any, now: float) -> None:
        """Count an acknowledged packet; a packet sent on another path does not count."""
        if self.snapshot_of(packet) is None:
            return
        self.delivered += packet.sent_bytes
        self.delivered_time = now
        self._acked += packet.sent_bytes
        if self._newest is None or packet.sent_time >= self._newest.sent_time:
            self._newest = packet

    def lost_one(self, packet: Any) -> Snapshot | None:
        """A packet is lost. Returns its snapshot, None if it was sent on another path."""
        snapshot = self.snapshot_of(packet)
        if snapshot is not None:
            self.lost += packet.sent_bytes
            self._newly_lost += packet.sent_bytes
        return snapshot

    def sample(self, shortest: float) -> RateSample | None:
        """The sample of the acknowledgement that ends here; None if it acknowledged nothing.

        :param shortest: seconds; an interval below the minimum RTT is one that ACKs were
            compressed in, and says nothing of the rate.
        """
        newest, self._newest = self._newest, None
        acked, self._acked = self._acked, 0
        newly_lost, self._newly_lost = self._newly_lost, 0
        if newest is None:
            return None
        prior: Snapshot = newest.snapshot
        # The slower of both: data cannot arrive faster than it was sent, and bursts of ACKs not
        # acknowledge more than was sent.
        interval = max(
            newest.sent_time - prior.first_sent_time, self.delivered_time - prior.delivered_time
        )
        self.first_sent_time = newest.sent_time
        if self.delivered > self.app_limited_until:
            self.app_limited_until = 0
        delivered = self.delivered - prior.delivered
        rate = delivered / interval if interval > 0 and interval >= shortest else 0.0
        return RateSample(rate, delivered, self.lost - prior.lost, prior, acked, newly_lost)
