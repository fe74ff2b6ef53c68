"""Variable-length integers (RFC 9000 section 16)."""

from p2pnet.wire.codes import DecodeError

MAX_VARINT = (1 << 62) - 1

_MASKS = (0x3F, 0x3FFF, 0x3FFFFFFF, 0x3FFFFFFFFFFFFFFF)


def varint(value: int) -> bytes:
    """`value`, from 0 to 2**62 - 1, in the shortest encoding; nothing is checked."""
    if value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, offset behind it). Raises IndexError if none begins there.

    One that is cut short gives an offset behind the end of `data`.
    """
    first = data[at]
    if first < 0x40:
        return first, at + 1
    size = first >> 6
    end = at + (1 << size)
    return int.from_bytes(data[at:end], "big") & _MASKS[size], end


def encode_varint(value: int) -> bytes:
    """The shortest encoding of `value`. Raises ValueError outside 0 to 2**62 - 1."""
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"{value} does not fit a varint")
    return varint(value)


def decode_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """(value, offset behind it). Raises DecodeError when `data` ends before the integer does."""
    if offset >= len(data):
        raise DecodeError("varint is missing")
    value, end = read_varint(data, offset)
    if end > len(data):
        raise DecodeError("varint is cut short")
    return value, end
