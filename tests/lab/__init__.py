"""Tests of the laboratory. Those that need network namespaces say why they are skipped."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lab.namespaces import find_obstacle, is_privileged
from p2pnet.testing.processes import run_to_end

ROOT = Path(__file__).absolute().parents[2]
TIMEOUT = 300  # seconds of a Deadline; the longest takes one minute on a quiet machine


@functools.cache
def obstacle() -> str:
    """Why there can be no laboratory, "" if there can; found out once."""
    return find_obstacle()


def lab(*arguments: str) -> Any:
    """What ``python -m lab ... --json`` prints, from a process of its own.

    Not in this one, which cannot leave a user namespace again.
    """
    command = [sys.executable, "-m", "lab", *arguments, "--json"]
    done = run_to_end(command, TIMEOUT, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not done.stdout:
        raise AssertionError(f"{command} ended with status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


class LabTestCase(SynchronousTestCase):
    """Skips where no laboratory can be built."""

    def setUp(self) -> None:
        if obstacle():
            raise SkipTest(obstacle())


class PrivilegedLabTestCase(LabTestCase):
    """Builds laboratories in this process."""

    def setUp(self) -> None:
        super().setUp()
        if not is_privileged():
            raise SkipTest("needs root, or: unshare --user --map-root-user --net <this command>")
