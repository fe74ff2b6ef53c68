"""Forwarding of relay frames (p2pnet.wire.relay_frame) between the two ends of a session."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, RELAY_VERSION_0

BURST_SECONDS = 0.25  # seconds of the quota that a session may use in one burst
LEAST_BURST = 16 * 1024  # bytes: with less than a few frames, a low quota would let nothing pass


class Traffic(NamedTuple):
    """A count of forwarded traffic.

    :ivar frames: frames forwarded.
    :ivar bytes: bytes of those frames.
    :ivar dropped: frames dropped because they were over the quota.
    """

    frames: int = 0
    bytes: int = 0
    dropped: int = 0


class Channel:
    """One direction of a session, with its quota.

    :param rate: the quota in bytes a second, 0 for none.
    :ivar sender: the address from which the frames come.
    :ivar receiver: the address to which the frames go.
    :ivar frames: frames forwarded.
    :ivar bytes: bytes of those frames.
    :ivar dropped: frames dropped because they were over the quota.
    :ivar used_at: the time of the last frame, in seconds of the caller's clock.
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
        """Count `frames` frames with a sum of `size` bytes, and return True.

        Frames over the quota are not counted, and the result is False.
        """
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

    :ivar upward: the id (8 bytes) of the channel from agent to connector, and of the circuit.
    :ivar downward: the id (8 bytes) of the channel from connector to agent.
    :ivar rate: the quota in bytes a second and direction, 0 for none.
    :ivar channels: the upward and the downward Channel.
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
        """The address of the agent and that of the connector."""
        return self.channels[0].sender, self.channels[0].receiver

    def move(self, agent: Address, connector: Address) -> None:
        """Change the addresses of the two ends."""
        up, down = self.channels
        up.sender = down.receiver = agent
        down.sender = up.receiver = connector

    @property
    def used_at(self) -> float:
        """The time of the last frame in either direction, in seconds of the caller's clock."""
        return max(channel.used_at for channel in self.channels)

    @property
    def traffic(self) -> Traffic:
        """The traffic of both directions together, since the last take_traffic()."""
        up, down = self.channels
        return Traffic(up.frames + down.frames, up.bytes + down.bytes, up.dropped + down.dropped)

    def count(self, traffic: Traffic, now: float) -> None:
        """Add traffic that a relay worker forwarded, of both directions together."""
        channel = self.channels[0]  # `traffic` adds the two up
        channel.frames += traffic.frames
        channel.bytes += traffic.bytes
        channel.dropped += traffic.dropped
        channel.used_at = now

    def take_traffic(self) -> Traffic:
        """The traffic of both directions together; the counts restart at 0."""
        traffic = self.traffic
        for channel in self.channels:
            channel.frames = channel.bytes = channel.dropped = 0
        return traffic


class Forwarder:
    """The circuits of one process: finds the receiver of each frame. Its length: channels.

    :ivar dropped: frames for an unknown channel, or from another address than the sender's.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._circuits: dict[bytes, Circuit] = {}
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def circuits(self) -> Collection[Circuit]:
        """All circuits whose frames this process forwards."""
        return self._circuits.values()

    def open(self, circuit: Circuit) -> None:
        """Forward the frames of a circuit from now on."""
        self._circuits[circuit.upward] = circuit
        self._channels[circuit.upward], self._channels[circuit.downward] = circuit.channels

    def find(self, upward: bytes) -> Circuit | None:
        """The circuit whose upward channel has that id, None if there is none."""
        return self._circuits.get(upward)

    def remove(self, upward: bytes) -> Circuit | None:
        """Stop forwarding a circuit's frames. Returns the circuit, None if there was none."""
        circuit = self._circuits.pop(upward, None)
        if circuit is not None:
            del self._channels[circuit.upward], self._channels[circuit.downward]
        return circuit

    def forward(self, frame: bytes, source: Address, now: float) -> Address | None:
        """The address to send `frame` on to, unchanged; None for a frame to drop.

        :param source: the address from which the frame came.
        """
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
        """The address to send several frames on to, which the kernel joined into one buffer.

        Returns None, and counts nothing, unless all frames belong to one channel and are within
        the quota. The caller then calls forward() for each frame.

        :param size: bytes of each frame; the last may be shorter.
        """
        header = frames[:RELAY_OVERHEAD]
        channel = self._channels.get(header[1:])
        if channel is None or header[:1] != RELAY_VERSION_0 or channel.sender != source:
            return None
        count = -(-len(frames) // size)
        # Comparing the headers column by column creates no object for each frame.
        for offset, byte in enumerate(header):
            if frames[offset::size].count(byte) != count:
                return None
        return channel.receiver if channel.admit(len(frames), now, count) else None
