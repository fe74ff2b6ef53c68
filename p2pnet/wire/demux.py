"""Telling apart what shares the one UDP socket, by first byte (RFC 9443).

::

    0x00 - 0x03   STUN, if the magic cookie follows (RFC 8489 section 5)
    0x20 - 0x2f   relay frame, the low nibble is its version
    0x40 - 0xff   QUIC (RFC 9000 section 17); 0x80 - 0xbf only as version negotiation
    others        no protocol of ours: counted and dropped
"""

import enum

MAGIC_COOKIE = b"\x21\x12\xa4\x42"


class Kind(enum.Enum):
    """The protocol of a datagram, as its first bytes tell."""

    STUN = enum.auto()
    RELAY = enum.auto()
    QUIC = enum.auto()
    UNKNOWN = enum.auto()


def _kind_of(first: int) -> Kind:
    if first >= 0x40:
        return Kind.QUIC
    if 0x20 <= first <= 0x2F:
        return Kind.RELAY
    return Kind.STUN if first <= 0x03 else Kind.UNKNOWN


FIRST_BYTE = tuple(_kind_of(first) for first in range(256))
"""The protocol by first byte. A table, because every datagram is looked up; STUN may lack its
magic cookie, which the decoder checks."""


def classify(datagram: bytes) -> Kind:
    """The protocol of a datagram from the network, from its first bytes alone."""
    kind = FIRST_BYTE[datagram[0]] if datagram else Kind.UNKNOWN
    if kind is Kind.STUN and datagram[4:8] != MAGIC_COOKIE:
        return Kind.UNKNOWN
    return kind
