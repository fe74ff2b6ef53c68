"""Handshakes that an Intermediate's processor makes a second, beside aioquic's as it comes.

::

    python -m bench.handshakes --nodes 400

Mutual TLS over real sockets, nodes that greet and are welcomed, in alternating rounds, each with a
fresh server: the Intermediate under twistd, and bench/stock_server.py. The nodes are the same crowd
on one socket of this process for both. Times are the server's own, of one processor.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.crowd import AT_A_TIME, Crowd, load_credentials
from bench.report import Figures, Row, alternate, parser, ratio, show
from bench.tunnel import await_ready
from p2pnet.identity import Role
from p2pnet.testing.processes import Deployment, Process
from p2pnet.wire.address import Address, parse_host_port

GOAL = 1.2  # times the stock server's
SETTLE = 1.0  # seconds, for what comes after a handshake
ADDRESS = "127.0.0.1"
CHECKOUT = Path(__file__).parents[1]

Start = Callable[[Deployment], tuple[Process, Address]]


def intermediate(deployment: Deployment) -> tuple[Process, Address]:
    """Start an Intermediate."""
    process = deployment.intermediate("relay")
    return process, parse_host_port(deployment.intermediates[-1])


def stock(deployment: Deployment) -> tuple[Process, Address]:
    """Start the other server."""
    deployment.issue(Role.INTERMEDIATE, "stock", hosts=[ADDRESS])
    command = [sys.executable, "-m", "bench.stock_server", str(deployment.certs), "stock"]
    process = deployment.run("stock", ["env", f"PYTHONPATH={CHECKOUT}", *command])
    return process, (ADDRESS, int(await_ready(process)))


def measure(start: Start, nodes: int) -> Figures:
    """One round of a server."""
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        process, address = start(deployment)
        deployment.issue(Role.AGENT, "agent")
        crowd = Crowd(load_credentials(deployment.certs, "agent"), address)
        crowd.connect(AT_A_TIME)  # what is there once only
        crowd.idle(SETTLE)
        used, before, memory = process.cpu_seconds(), crowd.ready, process.resident()
        crowd.connect(nodes)
        crowd.idle(SETTLE)
        used, done = process.cpu_seconds() - used, crowd.ready - before
        return {
            "handshakes/s_and_core": ratio(done, used),
            "cpu_ms": used / done * 1e3,
            "KiB_a_node": (process.resident() - memory) / done / 1024,
            "lost": crowd.lost,
        }


def rows(nodes: int, rounds: int) -> list[Row]:
    """A row for each server, with how many times the stock one's rate it has."""
    servers: dict[str, Start] = {"Intermediate": intermediate, "aioquic, stock": stock}
    cases = {name: partial(measure, start, nodes) for name, start in servers.items()}
    found = alternate(cases, rounds)
    rates = {
        name: rate.median
        for name, figures in found.items()
        if (rate := figures["handshakes/s_and_core"])
    }
    return [
        {
            "server": name,
            **figures,
            "times_stock": ratio(rates.get(name), rates.get("aioquic, stock")),
        }
        for name, figures in found.items()
    ]


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=600, help="handshakes of a round")
    options.add_argument("--rounds", type=int, default=3, help="how many times")
    arguments = options.parse_args()
    show({f"Handshakes (goal: {GOAL} times)": rows(arguments.nodes, arguments.rounds)},
         arguments.json)  # fmt: skip


if __name__ == "__main__":
    main()
