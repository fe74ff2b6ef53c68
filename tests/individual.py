"""Coverage of each module by its own test file alone: ``python -m tests.individual [-j N]``.

The test file of ``p2pnet/X/y.py`` is ``tests/X/test_y.py``. Prints a table of branch coverage, and
fails if a module of ROOMS has less than GOAL percent, or has no test file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOMS = (Path("p2pnet/core/peer"), Path("p2pnet/traversal"))
GOAL = 90.0


class Figure(NamedTuple):
    """Percent of a module's lines and branches that its test file covers, and what went wrong."""

    module: Path
    percent: float
    problem: str = ""

    def __str__(self) -> str:
        mark = " " if self.percent >= GOAL and not self.problem else "!"
        return f"{mark} {self.percent:6.1f} %  {self.module}  {self.problem}".rstrip()


def test_file(module: Path) -> Path:
    """Where the tests of the module are."""
    return Path("tests", *module.parent.parts[1:], f"test_{module.name}")


def measure(module: Path) -> Figure:
    """Run the module's test file under coverage, in a process of its own."""
    tests = test_file(module)
    if not tests.exists():
        return Figure(module, 0.0, f"there is no {tests}")
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "COVERAGE_FILE": f"{directory}/data"}
        coverage = [sys.executable, "-m", "coverage"]
        run = [*coverage, "run", "--branch", f"--include={module}", "-m", "tests.run", str(tests)]
        done = subprocess.run(
            run, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        report = f"{directory}/report.json"
        subprocess.run(
            [*coverage, "json", "-q", "-o", report], env=environment, capture_output=True
        )
        try:
            percent = float(json.loads(Path(report).read_text())["totals"]["percent_covered"])
        except OSError:  # nothing of the module was run
            percent = 0.0
        return Figure(module, percent, "its tests fail" if done.returncode else "")


def main(arguments: list[str]) -> int:
    """The exit status: 0 if every module reaches GOAL."""
    parser = argparse.ArgumentParser(prog="python -m tests.individual")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="test files run at a time")
    options = parser.parse_args(arguments)
    modules = [path for room in ROOMS for path in sorted(room.glob("*.py"))]
    modules = [path for path in modules if path.name != "__init__.py"]
    with ThreadPoolExecutor(options.jobs) as pool:
        figures = []
        for figure in pool.map(measure, modules):
            print(figure, flush=True)
            figures.append(figure)
    low = sum(figure.percent < GOAL or bool(figure.problem) for figure in figures)
    print(f"{low} of {len(figures)} modules are below {GOAL:.0f} % by their own tests")
    return 1 if low or not figures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
