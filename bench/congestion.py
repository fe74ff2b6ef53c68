"""Congestion controllers at a simulated bottleneck: python -m bench.congestion [--json]

The real QUIC code on virtual time (tests/quic/bbr/bottleneck.py), so that the figures do not depend
on the machine, only the time that they take does. Loss is random and the same both ways, the buffer
one BDP unless said. Utilisation is that of the whole run, start-up included, as a share of the
stream data that the link can carry; retransmission is the share of bytes that was declared lost.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.report import Row, parser, show
from tests.quic.bbr.bottleneck import MBIT, Bottleneck, Link

LOSSES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)
SETTLED = 0.4  # share of a run of two flows after which they are compared


class Case(NamedTuple):
    """A row: what the link is, and for how much of the time given it is used."""

    name: str
    link: Callable[[], Link]
    share: float = 1.0


def single() -> Iterator[Case]:
    """Links for one flow."""
    for loss in LOSSES:
        yield Case(f"100M 40ms {loss:.1%}", partial(Link, 100 * MBIT, 0.04, loss=loss))
    for loss in (0.0, 0.01):
        yield Case(f"20M 200ms {loss:.1%}", partial(Link, 20 * MBIT, 0.2, loss=loss), 2.0)
    yield Case("500M 20ms 0.0%", lambda: Link(500 * MBIT, 0.02), 0.4)
    yield Case("20M 40ms bursts 1%", lambda: Link(20 * MBIT, 0.04, loss=0.01, burst=15))
    yield Case("40M 40ms policed to 20M", lambda: Link(40 * MBIT, 0.04, policer=20 * MBIT))
    yield Case("20M 40ms acks each 20ms", lambda: Link(20 * MBIT, 0.04, bunching=0.02))
    yield Case("20M 40ms buffer 1/4 BDP", lambda: Link(20 * MBIT, 0.04, buffer=25_000))
    yield Case("20M 40ms buffer 4 BDP", lambda: Link(20 * MBIT, 0.04, buffer=400_000))
    yield Case("100M 1ms", lambda: Link(100 * MBIT, 0.001))


def shared() -> Iterator[Case]:
    """Links for two flows, which tell the same at any rate."""
    for bdps in (1, 2, 4):
        yield Case(
            f"20M 40ms buffer {bdps} BDP",
            partial(Link, 20 * MBIT, 0.04, buffer=bdps * 20 * MBIT * 0.04),
            2.0,
        )


def measure(case: Case, congestion: tuple[str, ...], seconds: float, seed: int) -> Row:
    """Run a case; returns a row of figures."""
    began = time.process_time()
    bottleneck = Bottleneck(case.link(), *congestion, starts=2.0, seed=seed)
    end = seconds * case.share
    begin = end * SETTLED if len(congestion) > 1 else 0.0
    bottleneck.run(end)
    return {
        "link": case.name,
        "congestion": "+".join(congestion),
        "seconds": end,
        "utilisation_%": [100 * u for u in bottleneck.utilisation(begin, end)],
        "queue_ms": 1e3 * bottleneck.queueing(begin, end),
        "retransmitted_%": [100 * r for r in bottleneck.retransmitted()],
        "cpu_seconds": time.process_time() - began,
    }


def rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """All that was asked for."""
    for case in single():
        for name in arguments.controllers:
            if arguments.only in case.name:
                yield measure(case, (name,), arguments.seconds, arguments.seed)
    for case in shared():
        for pair in (("bbr", "cubic"), ("bbr", "bbr"), ("cubic", "cubic")):
            if arguments.only in f"{'+'.join(pair)} {case.name}":
                yield measure(case, pair, arguments.seconds, arguments.seed)


def main() -> None:
    """Print each row as it is measured."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=10.0, help="of virtual time a run")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", default="", help="part of the names of cases to run")
    options.add_argument("--controllers", nargs="+", default=["bbr", "cubic"])
    arguments = options.parse_args()
    show({"Congestion controllers, simulated": rows(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
