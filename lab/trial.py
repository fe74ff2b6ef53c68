"""Trials: a session between two NAT behaviors with a transfer running while its path changes.

::

    acquire()
    with Cell(BEHAVIORS["port-restricted"], BEHAVIORS["full-cone"]) as cell:
        print(summarize(cell.agent, cell.connector, [cell.trial() for _ in range(20)]))

The Intermediate and the routers stay for all trials of a cell; the Agent and the Connector are
new processes in each, and the routers forget their mappings in between.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lab.expectations import Outcome
from lab.forked import ForkedDeployment
from lab.namespaces import MTU, Lab
from lab.nat import Behavior
from lab.topology import Topology
from lab.traffic import Direction, connect, listen
from lab.wire import Conditions
from p2pnet.testing.processes import (
    POLL,
    Deadline,
    ProcessError,
    RoleProcess,
    Service,
    slowness,
)
from p2pnet.wire.address import parse_host_port

PATIENCE = 8.0  # seconds of a Deadline that a session gets to become direct
BLOCK = 1 << 14  # bytes written at a time
RATE = 1 << 20  # bytes/s while waiting: enough that a switch always has packets in flight
SETTLE = 0.3  # seconds at that rate after the switch
TAIL = 1 << 20  # bytes, as fast as they go, at the end: they show which way packets really take
TRANSFER_TIMEOUT = 60.0  # seconds without a byte
NAMES_CAUSE_WITHIN = 10.0  # seconds, times slowness(), until a node says why it is cut off
PORT = 4433


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a cell's trials are done.

    :ivar conditions: of the link of each site to the public segment; None: no delay, no loss.
    :ivar ipv6: whether both sides have IPv6 behind a stateful firewall as well.
    :ivar patience: seconds that a session gets to become direct.
    :ivar logs: where the processes' files are to stay; None: they are removed.
    :ivar mtu: of all links, in bytes.
    """

    conditions: Conditions | None = None
    ipv6: bool = False
    patience: float = PATIENCE
    logs: Path | None = None
    mtu: int = MTU


@dataclasses.dataclass(frozen=True)
class Trial:
    """How one trial ended.

    :ivar time_to_direct: seconds from session_opened to path_selected in the Agent's event log,
        None if it did not become direct.
    :ivar lost: bytes that were sent and did not arrive.
    :ivar intact: whether the hashes are equal.
    :ivar reason: why it failed, "" if it did not.
    """

    outcome: Outcome
    time_to_direct: float | None = None
    lost: int = 0
    intact: bool = False
    reason: str = ""


class Cell:
    """Two behaviors, an Intermediate, and what is needed for trials between them."""

    def __init__(self, agent: Behavior, connector: Behavior, conduct: Conduct = Conduct()) -> None:
        self.agent = agent
        self.connector = connector
        self.conduct = conduct
        self._stack = contextlib.ExitStack()
        self._number = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            lab = stack.enter_context(Lab())
            self.topology = Topology(
                lab, conditions=self.conduct.conditions, ipv6=self.conduct.ipv6,
                mtu=self.conduct.mtu,
            )  # fmt: skip
            self.relay = self.topology.site("relay")
            self.sites = (
                self.topology.site("agent", self.agent),
                self.topology.site("connector", self.connector),
            )
            lab.start_wires()
            directory = self.conduct.logs or lab.directory
            self.deployment = stack.enter_context(ForkedDeployment(directory))
            self.deployment.intermediate(
                "relay", f"{self.relay.address}:{PORT}", self.relay.host.prefix, drain_seconds=0.0
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trial(self) -> Trial:
        """Do one trial; what goes wrong is in its result."""
        self._number += 1
        try:
            for site in self.sites:
                site.restart()
            return self._unreachable() if self._blocked() else self._transfer()
        except (ProcessError, OSError) as error:
            return Trial(Outcome.FAILED, reason=str(error))

    def _blocked(self) -> list[bool]:
        """Which sides cannot get UDP out; empty if both can."""
        blocked = [site.behavior.is_blocked for site in self.sites]
        return blocked if any(blocked) else []

    @contextlib.contextmanager
    def nodes(self, port: int) -> Iterator[list[RoleProcess]]:
        """An Agent and a Connector of a service at that port beside it, started."""
        agent, connector = self.sites
        # Names are new each time: the Intermediate may not have noticed yet that others are gone.
        service = f"source{self._number}"
        nodes: list[RoleProcess] = []
        try:
            nodes.append(
                self.deployment.agent(
                    f"agent{self._number}", {service: "tcp:0:interface=127.0.0.1"},
                    agent.host.prefix,
                )
            )  # fmt: skip
            nodes.append(
                self.deployment.connector(
                    f"connector{self._number}", {service: Service(f"tcp:127.0.0.1:{port}")},
                    connector.host.prefix,
                )
            )  # fmt: skip
            yield nodes
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.stop()

    def _unreachable(self) -> Trial:
        """A blocked node has to say in time that it reaches no Intermediate, and why."""
        with self.nodes(PORT) as nodes:
            for node, blocked in zip(nodes, self._blocked(), strict=True):
                if not blocked:
                    continue
                started, lost = node.wait_for("listening"), node.wait_for("control_lost")
                seconds = lost["time"] - started["time"]
                if seconds > NAMES_CAUSE_WITHIN * slowness() or not lost["reason"]:
                    problem = f"{node.name} said {lost['reason']!r} after {seconds:.1f} s"
                    return Trial(Outcome.FAILED, reason=problem)
        return Trial(Outcome.UNREACHABLE)

    def _transfer(self) -> Trial:
        with (
            listen(self.sites[1].host) as listener,
            self.nodes(listener.getsockname()[1]) as nodes,
        ):
            agent, connector = nodes
            for node in nodes:
                node.wait_for("control_connected")
            connector.wait_for("registered")
            forward = agent.wait_for("listening", what=f"source{self._number}")
            address = parse_host_port(forward["address"])
            near, far = connect(self.sites[0].host, address, listener, TRANSFER_TIMEOUT)
            with near, far:
                download = Direction(far, near, BLOCK, BLOCK / RATE)
                opened = agent.wait_for("session_opened")
                direct = self._wait_for_direct(nodes, opened["session"])
                time.sleep(SETTLE)
                before = self.relay.host.received("wan")
                download.end(TAIL)
                download.join()
                relayed = self.relay.host.received("wan") - before
        result = Trial(Outcome.RELAYED, lost=max(0, download.lost), intact=download.is_intact)
        if not download.is_intact:
            problem = f"{download.received} of {download.sent} bytes arrived, {download.problem}"
            return dataclasses.replace(result, outcome=Outcome.FAILED, reason=problem)
        if (direct is None) != (relayed > TAIL / 2):
            problem = f"path_selected direct: {direct}, but {relayed} bytes went by the relay"
            return dataclasses.replace(result, outcome=Outcome.FAILED, reason=problem)
        if direct is None:
            return result
        seconds = direct["time"] - opened["time"]
        return dataclasses.replace(result, outcome=Outcome.DIRECT, time_to_direct=seconds)

    def _wait_for_direct(
        self, nodes: Sequence[RoleProcess], session: str
    ) -> dict[str, Any] | None:  # fmt: skip
        """The Agent's event, once both ends of the session chose a direct path; None: too late."""
        deadline = Deadline(self.conduct.patience)
        while not deadline.passed:
            chosen = [node.find("path_selected", session=session, path="direct") for node in nodes]
            if all(chosen):
                return chosen[0][0]
            time.sleep(POLL)
        return None


def summarize(agent: Behavior, connector: Behavior, trials: Sequence[Trial]) -> dict[str, Any]:
    """The object that ``python -m lab run --json`` prints about a cell's trials.

    It counts "unreachable" only where that happened.
    """
    counts = {o.value: sum(trial.outcome is o for trial in trials) for o in Outcome}
    unreachable = counts.pop(Outcome.UNREACHABLE)
    times = sorted(t.time_to_direct for t in trials if t.time_to_direct is not None)
    return {
        "agent": agent.name,
        "connector": connector.name,
        "trials": len(trials),
        **counts,
        **({"unreachable": unreachable} if unreachable else {}),
        "time_to_direct_ms": {f"p{p}": _percentile(times, p / 100) for p in (50, 95)},
        "bytes_lost": sum(trial.lost for trial in trials),
        "sha256_ok": sum(trial.intact for trial in trials),
    }


def meets(summary: Mapping[str, Any], expected: Outcome) -> bool:
    """Whether all trials of a summary became what was expected, and lost nothing."""
    trials: int = summary["trials"]
    became: int = summary.get(expected, 0)
    lost: int = summary["bytes_lost"]
    intact = expected is Outcome.UNREACHABLE or summary["sha256_ok"] == trials
    return intact and lost == 0 and became == trials


def _percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """That percentile (nearest rank) of seconds in milliseconds; None if there are none."""
    if not ordered:
        return None
    rank = max(1, -int(-fraction * len(ordered) // 1))
    return round(ordered[rank - 1] * 1000, 1)
