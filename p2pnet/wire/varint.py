"""Variable-length integers (RFC 9000 section 16)."""

from p2pnet.wire.codes import DecodeError

MAX_VARINT = (1 << 62) - 1


def encode_varint(value: int) -> bytes:
    """The shortest encoding of `value`. Raises ValueError outside 0 to 2**62 - 1."""
    for prefix, length in ((0, 1), (1, 2), (2, 4), (3, 8)):
        if 0 <= value < 1 << (8 * length - 2):
            return (value | prefix << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(f"{value} does not fit a varint")


def decode_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """(value, offset behind it). Raises DecodeError when `data` ends before the integer does."""
    if offset >= len(data):
        raise DecodeError("varint is missing")
    length = 1 << (data[offset] >> 6)
    end = offset + length
    if end > len(data):
        raise DecodeError("varint is cut short")
    value = int.from_bytes(data[offset:end], "big") & ((1 << (8 * length - 2)) - 1)
    return value, end
