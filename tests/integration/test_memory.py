"""Backpressure from end to end: a reader that stalls costs no process of the three its memory."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

from p2pnet.testing.processes import Deployment, RoleProcess, Service
from tests.integration.test_http import (
    ANY_PORT,
    MEBIBYTE,
    TIMEOUT,
    DeploymentTestCase,
    listener_of,
)

STALL = 10.0  # seconds
LIMIT = 8 * MEBIBYTE  # of growth for each process
WARM_UP = 24 * MEBIBYTE  # bytes through the stream first, so that every buffer has been in use
AFTERWARDS = 16 * MEBIBYTE  # bytes read once the reader goes on
AHEAD = 32 * MEBIBYTE  # of the reader: room in the kernel's socket buffers, not in ours
PATTERN = os.urandom(MEBIBYTE - 1)  # an odd length: a lost or repeated block shows


@contextlib.contextmanager
def endless_sender(connection: socket.socket) -> Iterator[list[int]]:
    """Sends the pattern over and over for as long as it is let; yields how much was taken."""
    sent = [0]
    stopping = threading.Event()
    connection.settimeout(0.2)

    def send() -> None:
        while not stopping.is_set():
            at = sent[0] % len(PATTERN)
            with contextlib.suppress(TimeoutError):
                sent[0] += connection.send(PATTERN[at : at + 65536])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        stopping.set()
        sender.join()


class MemoryTests(DeploymentTestCase):
    """An endless sender against a stalled reader, either way, through the relay."""

    if not sys.platform.startswith("linux"):
        skip = "resident memory is read from /proc"

    roles: ClassVar[list[RoleProcess]]
    target: ClassVar[socket.socket]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """The three roles and a service that is the test itself."""
        cls.target = cls.resources.enter_context(socket.create_server(("127.0.0.1", 0)))
        cls.target.settimeout(TIMEOUT)
        relay = deployment.intermediate("relay1")
        target = f"tcp:127.0.0.1:{cls.target.getsockname()[1]}"
        office = deployment.connector("office", {"endless": Service(target)})
        alice = deployment.agent("alice", {"endless": ANY_PORT}, path="relay-only")
        office.wait_for("registered")
        cls.roles = [relay, office, alice]

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """A connection through the roles: the client's end and the service's."""
        client = socket.create_connection(listener_of(self.roles[-1], "endless"), TIMEOUT)
        self.addCleanup(client.close)
        service, _ = self.target.accept()
        self.addCleanup(service.close)
        service.settimeout(TIMEOUT)
        return client, service

    def test_a_client_and_a_service_that_stall(self) -> None:
        """Both at once, each on a stream whose other end sends all it can."""
        client, endless_service = self.connect()
        endless_client, service = self.connect()
        idle = [role.resident() for role in self.roles]
        with endless_sender(endless_service) as down, endless_sender(endless_client) as up:
            read = [self._read(reader, 0, WARM_UP) for reader in (client, service)]
            before = [role.resident() for role in self.roles]
            growth = self._watch(before)
            ahead = [down[0] - read[0], up[0] - read[1]]
            for reader, at in zip((client, service), read, strict=True):
                self._read(reader, at, AFTERWARDS)
        figures = ", ".join(
            f"{role.name} {i / MEBIBYTE:.1f}, {b / MEBIBYTE:.1f} {g / MEBIBYTE:+.2f} MiB"
            for role, i, b, g in zip(self.roles, idle, before, growth, strict=True)
        )
        print(f"\n      resident: {figures}; unread {[a // 1024 for a in ahead]} KiB", flush=True)
        self.assertLess(max(growth), LIMIT, figures)
        self.assertLess(max(ahead), AHEAD, "a sender was not stopped")

    def _watch(self, before: list[int]) -> list[int]:
        """The largest growth of each role while nothing is read."""
        growth = [0] * len(before)
        deadline = time.monotonic() + STALL
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = [role.resident() for role in self.roles]
            growth = [max(g, n - b) for g, n, b in zip(growth, now, before, strict=True)]
        return growth

    def _read(self, reader: socket.socket, at: int, size: int) -> int:
        """Read at least `size` bytes, which begin at `at`; returns where they end."""
        end = at + size
        while at < end:
            data = reader.recv(65536)
            self.assertTrue(data, "the stream ended")
            start = at % len(PATTERN)
            expected = (PATTERN[start:] + PATTERN)[: len(data)]
            self.assertTrue(data == expected, f"other bytes than were sent at {at}")
            at += len(data)
        return at
