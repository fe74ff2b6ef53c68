"""Figures of a benchmark: medians over rounds, tables, JSON, and what they were measured on.

A row is a dictionary from the name of a column to text, a number or a Spread. Tables are Markdown,
so that what is printed can be put into a document as it is.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from p2pnet.testing.processes import ProcessError

Row = Mapping[str, Any]
Figures = Mapping[str, float | None]
Case = Callable[[], Figures]
PACKAGES = ("p2pnet", "aioquic", "twisted", "cryptography")


class Spread(NamedTuple):
    """What several rounds came to."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return number(self.median)
        return f"{number(self.median)} [{number(self.least)}..{number(self.most)}]"


WIDTHS = {str: 26, Spread: 18}  # columns at least; rows are printed before the widest is known


def spread(values: Sequence[float]) -> Spread:
    """The Spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def summarize(rounds: Sequence[Figures]) -> dict[str, Spread | None]:
    """A Spread for each figure of the rounds, None for one that no round has."""
    values = {
        name: [value for figures in rounds if (value := figures.get(name)) is not None]
        for name in rounds[0]
    }
    return {name: spread(found) if found else None for name, found in values.items()}


def ratio(ours: float | None, other: float | None) -> float | None:
    """One by the other; None if there is not both, or where the clock was too coarse."""
    return ours / other if ours is not None and other else None


def print_error(line: str) -> None:
    """Print on standard error, where progress goes."""
    print(line, file=sys.stderr, flush=True)


def alternate(
    cases: Mapping[str, Case], rounds: int, tell: Callable[[str], object] = print_error
) -> dict[str, dict[str, Spread | None]]:
    """Measure each case in turn, so many times, the order turned round each time.

    The machine changes from minute to minute, so that only cases that took turns can be compared.
    One that raises ProcessError or OSError is told of and left out for that round.
    """
    found: dict[str, list[Figures]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            tell(f"round {turn + 1} of {rounds}: {name}")
            try:
                found[name].append(cases[name]())
            except (ProcessError, OSError) as error:
                tell(f"{name} failed: {error}")
    return {name: summarize(figures) for name, figures in found.items() if figures}


def number(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.6f}"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    match value:
        case None:
            return "-"
        case Spread():
            return str(value)
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case list() | tuple():
            return " ".join(map(cell, value))
    return str(value).replace("|", r"\|")


def table(rows: Iterable[Row]) -> Iterable[str]:
    """The lines of a Markdown table, each as soon as its row is there."""
    widths: list[int] = []
    for row in rows:
        cells = [cell(value) for value in row.values()]
        if not widths:
            headings = [name.replace("_", " ") for name in row]
            least = [WIDTHS.get(type(value), 8) for value in row.values()]
            widths = [
                max(len(heading), width) for heading, width in zip(headings, least, strict=True)
            ]
            yield _line(headings, widths)
            yield _line(["-" * width for width in widths], widths)
        yield _line(cells, widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def show(tables: Mapping[str, Iterable[Row]], as_json: bool) -> None:
    """Print tables by their titles, each row as it is measured; or one JSON object.

    The object says where and when too, and has a Spread as a list of median, least and most.
    """
    if as_json:
        found = {title: list(rows) for title, rows in tables.items()}
        print(json.dumps({**environment(), "tables": found}))
        return
    for title, rows in tables.items():
        print(f"\n{title}\n")
        for line in table(rows):
            print(line, flush=True)


def environment() -> dict[str, Any]:
    """The machine, the versions, the time, and how busy the machine was."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg(),
    }


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def parser(description: str | None) -> argparse.ArgumentParser:
    """For a benchmark with that docstring: what all of them take."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
