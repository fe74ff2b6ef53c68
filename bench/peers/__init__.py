"""What p2pnet is compared with. Versions are pinned here; `prepare` installs them."""

import importlib.metadata
from collections.abc import Sequence

from bench.peers.base import PROGRAMS, Pair, PythonPair, node_modules
from bench.peers.ssh import Ssh
from bench.tunnel import Tunnel

IROH = "iroh==1.2.0"
HYPERDHT = "hyperdht@6.34.0"
WORMHOLE = "magic-wormhole==0.24.0"
AIORTC = "aiortc==1.16.0"


class StockAioquic(Pair):
    """aioquic as it comes, on Twisted's UDP port: where p2pnet starts from."""

    name = "aioquic, stock"
    program = "stock_forward.py"

    @classmethod
    def prepare(cls) -> str:
        """It is here: p2pnet depends on it."""
        return importlib.metadata.version("aioquic")


class Iroh(PythonPair):
    """iroh's Python package."""

    name = "iroh, as shipped"
    requirement = IROH
    program = "iroh_forward.py"


class IrohFixed(Iroh):
    """The same without the copying of single bytes in its generated Python code."""

    name = "iroh, fixed"
    arguments = ("--fast-copy",)


class HyperDHT(Pair):
    """HyperDHT, what Holesail and Keet use."""

    name = "hyperdht"

    @classmethod
    def prepare(cls) -> str:
        """Install it with npm."""
        node_modules(HYPERDHT)
        return HYPERDHT.rpartition("@")[2]

    @classmethod
    def command(cls) -> list[str]:
        """Node looks for modules where it is told to."""
        modules = f"NODE_PATH={node_modules(HYPERDHT)}"
        return ["env", modules, "node", str(PROGRAMS / "hyperdht_forward.js")]


class Wormhole(PythonPair):
    """magic-wormhole's transit, which is no tunnel: connections share its one record stream."""

    name = "wormhole transit"
    requirement = WORMHOLE
    program = "wormhole_forward.py"


class Aiortc(PythonPair):
    """aiortc's data channels, which are no tunnel: each connection has a channel."""

    name = "aiortc data channel"
    requirement = AIORTC
    program = "aiortc_forward.py"


PEERS: Sequence[type[Tunnel]] = (
    StockAioquic, Ssh, Iroh, IrohFixed, HyperDHT, Wormhole, Aiortc,
)  # fmt: skip
"""Those that forward TCP, the nearest to p2pnet first."""
