"""What a configuration decides for the core of an Intermediate."""

import dataclasses

from p2pnet.quic.admission import Limits


@dataclasses.dataclass(frozen=True, slots=True)
class IntermediateOptions:
    """Choices of the operator. They have no defaults here: the settings of p2pnet.config have them.

    :ivar engine: how QUIC packets are made, a name of p2pnet.quic.profile.ENGINES.
    :ivar limits: how many connections it takes.
    :ivar max_sessions: how many sessions it relays at a time.
    :ivar max_sessions_per_node: how many of them one node may be an end of.
    :ivar session_rate: bytes a second that it relays of one session in one direction, 0 for no
        limit.
    """

    engine: str
    limits: Limits
    max_sessions: int
    max_sessions_per_node: int
    session_rate: int
