"""RFC 5769's samples, and STUN messages built without the code under test."""

import binascii
import hmac
import struct
from collections.abc import Iterable

# Sections 2.1 to 2.3: the three samples have one transaction and one password.
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
HEADER = f"2112a442{TRANSACTION.hex()}"
SAMPLE_REQUEST = bytes.fromhex(
    f"00010058{HEADER}"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
SAMPLE_IPV4_RESPONSE = bytes.fromhex(
    f"0101003c{HEADER}"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
SAMPLE_IPV6_RESPONSE = bytes.fromhex(
    f"01010048{HEADER}"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)
SAMPLES = (SAMPLE_REQUEST, SAMPLE_IPV4_RESPONSE, SAMPLE_IPV6_RESPONSE)


def build(kind: int, attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """A message with any attributes and no more."""
    body = b"".join(
        struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return struct.pack("!HH", kind, len(body)) + bytes.fromhex(HEADER) + body


def announce(message: bytes, more: int) -> bytes:
    """The message with a length in its header that counts `more` bytes behind it."""
    return message[:2] + struct.pack("!H", len(message) - 20 + more) + message[4:]


def seal(message: bytes, password: str) -> bytes:
    """Add MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 sections 14.5 and 14.7)."""
    return fingerprinted(authenticated(message, password))


def authenticated(message: bytes, password: str) -> bytes:
    """Add MESSAGE-INTEGRITY."""
    message = announce(message, 24)
    digest = hmac.digest(password.encode(), message, "sha1")
    return message + struct.pack("!HH", 0x0008, 20) + digest


def fingerprinted(message: bytes) -> bytes:
    """Add FINGERPRINT."""
    message = announce(message, 8)
    return message + struct.pack("!HHI", 0x8028, 4, binascii.crc32(message) ^ 0x5354554E)
