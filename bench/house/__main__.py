"""Print figures of the structure of p2pnet beside those of 47920a3 and the goals.

::

    python -m bench.house            (make figures)
    python -m bench.house TREE       of another checkout
    python -m bench.house --json

The figures: import circles of all rooms, attributes of classes, attributes that hold an owner,
sizes of files and functions, docstrings of few words, lines that the wheel ships, and the trips of
datagrams (bench/house/trips.py). Only circles and lines include the laboratory. This program
measured bench/house/before.json at 47920a3.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.house import trips
from bench.house.circles import circles
from bench.house.source import classes, functions, largest, modules, owners, terse
from p2pnet.testing.processes import ProcessError

CHECKOUT = Path(__file__).absolute().parents[2]
BEFORE = Path(__file__).with_name("before.json")
GOALS: Mapping[str, int] = {
    "imports that close a circle": 0,
    "attributes of the largest class": 12,
    "attributes that hold an owner": 0,
    "lines of the longest file": 400,
    "lines of the longest function": 50,
    "public docstrings of four words or fewer": 0,
    "laboratory in the wheel, lines": 0,
    "check at the agent: files": 11,
    "check at the agent: moves": 25,
    "relayed data at the agent: files outside quic": 10,
    **{f"relayed data at the agent: {name}()": 1 for name in trips.ONCE},
}
"""The largest value that each figure is to have."""
COLUMNS = {
    "files": "files", "files_outside_quic": "files outside quic", "moves": "moves",
    "calls": "calls",
}  # fmt: skip
"""The figures of a trip, with their headings."""
SHOWN = 5  # of the largest
TRIPS_TIMEOUT = 300.0  # seconds
LABORATORY = ("p2pnet/lab/", "p2pnet/cli/lab", "p2pnet/cli/bench")


def is_laboratory(place: str) -> bool:
    """Return whether a file of the package belongs to the laboratory."""
    return place.startswith(LABORATORY)


def lines(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text().splitlines())


def sources(checkout: Path) -> dict[str, Any]:
    """Return the figures of the syntax trees, and the places behind them."""
    trees = {
        path.relative_to(checkout).as_posix(): tree for path, tree in modules(checkout / "p2pnet")
    }
    shipped = [*(checkout / "p2pnet").rglob("*.py"), *(checkout / "twisted").rglob("*.py")]
    length = {path.relative_to(checkout).as_posix(): lines(path) for path in shipped}
    ours = {place: tree for place, tree in trees.items() if not is_laboratory(place)}
    found = [each for place, tree in ours.items() for each in classes(tree, place)]
    by_attributes, held = largest(found), owners(found)
    files = sorted(((length[place], place) for place in ours), reverse=True)
    longest = sorted(
        (
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{place} {node.name}")
            for place, tree in ours.items()
            for node in functions(tree)
        ),
        reverse=True,
    )
    few = [f"{place}:{name}" for place, tree in ours.items() for name in terse(tree)]
    laboratory = sum(size for place, size in length.items() if is_laboratory(place))
    outside = sum(map(lines, (checkout / "lab").rglob("*.py")))
    return {
        "figures": {
            "attributes of the largest class": by_attributes[0][0],
            "classes of more than 12 attributes": sum(size > 12 for size, _ in by_attributes),
            "attributes that hold an owner": len(held),
            "lines of the longest file": files[0][0],
            "lines of the longest function": longest[0][0],
            "public docstrings of four words or fewer": len(few),
            "shipped, lines": sum(length.values()),
            "laboratory in the wheel, lines": laboratory,
            "laboratory outside the wheel, lines": outside,
        },
        "largest classes": by_attributes[:SHOWN],
        "owners": held,
        "longest files": files[:SHOWN],
        "longest functions": longest[:SHOWN],
        "docstrings of few words": few,
    }


def measured_trips(checkout: Path) -> dict[str, Any]:
    """Return the trips through the nodes of a checkout by name. Raises ProcessError."""
    command = ["env", f"PYTHONPATH={checkout}", sys.executable, str(trips.__file__)]
    done = subprocess.run(
        command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=TRIPS_TIMEOUT,
    )  # fmt: skip
    if done.returncode:
        raise ProcessError(f"the trips failed\n{done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def flat(found: Mapping[str, Any]) -> dict[str, int]:
    """Return those figures of trips that have a goal, by one name each."""
    figures = {}
    for name, trip in found.items():
        for column, title in COLUMNS.items():
            figures[f"{name}: {title}"] = trip[column]
        for function, count in trip["once"].items():
            figures[f"{name}: {function}()"] = count
    return {name: figure for name, figure in figures.items() if name in GOALS}


def measure(checkout: Path) -> dict[str, Any]:
    """Measure a checkout. Raises ProcessError."""
    number, named = circles(checkout)
    found = sources(checkout)
    walked = measured_trips(checkout)
    found["figures"] = {
        "imports that close a circle": number, **found["figures"], **flat(walked),
    }  # fmt: skip
    return {**found, "circles": named, "trips": walked}


def show(found: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Print the tables, and the places behind the figures."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table(title="The house")
    table.add_column("figure")
    for heading in ("at 47920a3", "now", "goal"):
        table.add_column(heading, justify="right")
    table.add_column("reached")
    for name, now in found["figures"].items():
        goal, was = GOALS.get(name), before["figures"].get(name, "-")
        table.add_row(
            name, str(was), str(now), "" if goal is None else f"<= {goal}",
            "" if goal is None else "yes" if now <= goal else "no",
        )  # fmt: skip
    console.print(table)
    table = Table(title="Trips of a datagram: at 47920a3, now")
    for heading in ("trip", *COLUMNS.values()):
        table.add_column(heading, justify="left" if heading == "trip" else "right")
    for name, trip in found["trips"].items():
        was = before["trips"].get(name, {})
        cells = (f"{was.get(column, '-')}, {trip[column]}" for column in COLUMNS)
        table.add_row(name, *cells)
    console.print(table)
    for heading in ("circles", "owners"):
        console.print(f"{heading}: {', '.join(found[heading]) or 'none'}", soft_wrap=True)
    for name, trip in found["trips"].items():
        if name.startswith("relayed data"):
            repeated = ", ".join(trip["repeated_outside_quic"])
            console.print(f"{name}, more than once: {repeated}", soft_wrap=True)
    for heading in ("largest classes", "longest files", "longest functions"):
        places = (f"{place} {size}" for size, place in found[heading])
        console.print(f"{heading}: {', '.join(places)}", soft_wrap=True)


def main() -> int:
    """Print the figures; returns the exit status, 1 if a measurement failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.house", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("tree", nargs="?", type=Path, default=CHECKOUT, metavar="TREE",
                        help="another checkout")  # fmt: skip
    arguments = parser.parse_args()
    try:
        found = measure(arguments.tree.absolute())
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found, json.loads(BEFORE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
