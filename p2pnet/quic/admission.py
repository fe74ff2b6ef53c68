"""Whether a first packet becomes a connection: limits, and Retry under load."""

import collections
import dataclasses
import ipaddress
from collections.abc import Callable

from aioquic.quic.packet import encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from p2pnet.quic.packet import InitialHeader
from p2pnet.quic.profile import CONNECTION_ID_LENGTH, ConnectionProfile
from p2pnet.wire.address import Address, PeerAddress


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a public server takes.

    :ivar connections: altogether.
    :ivar retry_above: half-open connections from which on an address must be proven first
        (RFC 9000 section 8.1.2); 0 demands that always.
    :ivar half_open: in handshake, altogether; beyond it Initials are dropped.
    :ivar half_open_per_source: in handshake from one IPv4 /24 or IPv6 /56.
    """

    connections: int
    retry_above: int
    half_open: int = 1024
    half_open_per_source: int = 256


NO_CONNECTIONS = Limits(connections=0, retry_above=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Admitted:
    """An Initial that may become a connection, with what a Retry before it established.

    :ivar profile: makes the connection's engine.
    """

    profile: ConnectionProfile
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes | None = None


def source_prefix(address: Address) -> bytes:
    """The network that counts as one source: the /24 of an IPv4 address, the /56 of IPv6."""
    packed = ipaddress.ip_address(address[0]).packed
    return packed[:3] if len(packed) == 4 else packed[:7]


class Admission:
    """Decides about Initials and counts the half-open connections from the open network.

    :param server: profile of connections from the open network, None to accept none.
    :param limits: how many of those; must be given with `server`.
    :param accept_peer: gives the profile for an Initial under a PeerAddress, None to drop it.
    :param entropy: the source of random bytes.
    :ivar server: see above; may be replaced at any time.
    :ivar retries_sent: Retry packets so far.
    :ivar refused: Initials from the open network that were dropped for a limit or a bad token.
    """

    def __init__(
        self,
        *,
        server: ConnectionProfile | None,
        limits: Limits,
        accept_peer: Callable[[PeerAddress], ConnectionProfile | None] | None,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.server = server
        self.limits = limits
        self._accept_peer = accept_peer
        self.retries_sent = 0
        self.refused = 0
        self._entropy = entropy
        self._tokens = QuicRetryTokenHandler()
        self._half_open: collections.Counter[bytes] = collections.Counter()

    @property
    def half_open(self) -> int:
        """Number of connections whose handshake has neither completed nor failed."""
        return self._half_open.total()

    def opened(self, address: Address) -> None:
        """Count a handshake that began with the client at `address`."""
        self._half_open[source_prefix(address)] += 1

    def settled(self, address: Address) -> None:
        """Count off a handshake with `address` that completed or failed."""
        prefix = source_prefix(address)
        self._half_open[prefix] -= 1
        if self._half_open[prefix] <= 0:
            del self._half_open[prefix]

    def judge(
        self, header: InitialHeader, address: Address | PeerAddress, connections: int, now: float
    ) -> Admitted | bytes | None:
        """What to do with an Initial: admit it, answer with these bytes (a Retry), or drop it.

        :param connections: number of all connections that exist.
        :param now: seconds of the caller's clock.
        """
        if isinstance(address, PeerAddress):
            profile = self._accept_peer(address) if self._accept_peer else None
            if profile is None:
                return None
            return Admitted(profile, header.destination_connection_id)
        profile = self.server
        if profile is None:
            return None
        limits, half_open = self.limits, self.half_open
        if connections >= limits.connections or half_open >= limits.half_open:
            self.refused += 1
            return None
        if header.token:
            return self._check_token(profile, header, address, now)
        if half_open >= limits.retry_above:
            return self._retry(header, address, now)
        if self._half_open[source_prefix(address)] >= limits.half_open_per_source:
            self.refused += 1
            return None
        return Admitted(profile, header.destination_connection_id)

    def _check_token(
        self, profile: ConnectionProfile, header: InitialHeader, address: Address, now: float
    ) -> Admitted | None:
        try:
            original = self._tokens.validate_token(
                address=address,
                destination_cid=header.destination_connection_id,
                token=header.token,
                now=now,
            )
        except ValueError:
            self.refused += 1
            return None
        if self._half_open[source_prefix(address)] >= self.limits.half_open_per_source:
            self.refused += 1
            return None
        return Admitted(profile, original, header.destination_connection_id)

    def _retry(self, header: InitialHeader, address: Address, now: float) -> bytes:
        self.retries_sent += 1
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
