"""Protecting 1-RTT packets, and opening them (RFC 9001 section 5)."""

import dataclasses
from typing import Any

from aioquic.quic.packet import decode_packet_number
from cryptography.exceptions import InvalidTag

NUMBER_SIZE = 2  # bytes of a packet number that is sent, as aioquic does
TAG_SIZE = 16  # bytes, RFC 9001 section 5.3
SHORT_HEADER = 0x40 | (NUMBER_SIZE - 1)
SAMPLE_AT = 4  # bytes behind the start of the packet number, RFC 9001 section 5.4.2
SAMPLE = 16  # bytes
NONCE = 12  # bytes, RFC 9001 section 5.3


class OtherKeys(Exception):
    """A packet has another key phase, or reserved bits that are set."""


class PacketProtection:
    """The 1-RTT keys of a connection in use.

    :ivar pair: aioquic's CryptoPair, which a key update changes in place.
    """

    def __init__(self, pair: Any) -> None:
        self.pair = pair

    def protect(self, plain: bytes, number: int, destination: bytes, spin: bool) -> bytes:
        """The packet with this number, these frames and this destination connection id."""
        pair = self.pair
        crypto = pair.send
        aead = crypto.aead
        first = SHORT_HEADER | (spin << 5) | (pair.key_phase << 2)
        truncated = number & 0xFFFF
        header = b"%c%b%b" % (first, destination, truncated.to_bytes(NUMBER_SIZE, "big"))
        nonce = (aead._iv ^ number).to_bytes(NONCE, "big")
        body = aead._aead.encrypt(nonce, plain, header)
        mask = crypto.hp._mask(body[2:18])  # the sample begins 4 bytes behind the number's start
        return b"%c%b%c%c%b" % (
            first ^ (mask[0] & 0x1F),
            destination,
            (truncated >> 8) ^ mask[1],
            (truncated & 0xFF) ^ mask[2],
            body,
        )

    def open(self, data: bytes, at: int, expected: int) -> tuple[bytes, int, bool] | None:
        """A packet's frames, number and spin bit; None if it is forged or damaged.

        Raises OtherKeys if the packet is not one of the present key phase.

        :param at: where the packet number starts.
        :param expected: the packet number that is expected next.
        """
        crypto = self.pair.recv
        aead = crypto.aead
        # Header protection, RFC 9001 section 5.4.1. Bits 3 and 4 are reserved, bit 2 the key phase.
        mask = crypto.hp._mask(data[at + SAMPLE_AT : at + SAMPLE_AT + SAMPLE])
        first = data[0] ^ (mask[0] & 0x1F)
        if first & 0x1C != crypto.key_phase << 2:
            raise OtherKeys
        size = (first & 3) + 1
        end = at + size
        truncated = int.from_bytes(data[at:end], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        header = b"%c%b%b" % (first, data[1:at], truncated.to_bytes(size, "big"))
        number = decode_packet_number(truncated, 8 * size, expected)
        nonce = (aead._iv ^ number).to_bytes(NONCE, "big")
        try:
            return aead._aead.decrypt(nonce, data[end:], header), number, bool(first & 0x20)
        except InvalidTag:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class OneRtt:
    """What usual packets need of an established connection: it stays the same from then on.

    :ivar space: aioquic's packet number space of 1-RTT packets.
    :ivar crypto: the stream of TLS messages in CRYPTO frames.
    :ivar number_at: bytes before the packet number in a packet that arrives.
    :ivar newest_before: Engine.newest_packet, less the largest packet number of `space`; the other
        spaces are discarded, so that it stays the same.
    """

    space: Any
    protection: PacketProtection
    crypto: Any
    number_at: int
    newest_before: int
