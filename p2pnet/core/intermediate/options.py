"""The choices of a configuration for the core of an Intermediate."""

import dataclasses

from p2pnet.quic.admission import Limits


@dataclasses.dataclass(frozen=True, slots=True)
class IntermediateOptions:
    """Choices of the operator, without defaults: the settings of p2pnet.config have those.

    :ivar engine: the implementation of QUIC packets, a name of p2pnet.quic.profile.ENGINES.
    :ivar limits: limits of connections and handshakes.
    :ivar max_connections: limit of connections whose handshake is complete.
    :ivar max_sessions: limit of relayed sessions.
    :ivar max_sessions_per_node: limit of relayed sessions of one name.
    :ivar session_rate: the quota of a session in bytes a second and direction, 0 for none.
    """

    engine: str
    limits: Limits
    max_connections: int
    max_sessions: int
    max_sessions_per_node: int
    session_rate: int
