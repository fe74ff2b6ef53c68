"""What peers have in common: where they are installed, and how a pair of programs is a tunnel."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.tunnel import Tunnel, Unavailable, await_ready
from p2pnet.wire.address import Address

BUILD = Path(__file__).parents[2] / "build" / "bench"
PROGRAMS = Path(__file__).with_name("programs")
INSTALL_TIMEOUT = 600.0  # seconds


def install(command: Sequence[str | os.PathLike[str]]) -> None:
    """Run an installer. Raises Unavailable with the end of what it complained about."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=INSTALL_TIMEOUT,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"{' '.join(map(str, command))} failed: {' '.join(complaint)}")


def python_environment(requirement: str) -> Path:
    """The interpreter of a virtual environment with `requirement`. Raises Unavailable."""
    directory = BUILD / "peers" / requirement
    python = directory / "bin" / "python"
    if not (directory / "ready").exists():
        install([sys.executable, "-m", "venv", "--clear", directory])
        install([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", requirement])
        (directory / "ready").touch()
    return python


def node_modules(requirement: str) -> Path:
    """The directory of Node modules with `requirement`. Raises Unavailable."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable("node and npm are not installed (Debian: nodejs, npm)")
    directory = BUILD / "peers" / requirement
    if not (directory / "ready").exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_text(json.dumps({"private": True}))
        install([npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts",
                 "--prefix", directory, requirement])  # fmt: skip
        (directory / "ready").touch()
    return directory / "node_modules"


class Pair(Tunnel):
    """A program that is run at either end.

    ``PROGRAM far ADDRESS HOST PORT`` is found at ADDRESS and leads to the target HOST:PORT;
    it prints "ready WORD". ``PROGRAM near ADDRESS WORD`` connects to that, listens at ADDRESS
    and prints "ready PORT".

    :cvar arguments: of the program, for variants.
    """

    program: ClassVar[str]
    arguments: ClassVar[Sequence[str]] = ()

    @classmethod
    def command(cls) -> list[str]:
        """What runs the program."""
        return [sys.executable, str(PROGRAMS / cls.program), *cls.arguments]

    def start(self, target: Address) -> Address:
        """Start both."""
        near, far = self.ends.near, self.ends.far
        command = self.command()
        word = await_ready(
            self.run("far", [*command, "far", far.address, target[0], str(target[1])], far)
        )
        port = await_ready(self.run("near", [*command, "near", near.address, word], near))
        return near.address, int(port)


class PythonPair(Pair):
    """One that needs a package of PyPI, in an environment of its own.

    :cvar requirement: the package with its version.
    """

    requirement: ClassVar[str]

    @classmethod
    def prepare(cls) -> str:
        """Install the package."""
        python_environment(cls.requirement)
        return cls.requirement.rpartition("=")[2]

    @classmethod
    def command(cls) -> list[str]:
        """The program in that environment."""
        python = python_environment(cls.requirement)
        return [str(python), str(PROGRAMS / cls.program), *cls.arguments]
