"""What a configuration decides for the cores of Agent and Connector alike."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class PeerOptions:
    """Choices of the operator. They have no defaults here: the settings of p2pnet.config have them.

    :ivar engine: how QUIC packets are made, a name of p2pnet.quic.profile.ENGINES.
    :ivar congestion: the congestion controller of end-to-end connections, a name of
        p2pnet.quic.congestion.CONTROLLERS.
    :ivar tell_observed: whether the node offers peers the addresses at which Intermediates see it,
        as server-reflexive candidates (RFC 8445 section 5.1.1.2).
    """

    engine: str
    congestion: str
    tell_observed: bool
