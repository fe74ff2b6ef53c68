"""The cases of the comparison, by the names that the command line has for them."""

from collections.abc import Mapping

from bench.load import download
from bench.pair.case import Case
from bench.pair.forwards import Bulk, ManyClients, Opening, Requests, direct, relayed, upload
from bench.pair.nodes import Cold, Handshakes, Memory

CASES: Mapping[str, Case] = {
    "memory": Memory(),
    "requests": Requests(direct),
    "requests-relayed": Requests(relayed),
    "opening": Opening(direct),
    "opening-relayed": Opening(relayed),
    "opening-many": ManyClients(direct),
    "cold": Cold("prefer-direct"),
    "cold-relayed": Cold("relay-only"),
    "up": Bulk(direct, upload),
    "down": Bulk(direct, download),
    "up-relayed": Bulk(relayed, upload),
    "down-relayed": Bulk(relayed, download),
    "handshakes": Handshakes(known=False),
    "handshakes-known": Handshakes(known=True),
}
"""In the order in which they are measured: idle memory before anything is loaded."""
SMALL_PACKETS: Mapping[str, Case] = {
    "up-1452": Bulk(direct, upload),
    "down-1452": Bulk(direct, download),
}
"""Those of the network namespace."""
