"""Forwarding of relay frames between the two ends of a session."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, RELAY_VERSION_0

BURST_SECONDS = 0.25  # of the quota that a session may use at once
LEAST_BURST = 16 * 1024  # bytes; below a few frames a low quota would let nothing pass at all


class Traffic(NamedTuple):
    """What was forwarded, and the frames that were over the quota."""

    frames: int = 0
    bytes: int = 0
    dropped: int = 0


class Channel:
    """One direction of a session: who sends into it, who gets it, and its quota.

    :ivar frames, bytes: forwarded; `dropped`: frames over the quota.
    """

    __slots__ = (
        "_burst", "_credit", "_filled_at", "_rate",
        "bytes", "dropped", "frames", "receiver", "sender", "used_at",
    )  # fmt: skip

    def __init__(self, sender: Address, receiver: Address, rate: int, now: float) -> None:
        self.sender = sender
        self.receiver = receiver
        self.frames = self.bytes = self.dropped = 0
        self.used_at = now
        self._rate = rate
        self._burst = self._credit = max(rate * BURST_SECONDS, LEAST_BURST)
        self._filled_at = now

    def admit(self, size: int, now: float, frames: int = 1) -> bool:
        """Count so many frames of together `size` bytes; False, and they are not counted, when that
        is over the quota (bytes a second)."""
        self.used_at = now
        if self._rate:
            credit = self._credit + (now - self._filled_at) * self._rate
            self._filled_at = now
            self._credit = min(credit, self._burst) - size
            if self._credit < 0:
                self._credit += size
                return False
        self.frames += frames
        self.bytes += size
        return True


class Circuit:
    """The two channels of a session.

    :ivar upward: the id (8 bytes) of the channel from agent to connector, by which the circuit is
        known too; `downward`: of the other one.
    :ivar rate: bytes a second and direction, 0 for no limit.
    """

    __slots__ = ("channels", "downward", "rate", "upward")

    def __init__(
        self,
        upward: bytes,
        downward: bytes,
        agent: Address,
        connector: Address,
        rate: int,
        now: float,
    ) -> None:
        self.upward = upward
        self.downward = downward
        self.rate = rate
        self.channels = Channel(agent, connector, rate, now), Channel(connector, agent, rate, now)

    @property
    def ends(self) -> tuple[Address, Address]:
        """Where packets of agent and connector come from, and go to."""
        return self.channels[0].sender, self.channels[0].receiver

    def move(self, agent: Address, connector: Address) -> None:
        """The ends have these addresses now."""
        up, down = self.channels
        up.sender = down.receiver = agent
        down.sender = up.receiver = connector

    @property
    def used_at(self) -> float:
        """When there was a frame."""
        return max(channel.used_at for channel in self.channels)

    @property
    def traffic(self) -> Traffic:
        """That of both directions."""
        up, down = self.channels
        return Traffic(up.frames + down.frames, up.bytes + down.bytes, up.dropped + down.dropped)

    def count(self, traffic: Traffic, now: float) -> None:
        """Add what was forwarded elsewhere; only the sum of both directions is ever asked for."""
        channel = self.channels[0]
        channel.frames += traffic.frames
        channel.bytes += traffic.bytes
        channel.dropped += traffic.dropped
        channel.used_at = now

    def take_traffic(self) -> Traffic:
        """That since the last call."""
        traffic = self.traffic
        for channel in self.channels:
            channel.frames = channel.bytes = channel.dropped = 0
        return traffic


class Relay:
    """The circuits of an Intermediate.

    :ivar dropped: frames for no channel, or from an address that is not the sender's.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._circuits: dict[bytes, Circuit] = {}
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def circuits(self) -> Collection[Circuit]:
        """All of them."""
        return self._circuits.values()

    def open(self, circuit: Circuit) -> None:
        """Forward its frames from now on."""
        self._circuits[circuit.upward] = circuit
        self._channels[circuit.upward], self._channels[circuit.downward] = circuit.channels

    def find(self, upward: bytes) -> Circuit | None:
        """The circuit that is known by that id."""
        return self._circuits.get(upward)

    def remove(self, upward: bytes) -> Circuit | None:
        """Forward its frames no more. Returns the circuit, if there was one."""
        circuit = self._circuits.pop(upward, None)
        if circuit is not None:
            del self._channels[circuit.upward], self._channels[circuit.downward]
        return circuit

    def forward(self, frame: bytes, source: Address, now: float) -> Address | None:
        """Where to send `frame` on to, unchanged; None to drop it in silence."""
        channel = self._channels.get(frame[1:RELAY_OVERHEAD])
        if channel is None or frame[:1] != RELAY_VERSION_0 or channel.sender != source:
            self.dropped += 1
            return None
        if not channel.admit(len(frame), now):
            channel.dropped += 1
            return None
        return channel.receiver

    def forward_joined(
        self, frames: bytes, size: int, source: Address, now: float
    ) -> Address | None:
        """The same for one or several at once: `frames` of `size` bytes, the last may be shorter.

        None if they are not all for one channel, or not all to be forwarded: then each is to be
        looked at by itself.
        """
        header = frames[:RELAY_OVERHEAD]
        channel = self._channels.get(header[1:])
        if channel is None or header[:1] != RELAY_VERSION_0 or channel.sender != source:
            return None
        count = -(-len(frames) // size)
        # Byte by byte of the header in all frames: no object for each of them.
        for offset, byte in enumerate(header):
            if frames[offset::size].count(byte) != count:
                return None
        return channel.receiver if channel.admit(len(frames), now, count) else None
