"""A forwarded TCP connection on loopback: p2pnet beside its peers, in alternating rounds.

::

    python -m bench.forward --rounds 3
    python -m bench.forward --only p2pnet --only ssh

Uploads of some seconds, 100-byte requests one after the other (alone, and beside an upload), and
connections from connecting to the first byte back. Processor time and memory are of both ends.
Peers are installed into build/bench the first time; what cannot be is skipped, and said.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from bench import stream
from bench.forwarding import Load, cases
from bench.peers import PEERS
from bench.report import Row, Spread, alternate, parser, print_error, ratio, show
from bench.tunnel import TUNNELS, Tunnel, Unavailable

Found = Mapping[str, Mapping[str, Spread | None]]


class Goal(NamedTuple):
    """What a figure of p2pnet, directly, is to be at least or at most.

    So many times that of `other`, or so much where that is None.
    """

    figure: str
    other: str | None
    value: float
    at_least: bool = True

    def row(self, found: Found) -> Row:
        """Whether it is reached in this run."""
        ours = found.get("p2pnet, direct", {}).get(self.figure)
        came_to = ours and ours.median
        if self.other is not None:
            other = found.get(self.other, {}).get(self.figure)
            came_to = ratio(came_to, other and other.median)
        return {
            "figure": self.figure,
            "times_that_of": self.other,
            "goal": f"{'>=' if self.at_least else '<='} {self.value:g}",
            "came_to": came_to,
            "reached": None if came_to is None else (came_to >= self.value) == self.at_least,
        }


GOALS = (
    Goal("MB/s", "aioquic, stock", 2.5),
    Goal("MB/s", stream.NAME, 0.9),
    Goal("MB/s", "iroh, as shipped", 10),
    Goal("MB/s", "iroh, fixed", 0.45),
    Goal("echo_p50_us", "iroh, fixed", 0.6, at_least=False),
    Goal("beside_bulk_p99_ms", None, 5, at_least=False),
)


def prepare(kinds: Sequence[type[Tunnel]]) -> tuple[list[type[Tunnel]], dict[str, str]]:
    """Install them. Returns those that can be used, and for each its version or why not."""
    usable, versions = [], {}
    for kind in kinds:
        print_error(f"preparing {kind.name}")
        try:
            versions[kind.name] = kind.prepare()
            usable.append(kind)
        except Unavailable as reason:
            versions[kind.name] = f"skipped: {reason}"
            print_error(f"{kind.name} is skipped: {reason}")
    return usable, versions


def measure(options: argparse.Namespace) -> tuple[Found, dict[str, str]]:
    """The figures by name, and the versions."""
    only = options.only or [""]
    kinds = [k for k in (*TUNNELS, *PEERS) if any(part in k.name for part in only)]
    usable, versions = prepare(kinds)
    runs = cases(usable, Load(options.seconds, options.echoes, options.connects))
    if any(part in stream.NAME for part in only):
        runs[stream.NAME] = partial(stream.measure, options.seconds)
    return alternate(runs, options.rounds), versions


def main() -> None:
    """Print a table of figures and one of goals."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    options.add_argument("--seconds", type=float, default=3.0, help="of an upload")
    options.add_argument("--echoes", type=int, default=1000, help="requests of a round")
    options.add_argument("--connects", type=int, default=40, help="connections of a round")
    options.add_argument("--only", action="append", help="part of a name; may be repeated")
    arguments = options.parse_args()
    found, versions = measure(arguments)
    columns = max(found.values(), key=len, default={})
    show(
        {
            "A forwarded connection": [
                {
                    "tunnel": name,
                    "version": versions.get(name),
                    **{column: found.get(name, {}).get(column) for column in columns},
                }
                for name in dict.fromkeys([*versions, *found])
            ],
            "Goals": [goal.row(found) for goal in GOALS],
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
