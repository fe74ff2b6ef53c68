"""Packets in small bursts, on average at a given rate (draft-ietf-ccwg-bbr-03 section 5.6.2)."""

import math
from collections.abc import Callable

BURST = 0.001  # seconds of the rate that leave at once: fewer wake-ups, and offloading has some use
PATIENCE = 0.003  # seconds of it to wait for: mostly an acknowledgement wakes us before, for less
MAX_BURST = 64 * 1024  # bytes
IDLE_BURST = 10  # packets that may leave at once after a pause (RFC 9002 section 7.7)
MAX_LATENESS = 0.01  # seconds that a host may come late without losing rate


def send_quantum(rate: float, max_datagram_size: int, seconds: float = BURST) -> float:
    """Bytes that leave at once at `rate`, so many seconds of it: at least two packets."""
    return max(2 * max_datagram_size, min(rate * seconds, MAX_BURST))


class Pacer:
    """A byte bucket that may go into debt, with the interface of aioquic's QuicPacketPacer.

    That one lets a packet pass whenever there is any credit, and forgets the debt: polled each
    millisecond it sends 2.4 times the rate, and no other rate than window / RTT can be set.

    A packet is charged in full when it is built, and what it was smaller is given back when it is
    sent. What a late timer missed is made up for; of what an idle sender missed, a few packets.

    :param rate: bytes/s now, None for no pacing.
    :param max_datagram_size: bytes.
    """

    def __init__(self, rate: Callable[[], float | None], *, max_datagram_size: int) -> None:
        self._rate = rate
        self._max_datagram_size = max_datagram_size
        self._credit = 0.0
        self._at = 0.0
        self._due: float | None = None  # when we asked to be called

    def next_send_time(self, now: float) -> float | None:
        """None if a packet may be sent now, else when to ask again."""
        if now == self._at and self._credit > 0:
            return None  # within a burst
        rate = self._rate()
        if rate is None:
            return None
        burst = send_quantum(rate, self._max_datagram_size, PATIENCE)
        if now > self._at:
            late = 0.0 if self._due is None else min(max(now - self._due, 0.0), MAX_LATENESS)
            most = max(burst, IDLE_BURST * self._max_datagram_size) + late * rate
            self._credit = min(self._credit + (now - self._at) * rate, most)
            self._at = now
        if self._credit > 0:
            self._due = None
            return None
        self._due = now + (burst - self._credit) / rate
        return self._due

    def room(self) -> int:
        """Packets that may go together, when next_send_time() lets one go."""
        if self._rate() is None:
            return IDLE_BURST
        return max(1, math.ceil(self._credit / self._max_datagram_size))

    def update_after_row(self, count: int) -> None:
        """Spend the credit of `count` packets of the full size, which were sent."""
        if self._rate() is not None:
            self._credit -= count * self._max_datagram_size

    def update_after_send(self, now: float) -> None:
        """Spend the credit of a packet of the full size; refund() returns the unused part."""
        self.update_after_row(1)

    def refund(self, size: int) -> None:
        """Return the credit that a packet of only `size` bytes did not need."""
        if self._rate() is not None:
            self._credit += self._max_datagram_size - size

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """aioquic's own idea of the rate, which depends on the window alone: not used."""
