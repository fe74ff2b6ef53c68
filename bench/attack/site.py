"""A realm under attack: an Intermediate on a core of its own, honest nodes, and their transfers."""

import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from bench import load
from bench.attack.members import EVE, EVIL, MALLORY
from bench.crowd import Crowd, load_credentials
from bench.tunnel import await_ready
from lab.forked import ForkedDeployment
from p2pnet.identity import Role
from p2pnet.testing.processes import Process, ProcessError, RoleProcess, Service
from p2pnet.wire.address import Address, parse_host_port

SERVICE = "load"
SIZE = 4096  # bytes of a block, which goes there and back
EVERY = 0.1  # seconds between blocks
PATIENCE = 30.0  # seconds for a connect
PAUSE = 0.1  # seconds between connects
CHECKOUT = Path(__file__).parents[2]


class Transfer(threading.Thread):
    """Sends random blocks through a forward for as long as the process runs, and compares them.

    :ivar bytes: that came back. `slowest`: seconds that a block took at most.
    :ivar error: why the transfer ended, "" while it flows.
    """

    def __init__(self, address: Address, seed: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.slowest = 0.0
        self.error = ""
        self._random = random.Random(seed)
        self._connection = load.connect(address)

    def run(self) -> None:
        """Transfer until stop() or an error."""
        try:
            self._connection.sendall(load.ECHO)
            while True:
                block, began = self._random.randbytes(SIZE), time.monotonic()
                self._connection.sendall(block)
                if load.receive_exactly(self._connection, SIZE) != block:
                    self.error = "other bytes came back"
                    return
                self.bytes += SIZE
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(EVERY)
        except OSError as error:
            self.error = str(error) or type(error).__name__

    def stop(self) -> None:
        """End the transfer."""
        with suppress(OSError):  # the transfer broke
            self._connection.shutdown(socket.SHUT_RDWR)
        self.join()
        self._connection.close()


class Site:
    """The processes of a realm in `directory`, and a relayed session with a transfer each agent.

    :ivar relay: the Intermediate, which has the first core for itself if there are others.
    """

    def __init__(self, directory: Path, agents: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:] or cores)  # for the processes that start from here, too
        self.deployment = ForkedDeployment(directory)
        self._transfers: list[Transfer] = []
        try:
            self._start(cores[:1], agents)
        except BaseException:
            self.deployment.stop()
            raise

    def _start(self, core: Sequence[int], agents: int) -> None:
        deployment = self.deployment
        target = self._run("target", "bench.load", "target", "127.0.0.1:0")
        service = Service(f"tcp:127.0.0.1:{await_ready(target)}")
        self.relay = deployment.intermediate("relay")
        for task in Path(f"/proc/{self.relay.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), core)
        self._address = parse_host_port(deployment.intermediates[0])
        self.connector = deployment.connector("office", {SERVICE: service})
        self.connector.wait_for("registered")
        self._agents = [
            deployment.agent(f"agent{n}", {SERVICE: "tcp:0:interface=127.0.0.1"}, path="relay-only")
            for n in range(agents)
        ]
        for number, agent in enumerate(self._agents):
            agent.wait_for("control_connected")
            address = parse_host_port(agent.wait_for("listening", what=SERVICE)["address"])
            self._transfers.append(Transfer(address, number))
        for transfer in self._transfers:
            transfer.start()
        deployment.issue(Role.AGENT, "newcomer")
        for name in (EVE, MALLORY):
            deployment.issue(Role.AGENT, name)
        deployment.issue(Role.CONNECTOR, EVIL, services=[SERVICE])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for transfer in self._transfers:
            transfer.stop()
        self.deployment.stop()

    def _run(self, name: str, module: str, *arguments: str) -> Process:
        command = [sys.executable, "-m", module, *arguments]
        return self.deployment.run(name, ["env", f"PYTHONPATH={CHECKOUT}", *command])

    @contextmanager
    def attacked(
        self, kinds: Sequence[str], *options: str
    ) -> Iterator[dict[str, dict[str, float]]]:
        """Attack meanwhile. Afterwards the dictionary has what each attacker did."""
        done: dict[str, dict[str, float]] = {}
        attackers = {kind: self._attacker(kind, *options) for kind in kinds}
        try:
            for attacker in attackers.values():
                await_ready(attacker)
            yield done
        finally:
            for attacker in attackers.values():
                attacker.stop()
                self.deployment.processes.remove(attacker)
        for kind, attacker in attackers.items():
            if attacker.returncode:
                raise ProcessError(f"{kind} failed\n{attacker.output()}")
            done[kind] = json.loads(attacker.output().splitlines()[-1])
            attacker.output_path.unlink()

    def _attacker(self, kind: str, *options: str) -> Process:
        where = f"{self._address[0]}:{self._address[1]}"
        if kind == "members":
            certs = str(self.deployment.certs)
            return self._run(kind, "bench.attack.members", certs, where, SERVICE, *options)
        return self._run(kind, "bench.attack.flood", kind, where, *options)

    def connect(self) -> float:
        """Seconds until a node that comes now has the Intermediate's welcome.

        As a node does, it tries again if the Intermediate does not answer, for PATIENCE.
        """
        began = time.monotonic()
        crowd = Crowd(load_credentials(self.deployment.certs, "newcomer"), self._address)
        while not crowd.ready and time.monotonic() - began < PATIENCE:
            crowd.connect(1)
        elapsed = time.monotonic() - began
        crowd.leave()
        crowd.idle(PAUSE)
        crowd.socket.close()
        return elapsed

    @property
    def lost(self) -> int:
        """Sessions and control connections of honest nodes that ended, and broken transfers."""
        nodes: list[RoleProcess] = [self.connector, *self._agents]
        controls = sum(len(node.find("control_lost")) for node in nodes)
        sessions = sum(len(agent.find("session_closed")) for agent in self._agents)
        return controls + sessions + sum(bool(transfer.error) for transfer in self._transfers)

    @property
    def bytes(self) -> int:
        """Bytes that the transfers brought back so far."""
        return sum(transfer.bytes for transfer in self._transfers)

    def take_slowest(self) -> float:
        """The most seconds that a block took since the last call."""
        slowest = max(transfer.slowest for transfer in self._transfers)
        for transfer in self._transfers:
            transfer.slowest = 0.0
        return slowest

    def resident(self) -> dict[str, int]:
        """Bytes of memory of the Intermediate, the Connector and the largest Agent."""
        return {
            "Intermediate": self.relay.resident(),
            "Connector": self.connector.resident(),
            "Agent": max(agent.resident() for agent in self._agents),
        }
