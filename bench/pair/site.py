"""One running deployment of a checkout: its roles, and the forwards through them."""

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.pair.trees import Tree
from p2pnet.identity import Role
from p2pnet.testing.processes import Deployment, ProcessError, RoleProcess, Service, script
from p2pnet.wire.address import Address, parse_host_port

SERVICE = "load"
LOOPBACK = "127.0.0.1"
PKI_TIMEOUT = 60.0  # seconds for one `p2pnet pki` command


def cpu(processes: Iterable[int]) -> float:
    """Return the processor time in seconds of the processes with these ids, children excluded.

    Linux only: the id of a process makes the clock of clock_getcpuclockid(3), which counts
    nanoseconds where /proc counts ticks.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in processes) / 1e9


class TreeDeployment(Deployment):
    """A deployment that runs the commands of another checkout."""

    def __init__(self, directory: Path, tree: Tree) -> None:
        super().__init__(directory)
        self._tree = tree
        self._pki("init", "--realm", self.realm, "--force")

    def issue(self, role: Role, name: str, **options: Any) -> None:
        """Issue a certificate by the checkout's own `p2pnet pki`. Raises ProcessError."""
        arguments = [
            f"--{option.removesuffix('s')}={value}"
            for option, values in options.items()
            for value in values
        ]
        self._pki("issue", str(role), name, "--force", *arguments)

    def _pki(self, *arguments: str) -> None:
        command = [*self._tree.prefix, script("p2pnet"), "pki", *arguments]
        process = self.run("pki", [*command, "--out", str(self.certs)])
        self.processes.remove(process)
        try:
            if process.wait(PKI_TIMEOUT):
                raise ProcessError(f"{self._tree.name}: p2pnet pki: {process.output()[-500:]}")
        finally:
            process.kill()


class Way(NamedTuple):
    """A forward of an Agent.

    :ivar address: address of its listener.
    :ivar processes: ids of the processes that carry its bytes, children included.
    """

    address: Address
    agent: RoleProcess
    processes: Sequence[int]


class Site:
    """An Intermediate and a Connector of a checkout; cases start Agents when they need them."""

    def __init__(self, tree: Tree, directory: Path, target: Address) -> None:
        self.tree = tree
        self.deployment = TreeDeployment(directory, tree)
        self._agents = 0
        try:
            self.relay = self.deployment.intermediate("relay", prefix=tree.prefix, session_rate=0)
            services = {SERVICE: Service(f"tcp:{target[0]}:{target[1]}")}
            self.connector = self.deployment.connector(
                "connector", services, tree.prefix, bind=f"{LOOPBACK}:0"
            )
            self.connector.wait_for("registered")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes of the deployment."""
        self.deployment.stop()

    def agent(self, path: str = "prefer-direct") -> Way:
        """Start an Agent with a control connection and no session. Raises ProcessError."""
        self._agents += 1
        agent = self.deployment.agent(
            f"agent{self._agents}", {SERVICE: f"tcp:0:interface={LOOPBACK}"}, self.tree.prefix,
            bind=f"{LOOPBACK}:0", path=path,
        )  # fmt: skip
        agent.wait_for("control_connected")
        address = parse_host_port(agent.wait_for("listening", what=SERVICE)["address"])
        return Way(address, agent, [*agent.family(), *self.connector.family()])

    @cached_property
    def direct(self) -> Way:
        """A forward that goes over a direct path once its session has one."""
        return self.agent()

    @cached_property
    def relayed(self) -> Way:
        """A forward over the Intermediate."""
        way = self.agent("relay-only")
        return way._replace(processes=[*way.processes, *self.relay.family()])
