"""Compare the checkout NEW with the checkout OLD while both run side by side.

::

    python -m bench.pair 47920a3 .
    python -m bench.pair 47920a3 . --cases requests opening --batches 40
    python -m bench.pair HEAD . --brief --json

OLD and NEW are paths of checkouts or revisions of this one; a revision is checked out below
build/pair and kept there. Both run under this interpreter. Each round starts a realm of processes
for each checkout. The two realms take short batches by turns, so that both meet the same state of
the machine. More batches average over moments, more rounds over the luck of a process's start. Each
batch gives a ratio: cost of NEW divided by cost of OLD. The cost of a rate is its inverse, so that
below 1 NEW is always better. The table has the median of the ratios with its bootstrap interval of
95 %.

requests: 100 bytes and as many back, on one connection. opening: a new connection for each request,
over an existing session. cold: the first connection of an Agent. up, down: bulk. memory: nodes with
an idle session. handshakes: at the Intermediate, each node with a certificate of its own;
handshakes-known: all with one.

All load comes from this checkout and goes to loopback. The cases "...-1452" run in a new network
namespace whose loopback has an MTU of 1500; they need root. The exit status is 1 if a case failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from bench.pair.case import Effort
from bench.pair.cases import CASES, SMALL_PACKETS
from bench.pair.ratios import Comparison, Pair, compare
from bench.pair.stage import Batch, Plan
from bench.pair.trees import CHECKOUT, Tree, tree
from bench.report import environment, number, print_error
from p2pnet.testing.processes import ProcessError, guarded

NAMESPACE = ("unshare", "--net", "sh", "-c", 'ip link set lo mtu 1500 up && exec "$@"', "sh")
WIDTH = 110  # columns where the output is no terminal
LIMIT = 3600.0  # seconds of a round

Found = dict[tuple[str, str], list[Pair]]
"""The pairs of each figure of each case."""


def has_namespaces() -> bool:
    """Return whether this process can make a network namespace."""
    return os.geteuid() == 0 and bool(shutil.which("unshare") and shutil.which("ip"))


def measure(plan: Plan, prefix: Sequence[str]) -> Mapping[str, Sequence[Batch]]:
    """Run a round of some cases in a new process behind `prefix`. Raises ProcessError."""
    with tempfile.TemporaryDirectory(prefix="pair-") as directory:
        plan = msgspec.structs.replace(plan, directory=directory)
        command = [
            *prefix, "env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "bench.pair.stage",
            msgspec.json.encode(plan).decode(),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                guarded(command), cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ProcessError(f"a round took more than {LIMIT:.0f} s") from None
    if done.returncode:
        raise ProcessError(f"bench.pair.stage ended with status {done.returncode}")
    return msgspec.json.decode(done.stdout, type=dict[str, list[Batch]])


def rounds(plan: Plan, count: int) -> Found:
    """Run all rounds of all cases; a round that fails goes to standard error."""
    stages = {
        (): [name for name in plan.cases if name in CASES],
        NAMESPACE: [name for name in plan.cases if name in SMALL_PACKETS],
    }
    found: Found = {}
    for turn in range(count):
        print_error(f"round {turn + 1} of {count}")
        for prefix, cases in stages.items():
            if not cases:
                continue
            try:
                measured = measure(msgspec.structs.replace(plan, cases=cases, turn=turn), prefix)
            except ProcessError as error:
                print_error(f"round {turn + 1} failed: {error}")
                continue
            for name, batches in measured.items():
                for old, new in batches:
                    for figure in old:
                        found.setdefault((name, figure), []).append((old[figure], new[figure]))
    return found


def rows(found: Found) -> Iterator[tuple[str, str, Comparison]]:
    """Yield case, figure and comparison of each figure."""
    for (name, figure), pairs in found.items():
        yield name, figure, compare(figure, pairs)


def show(trees: Sequence[Tree], compared: Sequence[tuple[str, str, Comparison]]) -> None:
    """Print the table."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    old, new = (f"{tree.name} {tree.commit}" for tree in trees)
    table = Table(title=f"NEW ({new}) beside OLD ({old})", caption="ratio: cost of NEW / OLD")
    table.add_column("case")
    table.add_column("figure")
    for heading in ("OLD", "NEW", "ratio", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    table.add_column("NEW is")
    for name, figure, found in compared:
        table.add_row(
            name, figure, number(found.old), number(found.new), f"{found.ratio:.3f}",
            f"{found.low:.3f} .. {found.high:.3f}", str(found.pairs), found.verdict,
        )  # fmt: skip
    console.print(table)


def options() -> argparse.Namespace:
    """Parse the command line."""
    usual = Effort()
    names = [*CASES, *SMALL_PACKETS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.pair", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--cases", nargs="+", choices=names, metavar="CASE", default=names,
                        help=f"some of {', '.join(names)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="starts of all processes (3)")
    parser.add_argument("--batches", type=int, default=20, help="batches of a case in a round (20)")
    parser.add_argument("--seconds", type=float, default=usual.seconds,
                        help=f"of a bulk batch, about ({usual.seconds})")  # fmt: skip
    parser.add_argument("--requests", type=int, default=usual.requests,
                        help=f"of a batch ({usual.requests})")  # fmt: skip
    parser.add_argument("--connections", type=int, default=usual.connections,
                        help=f"of a batch ({usual.connections})")  # fmt: skip
    parser.add_argument("--nodes", type=int, default=usual.nodes,
                        help=f"that connect in a batch of handshakes ({usual.nodes})")  # fmt: skip
    parser.add_argument("--brief", action="store_true", help="2 rounds of 3 small batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    found = parser.parse_args()
    if found.brief:
        found.rounds, found.batches, found.seconds = 2, 3, 0.1
        found.requests, found.connections, found.nodes = 40, 4, 8
    return found


def main() -> int:
    """Compare the checkouts; returns the exit status, 1 if a case has no figures."""
    arguments = options()
    cases = list(arguments.cases)
    if not has_namespaces():
        skipped = [name for name in cases if name in SMALL_PACKETS]
        cases = [name for name in cases if name not in skipped]
        if skipped:
            print_error(f"skipped for want of root, unshare or ip: {', '.join(skipped)}")
    try:
        trees = [tree(arguments.old), tree(arguments.new)]
    except ProcessError as error:
        print_error(str(error))
        return 1
    effort = Effort(arguments.requests, arguments.connections, arguments.seconds, arguments.nodes)
    plan = Plan(
        directory="", trees=[(t.name, str(t.path), t.commit) for t in trees], cases=cases,
        batches=arguments.batches, turn=0, effort=effort,
    )  # fmt: skip
    compared = list(rows(rounds(plan, arguments.rounds)))
    if arguments.json:
        print(json.dumps({
            **environment(),
            "old": trees[0]._asdict(), "new": trees[1]._asdict(),
            "rows": [
                {"case": name, "figure": figure, **found._asdict(), "verdict": found.verdict}
                for name, figure, found in compared
            ],
        }, default=str))  # fmt: skip
    else:
        show(trees, compared)
    return 0 if {name for name, _, _ in compared} == set(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
