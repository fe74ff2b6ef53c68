"""What happens on a QUIC connection, in p2pnet's own words."""

import dataclasses

from p2pnet.identity import Identity
from p2pnet.wire.codes import ErrorCode

CRYPTO_ERROR = 0x100  # RFC 9000 section 20.1: the TLS alert is in the low byte


@dataclasses.dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """The peer proved who it is. A server may still refuse the client's certificate."""

    peer: Identity


@dataclasses.dataclass(frozen=True, slots=True)
class StreamDataReceived:
    """Bytes in order. They hold back credit until Connection.consume() is told of them."""

    stream_id: int
    data: bytes
    end: bool


@dataclasses.dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave up sending on the stream (RESET_STREAM)."""

    stream_id: int
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class StreamStopped:
    """The peer reads the stream no more (STOP_SENDING); our sending part is reset."""

    stream_id: int
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class StreamWritable:
    """A stream whose send() had returned False takes more."""

    stream_id: int


@dataclasses.dataclass(frozen=True, slots=True)
class DatagramReceived:
    """The content of a DATAGRAM frame (RFC 9221)."""

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class PingAnswered:
    """The peer acknowledged a ping()."""


@dataclasses.dataclass(frozen=True, slots=True)
class BlackHoleDetected:
    """Packets of more than the smallest size get lost, over and over (RFC 8899 section 4.3)."""


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The connection is over, by either end or by silence. Nothing follows this event.

    :ivar by_application: whether `code` is an application's, rather than QUIC's own.
    """

    code: int
    reason: str
    by_application: bool

    @property
    def error_code(self) -> ErrorCode:
        """The code in the application's terms, whoever closed."""
        if self.by_application:
            return ErrorCode.of(self.code)
        if CRYPTO_ERROR <= self.code < CRYPTO_ERROR + 0x100:
            return ErrorCode.BAD_CERTIFICATE
        return ErrorCode.PEER_LOST


StreamEvent = StreamDataReceived | StreamReset | StreamStopped | StreamWritable | DatagramReceived
Event = HandshakeCompleted | StreamEvent | PingAnswered | BlackHoleDetected | ConnectionClosed


def stream_of(event: StreamEvent) -> int | None:
    """Return the id of the stream that an event is about, None for a DATAGRAM frame."""
    return None if isinstance(event, DatagramReceived) else event.stream_id
