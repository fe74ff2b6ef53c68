"""A forwarded TCP connection over a link with a rate, a delay and losses, beside the peers.

::

    python -m bench.lossy --link 100:40:1 --link 20:200:0 --rounds 3
    python -m bench.lossy --link 100:40:1 --latency --only p2pnet --only iroh

Real processes in two network namespaces with such a link between them (root, on Linux). Loss is
random and the same both ways, the buffer one bandwidth-delay product. A rate is that of the bytes
of an upload over the time until the last one arrived, start-up included. TCP and ssh run twice,
over the kernel's Cubic and over its BBR; what the others do is theirs.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench.forward import prepare
from bench.forwarding import opened
from bench.peers import PEERS
from bench.peers.ssh import Ssh
from bench.report import Case, Figures, Row, alternate, parser, show
from bench.tunnel import Ends, P2PNet, Place, Tunnel
from lab.namespaces import Host, Lab, acquire
from lab.topology import Topology
from lab.wire import Conditions

MBIT = 1e6 / 8  # bytes/s
LINKS = (
    "100:40:0", "100:40:0.1", "100:40:0.5", "100:40:1", "100:40:2", "100:40:5",
    "20:200:0", "20:200:1", "500:20:0",
)  # fmt: skip
KERNEL = ("cubic", "bbr")


@dataclasses.dataclass(frozen=True)
class Link:
    """`rate` in Mbit/s, `rtt` in ms without any queue, `loss` in percent each way.

    A rate of 0 is for a cable between the two, with Ethernet's packets and nothing else to it.
    """

    rate: float
    rtt: float
    loss: float

    @classmethod
    def parse(cls, text: str) -> "Link":
        """From RATE:RTT:LOSS. Raises ValueError."""
        rate, rtt, loss = map(float, text.split(":"))
        return cls(rate, rtt, loss)

    @property
    def conditions(self) -> Conditions | None:
        """Of the wire, None if it is a cable."""
        if not self.rate:
            return None
        rate, rtt = self.rate * MBIT, self.rtt / 1e3
        return Conditions(rtt / 2, self.loss / 100, rate, round(rate * rtt))

    def __str__(self) -> str:
        if not self.rate:
            return "cable, 1500 bytes"
        return f"{self.rate:g} Mbit/s, {self.rtt:g} ms, {self.loss:g} %"


def use(host: Host, gateway: str, congestion: str) -> None:
    """Have TCP connections of a host use that congestion control of the kernel's."""
    # A namespace may not choose from all that the system has, but a route may.
    host.ip(f"route change default via {gateway} dev wan congctl {congestion}")


@contextlib.contextmanager
def laboratory(link: Link, congestion: str) -> Iterator[Ends]:
    """Two hosts with the link between them."""
    with Lab() as lab:
        topology = Topology(lab)
        far = topology.site("far")
        near = topology.site("near", conditions=link.conditions)
        lab.start_wires()
        for site in (near, far):
            site.host.ip("link set lo up")
            if congestion:
                use(site.host, f"{site.address.rpartition('.')[0]}.1", congestion)
        yield Ends(Place(near.host.prefix, near.address), Place(far.host.prefix, far.address))


def rate(kind: type[Tunnel], link: Link, congestion: str, seconds: float) -> Figures:
    """One upload. Raises ProcessError, OSError."""
    with laboratory(link, congestion) as ends, opened(kind, ends) as (tunnel, client):
        used = tunnel.cpu_seconds()
        upload = client.run("upload", seconds=seconds)
        used = tunnel.cpu_seconds() - used
    mbit = upload["bytes"] / upload["seconds"] / MBIT
    return {
        "Mbit/s": mbit,
        "of the link %": 100 * mbit / link.rate if link.rate else None,
        "cpu_s/GB": used / upload["bytes"] * 1e9 if tunnel.processes else None,
    }


def latency(kind: type[Tunnel], link: Link, congestion: str, seconds: float) -> Figures:
    """100-byte requests, one after the other, beside nothing. Raises ProcessError, OSError."""
    count = max(10, round(seconds * 1000 / (link.rtt or 1)))
    with laboratory(link, congestion) as ends, opened(kind, ends) as (_, client):
        echo = client.run("echo", count=count)
    return {"p50_ms": echo["p50_us"] / 1e3, "p99_ms": echo["p99_us"] / 1e3}


def cases(kinds: Sequence[type[Tunnel]], options: argparse.Namespace) -> dict[str, Case]:
    """What to measure, by link and tunnel."""
    measure = latency if options.latency else rate
    found: dict[str, Case] = {}
    for link in map(Link.parse, options.link or LINKS):
        for kind in kinds:
            for congestion in KERNEL if kind in (Tunnel, Ssh) else [""]:
                name = f"{link} | {kind.name}{congestion and f' over {congestion}'}"
                found[name] = partial(measure, kind, link, congestion, options.seconds)
    return found


def rows(found: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """A row a case."""
    for name, figures in found.items():
        link, _, tunnel = name.partition(" | ")
        yield {"link": link, "tunnel": tunnel, **figures}


class Cubic(P2PNet):
    """p2pnet with the controller that most of the others have."""

    name = "p2pnet, cubic"
    settings = {"congestion": "cubic"}


def main() -> None:
    """Print a table."""
    options = parser(__doc__)
    options.add_argument("--link", action="append", metavar="RATE:RTT:LOSS", help="Mbit/s, ms, %%")
    options.add_argument("--rounds", type=int, default=1, help="how often each is measured")
    options.add_argument("--seconds", type=float, default=10.0, help="of an upload, or of requests")
    options.add_argument("--latency", action="store_true", help="of small requests, not the rate")
    options.add_argument("--only", action="append", help="part of a name; may be repeated")
    arguments = options.parse_args()
    acquire()
    only = arguments.only or [""]
    every: tuple[type[Tunnel], ...] = (Tunnel, P2PNet, Cubic, *PEERS)
    kinds = [k for k in every if any(part in k.name for part in only)]
    usable, versions = prepare(kinds)
    found = alternate(cases(usable, arguments), arguments.rounds)
    title = "Requests over a link" if arguments.latency else "Uploads over a link"
    show({title: rows(found), "Versions": [versions]}, arguments.json)


if __name__ == "__main__":
    main()
