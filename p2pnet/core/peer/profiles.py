"""The QUIC profiles of a peer: for control connections, and for connections between the ends."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable
from typing import Any

from p2pnet.core.peer.options import PeerOptions
from p2pnet.identity import Credentials, Role
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.wire import messages

PEER_ALPN = "p2pnet-peer/2"
PEER_IDLE_TIMEOUT = 30.0  # seconds; time enough for an Intermediate to restart under a session


@dataclasses.dataclass(slots=True)
class Profiles:
    """Makes the profiles of connections to come.

    :ivar credentials: who this node is, replaced when a certificate is read again.
    :ivar peer_role: the role that the other end of a session must have.
    :ivar max_peer_streams: streams that the peer may open on an end-to-end connection.
    :ivar entropy: returns that many random bytes.
    """

    credentials: Credentials
    peer_role: Role
    options: PeerOptions
    utcnow: Callable[[], datetime.datetime]
    max_peer_streams: int = 0
    entropy: Callable[[int], bytes] = os.urandom

    def control(self, host: str) -> ConnectionProfile:
        """For a connection to an Intermediate whose certificate must name `host`."""
        return self._profile(Role.INTERMEDIATE, alpn=messages.ALPN, host=host)

    def peer(self) -> ConnectionProfile:
        """For an end-to-end connection. No host: the role decides, and there is no SNI."""
        return self._profile(
            self.peer_role,
            alpn=PEER_ALPN,
            # One more at a Connector: the stream of messages about paths.
            max_streams=self.max_peer_streams and self.max_peer_streams + 1,
            idle_timeout=PEER_IDLE_TIMEOUT,
            datagrams=True,
            congestion=self.options.congestion,
        )

    def _profile(self, role: Role, **changes: Any) -> ConnectionProfile:
        return ConnectionProfile(
            credentials=self.credentials, roles=frozenset({role}), utcnow=self.utcnow,
            engine=self.options.engine, entropy=self.entropy, **changes,
        )  # fmt: skip
