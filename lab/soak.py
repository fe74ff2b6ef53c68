"""A long run: many agents come and go at one Intermediate, whose memory must not grow."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.crowd import Order
from p2pnet.identity import Role
from p2pnet.testing.processes import Deployment, ProcessError, RoleProcess, Service, guarded

CONNECTORS = 4
SAMPLE_EVERY = 5.0  # seconds
WARM_UP = 1 / 3  # of the run
QUIET_AFTER = 60.0  # seconds, then everything about agents that vanished is to be forgotten
# What begins and what ends something, in the event logs of the roles.
PAIRS = (
    ("node_connected", "node_lost"),
    ("relay_opened", "relay_closed"),
    ("session_opened", "session_closed"),
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A process at a moment: seconds from the start, bytes resident, open descriptors."""

    at: float
    resident: int
    descriptors: int


def measure(process: RoleProcess, at: float) -> Sample:
    """The process now."""
    descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    return Sample(at, process.resident(), descriptors)


def slope(samples: list[Sample]) -> float:
    """Growth of the resident memory in KiB a minute, by linear regression."""
    times = [sample.at / 60 for sample in samples]
    return statistics.linear_regression(times, [s.resident / 1024 for s in samples]).slope


class Soak:
    """One long run in `directory`.

    :param tell: called with a line for people now and then.
    """

    def __init__(
        self,
        directory: Path,
        agents: int,
        services: int,
        seconds: float,
        tell: Callable[[str], Any],
    ) -> None:
        self._directory = directory
        self._agents = [f"agent{number}" for number in range(agents)]
        self._services = [f"service{number}" for number in range(services)]
        self._seconds = seconds
        self._tell = tell
        self._samples: dict[str, list[Sample]] = {}

    def run(self) -> dict[str, Any]:
        """Do it. Raises ProcessError."""
        with Deployment(self._directory) as deployment:
            relay = deployment.intermediate("relay")
            for name in self._agents:
                deployment.issue(Role.AGENT, name)
            crowd = self._start_crowd(deployment)
            assert crowd.stdin is not None and crowd.stdout is not None
            try:
                port = int(crowd.stdout.readline())
                roles = [relay, *self._start_connectors(deployment, port)]
                crowd.stdin.write(b"go\n")
                crowd.stdin.flush()
                self._watch(crowd, roles)
                tally = json.loads(crowd.stdout.readline() or "{}")
            finally:
                crowd.kill()
                crowd.communicate()
            time.sleep(QUIET_AFTER)
            return self._report(tally, roles)

    def _start_crowd(self, deployment: Deployment) -> subprocess.Popen[bytes]:
        order = Order(
            str(deployment.certs), self._agents, self._services, deployment.intermediates[0],
            self._seconds, seed=1,
        )  # fmt: skip
        program = str(Path(__file__).with_name("crowd.py"))
        command = [sys.executable, "-P", program, json.dumps(dataclasses.asdict(order))]
        return subprocess.Popen(
            guarded(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )  # fmt: skip

    def _start_connectors(self, deployment: Deployment, port: int) -> list[RoleProcess]:
        target = Service(f"tcp:127.0.0.1:{port}")
        shares = [self._services[number::CONNECTORS] for number in range(CONNECTORS)]
        connectors = [
            deployment.connector(f"connector{number}", dict.fromkeys(share, target))
            for number, share in enumerate(shares)
            if share
        ]
        for connector in connectors:
            connector.wait_for("registered")
        return connectors

    def _watch(self, crowd: subprocess.Popen[bytes], roles: list[RoleProcess]) -> None:
        start = time.monotonic()
        deadline = start + 2 * self._seconds + 600
        while crowd.poll() is None:
            now = time.monotonic() - start
            if time.monotonic() > deadline:
                raise ProcessError("the crowd does not end")
            for role in roles:
                if role.returncode is not None:
                    raise ProcessError(f"{role.name} ended with {role.returncode}\n{role.output()}")
                self._samples.setdefault(role.name, []).append(measure(role, now))
            latest = self._samples[roles[0].name][-1]
            self._tell(
                f"{now:6.0f} s  {roles[0].name}: {latest.resident / 2**20:.1f} MiB,"
                f" {latest.descriptors} descriptors"
            )
            time.sleep(SAMPLE_EVERY)

    def _report(self, tally: dict[str, Any], roles: list[RoleProcess]) -> dict[str, Any]:
        processes = {}
        for role in roles:
            samples = self._samples[role.name]
            warm = [s for s in samples if s.at >= WARM_UP * samples[-1].at]
            left = {begins: len(role.find(begins)) - len(role.find(ends)) for begins, ends in PAIRS}
            processes[role.name] = {
                "resident_mib": {
                    "first": round(samples[0].resident / 2**20, 2),
                    "warm": round(warm[0].resident / 2**20, 2),
                    "last": round(warm[-1].resident / 2**20, 2),
                },
                "slope_kib_a_minute": round(slope(warm), 2),
                "descriptors": {
                    "least": min(s.descriptors for s in warm),
                    "most": max(s.descriptors for s in warm),
                    "after": measure(role, 0.0).descriptors,
                },
                "left_over": left,
                "begun": {begins: len(role.find(begins)) for begins, _ in PAIRS},
            }
        return {"seconds": self._seconds, "crowd": tally, "processes": processes}
