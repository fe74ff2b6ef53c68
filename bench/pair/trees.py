"""The two checkouts, and the environment in which a process imports only one of them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from p2pnet.testing.processes import ProcessError

CHECKOUT = Path(__file__).absolute().parents[2]
BUILD = CHECKOUT / "build" / "pair"
IMPORT_TIMEOUT = 60.0  # seconds
ORIGIN = """
from importlib.util import find_spec
from twisted.plugins import p2pnet_plugin
print(find_spec("p2pnet").origin, p2pnet_plugin.__file__, sep="\\n")
"""


class Tree(NamedTuple):
    """A checkout.

    :ivar name: path or revision as the user wrote it.
    :ivar path: absolute path.
    :ivar commit: its abbreviated commit, with "+" if files differ from it, "" outside git.
    """

    name: str
    path: Path
    commit: str

    @property
    def prefix(self) -> list[str]:
        """The prefix of a command whose Python is to import this checkout's p2pnet."""
        return ["env", f"PYTHONPATH={self.path}"]

    @property
    def version(self) -> tuple[int, int]:
        """The major and minor version of the protocol that its nodes speak."""
        text = (self.path / "p2pnet" / "wire" / "messages.py").read_text()
        found = re.search(r"^VERSION = \((\d+), (\d+)\)", text, re.MULTILINE)
        if found is None:
            raise ProcessError(f"{self.name}: p2pnet/wire/messages.py names no VERSION")
        return int(found[1]), int(found[2])

    def verify(self) -> None:
        """Raise ProcessError unless Python and twistd find p2pnet in this checkout alone."""
        command = [*self.prefix, sys.executable, "-c", ORIGIN]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=IMPORT_TIMEOUT,
        )  # fmt: skip
        if done.returncode:
            raise ProcessError(f"{self.name}: p2pnet cannot be imported\n{done.stderr[-500:]}")
        for file in done.stdout.split("\n")[:2]:
            if not Path(file).is_relative_to(self.path):
                raise ProcessError(f"{self.name}: processes would import {file}, not {self.path}")


def git(*arguments: str, directory: Path = CHECKOUT) -> str:
    """Return the output of a git command. Raises ProcessError with the error message of git."""
    done = subprocess.run(
        ["git", "-C", os.fspath(directory), *arguments], stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise ProcessError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def tree(name: str) -> Tree:
    """Return the checkout at a path or of a revision.

    The first call for a revision adds a worktree below build/pair, which later calls use again.
    Raises ProcessError if `name` is neither, or if processes would not import the checkout.
    """
    path = Path(name).absolute()
    if not (path / "p2pnet").is_dir():
        path = _worktree(name)
    try:
        commit = git("rev-parse", "--short", "HEAD", directory=path)
        commit += "+" if git("status", "--porcelain", directory=path) else ""
    except ProcessError:
        commit = ""
    found = Tree(name, path.resolve(), commit)
    found.verify()
    return found


def _worktree(revision: str) -> Path:
    commit = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    path = BUILD / commit[:12]
    git("worktree", "prune")
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        git("worktree", "add", "--force", "--detach", os.fspath(path), commit)
    return path
