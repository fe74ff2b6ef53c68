"""What a forward comes to as its work grows, and look-ups as a registry does.

::

    python -m bench.growth --streams 1 10 100 500

Uploads on so many connections at once through p2pnet, directly, and the peers that bear it; and
services looked up in the registry of an Intermediate, in this process.
"""

import argparse
import random
import time
from collections.abc import Sequence
from functools import partial

from bench.forward import prepare
from bench.forwarding import opened
from bench.peers import IrohFixed, StockAioquic
from bench.peers.ssh import Ssh
from bench.report import Figures, Row, alternate, parser, show
from bench.tunnel import LOOPBACK, P2PNet, Tunnel
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.testing.processes import ProcessError

KINDS: Sequence[type[Tunnel]] = (P2PNet, StockAioquic, Ssh, IrohFixed)
STREAMS = (1, 10, 100, 500)
SERVICES = (100, 10_000, 100_000)
PER_CONNECTOR = 100  # services
LOOKUPS = 100_000
REALM = "bench"


def upload(kind: type[Tunnel], streams: Sequence[int], megabytes: float) -> Figures:
    """One round: a rate for each number of streams, None for one that it does not bear."""
    figures: dict[str, float | None] = {f"MB/s_of_{count}": None for count in streams}
    with opened(kind, LOOPBACK) as (_, client):
        for name, count in zip(list(figures), streams, strict=True):
            try:
                found = client.run("upload", megabytes=megabytes, streams=count)
            except ProcessError:
                break
            figures[name] = found["megabytes_per_second"]
    return figures


def streams(options: argparse.Namespace) -> list[Row]:
    """A row for each tunnel."""
    usable, _ = prepare(KINDS)
    cases = {
        kind.name: partial(upload, kind, options.streams, options.megabytes) for kind in usable
    }
    found = alternate(cases, options.rounds)
    return [{"tunnel": name, **figures} for name, figures in found.items()]


def registered(services: int) -> MemoryDirectory:
    """A registry with so many, of Connectors with some each."""
    directory = MemoryDirectory()
    for first in range(0, services, PER_CONNECTOR):
        names = tuple(f"service-{n}" for n in range(first, first + PER_CONNECTOR))
        directory.register(REALM, names, object())
    return directory


def look_up(directory: MemoryDirectory) -> Figures:
    """One round of look-ups at random."""
    names = [f"service-{random.randrange(len(directory))}" for _ in range(LOOKUPS)]
    began = time.perf_counter()
    for name in names:
        directory.lookup(REALM, name)
    return {"lookup_us": (time.perf_counter() - began) / LOOKUPS * 1e6}


def lookups(rounds: int) -> list[Row]:
    """A row for each size of the registry."""
    cases = {str(count): partial(look_up, registered(count)) for count in SERVICES}
    return [
        {"services": int(name), **figures} for name, figures in alternate(cases, rounds).items()
    ]


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    options.add_argument("--megabytes", type=float, default=33.0, help="of an upload")
    options.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    arguments = options.parse_args()
    show(
        {
            "Uploads on many connections": streams(arguments),
            "Look-ups in a registry": lookups(arguments.rounds),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
