"""DNS over UDP through p2pnet: dnsmasq asked by dig."""

import shutil
import socket
import subprocess
from typing import ClassVar

from p2pnet.testing.processes import Deployment, RoleProcess, Service
from p2pnet.wire.address import Address
from tests.integration.test_http import (
    TIMEOUT,
    DeploymentTestCase,
    free_port,
    listener_of,
    wait_for_output,
)

HOSTS = {f"host{n}.example": f"192.0.2.{n}" for n in range(1, 51)}
LARGE = "large.example"
# Sent in DATAGRAM frames is only what fits one 1200-byte packet; this goes over the flow's stream.
STRINGS = [f"{n:02}" + "x" * 198 for n in range(9)]
ANY_UDP_PORT = "udp:0:interface=127.0.0.1"


class DnsTests(DeploymentTestCase):
    """A name server that knows a few names and asks nobody else."""

    if shutil.which("dnsmasq") is None or shutil.which("dig") is None:
        skip = "dnsmasq or dig is not installed (Debian: dnsmasq-base, bind9-dnsutils)"

    office: ClassVar[RoleProcess]
    alice: ClassVar[RoleProcess]
    dns: ClassVar[Address]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """dnsmasq, the roles, and a second service behind which nobody listens."""
        port = free_port(socket.SOCK_DGRAM)
        deaf = cls.resources.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        deaf.bind(("127.0.0.1", 0))
        deaf.connect(("127.0.0.1", 9))  # so that a datagram from anywhere else finds no socket
        server = deployment.run(
            "dnsmasq",
            [
                "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--user=", "--pid-file=",
                f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces",
                "--no-resolv", "--no-hosts", "--edns-packet-max=4096",
                f"--txt-record={LARGE},{','.join(STRINGS)}",
                *(f"--address=/{name}/{address}" for name, address in HOSTS.items()),
            ],
        )  # fmt: skip
        services = {
            "dns": Service(f"udp:127.0.0.1:{port}"),
            "deaf": Service(f"udp:127.0.0.1:{deaf.getsockname()[1]}"),
        }
        deployment.intermediate("relay1")
        cls.office = deployment.connector("office", services)
        cls.alice = deployment.agent("alice", dict.fromkeys(services, ANY_UDP_PORT))
        wait_for_output(server, "started")
        cls.office.wait_for("registered")
        cls.dns = listener_of(cls.alice, "dns")

    def dig(self, *query: str, address: Address | None = None, seconds: int = 30) -> str:
        """What dig prints when it asks once, over UDP only."""
        host, port = address or self.dns
        done = subprocess.run(
            ["dig", f"@{host}", "-p", str(port), f"+time={seconds}", "+tries=1", "+ignore", *query],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, text=True,
        )  # fmt: skip
        return done.stdout

    def test_several_names(self) -> None:
        """Each has its address, and a name that there is not has none."""
        for name in list(HOSTS)[:5]:
            self.assertEqual(HOSTS[name], self.dig("+short", name).strip())
        self.assertIn("status: REFUSED", self.dig("nobody.example"))

    def test_fifty_queries(self) -> None:
        """Of one dig, which takes a new socket for each: so many flows over one session."""
        self.assertEqual(list(HOSTS.values()), self.dig("+short", *HOSTS).split())
        self.alice.wait_for("stream_opened", count=len(HOSTS), kind="flow")
        self.assertEqual(1, len(self.alice.find("session_opened")))

    def test_a_large_answer(self) -> None:
        """One that fits no packet of the end-to-end connection still is one datagram to dig."""
        answer = self.dig("+bufsize=4096", LARGE, "TXT")
        for string in STRINGS:
            self.assertIn(f'"{string}"', answer)
        self.assertIn("(UDP)", answer)
        self.assertNotIn(" tc ", answer)

    def test_regression_nobody_listens(self) -> None:
        """No answer, as with UDP anywhere; the event logs say why, and the flow is over: it has
        lost its socket, and would drop all that comes later."""
        address = listener_of(self.alice, "deaf")
        answer = self.dig("host1.example", address=address, seconds=1)
        self.assertIn("no servers could be reached", answer)
        for role in (self.office, self.alice):
            role.wait_for("stream_finished", service="deaf", code="target_refused")
