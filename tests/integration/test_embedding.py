"""p2pnet inside other programs: the plain loop of the documentation, and endpoint strings."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lab.forked import ForkedDeployment
from p2pnet.testing.processes import Process, Service, run_to_end, script

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "agent_loop.py"
TIMEOUT = 60.0  # seconds of a Deadline

ECHO_SERVER = """
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.protocols.wire import Echo
from twisted.internet.protocol import Factory

serverFromString(reactor, "p2p:echo:config=office.toml").listen(Factory.forProtocol(Echo))
reactor.run()
"""

ECHO_CLIENT = """
import sys
from twisted.internet import defer, protocol, task
from twisted.internet.endpoints import clientFromString, connectProtocol

class Talk(protocol.Protocol):
    def __init__(self):
        self.heard, self.done = b"", defer.Deferred()
    def connectionMade(self):
        self.transport.write(b"to myself")
    def dataReceived(self, data):
        self.heard += data
        if self.heard == b"to myself":
            self.transport.loseConnection()
    def connectionLost(self, reason):
        self.done.callback(self.heard)

async def main(reactor, service):
    endpoint = clientFromString(reactor, f"p2p:{service}:config=alice.toml")
    try:
        talk = await connectProtocol(endpoint, Talk())
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print((await talk.done).decode())

task.react(lambda reactor: defer.ensureDeferred(main(reactor, sys.argv[1])))
"""


class EmbeddingTests(SynchronousTestCase):
    """Programs that use p2pnet without twistd, against real processes of the other roles."""

    def setUp(self) -> None:
        """A realm with an Intermediate."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.deployment = ForkedDeployment(directory)
        self.addCleanup(self.deployment.stop)
        self.deployment.intermediate("relay1")

    def run_python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run this Python in the realm's directory."""
        return run_to_end(
            [sys.executable, *arguments], TIMEOUT, cwd=self.deployment.directory,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def web(self) -> str:
        """Start a web server; its endpoint."""
        (self.deployment.directory / "site").mkdir()
        (self.deployment.directory / "site" / "index.html").write_text("<p>private</p>")
        arguments = (
            "--nodaemon --pidfile=web.pid web --path site --listen=tcp:0:interface=127.0.0.1"
        )
        server = self.deployment.run("web", [script("twistd"), *arguments.split()])
        return f"tcp:127.0.0.1:{self.port_of(server)}"

    def port_of(self, server: Process) -> str:
        """The port that a twistd web server says it is on."""
        for _ in range(600):
            for line in server.output().splitlines():
                if "Site starting on " in line:
                    return line.rsplit(" ", 1)[1]
            subprocess.run(["sleep", "0.05"], check=True)
        self.fail(server.output())

    def example(self, service: str) -> "subprocess.CompletedProcess[str]":
        """Run the documented loop."""
        intermediate = self.deployment.intermediates[0]
        return self.run_python(str(EXAMPLE), "certs", "alice", intermediate, service)

    def test_the_plain_loop_fetches_a_page(self) -> None:
        """The example of the documentation does what it says, and tells the observed address."""
        office = self.deployment.connector("office", {"web": Service(self.web(), ["alice"])})
        office.wait_for("registered")
        self.deployment.agent("alice", {}).stop()  # issues the certificate
        done = self.example("web")
        self.assertIn("200 OK", done.stdout, done.stderr)
        self.assertIn("<p>private</p>", done.stdout)
        self.assertIn("this node is seen as 127.0.0.1:", done.stderr)
        self.assertEqual(0, done.returncode)
        self.assertIn("nope: no connector serves nope now", self.example("nope").stderr)

    def test_endpoint_strings_join_two_programs(self) -> None:
        """An echo server on one p2p: endpoint, a client on another; a refusal is a ConnectError."""
        echo = {"echo": Service("tcp:127.0.0.1:9", ["alice"])}
        self.deployment.connector("office", echo).stop()  # writes the configurations
        self.deployment.agent("alice", {}).stop()
        office_log = self.deployment.directory / "server.events"
        config = self.deployment.directory / "office.toml"
        config.write_text(
            config.read_text().replace("[connector]", f'[connector]\nevent_log = "{office_log}"')
        )
        self.deployment.run("server", [sys.executable, "-c", ECHO_SERVER])
        for _ in range(600):
            if office_log.exists() and '"registered"' in office_log.read_text():
                break
            subprocess.run(["sleep", "0.05"], check=True)
        done = self.run_python("-c", ECHO_CLIENT, "echo")
        self.assertEqual("to myself\n", done.stdout, done.stderr)
        refused = self.run_python("-c", ECHO_CLIENT, "nope")
        self.assertEqual(
            "UnknownService unknown service: no connector serves nope now\n", refused.stdout
        )
