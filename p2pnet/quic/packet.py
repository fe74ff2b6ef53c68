"""What has to be read of a QUIC packet before its connection is known (RFC 8999, RFC 9000 17)."""

import dataclasses

from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic.packet import (
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_version_negotiation,
    pull_quic_header,
)

from p2pnet.quic.profile import CONNECTION_ID_LENGTH

SMALLEST_INITIAL = 1200  # bytes; a smaller datagram starts no connection, RFC 9000 section 14.1
SHORTEST_FIRST_ID = 8  # bytes of a client's first destination connection id, RFC 9000 section 7.2
SUPPORTED_VERSION = int(QuicProtocolVersion.VERSION_1)


@dataclasses.dataclass(frozen=True, slots=True)
class InitialHeader:
    """The header of a client's Initial packet.

    :ivar number_at: where in the datagram the packet number begins.
    :ivar end: where the packet ends.
    """

    version: int
    destination_connection_id: bytes
    source_connection_id: bytes
    token: bytes
    number_at: int
    end: int


def destination_connection_id(datagram: bytes) -> bytes | None:
    """The connection id that the datagram's first packet is for, None if it is malformed.

    By hand, because this is done for every datagram and a full parse costs several times more.
    """
    if datagram[:1] >= b"\x80":
        if len(datagram) < 7 or datagram[5] > 20:
            return None
        return datagram[6 : 6 + datagram[5]]
    if len(datagram) <= CONNECTION_ID_LENGTH:
        return None
    return datagram[1 : 1 + CONNECTION_ID_LENGTH]


def parse_initial(datagram: bytes) -> InitialHeader | None:
    """The header of an Initial of our version in a datagram that is large enough, else None."""
    if not datagram[0] & 0x80 or len(datagram) < SMALLEST_INITIAL:
        return None
    buffer = Buffer(data=datagram)
    try:
        header = pull_quic_header(buffer, host_cid_length=CONNECTION_ID_LENGTH)
    except (ValueError, BufferReadError):
        return None
    if header.packet_type is not QuicPacketType.INITIAL or header.version != SUPPORTED_VERSION:
        return None
    if len(header.destination_cid) < SHORTEST_FIRST_ID:
        return None
    return InitialHeader(
        header.version, header.destination_cid, header.source_cid, header.token,
        number_at=buffer.tell(), end=header.packet_length,
    )  # fmt: skip


def version_negotiation(datagram: bytes) -> bytes | None:
    """The answer to a long header of an unknown version (RFC 9000 section 6.1), else None.

    Never to a version negotiation packet, or two servers would answer each other for ever, and
    never to a small datagram, or the answer would amplify.
    """
    if not datagram[0] & 0x80 or len(datagram) < SMALLEST_INITIAL:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    if version in (0, SUPPORTED_VERSION) or datagram[5] > 20:
        return None
    source_at = 6 + datagram[5]
    source_length = datagram[source_at]
    if source_length > 20:
        return None
    return encode_quic_version_negotiation(
        source_cid=datagram[6:source_at],
        destination_cid=datagram[source_at + 1 : source_at + 1 + source_length],
        supported_versions=[SUPPORTED_VERSION],
    )
