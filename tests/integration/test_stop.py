"""A role stops in the midst of a transfer whose end is said by the connection's end alone."""

import contextlib
import socket
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.testing.processes import Deployment, Service
from p2pnet.wire.address import parse_host_port

BLOCK = bytes(65536)


def pour(listener: socket.socket) -> None:
    """Send to the first client until it is gone."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        while True:
            connection.sendall(BLOCK)


class StopTests(SynchronousTestCase):
    """What the local client of an Agent sees."""

    def test_regression_a_part_is_not_taken_for_the_whole(self) -> None:
        """The connection ended properly, whichever role stopped by SIGTERM."""
        for stopped in ("alice", "office"):
            directory = Path(self.mktemp()).absolute()
            with (
                Deployment(directory) as deployment,
                socket.create_server(("127.0.0.1", 0)) as target,
            ):
                threading.Thread(target=pour, args=(target,), daemon=True).start()
                deployment.intermediate("relay")
                service = Service(f"tcp:127.0.0.1:{target.getsockname()[1]}")
                office = deployment.connector("office", {"web": service})
                office.wait_for("registered")
                alice = deployment.agent("alice", {"web": "tcp:0"})
                address = parse_host_port(alice.wait_for("listening", what="web")["address"])
                with socket.create_connection(address, timeout=20.0) as client:
                    self.assertTrue(client.recv(65536))
                    {"alice": alice, "office": office}[stopped].terminate()
                    with self.assertRaises(ConnectionResetError):
                        while client.recv(65536):
                            pass
