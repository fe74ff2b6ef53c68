"""What many nodes cost an Intermediate: the handshakes, the memory, and the time while they idle.

::

    python -m bench.idle --nodes 2000 --seconds 60

A real Intermediate under twistd, and all nodes on one socket of this process, which greet it and
then answer nothing but pings, every 15 seconds as nodes do. Times are the Intermediate's own, of
one processor.
"""

import tempfile
from pathlib import Path

from bench.crowd import AT_A_TIME, Crowd, load_credentials
from bench.report import Row, parser, ratio, show
from p2pnet.identity import Role
from p2pnet.testing.processes import Deployment
from p2pnet.wire.address import parse_host_port

SETTLE = 3.0  # seconds, for what comes after a handshake


def measure(nodes: int, seconds: float) -> Row:
    """The figures of one Intermediate with so many nodes that idle for so long."""
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        relay = deployment.intermediate("relay", max_connections=nodes + AT_A_TIME)
        deployment.issue(Role.AGENT, "agent")
        credentials = load_credentials(deployment.certs, "agent")
        crowd = Crowd(credentials, parse_host_port(deployment.intermediates[0]))
        crowd.connect(AT_A_TIME)  # what is there once only
        crowd.idle(SETTLE)
        memory, cpu, before = relay.resident(), relay.cpu_seconds(), crowd.ready
        crowd.connect(nodes - AT_A_TIME)
        handshakes = relay.cpu_seconds() - cpu
        crowd.idle(SETTLE)
        connected = crowd.ready - before
        grown, cpu = relay.resident() - memory, relay.cpu_seconds()
        crowd.idle(seconds)
        return {
            "nodes": crowd.ready,
            "lost": crowd.lost,
            "KiB_a_node": grown / connected / 1024,
            "handshake_ms": handshakes / connected * 1000,
            "handshakes/s_and_core": ratio(connected, handshakes),
            "idle_share_of_core": (relay.cpu_seconds() - cpu) / seconds,
        }


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=2000, help="how many")
    options.add_argument("--seconds", type=float, default=60.0, help="how long they idle")
    arguments = options.parse_args()
    rows = [measure(arguments.nodes, arguments.seconds)]
    show({"Nodes at an Intermediate": rows}, arguments.json)


if __name__ == "__main__":
    main()
