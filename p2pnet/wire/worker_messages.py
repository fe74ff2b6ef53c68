"""Messages between an Intermediate and the processes that relay for it.

They travel as those of the control stream do (`p2pnet.wire.messages`), over a Unix socket, with a
number for each type: ``[1, b"upward..", b"downward", ["192.0.2.1", 50001], ...]``.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2pnet.wire.address import Address
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import StreamCutter, add_length
from p2pnet.wire.messages import Channel

MAX_COUNTS = 1000  # in one message

Count = tuple[Channel, int, int, int]
"""A circuit's id, and its frames, bytes and dropped frames since the last report."""


class WorkerMessage(Struct, frozen=True, array_like=True):
    """Base of the messages between an Intermediate and a relay worker."""


class Forward(WorkerMessage, frozen=True, tag=1):
    """To the worker: forward the frames of a circuit (core/intermediate/forwarding.py) between
    these addresses from now on; sent again when an end moves."""

    upward: Channel
    downward: Channel
    agent: Address
    connector: Address
    rate: Annotated[int, Meta(ge=0)]


class Forget(WorkerMessage, frozen=True, tag=2):
    """To the worker: forward the frames of that circuit no more."""

    upward: Channel


class Begin(WorkerMessage, frozen=True, tag=3):
    """To the worker: all circuits were sent, so read the UDP socket from now on."""


class Begun(WorkerMessage, frozen=True, tag=4):
    """To the Intermediate, answer to Begin: the worker reads its UDP socket."""


class Forwarded(WorkerMessage, frozen=True, tag=5):
    """To the Intermediate: the traffic since the last report, and the number of frames that belong
    to no circuit."""

    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_COUNTS)]
    unknown: int = 0


class Forgotten(WorkerMessage, frozen=True, tag=6):
    """To the Intermediate, answer to Forget: there will be no more counts of this circuit."""

    upward: Channel


class Stray(WorkerMessage, frozen=True, tag=7):
    """To the Intermediate: a datagram that is no relay frame, and where it came from."""

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
    """The message in `body` (without its length). Raises DecodeError."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"worker message: {error}") from None


class WorkerMessageBuffer:
    """Cuts the bytes of the other process into messages, holding at most one incomplete message."""

    def __init__(self) -> None:
        self._cutter = StreamCutter()

    def feed(self, data: bytes) -> list[WorkerMessage]:
        """The messages that `data` completes. Raises DecodeError."""
        return [decode_worker_message(body) for body in self._cutter.feed(data)]
