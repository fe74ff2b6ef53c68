"""Messages in a stream of bytes, each behind its length of four bytes, big-endian."""

from p2pnet.wire.codes import DecodeError

MAX_MESSAGE = 64 * 1024  # bytes
_LENGTH = 4  # bytes


def add_length(body: bytes) -> bytes:
    """The message behind its length. Raises ValueError above MAX_MESSAGE bytes."""
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"message of {len(body)} bytes is longer than {MAX_MESSAGE}")
    return len(body).to_bytes(_LENGTH, "big") + body


class StreamCutter:
    """Cuts a stream into the bodies of messages, holding at most one incomplete message.

    :param limit: bytes of the longest body.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes. Raises DecodeError for one above the limit."""
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH:
            length = int.from_bytes(self._buffer[:_LENGTH], "big")
            if length > self._limit:
                raise DecodeError(f"message of {length} bytes is longer than {self._limit}")
            if len(self._buffer) < _LENGTH + length:
                break
            bodies.append(bytes(self._buffer[_LENGTH : _LENGTH + length]))
            del self._buffer[: _LENGTH + length]
        return bodies
