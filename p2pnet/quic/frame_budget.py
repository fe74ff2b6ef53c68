"""How many frames a peer may send that change nothing.

A frame costs microseconds whatever is in it, so that 300 empty frames in a packet cost as much as
30 usual packets. An honest peer sends such frames too: what was not lost, but only late, arrives
twice. Those are never many more than the frames that bring something.
"""

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.recovery import MAX_ACK_RANGES

FREE_FRAMES = 16  # of each packet: limits of streams, connection ids and the like
CREDIT = 4  # idle frames for each frame that brings something
MAX_IDLE_FRAMES = 4096  # beyond those; 512 streams that are reset and stopped at once make 1024
ACKS = QuicFrameType.ACK, QuicFrameType.ACK_ECN


class FrameBudget:
    """Counts the frames of a connection that bring no byte.

    Each packet takes FREE_FRAMES off, and each frame that brings something CREDIT.

    :ivar idle: the count.
    """

    __slots__ = ("_acks", "idle")

    def __init__(self) -> None:
        self.idle = self._acks = 0

    def begin_packet(self) -> None:
        """Count the frames of another packet."""
        self.idle = max(0, self.idle - FREE_FRAMES)
        self._acks = 0

    def count(self, frame_type: int) -> None:
        """Count a frame. Raises QuicConnectionError for a frame too many."""
        self.idle += 1
        if frame_type in ACKS:
            if self._acks:  # a packet needs only one, which has up to MAX_ACK_RANGES ranges
                self.idle += MAX_ACK_RANGES
            self._acks += 1
        if self.idle > MAX_IDLE_FRAMES:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="too many frames that change nothing",
            )

    def pay(self) -> None:
        """A useful frame came: it earns CREDIT frames that change nothing."""
        self.idle = max(0, self.idle - CREDIT)
