"""Initials as strangers make them: any frames, protected as RFC 9001 section 5.2 says."""

import functools
import os

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import pull_quic_header

from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.wire.varint import decode_varint, encode_varint
from tests.quic.harness import SERVER, client_settings

VERSION = 1
SMALLEST = 1200  # bytes


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\x06" + encode_varint(offset) + encode_varint(len(data)) + data


def close(reason: bytes) -> bytes:
    """A CONNECTION_CLOSE frame."""
    return b"\x1c\0\0" + encode_varint(len(reason)) + reason


@functools.cache
def _first(alpn: str) -> tuple[bytes, bytes]:
    """The ClientHello and the source connection id of a client, which are of one piece."""
    mux = Multiplexer()
    mux.connect(client_settings(alpn=alpn), SERVER, 0.0)
    ((datagram, _),) = mux.datagrams_to_send(0.0)
    buffer = Buffer(data=datagram)
    header = pull_quic_header(buffer, host_cid_length=8)
    pair = CryptoPair()
    pair.setup_initial(cid=header.destination_cid, is_client=False, version=VERSION)
    _, frames, _ = pair.decrypt_packet(datagram[: header.packet_length], buffer.tell(), 0)
    length, at = decode_varint(frames, 2)
    return frames[at : at + length], header.source_cid


def hello(alpn: str = "test/1") -> bytes:
    """The ClientHello of a client that speaks `alpn`."""
    return _first(alpn)[0]


def initial(
    frames: bytes,
    *,
    destination: bytes | None = None,
    token: bytes = b"",
    number: int = 0,
    alpn: str = "test/1",
) -> bytes:
    """A client's datagram with one Initial, padded to the smallest size.

    :param destination: the destination connection id, a random one unless given.
    """
    destination = os.urandom(8) if destination is None else destination
    source = _first(alpn)[1]
    ids = b"%c%b%c%b" % (len(destination), destination, len(source), source)
    head = VERSION.to_bytes(4, "big") + ids + encode_varint(len(token)) + token
    size = max(len(frames), SMALLEST - 1 - len(head) - 20)  # length, packet number, tag
    length = (0x4000 | (2 + size + 16)).to_bytes(2, "big")
    pair = CryptoPair()
    pair.setup_initial(cid=destination, is_client=True, version=VERSION)
    header = b"\xc1" + head + length + number.to_bytes(2, "big")
    return bytes(pair.encrypt_packet(header, frames.ljust(size, b"\0"), number))
