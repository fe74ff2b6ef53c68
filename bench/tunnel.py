"""Ways to carry TCP connections from one place to another, all started and measured alike.

::

    with Tunnel(directory) as tunnel:
        address = tunnel.start(target)

The *near* end listens for users, the *far* one connects to the target. Either may run behind a
command prefix, such as that of a host of a laboratory (namespaces.Host.prefix). p2pnet and no
tunnel at all are here; the peers that p2pnet is compared with are in `bench/peers` of the checkout.
"""

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from p2pnet import __version__
from p2pnet.testing.processes import (
    POLL,
    START_TIMEOUT,
    Deployment,
    Process,
    ProcessError,
    Service,
    guarded,
)
from p2pnet.wire.address import Address, parse_host_port


class Unavailable(Exception):
    """This tunnel cannot be used here, and why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an end of a tunnel runs.

    :ivar prefix: what to put before its commands.
    :ivar address: of this end: it listens there, and the other end finds it there.
    """

    prefix: Sequence[str] = ()
    address: str = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Ends:
    """The places of a tunnel's two ends."""

    near: Place
    far: Place


LOOPBACK = Ends(Place(), Place())


class Tunnel:
    """Base of the tunnels, and the one that is none: users connect to the target itself.

    :param directory: for its files; it is the tunnel's own, and must be empty.
    :cvar name: in tables.
    :ivar processes: that carry bytes, once it was started.
    """

    name: ClassVar[str] = "plain TCP"

    def __init__(self, directory: Path, ends: Ends = LOOPBACK) -> None:
        self.directory = directory
        self.ends = ends
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @classmethod
    def prepare(cls) -> str:
        """Install what it needs; returns its version. Raises Unavailable."""
        return ""

    def start(self, target: Address) -> Address:
        """Lead to `target`; returns the address that users connect to. Raises ProcessError."""
        return target

    def stop(self) -> None:
        """End what was started."""
        for process in reversed(self.processes):
            process.stop()

    def run(self, name: str, command: Sequence[str], place: Place) -> Process:
        """Start a process that carries bytes."""
        process = Process(name, command, self.directory, place.prefix)
        self.processes.append(process)
        return process.start()

    def cpu_seconds(self) -> float:
        """Processor time of both ends so far (Linux)."""
        return sum(process.cpu_seconds() for process in self.processes)

    def resident(self) -> int:
        """Resident memory of both ends in bytes (Linux)."""
        return sum(process.resident() for process in self.processes)


class P2PNet(Tunnel):
    """An Agent and a Connector, with an Intermediate beside the far end.

    :cvar path: how the Agent is to choose its paths; start() waits for that one.
    :cvar settings: of Agent and Connector, beyond the usual ones.
    """

    name = "p2pnet, direct"
    path: ClassVar[str] = "prefer-direct"
    settings: ClassVar[Mapping[str, object]] = {}
    _deployment: Deployment | None = None

    @classmethod
    def prepare(cls) -> str:
        """Nothing: it is here."""
        return __version__

    def start(self, target: Address) -> Address:
        """Start the three roles, and wait for the path."""
        near, far = self.ends.near, self.ends.far
        self._deployment = deployment = Deployment(self.directory)
        try:
            relay = deployment.intermediate("relay", f"{far.address}:0", far.prefix, session_rate=0)
            service = Service(f"tcp:{target[0]}:{target[1]}")
            connector = deployment.connector(
                "connector", {"load": service}, far.prefix,
                bind=f"{far.address}:0", **self.settings,
            )  # fmt: skip
            connector.wait_for("registered")
            agent = deployment.agent(
                "agent", {"load": f"tcp:0:interface={near.address}"}, near.prefix,
                bind=f"{near.address}:0", path=self.path, **self.settings,
            )  # fmt: skip
            address = parse_host_port(agent.wait_for("listening", what="load")["address"])
            agent.wait_for("control_connected")
            self.processes = [agent, connector]
            if self.path == "relay-only":
                self.processes.append(relay)
            else:
                touch(near, address)
                agent.wait_for("path_selected", path="direct")
        except BaseException:
            deployment.stop()
            raise
        return address

    def stop(self) -> None:
        """End the roles."""
        if self._deployment is not None:
            self._deployment.stop()


class Relayed(P2PNet):
    """The same through the Intermediate, whose processor time and memory count too."""

    name = "p2pnet, relayed"
    path = "relay-only"


TUNNELS: tuple[type[Tunnel], ...] = (Tunnel, P2PNet, Relayed)
"""Those that need nothing but p2pnet."""

_CONNECT = """
import socket, sys
host, port = sys.argv[1:]
socket.create_connection((host, int(port)), 1).close()
"""


def touch(place: Place, address: Address) -> bool:
    """Connect to `address` from there and hang up. Returns whether that worked."""
    command = [*place.prefix, sys.executable, "-c", _CONNECT, address[0], str(address[1])]
    return (
        subprocess.run(guarded(command), capture_output=True, timeout=START_TIMEOUT).returncode == 0
    )


def await_listener(process: Process, place: Place, address: Address) -> None:
    """Return when `process` listens there. Raises ProcessError if it ends, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while not touch(place, address):
        if process.returncode is not None or time.monotonic() > deadline:
            raise ProcessError(f"{process.name} does not listen\n{process.output()}")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free now, for programs that do not choose one themselves."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_ready(process: Process, timeout: float = START_TIMEOUT) -> str:
    """What follows "ready" in a line that it prints, once it is there. Raises ProcessError."""
    deadline = time.monotonic() + timeout
    while process.returncode is None and time.monotonic() < deadline:
        for line in process.output().splitlines(keepends=True):
            if line.startswith("ready ") and line.endswith("\n"):
                return line.split()[1]
        time.sleep(POLL)
    raise ProcessError(f"{process.name} is not ready\n{process.output()[-500:]}")
