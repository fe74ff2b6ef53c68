"""Forwarding of relay frames between the two ends of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnet.wire.address import Address
from p2pnet.wire.relay import RELAY_OVERHEAD, RELAY_VERSION_0

if TYPE_CHECKING:
    from p2pnet.core.client import Client

BURST_SECONDS = 0.25  # of the quota that a session may use at once
LEAST_BURST = 16 * 1024  # bytes; below a few frames a low quota would let nothing pass at all


class Channel:
    """One direction of a session: who sends into it, who gets it, and its quota.

    :ivar frames, bytes: forwarded; `dropped`: frames over the quota.
    """

    __slots__ = (
        "_burst", "_credit", "_filled_at", "_rate",
        "bytes", "dropped", "frames", "receiver", "sender", "used_at",
    )  # fmt: skip

    def __init__(self, sender: Client, receiver: Client, rate: int, now: float) -> None:
        self.sender = sender
        self.receiver = receiver
        self.frames = self.bytes = self.dropped = 0
        self.used_at = now
        self._rate = rate
        self._burst = self._credit = max(rate * BURST_SECONDS, LEAST_BURST)
        self._filled_at = now

    def admit(self, size: int, now: float) -> bool:
        """Count a frame of `size` bytes; False when it is over the quota (bytes a second)."""
        self.used_at = now
        if self._rate:
            credit = self._credit + (now - self._filled_at) * self._rate
            self._filled_at = now
            self._credit = min(credit, self._burst) - size
            if self._credit < 0:
                self._credit += size
                self.dropped += 1
                return False
        self.frames += 1
        self.bytes += size
        return True


class Relay:
    """The channels of an Intermediate.

    :ivar dropped: frames for no channel, or from an address that is not the sender's.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def open(self, channel_id: bytes, channel: Channel) -> None:
        """Forward frames for `channel_id` (8 bytes) from now on."""
        self._channels[channel_id] = channel

    def close(self, channel_id: bytes) -> None:
        """Forward them no more."""
        self._channels.pop(channel_id, None)

    def forward(self, frame: bytes, source: Address, now: float) -> Address | None:
        """Where to send `frame` on to, unchanged; None to drop it in silence."""
        channel = self._channels.get(frame[1:RELAY_OVERHEAD])
        if channel is None or frame[:1] != RELAY_VERSION_0 or channel.sender.address != source:
            self.dropped += 1
            return None
        if not channel.admit(len(frame), now):
            return None
        return channel.receiver.address
