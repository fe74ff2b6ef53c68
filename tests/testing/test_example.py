"""The example of docs/testing.md: a program of a user's, and its tests, as a user runs them."""

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

EXAMPLES = Path(__file__).absolute().parents[2] / "docs" / "examples"
TIMEOUT = 300  # seconds; it takes two on a quiet machine


class ExampleTests(SynchronousTestCase):
    """trial, away from the checkout."""

    def test_the_tests_of_the_example_pass(self) -> None:
        """Each of them ran."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("thermometer.py", "test_thermometer.py"):
            shutil.copy(EXAMPLES / name, directory)
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", "test_thermometer"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("PASSED (successes=5)", done.stdout)
