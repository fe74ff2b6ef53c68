"""Run trial over the tests and end with one plain line: ``N passed, N failed, N skipped``.

::

    python -m tests.run [-j N] [-v] [tests.wire | tests/config | tests.test_x.FooTests.test_y ...]
    python -m tests.run --quic stock --udp plain

The exit status is 0 only if something ran (a skipped test did not) and nothing failed. An error
counts as failed, and so does a test that was expected to fail and did not; one that failed as
expected counts as skipped.
With ``-j`` each test file runs in a process of its own, N at a time, the longest first. A line for
each file tells how it ended; its output follows if a test failed (``-v``: always).
``--quic`` and ``--udp`` are for all nodes whose test does not say otherwise.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

_LINE = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)
# Seconds that each test file took the last time, by module.
DURATIONS = Path("build/test-durations.json")
# Where files of unknown duration are long: they start before the others.
LONG = (
    "tests.integration",
    "tests.lab",
    "tests.quic",
    "tests.bench",
    "tests.net.workers",
    "tests.test_",
)
# What most test files import. None of these imports the reactor, which processes cannot share.
PRELOADED = ("p2pnet.assembly", "p2pnet.testing.processes", "p2pnet.testing.realm")


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


def run_here(names: Sequence[str], quic: str, udp: str) -> Counts:
    """Run the named tests in this process. A module that cannot be imported counts as failed."""
    if (quic, udp) != ("fast", "auto"):
        importlib.import_module("tests.switches").turn(quic, udp)
    suite = TestLoader().loadByNames(list(names), recurse=True)
    return count(TrialRunner(TreeReporter).run(suite))


def report(counts: Counts) -> int:
    """Print the last line; return the exit status."""
    ran = counts.passed + counts.failed
    if not ran:
        print("No test ran, which is a failure.")
    print(counts, flush=True)
    return 1 if counts.failed or not ran else 0


def find_files(name: str) -> Iterator[str]:
    """The test modules in a package; any other name is returned as it is."""
    directory = Path(*name.split("."))
    if not directory.is_dir():
        yield name
    for path in sorted(directory.rglob("test_*.py")):
        yield ".".join(path.with_suffix("").parts)


def preload() -> None:
    """Do once what each forked process would do: import PRELOADED, start Hypothesis."""
    with contextlib.suppress(Exception):  # the tests of a module report that its import fails
        for name in PRELOADED:
            importlib.import_module(name)
    # The first property of a process reads the constants in the source of every imported module.
    hypothesis.settings(max_examples=1)(hypothesis.given(strategies.text())(lambda text: None))()
    gc.freeze()  # else each process copies all objects in its first collection


class Run(NamedTuple):
    """A test file under way in a process of its own."""

    name: str
    output: Any
    started: float

    def finish(self, status: int, verbose: bool) -> tuple[Counts, str]:
        """The counts of the ended process, and its output, as far as it is to be shown."""
        self.output.seek(0)
        text = self.output.read().decode(errors="replace")
        self.output.close()
        lines = list(_LINE.finditer(text))
        counts = Counts(*map(int, lines[-1].groups())) if lines else Counts(0, 0, 0)
        body = text[: lines[-1].start()] if lines else text
        if not lines or (status and counts.passed and not counts.failed):
            body += f"{self.name} ended with status {status} and no report of a failure\n"
            counts = counts._replace(failed=1)
        if not verbose and not counts.failed:
            # The reasons of skipped tests come last, behind lines of "=".
            body = body[body.find("\n====") + 1 :] if counts.skipped else ""
        return counts, body


class Runner:
    """Runs test files in forked processes, which need not import the same modules again."""

    def __init__(self, names: Sequence[str], options: argparse.Namespace) -> None:
        self.options = options
        try:
            self.durations: dict[str, float] = json.loads(DURATIONS.read_text())
        except (OSError, ValueError):
            self.durations = {}
        files = dict.fromkeys(file for name in names for file in find_files(name))
        self.waiting = sorted(files, key=self._expected, reverse=True)
        self.total = len(self.waiting)
        self.running: dict[int, Run] = {}
        self.ended: list[Counts] = []
        self.failed: list[str] = []

    def _expected(self, name: str) -> float:
        return self.durations.get(name, 60.0 if name.startswith(LONG) else 1.0)

    def run(self) -> Counts:
        """Run all files and return the sum of their counts."""
        self.waiting.reverse()
        preload()
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.options.jobs:
                self._start(self.waiting.pop())
            pid, status = os.wait()
            self._finish(self.running.pop(pid), os.waitstatus_to_exitcode(status))
        DURATIONS.parent.mkdir(exist_ok=True)
        DURATIONS.write_text(json.dumps(self.durations, indent=1, sort_keys=True) + "\n")
        for name in self.failed:
            print(f"FAILED: {name}")
        return Counts(*map(sum, zip(*self.ended, strict=True))) if self.ended else Counts(0, 0, 0)

    def _start(self, name: str) -> None:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            self.running[pid] = Run(name, output, time.monotonic())
            return
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output.fileno(), 1), (output.fileno(), 2)):
            os.dup2(source, target)
        sys.exit(report(run_here([name], self.options.quic, self.options.udp)))

    def _finish(self, run: Run, status: int) -> None:
        counts, body = run.finish(status, self.options.verbose)
        self.ended.append(counts)
        seconds = time.monotonic() - run.started
        self.durations[run.name] = round(seconds, 1)
        if counts.failed:
            self.failed.append(run.name)
        parts = [f"{counts.passed} passed"]
        parts += [f"{counts.failed} failed"] if counts.failed else []
        parts += [f"{counts.skipped} skipped"] if counts.skipped else []
        where = f"[{len(self.ended)}/{self.total}]"
        print(f"{where} {run.name} {', '.join(parts)} {seconds:.1f} s\n{body}", end="", flush=True)


def main(arguments: Sequence[str]) -> int:
    """The exit status of a run with these command-line arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.run")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="test files run at a time")
    parser.add_argument("-v", "--verbose", action="store_true", help="with -j: show all output")
    parser.add_argument("--quic", choices=("fast", "stock"), default="fast")
    parser.add_argument("--udp", choices=("auto", "plain"), default="auto")
    parser.add_argument("names", nargs="*", default=["tests"], help="what to run, dotted or a path")
    options = parser.parse_args(arguments)
    # No deadline: other processes may hold the machine. In CI a run is the same as the last one.
    hypothesis.settings.register_profile("p2pnet", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("p2pnet")
    names = [name.removesuffix(".py").strip("/").replace("/", ".") for name in options.names]
    if options.jobs > 1:
        return report(Runner(names, options).run())
    return report(run_here(names, options.quic, options.udp))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
