"""A reconnect storm of real nodes: an Intermediate restarts on a share of a core.

``python -m bench.attack.storm CERTS ADDRESS COUNT`` runs so many Agents in one process, each with a
socket of its own. It prints a line for each that connects: seconds of the monotonic clock.
"""

import itertools
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.report import Row, number
from p2pnet.assembly import agent_node
from p2pnet.config.roles import AgentConfig
from p2pnet.identity import Role
from p2pnet.reports import ControlConnected
from p2pnet.testing.processes import Deployment, Process, ProcessError, RoleProcess

NODES = 300
SHARE = 0.2  # of a core
PERIOD = 0.1  # seconds, of which the Intermediate has SHARE
PATIENCE = 90.0  # seconds
FACTOR, COST = 3.0, 1.5  # times the ideal time, and times the processor time without a storm
TOGETHER = 20  # nodes that start in one SPREAD, so that the first connection is no storm
SPREAD = 0.12  # seconds
SETTLE = 3.0  # seconds
CHECKOUT = Path(__file__).parents[2]


def run_nodes(certs: Path, address: str, count: int) -> None:
    """Run Agents until SIGTERM."""
    from twisted.internet import reactor as _reactor  # only here: the parent has no reactor

    reactor: Any = _reactor

    config = AgentConfig(
        cert=certs / "agent.pem", key=certs / "agent.key", ca=certs / "ca.pem",
        intermediates=(address,), bind="127.0.0.1:0",
    )  # fmt: skip

    def see(report: object) -> None:
        if isinstance(report, ControlConnected):
            print(time.monotonic(), flush=True)

    for index in range(count):
        node = agent_node(reactor, config)
        node.observers.append(see)
        reactor.callLater(index // TOGETHER * SPREAD, node.startService)
    reactor.run()


@contextmanager
def slowed(process: Process) -> Iterator[None]:
    """Let the process have SHARE of each PERIOD meanwhile."""
    done = threading.Event()

    def slow() -> None:
        numbers = itertools.cycle((signal.SIGSTOP, signal.SIGCONT))
        for stop_or_go, seconds in zip(numbers, itertools.cycle((1 - SHARE, SHARE)), strict=False):
            process.signal(stop_or_go)
            if done.wait(PERIOD * seconds):
                break
        process.signal(signal.SIGCONT)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(nodes: Process, count: int) -> list[float]:
    """When nodes connected, once so many did, or after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while True:
        times = [float(line) for line in nodes.output().splitlines()]
        if len(times) >= count or time.monotonic() > end:
            return times
        if nodes.returncode is not None:
            raise ProcessError(f"the nodes ended\n{nodes.output()[-500:]}")
        time.sleep(0.1)


def _restarted(relay: RoleProcess, core: int) -> None:
    relay.stop()
    listened = len(relay.find("listening"))
    relay.start()
    for task in Path(f"/proc/{relay.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
    while len(relay.find("listening")) == listened:
        time.sleep(0.01)


def measure(directory: Path, count: int) -> Row:
    """One storm of so many nodes."""
    cores = sorted(os.sched_getaffinity(0))
    with Deployment(directory) as deployment:
        address = f"127.0.0.1:{_free_port()}"
        relay = deployment.intermediate("relay", address, max_connections=1000, drain_seconds=0.0)
        deployment.issue(Role.AGENT, "agent")
        command = [sys.executable, "-m", __spec__.name, str(deployment.certs), address, str(count)]
        used = relay.cpu_seconds()
        nodes = deployment.run("nodes", ["env", f"PYTHONPATH={CHECKOUT}", *command])
        with suppress(ProcessLookupError):
            os.sched_setaffinity(nodes.pid, set(cores[1:] or cores))
        if len(_wait(nodes, count)) < count:
            raise ProcessError(f"not all of {count} nodes connected")
        undisturbed = (relay.cpu_seconds() - used) / count
        time.sleep(SETTLE)
        _restarted(relay, cores[0])
        began, used = time.monotonic(), relay.cpu_seconds()
        with slowed(relay):
            times = sorted(at - began for at in _wait(nodes, 2 * count)[count:])
        cost = (relay.cpu_seconds() - used) / count
    ideal = count * undisturbed / SHARE
    return {
        "attack": f"T5: {count} real nodes come back to an Intermediate with {SHARE:.0%} of a core",
        "bound": f"all in {number(FACTOR * ideal)} s, {number(COST * undisturbed * 1e3)} ms each",
        "measured": f"{len(times)} back, median {number(statistics.median(times or [PATIENCE]))} s,"
        f" all {number(max(times, default=PATIENCE))} s; {number(cost * 1e3)} ms each",
        "holds": len(times) == count and times[-1] <= FACTOR * ideal and cost <= COST * undisturbed,
    }


def row() -> Row:
    """The row of the table of attacks."""
    with tempfile.TemporaryDirectory() as directory:
        return measure(Path(directory), NODES)


if __name__ == "__main__":
    run_nodes(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
