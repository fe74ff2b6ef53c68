"""What a client's first packet says, read before anything is made for the client (RFC 9001 5.2)."""

import enum
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from p2pnet.quic.memory import MAX_CRYPTO
from p2pnet.quic.packet import InitialHeader
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.varint import decode_varint

MAX_FRAMES = 16  # of a first packet, a run of PADDING as one; ours have two
NONCE = 12  # bytes, RFC 9001 section 5.3
RESERVED_BITS = 0x0C  # of a long header, RFC 9000 section 17.2
PING, CRYPTO, CONNECTION_CLOSE = 0x01, 0x06, 0x1C  # RFC 9000 section 19
CLIENT_HELLO = 1  # RFC 8446 section 4

SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # RFC 9001 section 5.2


def _label(name: bytes, size: int) -> bytes:
    """The HkdfLabel of RFC 8446 section 7.1, with the counter of its only block."""
    name = b"tls13 " + name
    return b"%b%c%b\0\1" % (size.to_bytes(2, "big"), len(name), name)


CLIENT_SECRET, KEY = _label(b"client in", 32), _label(b"quic key", 16)
IV, HEADER_PROTECTION = _label(b"quic iv", NONCE), _label(b"quic hp", 16)


class Opening(enum.Enum):
    """What a first packet is good for."""

    HELLO = enum.auto()  # it begins a handshake
    CLOSE = enum.auto()  # it ends the handshake
    NOTHING = enum.auto()


def client_keys(destination_connection_id: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, IV and header protection key of a client's Initial packets."""
    initial_secret = hmac.digest(SALT, destination_connection_id, "sha256")
    secret = hmac.digest(initial_secret, CLIENT_SECRET, "sha256")
    key = hmac.digest(secret, KEY, "sha256")[:16]
    iv = hmac.digest(secret, IV, "sha256")[:NONCE]
    return key, iv, hmac.digest(secret, HEADER_PROTECTION, "sha256")[:16]


def decrypt(datagram: bytes, header: InitialHeader) -> bytes | None:
    """The frames of the Initial at the beginning of the datagram, None if it is not authentic."""
    key, iv, protection = client_keys(header.destination_connection_id)
    at = header.number_at
    mask = Cipher(AES(protection), ECB()).encryptor().update(datagram[at + 4 : at + 20])
    first = datagram[0] ^ (mask[0] & 0x0F)
    size = (first & 3) + 1
    # The packet number is the first or nearly so: it is not truncated (RFC 9000 section 17.1).
    masked = int.from_bytes(datagram[at : at + size], "big")
    number = masked ^ int.from_bytes(mask[1 : 1 + size], "big")
    if first & RESERVED_BITS:
        return None
    associated = b"%c%b%b" % (first, datagram[1:at], number.to_bytes(size, "big"))
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(NONCE, "big")
    try:
        return AESGCM(key).decrypt(nonce, datagram[at + size : header.end], associated)
    except InvalidTag:
        return None


def read_opening(datagram: bytes, header: InitialHeader) -> Opening:
    """What the first packet of a datagram is good for.

    A handshake begins with the beginning of a ClientHello; a packet without it, with CRYPTO frames
    beyond MAX_CRYPTO, or with a frame that a first packet cannot have, begins none.
    """
    frames = decrypt(datagram, header)
    if frames is None:
        return Opening.NOTHING
    try:
        return _judge(frames)
    except DecodeError:
        return Opening.NOTHING


def _judge(frames: bytes) -> Opening:
    opening = Opening.NOTHING
    for _ in range(MAX_FRAMES):
        frames = frames.lstrip(b"\0")
        if not frames:
            return opening
        if frames[0] == CONNECTION_CLOSE:
            return Opening.CLOSE
        if frames[0] == PING:
            frames = frames[1:]
            continue
        if frames[0] != CRYPTO:
            break
        offset, at = decode_varint(frames, 1)
        length, at = decode_varint(frames, at)
        data, frames = frames[at : at + length], frames[at + length :]
        if len(data) < length or offset + length > MAX_CRYPTO:
            break
        if offset == 0 and data[:1] == bytes([CLIENT_HELLO]):
            opening = Opening.HELLO
    return Opening.NOTHING
