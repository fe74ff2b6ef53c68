"""How a QUIC connection is set up: whose credentials, which peers, which limits."""

import dataclasses
import datetime
import os
import ssl
from collections.abc import Callable
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite
from cryptography import x509

from p2pnet.identity import Credentials, Identity, Role, verify_peer
from p2pnet.quic.congestion import CONTROL_CONTROLLER
from p2pnet.quic.engine import Engine
from p2pnet.quic.fast import FastEngine
from p2pnet.quic.flow_control import CONNECTION_WINDOW, STREAM_WINDOW

CONNECTION_ID_LENGTH = 8  # bytes; one length for all on the socket, short headers carry none
FAST, STOCK = "fast", "stock"
ENGINES: dict[str, type[Engine]] = {FAST: FastEngine, STOCK: Engine}
IDLE_TIMEOUT = 20.0  # seconds; longer than the ping interval, short enough to notice a dead peer


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionProfile:
    """One side's settings, shared by all connections of a kind.

    :ivar roles: whom the peer may be.
    :ivar utcnow: the calendar's clock, for certificate dates.
    :ivar host: the name or address that the peer's certificate must carry, None for no check.
    :ivar max_streams: bidirectional streams the peer may have open.
    :ivar engine: which of ENGINES, "fast" or "stock".
    :ivar congestion: the congestion controller, one of congestion.CONTROLLERS.
    :ivar idle_timeout: seconds of silence that end the connection (RFC 9000 section 10.1).
    :ivar entropy: returns that many random bytes, for the packet numbers that are skipped.
    """

    credentials: Credentials
    roles: frozenset[Role]
    utcnow: Callable[[], datetime.datetime]
    alpn: str
    engine: str
    host: str | None = None
    max_streams: int = 0
    idle_timeout: float = IDLE_TIMEOUT
    datagrams: bool = False
    congestion: str = CONTROL_CONTROLLER
    entropy: Callable[[int], bytes] = os.urandom

    def verify(self, certificate: x509.Certificate, chain: list[x509.Certificate]) -> Identity:
        """Judge the peer's certificate. Raises IdentityError."""
        return verify_peer(
            certificate,
            chain,
            ours=self.credentials,
            roles=self.roles,
            host=self.host,
            now=self.utcnow(),
        )

    def make_engine(self, *, is_client: bool, **options: Any) -> Engine:
        """A new connection; `options` are for a server's (see Engine)."""
        return ENGINES[self.engine](
            configuration=self.configuration(is_client=is_client),
            verify=self.verify,
            max_streams=self.max_streams,
            entropy=self.entropy,
            **options,
        )

    def configuration(self, *, is_client: bool) -> QuicConfiguration:
        """The same in aioquic's terms.

        aioquic's own certificate check is off because `verify` does all of it, on either side.
        No session tickets: with client certificates they break the handshake.
        """
        ours = self.credentials
        return QuicConfiguration(
            is_client=is_client,
            alpn_protocols=[self.alpn],
            certificate=ours.certificate,
            certificate_chain=list(ours.chain),
            private_key=ours.private_key,
            verify_mode=ssl.CERT_NONE,
            server_name=self.host,
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256],
            supported_versions=[QuicProtocolVersion.VERSION_1],
            connection_id_length=CONNECTION_ID_LENGTH,
            congestion_control_algorithm=self.congestion,
            idle_timeout=self.idle_timeout,
            max_data=CONNECTION_WINDOW,
            max_stream_data=STREAM_WINDOW,
            max_datagram_frame_size=65535 if self.datagrams else None,
        )
