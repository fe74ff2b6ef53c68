"""What a user waits for at first: a session's set-up, over the relay, on loopback.

::

    python -m bench.session --agents 10

Real roles under twistd. Agents are started, and connected to their Intermediate; then a program
connects to each one's listener and waits for the first byte from the target. The first time that
takes a session too (cold), afterwards a stream of it (warm). Agents that may use direct paths tell
how long after the session's opening they had one.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.forwarding import Client, target
from bench.load import quantiles
from bench.report import Row, parser, show
from bench.tunnel import Place
from p2pnet.testing.processes import Deployment, RoleProcess, Service
from p2pnet.wire.address import parse_host_port

GOALS_MS = {"cold, relayed": 12.0, "warm, relayed": 1.5}
AT_ONCE = 10  # Agents that run at a time
SERVICE = "load"


class Course:
    """An Intermediate, a Connector and a target, which Agents come to."""

    def __init__(self, deployment: Deployment, warm: int) -> None:
        self.times: dict[str, list[float]] = {}
        self._deployment = deployment
        self._warm = warm
        self._count = 0

    def run(self, agents: int, path: str) -> None:
        """Have so many more Agents connect, and keep their times."""
        while agents > 0:
            self._visit(min(agents, AT_ONCE), path)
            agents -= AT_ONCE

    def _visit(self, agents: int, path: str) -> None:
        names = [f"agent{self._count + number}" for number in range(agents)]
        self._count += agents
        running = [
            self._deployment.agent(name, {SERVICE: "tcp:0:interface=127.0.0.1"}, path=path)
            for name in names
        ]
        for agent in running:
            agent.wait_for("control_connected")
        for agent in running:
            self._measure(agent, path)
        for agent in running:
            agent.stop()

    def _measure(self, agent: RoleProcess, path: str) -> None:
        address = parse_host_port(agent.wait_for("listening", what=SERVICE)["address"])
        client = Client(agent.directory, Place(), address)
        if path == "relay-only":
            times = client.run("connect", count=1 + self._warm)["seconds"]
            self._keep("cold, relayed", times[:1])
            self._keep("warm, relayed", times[1:])
            return
        self._keep("cold, then direct", client.run("connect", count=1)["seconds"])
        direct = agent.wait_for("path_selected", path="direct")
        opened = agent.wait_for("session_opened")
        self._keep("until direct", [direct["time"] - opened["time"]])
        self._keep("warm, direct", client.run("connect", count=self._warm)["seconds"])

    def _keep(self, name: str, times: Sequence[float]) -> None:
        self.times.setdefault(name, []).extend(times)


def measure(agents: int, warm: int) -> list[Row]:
    """A row for each kind of set-up, in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Deployment(directory) as deployment, target(directory, Place()) as (host, port):
            deployment.intermediate("relay")
            services = {SERVICE: Service(f"tcp:{host}:{port}")}
            deployment.connector("connector", services).wait_for("registered")
            course = Course(deployment, warm)
            for path in ("relay-only", "prefer-direct"):
                course.run(agents, path)
    rows: list[Row] = []
    for kind, times in course.times.items():
        found, goal = quantiles(times), GOALS_MS.get(kind)
        p50, p99 = found["p50_us"] / 1e3, found["p99_us"] / 1e3
        rows.append(
            {
                "set-up": kind, "times": len(times), "p50_ms": p50, "p99_ms": p99,
                "goal_p50_ms": goal, "reached": None if goal is None else p50 <= goal,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--agents", type=int, default=20, help="with a first session each")
    options.add_argument("--warm", type=int, default=20, help="connections of each afterwards")
    arguments = options.parse_args()
    show({"From connecting to the first byte": measure(arguments.agents, arguments.warm)},
         arguments.json)  # fmt: skip


if __name__ == "__main__":
    main()
