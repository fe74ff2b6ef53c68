"""The comparison of two checkouts: its statistics, its checkouts, and one small run of it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.pair.cases import CASES
from bench.pair.ratios import compare, interval
from bench.pair.trees import CHECKOUT, Tree, tree
from p2pnet.testing.processes import ProcessError

RUN_TIMEOUT = 300.0  # seconds
FIGURES = {
    ("requests", "p50_us"), ("requests", "p99_us"), ("requests", "cpu_us"),
    ("up-relayed", "MB/s"), ("up-relayed", "cpu_s/GB"),
    ("down", "MB/s"), ("down", "cpu_s/GB"),
    ("opening", "p50_ms"), ("opening", "cpu_ms"),
    ("opening-many", "per_second"), ("opening-many", "cpu_ms"),
    ("cold", "ms"), ("cold", "cpu_ms"),
    ("handshakes", "per_cpu_second"), ("handshakes-known", "per_cpu_second"),
    *(("memory", f"{role}_{kind}_MB")
      for role in ("agent", "connector", "relay") for kind in ("rss", "pss")),
}  # fmt: skip


class RatioTests(SynchronousTestCase):
    """Medians of paired ratios."""

    def test_an_interval_is_the_same_each_time(self) -> None:
        """The draws come from a seed."""
        values = [0.9, 1.0, 1.1, 1.3, 0.8]
        self.assertEqual(interval(values), interval(values))
        low, high = interval(values)
        self.assertTrue(0.8 <= low <= 1.0 <= high <= 1.3)

    def test_more_values_make_a_narrower_interval(self) -> None:
        """Of the same spread."""
        few, many = [0.9, 1.0, 1.1, 0.95, 1.05], [0.9, 1.0, 1.1, 0.95, 1.05] * 20
        self.assertLess(*(high - low for low, high in map(interval, (many, few))))

    def test_a_cost_that_falls_is_better(self) -> None:
        """Pairs are compared, not medians: a slow moment of the machine meets both."""
        found = compare("p50_us", [(100, 50), (1000, 500), (10, 5)] * 2)
        self.assertEqual((100, 50, 0.5, 0.5, 0.5, 6), found)
        self.assertEqual("better", found.verdict)

    def test_a_rate_that_falls_is_worse(self) -> None:
        """Its ratio is that of the costs."""
        found = compare("MB/s", [(100, 50)] * 6)
        self.assertEqual((100, 50, 2.0, "worse"), (*found[:3], found.verdict))

    def test_an_interval_around_one_says_nothing(self) -> None:
        """Neither better nor worse; nor does one of few pairs."""
        self.assertEqual("-", compare("p50_us", [(1, 2)] * 5).verdict)
        self.assertEqual("-", compare("p50_us", [(1, 1.1), (1, 0.9), (1, 1.0)] * 2).verdict)

    def test_pairs_without_a_ratio_are_refused(self) -> None:
        """A clock that did not move is no cost."""
        self.assertRaises(ValueError, compare, "cpu_us", [(0.0, 1.0)])


class TreeTests(SynchronousTestCase):
    """Processes belong to one checkout."""

    def test_a_path_is_a_checkout(self) -> None:
        """Whose own p2pnet its processes import."""
        self.assertEqual(CHECKOUT, tree(str(CHECKOUT)).path)

    def test_an_unknown_name_is_refused(self) -> None:
        """With git's own complaint; a name cannot be an option of git either."""
        for name in ("no-such-revision", "--help"):
            self.assertIn(name, str(self.assertRaises(ProcessError, tree, name)))

    def test_a_checkout_whose_processes_would_import_another_is_refused(self) -> None:
        """Such as a directory without p2pnet, beside an installed one."""
        with tempfile.TemporaryDirectory() as directory:
            empty = Tree("empty", Path(directory), "")
            self.assertRaises(ProcessError, empty.verify)


class RunTests(SynchronousTestCase):
    """One run, of this checkout beside itself."""

    def test_all_figures_are_reported(self) -> None:
        """Each with its interval; nothing is asserted of the values."""
        command = [
            sys.executable, "-m", "bench.pair", str(CHECKOUT), str(CHECKOUT), "--json",
            "--rounds=1", "--batches=2", "--seconds=0.01", "--requests=4", "--connections=2",
            "--nodes=2",
            "--cases", *sorted({case for case, _ in FIGURES}),
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, timeout=RUN_TIMEOUT
        )
        self.assertEqual(0, done.returncode, done.stderr)
        rows = json.loads(done.stdout)["rows"]
        self.assertEqual(FIGURES, {(row["case"], row["figure"]) for row in rows})
        for row in rows:
            self.assertGreaterEqual(row["pairs"], 1, row)
            self.assertTrue(0 < row["low"] <= row["ratio"] <= row["high"], row)

    def test_cases_have_names_for_the_command_line(self) -> None:
        """In one word."""
        for name in CASES:
            self.assertRegex(name, r"^[a-z0-9-]+$")
