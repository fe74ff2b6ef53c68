"""Attacks that take the limits of a real process."""

from __future__ import annotations

import contextlib
import shutil
import socket
from typing import ClassVar

from p2pnet.net.descriptors import for_targets
from p2pnet.testing.processes import Deployment, RoleProcess, Service
from tests.integration.test_http import ANY_PORT, DeploymentTestCase, listener_of

LIMIT = 120  # open files of the connector's process
MANY = 130  # connections


class DescriptorTests(DeploymentTestCase):
    """An agent that opens as many connections as it can."""

    if shutil.which("bash") is None:
        skip = "bash, whose ulimit lowers the limit of open files, is not installed"

    office: ClassVar[RoleProcess]
    mallory: ClassVar[RoleProcess]
    alice: ClassVar[RoleProcess]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """A target that the kernel answers for, and the roles."""
        target = cls.resources.enter_context(socket.socket())
        target.bind(("127.0.0.1", 0))
        target.listen(512)
        service = Service(f"tcp:127.0.0.1:{target.getsockname()[1]}")
        deployment.intermediate("relay1")
        prefix = ["bash", "-c", f'ulimit -n {LIMIT}; exec "$@"', "bash"]
        cls.office = deployment.connector(
            "office", {"web": service}, prefix=prefix, bind="127.0.0.1:0"
        )
        cls.office.wait_for("registered")
        cls.mallory, cls.alice = (
            deployment.agent(name, {"web": ANY_PORT}) for name in ("mallory", "alice")
        )

    def test_regression_a_process_without_descriptors_serves_others(self) -> None:
        """It refused them, with tracebacks in its log; now nobody has all of its descriptors."""
        with contextlib.ExitStack() as connections:
            for agent, count in ((self.mallory, MANY), (self.alice, 1)):
                address = listener_of(agent, "web")
                for _ in range(count):
                    connection = connections.enter_context(socket.create_connection(address))
                    connection.sendall(b"x")
                if agent is self.mallory:
                    over = MANY - for_targets(LIMIT)
                    self.office.wait_for("stream_refused", count=over, code="over_limit")
            self.office.wait_for("stream_opened", peer="alice")
            opened = self.office.find("stream_opened", peer="mallory")
            self.assertEqual(for_targets(LIMIT), len(opened))
            self.assertNotIn("Traceback", self.office.output())
