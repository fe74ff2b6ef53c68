"""The form of messages on a stream: a length, and a MessagePack map whose ``t`` names the type.

A receiver ignores unknown fields and types, which a peer of a newer minor version sends; a known
type with a missing or ill-typed field is a protocol error.
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import MAX_MESSAGE, StreamCutter, add_length
from p2pnet.wire.text import printable


class Message(Struct, frozen=True, tag_field="t"):
    """Base of the messages on control streams and paths streams.

    A `reason` is printable, whoever sends it.
    """

    def __post_init__(self) -> None:
        if hasattr(self, "reason"):
            force_setattr(self, "reason", printable(self.reason))


class _Envelope(Struct):
    t: str


M = TypeVar("M", bound=Message)
Decode = Callable[[bytes], M | None]
"""Returns the message in a body, None for an unknown type. Raises DecodeError."""

_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(_Envelope)


def encode_message(message: Message) -> bytes:
    """Return the message with its length before it. Raises ValueError above MAX_MESSAGE bytes."""
    return add_length(_encoder.encode(message))


def by_tag(kinds: Iterable[type[M]]) -> dict[str, type[M]]:
    """Return types of messages by the tag that names them on the wire."""
    return {str(kind.__struct_config__.tag): kind for kind in kinds}


def decoder_of(types: dict[str, type[M]]) -> Decode[M]:
    """Return a function that decodes the body of a message of these types, by tag."""
    decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
        tag: msgspec.msgpack.Decoder(kind) for tag, kind in types.items()
    }

    def decode(body: bytes) -> M | None:
        try:
            decoder = decoders.get(_envelope.decode(body).t)
            message: M | None = None if decoder is None else decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"message: {error}") from None
        return message

    return decode


class MessageBuffer(Generic[M]):
    """Cuts a stream into messages, holding at most one incomplete message.

    :param decode: decodes the body of a message.
    :param limit: bytes of the longest message.
    """

    def __init__(self, decode: Decode[M], limit: int = MAX_MESSAGE) -> None:
        self._cutter = StreamCutter(limit)
        self._decode = decode

    def feed(self, data: bytes) -> list[M]:
        """Return the messages that `data` completes, unknown types left out. Raises DecodeError."""
        decoded = map(self._decode, self._cutter.feed(data))
        return [message for message in decoded if message is not None]
