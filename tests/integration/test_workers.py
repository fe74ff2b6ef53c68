"""An Intermediate of several processes under twistd: transfers through it, and what ends when."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lab.forked import ForkedDeployment
from p2pnet.net.workers import pool as workers
from p2pnet.testing.processes import RoleProcess, Service
from tests.integration.test_http import (
    ANY_PORT,
    MEBIBYTE,
    TIMEOUT,
    WEB_SERVER,
    fetch_hash,
    free_port,
    listener_of,
    wait_for_output,
    wait_until,
)

PROCESSES = 4  # of the Intermediate


def is_running(pid: int) -> bool:
    """Whether there is such a process, which may be nobody's child any more (Linux)."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


class WorkersTests(SynchronousTestCase):
    """A web server that agents reach only through the relay."""

    def setUp(self) -> None:
        """The three roles."""
        if not workers.is_available(reactor):
            raise SkipTest("this system or this reactor cannot share a port among processes")
        self.directory = Path(self.mktemp()).absolute()
        self.deployment = ForkedDeployment(self.directory)
        self.addCleanup(self.deployment.stop)
        site = self.directory / "site"
        site.mkdir()
        data = os.urandom(16 * MEBIBYTE)
        (site / "file").write_bytes(data)
        self.digest = hashlib.sha256(data).hexdigest()
        server = self.directory / "server.py"
        server.write_text(WEB_SERVER)
        web = self.deployment.run("web", [sys.executable, str(server), str(site)])
        port = wait_for_output(web, r"port (\d+)")[1]
        listen = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.relay = self.deployment.intermediate(
            "relay1", listen, workers=PROCESSES, drain_seconds=1.5
        )
        self.wait_for_workers(1)
        office = self.deployment.connector("office", {"web": Service(f"tcp:127.0.0.1:{port}")})
        office.wait_for("registered")

    def wait_for_workers(self, count: int) -> list[int]:
        """The process ids of the workers, once each started that often."""
        numbers = range(1, PROCESSES)
        return [
            self.relay.wait_for("worker_started", count=count, worker=number)["pid"]
            for number in numbers
        ]

    def agent(self, name: str) -> RoleProcess:
        """An agent with a listener of its own."""
        return self.deployment.agent(name, {"web": ANY_PORT}, path="relay-only")

    def fetch(self, agent: RoleProcess) -> str:
        """The hash of what comes through an agent."""
        connection = http.client.HTTPConnection(*listener_of(agent, "web"), timeout=TIMEOUT)
        self.addCleanup(connection.close)
        return fetch_hash(connection, "/file")

    def test_transfers_through_all_processes_are_counted(self) -> None:
        """Two agents, whose channels come to different processes by chance."""
        for name in ("alice", "bob"):
            agent = self.agent(name)
            self.assertEqual(self.digest, self.fetch(agent))
            agent.stop()
        for count in (1, 2):
            closed = self.relay.wait_for("relay_closed", count=count)
            self.assertGreater(closed["bytes"], 16 * MEBIBYTE)
            self.assertGreater(closed["frames"], 16 * MEBIBYTE / 1500)
        self.assertEqual([], self.relay.find("worker_lost"))

    def test_a_transfer_goes_on_while_workers_are_killed(self) -> None:
        """Each of them, one after the other, while it runs; all of them return."""
        alice = self.agent("alice")
        digests: list[str] = []
        fetching = threading.Thread(
            target=lambda: digests.extend(self.fetch(alice) for _ in range(3)), daemon=True
        )
        fetching.start()
        alice.wait_for("session_opened")
        for pid in self.wait_for_workers(1):
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)  # some of the transfer comes between
        fetching.join(TIMEOUT)
        self.assertEqual([self.digest] * 3, digests)
        self.assertEqual(PROCESSES - 1, len(set(self.wait_for_workers(2))))
        self.assertEqual([], alice.find("control_lost"))
        self.assertEqual([], alice.find("session_closed"))

    def test_workers_end_with_an_intermediate_that_is_killed(self) -> None:
        """And leave the port to the next one."""
        pids = self.wait_for_workers(1)
        self.relay.kill()
        wait_until(lambda: not any(map(is_running, pids)), "end of the workers")
        self.relay.start()
        self.wait_for_workers(2)

    def test_a_drain_waits_for_what_workers_relay(self) -> None:
        """A signal to each process, as from systemd, has the Intermediate drain and no one die."""
        connections = []
        for name in ("alice", "bob"):
            address = listener_of(self.agent(name), "web")
            connections.append(socket.create_connection(address, TIMEOUT))
            self.addCleanup(connections[-1].close)
        stopping = threading.Event()
        self.addCleanup(stopping.set)

        def talk() -> None:
            with contextlib.suppress(OSError):
                while not stopping.wait(0.05):
                    for connection in connections:
                        connection.sendall(b"GET /")

        threading.Thread(target=talk, daemon=True).start()
        self.relay.wait_for("relay_opened", count=2)
        pids = self.wait_for_workers(1)
        for pid in (*pids, self.relay.pid):
            os.kill(pid, signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, self.relay.wait())
        self.assertEqual(1, len(self.relay.find("drain_finished", sessions=2)))
        self.assertEqual([], self.relay.find("worker_lost"))
        self.assertEqual([], list(filter(is_running, pids)))
        self.assertNotIn("Traceback", self.relay.output())
