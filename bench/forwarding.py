"""Tunnels side by side: what a forwarded connection costs, and how fast it is."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.load import WARM_UP
from bench.report import Case, Figures
from bench.tunnel import LOOPBACK, Ends, Place, Tunnel, await_ready
from p2pnet.testing.processes import Process, ProcessError
from p2pnet.wire.address import Address, format_address

PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("load.py")))
LOAD_TIMEOUT = 120.0  # seconds
MEGA = 1e6


@dataclass(frozen=True)
class Load:
    """How much is measured in a round.

    :ivar seconds: that an upload lasts.
    :ivar echoes: requests of 100 bytes, one after the other; a quarter of it beside an upload.
    :ivar connects: connections, one after the other.
    """

    seconds: float = 3.0
    echoes: int = 1000
    connects: int = 40


class Client:
    """Starts the programs of load.py at one place, against one address."""

    def __init__(self, directory: Path, place: Place, address: Address) -> None:
        self._directory = directory
        self._place = place
        self._address = format_address(address)

    def start(self, what: str, **options: object) -> Process:
        """Start one of them."""
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = [*PROGRAM, what, self._address, *arguments]
        (self._directory / f"{what}.out").unlink(missing_ok=True)
        return Process(what, command, self._directory, self._place.prefix).start()

    def finish(self, process: Process) -> dict[str, Any]:
        """What it measured. Raises ProcessError."""
        try:
            status = process.wait(LOAD_TIMEOUT)
        finally:
            process.kill()
        if status:
            raise ProcessError(f"{process.name} failed\n{process.output()[-500:]}")
        figures: dict[str, Any] = json.loads(process.output())
        return figures

    def run(self, what: str, **options: object) -> dict[str, Any]:
        """Start one and wait for what it measures."""
        return self.finish(self.start(what, **options))


@contextlib.contextmanager
def target(directory: Path, place: Place) -> Iterator[Address]:
    """The target of a load, as long as the context lasts."""
    command = [*PROGRAM, "target", f"{place.address}:0"]
    process = Process("target", command, directory, place.prefix).start()
    try:
        yield place.address, int(await_ready(process))
    finally:
        process.kill()


@contextlib.contextmanager
def opened(kind: type[Tunnel], ends: Ends) -> Iterator[tuple[Tunnel, Client]]:
    """A tunnel to a target, with a client at its near end.

    A ProcessError from within says what the processes of the tunnel printed.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        own = directory / "tunnel"
        own.mkdir()
        address = stack.enter_context(target(directory, ends.far))
        tunnel = stack.enter_context(kind(own, ends))
        try:
            yield tunnel, Client(directory, ends.near, tunnel.start(address))
        except ProcessError as error:
            tails = "".join(f"\n{p.name}: {p.output()[-500:]}" for p in tunnel.processes)
            raise ProcessError(f"{error}{tails}") from None


def measure(kind: type[Tunnel], load: Load, ends: Ends) -> Figures:
    """One round of a tunnel. Raises ProcessError."""
    with opened(kind, ends) as (tunnel, client):
        began = tunnel.cpu_seconds()
        echo = client.run("echo", count=load.echoes)
        echoed = tunnel.cpu_seconds() - began
        connect = client.run("connect", count=load.connects)
        began = tunnel.cpu_seconds()
        upload = client.run("upload", seconds=load.seconds)
        uploaded, resident = tunnel.cpu_seconds() - began, tunnel.resident()
        beside = client.start("upload", seconds=load.seconds)
        try:
            busy = client.run("echo", count=load.echoes // 4)
            client.finish(beside)
        finally:
            beside.kill()
    carried = bool(tunnel.processes)
    return {
        "MB/s": upload["megabytes_per_second"],
        "echo_p50_us": echo["p50_us"],
        "echo_p99_us": echo["p99_us"],
        "open_ms": connect["p50_us"] / 1e3,
        "beside_bulk_p99_ms": busy["p99_us"] / 1e3,
        "cpu_s/GB": uploaded / upload["bytes"] * 1e9 if carried else None,
        "echo_cpu_us": echoed / (load.echoes + WARM_UP) * 1e6 if carried else None,
        "memory_MB": resident / MEGA if carried else None,
    }


def cases(kinds: Sequence[type[Tunnel]], load: Load, ends: Ends = LOOPBACK) -> dict[str, Case]:
    """What report.alternate() takes, to measure these tunnels."""
    return {kind.name: partial(measure, kind, load, ends) for kind in kinds}
