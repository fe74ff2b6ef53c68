"""The error of the wire layer, and the error codes of the protocol."""

import enum

from p2pnet.wire.text import printable


class DecodeError(ValueError):
    """Bytes from the network do not follow the format; the message says where.

    The message may quote the bytes, and is printable whatever they are.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ErrorCode(enum.IntEnum):
    """Application error codes (RFC 9000 section 20.2), the same on all legs.

    RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE frames and refusals on the control stream carry
    them, so a number never gets a second meaning.
    """

    NO_ERROR = 0x00
    UNKNOWN_SERVICE = 0x10  # no connected connector serves the service
    NOT_AUTHORIZED = 0x11  # the connector does not allow this agent
    TARGET_REFUSED = 0x12  # the target refused the connection
    TARGET_UNREACHABLE = 0x13  # the connector could not reach the target
    OVER_LIMIT = 0x14  # a limit of the configuration is reached
    NOT_GRANTED = 0x15  # the connector's certificate does not grant the service
    CANCELLED = 0x16  # the other end reset the stream (as a TCP reset does)
    PROTOCOL_ERROR = 0x17  # malformed or unexpected bytes
    DRAINING = 0x18  # the intermediate is shutting down
    SUPERSEDED = 0x19  # another process connected with the same certificate
    PEER_LOST = 0x1A  # the other end of the session left the intermediate
    WRONG_PEER = 0x1B  # the peer is not the node that the intermediate announced
    UNREACHABLE = 0x1C  # the agent could not reach any intermediate in time
    SHUTDOWN = 0x1D  # the node stops on purpose
    RESTARTED = 0x1E  # the peer is a new process, which does not know this connection
    BAD_CERTIFICATE = 0x1F  # one end refused the other's certificate in the TLS handshake

    @classmethod
    def of(cls, value: int) -> "ErrorCode":
        """The code for `value`, CANCELLED for a number that this version does not know."""
        try:
            return cls(value)
        except ValueError:
            return cls.CANCELLED
