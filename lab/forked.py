"""Role processes that fork from a process which has imported Twisted and p2pnet.

A start of `twistd` takes half a second of processor time, nearly all of it for imports. A forked
role runs the same code without them, so that a laboratory can start many roles.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from p2pnet.testing.processes import Deployment, RoleProcess, guarded, script

_PR_SET_PDEATHSIG = 1
_PRELOADED = [
    "lab.forked",
    "p2pnet.roles.agent_tap", "p2pnet.roles.agent",
    "p2pnet.roles.connector_tap", "p2pnet.roles.connector",
    "p2pnet.roles.intermediate_tap", "p2pnet.roles.intermediate",
    "twisted.internet.posixbase", "twisted.scripts.twistd",
]  # fmt: skip
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(_PRELOADED)


def _run_twistd(
    arguments: Sequence[str], directory: Path, output: Path, prefix: Sequence[str]
) -> None:
    """Do what the command `prefix`, ``twistd`` and `arguments` does, in a process just forked."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for path in (word.removeprefix("--net=") for word in prefix if word.startswith("--net=")):
        with open(path) as namespace:
            if library.setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns", path)
    os.chdir(directory)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["twistd", *arguments]
    from twisted.scripts.twistd import run

    run()


class _Forked:
    """A forked process with the methods of subprocess.Popen that `Process` calls."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        """The exit status, None while the process runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("twistd", timeout or 0.0)
        return status


class ForkedRole(RoleProcess):
    """A role that forks instead of starting twistd anew, unless its prefix is another program."""

    def start(self) -> Self:
        """Fork the process and return this object. Raises OSError."""
        at, guard = self._command.index(script("twistd")), len(guarded([]))
        prefix, arguments = self._command[guard:at], self._command[at + 1 :]
        if prefix and not any(word.startswith("--net=") for word in prefix):
            super().start()  # a limit, or a tool that watches
            return self
        process = _PROCESSES.Process(
            target=_run_twistd,
            args=(arguments, self.directory, self.output_path, prefix),
            daemon=True,
        )
        process.start()
        self._process = _Forked(process)
        return self


class ForkedDeployment(Deployment):
    """A deployment whose roles fork; on a host of a laboratory, by its prefix, or on this one."""

    role_process = ForkedRole
