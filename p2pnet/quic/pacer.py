"""Pacing in bursts that the system can send at once."""

from aioquic.quic.recovery import QuicPacketPacer

BURST = 0.002  # seconds of sending that may go out at once
MAX_BURST = 64  # packets; what one call with UDP segmentation offload takes
PAUSE = 0.001  # seconds that an exhausted burst refills for
ROUNDING = 1e-9  # seconds of tolerance for a timer that fires early by a rounding error


class BurstPacer(QuicPacketPacer):
    """aioquic's pacer with a larger bucket, which refills for a while once it is empty.

    aioquic's pacer releases a packet as soon as its time has come: about three in a row when the
    round trip is short, and a wake-up and a system call for every few packets. This pacer releases
    two milliseconds of sending at once and then pauses for one. The rate stays the same, and no
    queue in the network grows beyond these two milliseconds. On a slow link two milliseconds are
    little: aioquic's own burst stays there (a quarter of the congestion window, from 2 to 16
    packets) and does not overrun a small buffer. The congestion window bounds every burst
    (RFC 9002 section 7.7).
    """

    _exhausted = False

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Set the rate to `congestion_window` bytes in each `smoothed_rtt` seconds."""
        saved = self.bucket_time
        super().update_rate(congestion_window=congestion_window, smoothed_rtt=smoothed_rtt)
        assert self.packet_time is not None
        self.bucket_max = max(self.bucket_max, min(BURST, MAX_BURST * self.packet_time))
        self.bucket_time = min(saved, self.bucket_max)

    def update_after_send(self, now: float) -> None:
        """Count a packet that is sent at `now`, the time of the next_send_time() before it."""
        if now > self.evaluation_time:
            self.update_bucket(now=now)
        self.update_after_row(1)

    def room(self) -> int:
        """Number of packets that may be sent together when next_send_time() gives None."""
        if self.packet_time is None:
            return MAX_BURST
        return max(1, int(self.bucket_time / self.packet_time))

    def update_after_row(self, count: int) -> None:
        """Count `count` packets that are sent at the time of the last next_send_time()."""
        if self.packet_time is not None:
            self.bucket_time = max(0.0, self.bucket_time - count * self.packet_time)

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        """When the next packet may go, None if it may go now. Seconds of the caller's clock."""
        if self.packet_time is None:
            return None
        if now > self.evaluation_time:  # else it was done for another packet of the burst
            self.update_bucket(now=now)
        if self.bucket_time <= 0:
            self._exhausted = True
        if self._exhausted:
            missing = min(max(PAUSE, self.packet_time), self.bucket_max / 2) - self.bucket_time
            if missing > ROUNDING:
                return now + missing
            self._exhausted = False
        return None
