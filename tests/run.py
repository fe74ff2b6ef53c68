"""Run trial over the tests and end with one plain line: ``N passed, N failed, N skipped``.

::

    python -m tests.run [-j N] [tests.wire | tests/config | tests.test_x.FooTests.test_y ...]
    python -m tests.run --quic stock --udp plain

The exit status is 0 only if something ran (a skipped test did not) and nothing failed. An error
counts as failed, and so does a test that was expected to fail and did not; one that failed as
expected counts as skipped.
With ``-j`` each test file runs in a process of its own, N at a time. ``--quic`` and ``--udp`` are
for all nodes whose test does not say otherwise.
"""

import argparse
import functools
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

_LINE = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


class Counts(NamedTuple):
    """How many tests ended how."""

    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count(result: Any) -> Counts:
    """The counts of a trial reporter: each test once, however many errors it left behind."""
    bad = [*result.failures, *result.errors, *result.unexpectedSuccesses]
    failed = {id(entry[0]) for entry in bad}
    skipped = {id(entry[0]) for entry in [*result.skips, *result.expectedFailures]}
    return Counts(result.successes, len(failed), len(skipped - failed))


def run_here(names: Sequence[str]) -> Counts:
    """Run the named tests in this process. What cannot be imported counts as failed."""
    suite = TestLoader().loadByNames(list(names), recurse=True)
    return count(TrialRunner(TreeReporter).run(suite))


def find_files(name: str) -> Iterator[str]:
    """The test modules in a package; any other name is returned as it is."""
    directory = Path(*name.split("."))
    if not directory.is_dir():
        yield name
    for path in sorted(directory.rglob("test_*.py")):
        yield ".".join(path.with_suffix("").parts)


def run_apart(name: str, switches: Sequence[str]) -> Counts:
    """Run the named tests in a process of its own and print its output when it has ended."""
    command = [sys.executable, "-m", "tests.run", *switches, name]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = done.stdout.decode(errors="replace")
    lines = list(_LINE.finditer(output))
    counts = Counts(*map(int, lines[-1].groups())) if lines else Counts(0, 0, 0)
    body = output[: lines[-1].start()] if lines else output
    if not lines or (done.returncode and counts.passed and not counts.failed):
        body += f"{name} ended with status {done.returncode} and no report of a failure\n"
        counts = counts._replace(failed=1)
    print(f"==== {name}: {counts}\n{body}", flush=True)
    return counts


def main(arguments: Sequence[str]) -> int:
    """The exit status of a run with these command-line arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.run")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="test files run at a time")
    parser.add_argument("--quic", choices=("fast", "stock"), default="fast")
    parser.add_argument("--udp", choices=("auto", "plain"), default="auto")
    parser.add_argument("names", nargs="*", default=["tests"], help="what to run, dotted or a path")
    options = parser.parse_args(arguments)
    # No deadline: other processes may hold the machine. In CI a run is the same as the last one.
    hypothesis.settings.register_profile("p2pnet", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("p2pnet")
    names = [name.removesuffix(".py").strip("/").replace("/", ".") for name in options.names]
    if options.jobs > 1:
        files = [file for name in names for file in find_files(name)]
        with ThreadPoolExecutor(options.jobs) as pool:
            switches = [f"--quic={options.quic}", f"--udp={options.udp}"]
            run = functools.partial(run_apart, switches=switches)
            each = list(pool.map(run, dict.fromkeys(files)))
        counts = Counts(*map(sum, zip(*each, strict=True))) if each else Counts(0, 0, 0)
    else:
        if (options.quic, options.udp) != ("fast", "auto"):
            importlib.import_module("tests.switches").turn(options.quic, options.udp)
        counts = run_here(names)
    ran = counts.passed + counts.failed
    if not ran:
        print("No test ran, which is a failure.")
    print(counts, flush=True)
    return 1 if counts.failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
