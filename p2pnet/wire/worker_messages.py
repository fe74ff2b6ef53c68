"""Messages between an Intermediate and its relay workers, over a Unix socket.

Each is a four-byte big-endian length and a MessagePack array that begins with the number of the
type: ``[1, b"upward..", b"downward", ["192.0.2.1", 50001], ...]``.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2pnet.wire.address import Address
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import StreamCutter, add_length
from p2pnet.wire.messages import Channel

MAX_COUNTS = 1000  # of one Forwarded message

Count = tuple[Channel, int, int, int]
"""A circuit's id, and its frames, bytes and dropped frames since the last report."""


class WorkerMessage(Struct, frozen=True, array_like=True):
    """Base of the messages between an Intermediate and a relay worker."""


class Forward(WorkerMessage, frozen=True, tag=1):
    """To the worker: forward this circuit, or forward it between other addresses.

    :ivar upward: id of the channel from agent to connector, and of the circuit.
    :ivar downward: id of the channel from connector to agent.
    :ivar rate: the quota in bytes a second and direction, 0 for none.
    """

    upward: Channel
    downward: Channel
    agent: Address
    connector: Address
    rate: Annotated[int, Meta(ge=0)]


class Forget(WorkerMessage, frozen=True, tag=2):
    """To the worker: stop forwarding the circuit with this upward channel."""

    upward: Channel


class Begin(WorkerMessage, frozen=True, tag=3):
    """To the worker: all circuits are sent; open the UDP socket."""


class Begun(WorkerMessage, frozen=True, tag=4):
    """To the Intermediate, the answer to Begin: the worker reads its UDP socket now."""


class Forwarded(WorkerMessage, frozen=True, tag=5):
    """To the Intermediate: the traffic that the worker forwarded since its last report.

    :ivar unknown: frames that the worker dropped because they belong to no circuit.
    """

    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_COUNTS)]
    unknown: int = 0


class Forgotten(WorkerMessage, frozen=True, tag=6):
    """To the Intermediate, the answer to Forget: no further counts of this circuit follow."""

    upward: Channel


class Stray(WorkerMessage, frozen=True, tag=7):
    """To the Intermediate: a datagram that is no relay frame, and its source address."""

    data: bytes
    source: Address


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(
    Forward | Forget | Begin | Begun | Forwarded | Forgotten | Stray
)


def encode_worker_message(message: WorkerMessage) -> bytes:
    """The message with its length before it. Raises ValueError above MAX_MESSAGE bytes."""
    return add_length(_encoder.encode(message))


def decode_worker_message(body: bytes) -> WorkerMessage:
    """The message in `body`, the bytes behind the length. Raises DecodeError for any other."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"worker message: {error}") from None


class WorkerMessageBuffer:
    """Cuts the bytes from the other process into messages."""

    def __init__(self) -> None:
        self._cutter = StreamCutter()

    def feed(self, data: bytes) -> list[WorkerMessage]:
        """The messages that `data` completes. Raises DecodeError for a malformed one."""
        return [decode_worker_message(body) for body in self._cutter.feed(data)]
