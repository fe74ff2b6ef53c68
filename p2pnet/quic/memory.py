"""What a connection need not have of aioquic's: much of its 80 KiB.

An Intermediate holds thousands of connections that are idle most of the time.
"""

from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.stream import QuicStream

# Of TLS messages after the handshake we send none: no tickets, no certificates (RFC 8446 4.6).
CRYPTO_BUFFER_SIZE = 512  # bytes, instead of 16 KiB for each of three epochs

MAX_CRYPTO = 16 << 10  # bytes of TLS messages that a peer may send in all; ours have some 2 KiB

# Each costs a frame and an entry of tables at both ends, and stock connections have eight. One is
# used and one replaces it when the peer moves; the rest are for a peer that moves again at once.
CONNECTION_IDS = 4

Handler = Callable[..., Any]
_tables: dict[type, dict[int, tuple[Handler, frozenset[tls.Epoch]]]] = {}  # of functions


class FrameHandlers:
    """A connection's handlers of frames by type, bound when a frame comes.

    aioquic binds 33 methods for each connection, with as many sets of epochs.

    :param count: called with the type of each frame.
    """

    __slots__ = ("_connection", "_count", "_handlers")

    def __init__(self, connection: Any, count: Callable[[int], None]) -> None:
        self._connection = connection
        self._count = count
        self._handlers = _tables[type(connection)]

    def __getitem__(self, frame_type: int) -> tuple[Handler, frozenset[tls.Epoch]]:
        """The handler and in which epochs it may be used. Raises KeyError for unknown types, and
        what count() raises."""
        self._count(frame_type)
        handler, epochs = self._handlers[frame_type]
        return handler.__get__(self._connection), epochs


def economize(connection: Any, count: Callable[[int], None]) -> None:
    """Have a new connection take less.

    :param count: called with the type of each frame that aioquic handles.
    """
    _share_handlers(connection, count)
    connection._local_active_connection_id_limit = CONNECTION_IDS


def dismantle(connection: Any) -> None:
    """Free what a connection holds at once, which nobody uses any more.

    Its parts refer to each other: without this they stay until the garbage collector walks through
    everything, which in a flood of handshakes is after hundreds of them.
    """
    vars(connection).clear()


def _share_handlers(connection: Any, count: Callable[[int], None]) -> None:
    """Have a new connection share its table of handlers with all others of its class."""
    kind = type(connection)
    if kind not in _tables:
        own = connection._QuicConnection__frame_handlers
        _tables[kind] = {t: (handler.__func__, epochs) for t, (handler, epochs) in own.items()}
    connection._QuicConnection__frame_handlers = FrameHandlers(connection, count)


def discard(connection: Any, epoch: tls.Epoch) -> None:
    """Free what TLS was to write for an epoch that is over (RFC 9001 section 4.9)."""
    buffers: dict[tls.Epoch, Buffer] = connection._crypto_buffers
    buffers.pop(epoch, None)
    if epoch is tls.Epoch.HANDSHAKE:
        buffers[tls.Epoch.ONE_RTT] = Buffer(capacity=CRYPTO_BUFFER_SIZE)


def check_crypto(
    streams: dict[tls.Epoch, QuicStream], epoch: tls.Epoch, frame_type: int, buf: Buffer
) -> None:
    """Raise QuicConnectionError for a CRYPTO frame that ends beyond MAX_CRYPTO.

    aioquic buffers half a MiB, and TLS as much as a message says that it has.
    """
    start = buf.tell()
    end = int(buf.pull_uint_var()) + int(buf.pull_uint_var())
    buf.seek(start)
    others = (stream.receiver.highest_offset for key, stream in streams.items() if key != epoch)
    if end + sum(others) > MAX_CRYPTO:
        raise QuicConnectionError(
            QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too large a handshake"
        )


def check_gaps(stream: QuicStream, limit: int, frame_type: int) -> None:
    """Raise QuicConnectionError for a stream with more gaps: aioquic walks through them all."""
    if len(stream.receiver._ranges) > limit:
        raise QuicConnectionError(
            QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "too many gaps in a stream"
        )
