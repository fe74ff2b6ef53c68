"""Headers on the end-to-end connection: service streams and UDP flows.

An Agent opens a bidirectional stream and writes::

    +------+--------+-----------------+-----------
    | kind | length | service name    |  bytes ...
    +------+--------+-----------------+-----------
      0x01 = byte stream, 0x02 = UDP flow

The Connector answers ``0x00`` once the target accepted, then bytes follow both ways; or it resets
the stream with an ErrorCode. On the stream of a UDP flow each way carries only the datagrams too
large for a DATAGRAM frame, as a two-byte big-endian length and the payload (the idea of the
DATAGRAM capsule, RFC 9297 section 3.5). The stream lives as long as the flow.

A payload in a DATAGRAM frame (RFC 9221) starts with the flow id, a varint: the stream's id divided
by four (the quarter stream id of RFC 9297 section 2.1).
"""

import dataclasses
import enum

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.names import MAX_NAME
from p2pnet.wire.varint import decode_varint, encode_varint

ACCEPTED = b"\x00"
MAX_DATAGRAM = 65535


class StreamKind(enum.IntEnum):
    """What a service stream carries: bytes, or the datagrams of a UDP flow."""

    BYTES = 0x01
    FLOW = 0x02


@dataclasses.dataclass(frozen=True, slots=True)
class StreamHeader:
    """The first bytes of a service stream: which service, and bytes or datagrams."""

    kind: StreamKind
    service: str

    def encode(self) -> bytes:
        """The header's bytes. Raises ValueError for a name that does not fit."""
        name = self.service.encode("ascii")
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"service name {self.service!r} must have 1 to {MAX_NAME} characters")
        return bytes((self.kind, len(name))) + name


def decode_stream_header(data: bytes) -> tuple[StreamHeader, int] | None:
    """(header, its length), or None while `data` is still incomplete. Raises DecodeError."""
    if len(data) < 2:
        return None
    try:
        kind = StreamKind(data[0])
    except ValueError:
        raise DecodeError(f"stream kind {data[0]:#04x} is not known") from None
    length = data[1]
    if not 0 < length <= MAX_NAME:
        raise DecodeError(f"service name of {length} bytes")
    name = data[2 : 2 + length]
    if len(name) < length:
        return None
    if not (name.isascii() and name.decode("ascii").isprintable()):
        raise DecodeError("service name is not printable ASCII")
    return StreamHeader(kind, name.decode("ascii")), 2 + length


def encode_flow_datagram(flow_id: int, payload: bytes) -> bytes:
    """The content of a DATAGRAM frame that carries `payload`. Raises ValueError for a flow id that
    is no varint."""
    return encode_varint(flow_id) + payload


def decode_flow_datagram(data: bytes) -> tuple[int, bytes]:
    """(flow id, payload) of a DATAGRAM frame's content. Raises DecodeError."""
    flow_id, offset = decode_varint(data)
    return flow_id, data[offset:]


def encode_capsule(payload: bytes) -> bytes:
    """A datagram for the flow's stream. Raises ValueError above 65535 bytes."""
    if len(payload) > MAX_DATAGRAM:
        raise ValueError(f"datagram of {len(payload)} bytes")
    return len(payload).to_bytes(2, "big") + payload


def decode_capsules(buffer: bytearray) -> list[bytes]:
    """Take the complete datagrams off the front of `buffer`, leaving an incomplete one in it."""
    payloads = []
    offset = 0
    while len(buffer) - offset >= 2:
        end = offset + 2 + int.from_bytes(buffer[offset : offset + 2], "big")
        if end > len(buffer):
            break
        payloads.append(bytes(buffer[offset + 2 : end]))
        offset = end
    del buffer[:offset]
    return payloads
