"""A forward over a direct path with a rate, a delay and losses: python -m bench.lossy [--json]

Real processes in network namespaces (root needed): an Agent behind a link of that rate, a Connector
and an Intermediate on the other side of it. Loss is random and the same both ways, the buffer one
BDP. The rate is that of bytes received over the time since the transfer began, start-up included.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from p2pnet.lab.namespaces import Lab, acquire
from p2pnet.lab.processes import Deployment, RoleProcess, Service
from p2pnet.lab.topology import Topology
from p2pnet.lab.wire import Conditions
from p2pnet.wire.address import parse_host_port

LOSSES = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # percent
MBIT = 1e6 / 8  # bytes/s
PORT = 4433
SERVICE = "sink"
BLOCK = 1 << 16
QUESTION = bytes(100)
INTERVAL = 0.1  # seconds between questions
PATIENCE = 30.0


@dataclasses.dataclass(frozen=True)
class Link:
    """`rate` in Mbit/s, `rtt` in seconds, `loss` a fraction each way."""

    rate: float
    rtt: float
    loss: float

    @property
    def conditions(self) -> Conditions:
        """Of the wire."""
        rate = self.rate * MBIT
        return Conditions(self.rtt / 2, self.loss, rate, round(rate * self.rtt))

    def __str__(self) -> str:
        return f"{self.rate:g}M {1000 * self.rtt:g}ms {self.loss:.1%}"


class Pair:
    """An Agent and a Connector on both sides of a link, with a direct path."""

    def __init__(self, link: Link, settings: dict[str, object]) -> None:
        self._stack = contextlib.ExitStack()
        self._link = link
        self._settings = settings

    def __enter__(self) -> "Pair":
        with contextlib.ExitStack() as stack:
            lab = stack.enter_context(Lab())
            topology = Topology(lab)
            relay, connector = topology.site("relay"), topology.site("connector")
            conditions = self._link.conditions if self._link.rate else None
            agent = topology.site("agent", conditions=conditions)
            lab.start_wires()
            self.near, self.far = agent.host, connector.host
            with self.far.enter():
                self.listener = socket.create_server(("127.0.0.1", 0))
            stack.enter_context(self.listener)
            port = self.listener.getsockname()[1]
            deployment = stack.enter_context(Deployment(lab.directory))
            deployment.intermediate("relay", f"{relay.address}:{PORT}", relay.host.prefix)
            nodes = (
                deployment.connector(
                    "office", {SERVICE: Service(f"tcp:127.0.0.1:{port}")}, self.far.prefix,
                    **self._settings,
                ),
                deployment.agent(
                    "alice", {SERVICE: "tcp:0:interface=127.0.0.1"}, self.near.prefix,
                    **self._settings,
                ),
            )  # fmt: skip
            self.nodes: tuple[RoleProcess, ...] = nodes
            nodes[0].wait_for("registered")
            address = nodes[1].wait_for("listening", what=SERVICE)["address"]
            self._address = parse_host_port(address)
            nodes[1].wait_for("control_connected")
            self._warm_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _warm_up(self) -> None:
        """Have the session made, and its direct path found."""
        for end in self.connect():
            end.close()
        for node in self.nodes:
            node.wait_for("path_selected", path="direct")
        time.sleep(0.5)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of a connection through the forward: the Agent's side, the service's."""
        with self.near.enter():
            near = socket.create_connection(self._address, PATIENCE)
        self.listener.settimeout(PATIENCE)
        far, _ = self.listener.accept()
        for end in (near, far):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return near, far

    def cpu_seconds(self) -> float:
        """Of Agent and Connector together."""
        return sum(node.cpu_seconds() for node in self.nodes)


def transfer(pair: Pair, seconds: float) -> dict[str, float]:
    """Send for so long; returns Mbit/s, and CPU seconds a GB."""
    near, far = pair.connect()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
    end = time.monotonic() + seconds
    sender = threading.Thread(target=_send, args=(near, end), daemon=True)
    spent, began = pair.cpu_seconds(), time.monotonic()
    sender.start()
    received = 0
    far.settimeout(seconds)
    while time.monotonic() < end:
        received += len(far.recv(BLOCK))
    took = time.monotonic() - began
    spent = pair.cpu_seconds() - spent
    for connection in (near, far):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    sender.join()
    return {"mbit": received / took / MBIT, "cpu_s_per_gb": spent / received * 1e9}


def _send(connection: socket.socket, end: float) -> None:
    data = os.urandom(BLOCK)
    with contextlib.suppress(OSError):  # the other end has had enough
        while time.monotonic() < end:
            connection.sendall(data)


def ask(pair: Pair, seconds: float) -> list[float]:
    """Send a question each INTERVAL and have it sent back; returns the round trips in seconds."""
    near, far = pair.connect()
    threading.Thread(target=_reflect, args=(far,), daemon=True).start()
    count = round(seconds / INTERVAL)
    begun = time.monotonic()
    reader = _Reader(near, count)
    reader.start()
    for number in range(count):
        time.sleep(max(0.0, begun + number * INTERVAL - time.monotonic()))
        near.sendall(QUESTION)
    reader.join(PATIENCE)
    near.close()
    return [at - begun - n * INTERVAL for n, at in enumerate(reader.times)]


class _Reader(threading.Thread):
    def __init__(self, connection: socket.socket, count: int) -> None:
        super().__init__(daemon=True)
        self._connection, self._count = connection, count
        self.times: list[float] = []

    def run(self) -> None:
        received = 0
        while len(self.times) < self._count and (data := self._connection.recv(BLOCK)):
            received += len(data)
            now = time.monotonic()
            self.times += [now] * (received // len(QUESTION) - len(self.times))


def _reflect(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(BLOCK):
            connection.sendall(data)


def measure(link: Link, settings: dict[str, object], arguments: Any) -> dict[str, Any]:
    """One run on a new laboratory: a row."""
    with Pair(link, settings) as pair:
        row: dict[str, Any] = {"link": str(link), **settings}
        if arguments.latency:
            times = sorted(ask(pair, arguments.seconds))
            row["p50_ms"] = 1000 * statistics.median(times)
            row["p99_ms"] = 1000 * times[int(len(times) * 0.99)]
        else:
            row.update(transfer(pair, arguments.seconds))
    return row


def rows(arguments: Any) -> Iterator[dict[str, Any]]:
    """All that was asked for, alternating."""
    for _ in range(arguments.rounds):
        for loss in arguments.losses:
            for congestion in arguments.congestion:
                link = Link(arguments.rate, arguments.rtt / 1000, loss / 100)
                yield measure(link, {"congestion": congestion}, arguments)


def main() -> None:
    """Print each row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s")
    parser.add_argument("--rtt", type=float, default=40.0, help="ms")
    parser.add_argument("--losses", type=float, nargs="+", default=LOSSES, help="%%")
    parser.add_argument("--congestion", nargs="+", default=["bbr", "cubic"])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", action="store_true", help="of small requests instead")
    arguments = parser.parse_args()
    acquire()
    for row in rows(arguments):
        print(
            json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
