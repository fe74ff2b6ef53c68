"""Retry packets, by which clients prove their addresses (RFC 9000 section 8.1.2)."""

from collections.abc import Callable

from aioquic.quic.packet import encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from p2pnet.quic.packet import InitialHeader
from p2pnet.quic.profile import CONNECTION_ID_LENGTH
from p2pnet.wire.address import Address


class Retry:
    """Makes Retry packets and checks their tokens.

    :param entropy: the source of random bytes.
    :ivar sent: Retry packets so far.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.sent = 0
        self._entropy = entropy
        self._tokens = QuicRetryTokenHandler()

    def make(self, header: InitialHeader, address: Address, now: float) -> bytes:
        """The Retry packet that answers an Initial from `address` at the time `now` (s)."""
        self.sent += 1
        source = self._entropy(CONNECTION_ID_LENGTH)
        token = self._tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_connection_id,
            retry_source_connection_id=source,
            now=now,
        )
        return encode_quic_retry(
            version=header.version,
            source_cid=source,
            destination_cid=header.source_connection_id,
            original_destination_cid=header.destination_connection_id,
            retry_token=token,
        )

    def check(self, header: InitialHeader, address: Address, now: float) -> bytes:
        """The destination connection id of the client's very first Initial, out of the token.

        Raises ValueError for a token that is forged, late, or another address's.
        """
        original: bytes = self._tokens.validate_token(
            address=address,
            destination_cid=header.destination_connection_id,
            token=header.token,
            now=now,
        )
        return original
