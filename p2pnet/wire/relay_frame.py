"""The relay frame: an opaque payload addressed to a channel of the Intermediate.

::

     0               1                               9
    +---------------+-------------------------------+------------
    | 0x20 version 0|  channel id, 64 random bits   | payload ...
    +---------------+-------------------------------+------------

A channel belongs to one session and one direction. The Intermediate reads these nine bytes and no
more, and forwards the frame unchanged.
"""

from p2pnet.wire.codes import DecodeError

RELAY_VERSION_0 = b"\x20"
CHANNEL_LENGTH = 8
RELAY_OVERHEAD = 1 + CHANNEL_LENGTH


def relay_header(channel: bytes) -> bytes:
    """The header of every frame for `channel` (8 bytes)."""
    return RELAY_VERSION_0 + channel


def encode_relay_frame(channel: bytes, payload: bytes) -> bytes:
    """A frame for `channel` (8 bytes) around `payload`."""
    return relay_header(channel) + payload


def decode_relay_frame(frame: bytes) -> tuple[bytes, bytes]:
    """(channel, payload) of a frame. Raises DecodeError for another version or a short frame."""
    if len(frame) <= RELAY_OVERHEAD:
        raise DecodeError(f"relay frame of {len(frame)} bytes is too short")
    if frame[:1] != RELAY_VERSION_0:
        raise DecodeError(f"relay frame version {frame[0] & 0x0F} is not known")
    return frame[1:RELAY_OVERHEAD], frame[RELAY_OVERHEAD:]
