"""All benchmarks that compare p2pnet with its peers: tables, JSON and plots.

::

    python -m bench --rounds 3        (make bench ROUNDS=3)
    python -m bench --brief           (make bench BRIEF=1)

    python -m bench lossy forward     those alone

Each is a process of its own. Figures go to build/bench: results.json, results.md and plots as SVG.
A benchmark that fails is told of, and the others go on; the exit status says it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import draw
from bench.peers.base import BUILD
from bench.report import Row, Spread, environment, print_error, table

BRIEF: Mapping[str, Sequence[str]] = {
    "forward": ("--seconds=1", "--echoes=300", "--connects=20"),
    "session": ("--agents=5", "--warm=10"),
    "growth": ("--megabytes=8", "--streams", "1", "10", "100"),
    "sessions": ("--frames=20000", "--sessions", "10", "100", "1000"),
    "handshakes": ("--nodes=100",),
    "relay": ("--frames=20000",),
    "udp": ("--seconds=0.5",),
    "lossy": ("--link=100:40:1", "--seconds=2", "--only=p2pnet", "--only=ssh"),
}
"""The benchmarks, in their order, and what makes a short run of each."""
USUAL = [name for name in BRIEF if name != "lossy"]  # which takes hours, and root
NO_ROUNDS = ("session",)

Tables = dict[str, list[dict[str, Any]]]


def run(name: str, options: Sequence[str]) -> Tables | None:
    """The tables of a benchmark, None if it failed."""
    print_error(f"==== bench.{name}")
    command = [sys.executable, "-m", f"bench.{name}", "--json", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode:
        print_error(f"bench.{name} ended with status {done.returncode}")
        return None
    tables: Tables = json.loads(done.stdout)["tables"]
    return tables


def with_spreads(row: Row) -> Row:
    """A row as it was before it was JSON."""
    return {
        name: Spread(*value) if isinstance(value, list) and len(value) == 3 else value
        for name, value in row.items()
    }


def markdown(results: Mapping[str, Any]) -> str:
    """All tables of the results."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    load = ", ".join(f"{value:.1f}" for value in results["load_average"])
    lines = [f"{results['machine']}; {versions}; {results['time']}; load average {load}."]
    for tables in results["benchmarks"].values():
        for title, rows in tables.items():
            lines += ["", f"### {title}", "", *table(with_spreads(row) for row in rows)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run them; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--brief", action="store_true", help="short runs, to see that all works")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument("names", nargs="*", default=USUAL, help=", ".join(BRIEF))
    options = parser.parse_args()
    began, benchmarks = time.monotonic(), {}
    for name in options.names:
        arguments = [] if name in NO_ROUNDS else [f"--rounds={options.rounds}"]
        benchmarks[name] = run(name, [*arguments, *(BRIEF[name] if options.brief else ())])
    results = {
        **environment(),
        "rounds": options.rounds,
        "minutes": (time.monotonic() - began) / 60,
        "benchmarks": {name: tables for name, tables in benchmarks.items() if tables},
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "results.json").write_text(json.dumps(results, indent=1))
    (BUILD / "results.md").write_text(markdown(results))
    draw(
        {t: rows for tables in results["benchmarks"].values() for t, rows in tables.items()}, BUILD
    )
    print(json.dumps(results) if options.json else markdown(results), end="")
    print_error(f"written to {BUILD}")
    return 1 if None in benchmarks.values() else 0


if __name__ == "__main__":
    sys.exit(main())
