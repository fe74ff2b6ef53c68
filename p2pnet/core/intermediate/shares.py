"""What an agent or connector may take of an Intermediate, in the Intermediate's ledger."""

from p2pnet.core.ledger import Cap, Kind, Ledger, Rate

MAX_OFFERS = 8  # to one connector for one agent, that wait for the connector's answer
REQUEST_RATE = 10.0  # requests of one agent a second
REQUEST_BURST = 256  # all sessions of an agent ask again after an Intermediate restarted


def make_ledger(max_connections: int, max_sessions: int, max_per_node: int) -> Ledger:
    """The ledger of an Intermediate with these limits.

    :param max_connections: connections whose handshake is complete, of all nodes.
    :param max_sessions: sessions of all agents.
    :param max_per_node: sessions of one agent, and those of one connector, which agents share.
    """
    return Ledger(
        {
            Kind.CONNECTION: Cap(max_connections),
            Kind.SESSION: Cap(max_sessions, own=max_per_node),
            Kind.CONNECTOR_SESSION: Cap(max_per_node),
            Kind.OFFER: Cap(own=MAX_OFFERS),
        },
        {Kind.REQUEST: Rate(REQUEST_RATE, REQUEST_BURST)},
    )
