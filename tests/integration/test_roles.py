"""The programs as their users meet them: starting, mistakes, signals, the README, the demo."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import p2pnet
from lab.forked import ForkedDeployment
from p2pnet.identity import Role
from p2pnet.testing.processes import Process, RoleProcess, Service, run_to_end, script
from tests.integration.test_http import (
    ANY_PORT,
    TIMEOUT,
    free_port,
    listener_of,
    wait_for_output,
    wait_until,
)

README = Path(p2pnet.__file__).parents[1] / "README.md"


def run(*command: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; what it prints on either channel is in `stdout`."""
    return run_to_end(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def processes_in(directory: Path) -> list[int]:
    """The ids of all processes that work in or below `directory` (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.readlink(entry / "cwd").startswith(str(directory)):
                found.append(int(entry.name))
    return found


def end_process(pid: int, directory: Path) -> None:
    """End a process that works in `directory`, if it still does."""
    if pid in processes_in(directory):
        os.kill(pid, signal.SIGKILL)


class RolesTestCase(SynchronousTestCase):
    """A realm, and processes that end with the test."""

    def setUp(self) -> None:
        """The realm."""
        self.directory = Path(self.mktemp()).absolute()
        self.deployment = ForkedDeployment(self.directory)
        self.addCleanup(self.deployment.stop)


class StartTests(RolesTestCase):
    """A process that cannot start says why in one line, and its exit status is not 0."""

    def setUp(self) -> None:
        """An Intermediate's configuration that is right."""
        super().setUp()
        self.deployment.issue(Role.INTERMEDIATE, "relay1", hosts=["127.0.0.1"])
        self.port = free_port(socket.SOCK_DGRAM)
        self.config = self.directory / "intermediate.toml"
        self.config.write_text(
            f'[intermediate]\nlisten = "127.0.0.1:{self.port}"\nca = "certs/ca.pem"\n'
            'cert = "certs/relay1.pem"\nkey = "certs/relay1.key"\n'
        )

    def edit(self, old: str, new: str) -> None:
        """Make a mistake in the configuration."""
        text = self.config.read_text()
        self.assertIn(old, text)
        self.config.write_text(text.replace(old, new))

    def assert_refused(self, problem: str, mode: str = "--nodaemon") -> None:
        """It ends with one line about `problem` and without a traceback."""
        command = (script("twistd"), mode, "p2p-intermediate", "--config", str(self.config))
        done = run(*command, directory=self.directory)
        self.assertEqual(1, done.returncode, done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        self.assertEqual(1, sum(problem in line for line in done.stdout.splitlines()), done.stdout)
        # A daemon removes it after it has told the command that started it.
        wait_until(lambda: not list(self.directory.glob("*.pid")), "pidfile to be removed")

    def test_bad_toml(self) -> None:
        """With file and line."""
        self.edit('ca = "certs/ca.pem"', "ca = ")
        self.assert_refused(f"{self.config}:3: not valid TOML: ")

    def test_an_unknown_key(self) -> None:
        """With file and line, and what was meant."""
        self.edit("listen", "lisen")
        self.assert_refused(f"{self.config}:2: lisen in [intermediate]: unknown; did you mean l")

    def test_no_such_configuration(self) -> None:
        """The file that was named is not there."""
        self.config.unlink()
        self.assert_refused(f"{self.config}: No such file or directory")

    def test_a_bad_path_of_a_key(self) -> None:
        """With file and line, and the whole path that was tried."""
        self.edit("relay1.key", "relay2.key")
        path = self.directory / "certs" / "relay2.key"
        self.assert_refused(f"{self.config}:5: key in [intermediate]: {path}: No such file")

    def test_a_key_that_others_may_read(self) -> None:
        """With the command that puts it right."""
        key = self.directory / "certs" / "relay1.key"
        key.chmod(0o644)
        self.assert_refused(f"{key}: others may read it (mode 0644); run `chmod 600 {key}`")

    def test_regression_a_certificate_of_another_role(self) -> None:
        """Which certificate it is, and what for it cannot be used."""
        self.deployment.issue(Role.CONNECTOR, "office", services=["web"])
        self.edit("relay1", "office")
        self.assert_refused("connector office of realm lab cannot be run as intermediate")

    def test_regression_a_udp_port_in_use(self) -> None:
        """With address and port. A daemon's command ends too, and leaves no pidfile."""
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", self.port))
            self.assert_refused(f"cannot listen on 127.0.0.1 port {self.port}: ")
            self.assert_refused(f"cannot listen on 127.0.0.1 port {self.port}: ", "--no_save")
        # The daemon may write it after the command that started it has ended.
        log = self.directory / "p2p-intermediate.log"
        wait_until(lambda: "is another program using it?" in log.read_text(), "line in the log")

    def test_a_tcp_port_in_use(self) -> None:
        """A forward of an Agent, whose own socket is fine."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.deployment.intermediates = [f"127.0.0.1:{self.port}"]
            alice = self.deployment.agent("alice", {"web": f"tcp:{port}:interface=127.0.0.1"})
            self.assertEqual(1, alice.wait())
        self.assertIn(f"cannot listen on 127.0.0.1 port {port}: ", alice.output())
        self.assertNotIn("Traceback", alice.output())

    def test_a_daemon(self) -> None:
        """It starts in the background and ends by its pidfile."""
        command = f"twistd p2p-intermediate --config {self.config} --event-log events".split()
        done = run(script(command[0]), *command[1:], directory=self.directory)
        self.assertEqual((0, ""), (done.returncode, done.stdout))
        pidfile = self.directory / "p2p-intermediate.pid"
        pid = int(pidfile.read_text())
        self.addCleanup(end_process, pid, self.directory)
        events = self.directory / "events"
        wait_until(lambda: b'"listening"' in events.read_bytes(), "listening")
        # Twisted takes signals a moment later; until then SIGTERM just kills.
        wait_until(lambda: catches(pid, signal.SIGTERM), "signal handler")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: b'"stopped"' in events.read_bytes(), "stopped")
        wait_until(lambda: not pidfile.exists(), "no pidfile")


def catches(pid: int, number: int) -> bool:
    """Whether the process handles that signal itself (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


class CommandTests(RolesTestCase):
    """twistd's own part, and the commands of the README."""

    def test_twistd_lists_the_roles(self) -> None:
        """With a line about each."""
        text = run(script("twistd"), "--help", directory=self.directory).stdout
        for role in Role:
            self.assertRegex(text, rf"p2p-{role} +p2pnet: \w+")

    def test_the_readme(self) -> None:
        """Its commands in one directory, with its files, but for the numbers of the ports."""
        if not README.exists():
            raise SkipTest("there is no README beside the package, only in a checkout")
        text = README.read_text()
        shutil.rmtree(self.deployment.certs)  # the README makes its own
        (self.directory / "web").mkdir()
        (self.directory / "web" / "hello").write_text("hello\n")
        web = self.deployment.run(
            "web", [sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "-d", "web", "0"]
        )
        ports = {number: free_port(socket.SOCK_DGRAM) for number in ("4433", "53", "5353")}
        ports |= {"8080": int(wait_for_output(web, r"port (\d+)")[1]), "8081": free_port()}
        files = re.findall(r"\*\*(\w+\.toml)\*\*.*?```toml\n(.*?)```", text, re.DOTALL)
        for name, body in files:
            changed = re.sub(r"(?<=:)(\d+)", lambda m: str(ports.get(m[1], m[1])), body)
            (self.directory / name).write_text(changed)
        for line in re.findall(r"^p2pnet pki .*$", text, re.MULTILINE):
            done = run("sh", "-c", self._with_path(line), directory=self.directory)
            self.assertEqual(0, done.returncode, done.stdout)
        roles = re.findall(r"^twistd -n p2p-.*$", text, re.MULTILINE)
        self.assertEqual((3, 3), (len(files), len(roles)))
        started = [
            self.deployment.run(line.split()[2], ["sh", "-c", self._with_path(f"exec {line}")])
            for line in roles
        ]
        wait_for_output(started[1], "registered: ")
        wait_for_output(started[2], f"listening: address=127.0.0.1:{ports['8081']}")
        url = f"http://127.0.0.1:{ports['8081']}/hello"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            self.assertEqual(b"hello\n", response.read())

    def _with_path(self, line: str) -> str:
        return f"PATH='{Path(sys.executable).parent}':$PATH; {line}"


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        """One connection."""
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class SignalTests(RolesTestCase):
    """Three running processes that get signals."""

    def setUp(self) -> None:
        """An echo service, reached only through the relay, by a connection that stays open."""
        super().setUp()
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
        server.daemon_threads = True  # a connection that hangs is not to hold up the end
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)  # returns once it serves no more
        echo = Service(f"tcp:127.0.0.1:{server.server_address[1]}")
        listen = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.relay = self.deployment.intermediate("relay1", listen, drain_seconds=1.5)
        self.office = self.deployment.connector("office", {"echo": echo})
        self.alice = self.deployment.agent("alice", {"echo": ANY_PORT}, path="relay-only")
        self.office.wait_for("registered")
        self.alice.wait_for("control_connected")
        self.connection = self.open_echo(self.alice)
        self.assertTrue(self.answers(self.connection))

    def open_echo(self, agent: RoleProcess) -> socket.socket:
        """A new connection to the service through `agent`."""
        connection = socket.create_connection(listener_of(agent, "echo"), TIMEOUT)
        self.addCleanup(connection.close)
        return connection

    def answers(self, connection: socket.socket) -> bool:
        """Whether the service echoes on this connection."""
        with contextlib.suppress(OSError):
            connection.sendall(b"hello")
            return connection.recv(5, socket.MSG_WAITALL) == b"hello"
        return False

    def assert_ends(self, role: RoleProcess) -> float:
        """SIGTERM ends it in order, by the signal itself, as twistd does; returns the seconds."""
        started = time.monotonic()
        role.signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, role.wait())
        seconds = time.monotonic() - started
        self.assertEqual(1, len(role.find("stopped")))
        self.assertNotIn("Traceback", role.output())
        return seconds

    def test_sigterm_of_the_nodes(self) -> None:
        """They leave at once, and the other end of the session is told."""
        self.assert_ends(self.alice)
        self.office.wait_for("session_closed", peer="alice", code="shutdown")
        self.assert_ends(self.office)
        self.relay.wait_for("node_lost", node="connector office of realm lab")
        self.assert_ends(self.relay)

    def test_sigterm_of_a_busy_relay(self) -> None:
        """It waits as long as it is configured to, not longer; the nodes know that it will go."""
        stopping = threading.Event()

        def talk() -> None:
            with contextlib.suppress(OSError):
                while not stopping.wait(0.05):
                    self.connection.sendall(b"x")

        threading.Thread(target=talk, daemon=True).start()
        self.addCleanup(stopping.set)
        self.assertGreater(self.assert_ends(self.relay), 1.4)
        self.assertEqual(1, len(self.relay.find("drain_finished", sessions=1)))
        for node in (self.alice, self.office):
            node.wait_for("intermediate_draining", seconds=1.5)

    def renew(self, role: Role, name: str, process: RoleProcess, **options: object) -> None:
        """Another certificate, taken up on SIGHUP."""
        count = len(process.find("certificate_reloaded"))
        self.deployment.issue(role, name, **options)
        process.signal(signal.SIGHUP)
        process.wait_for("certificate_reloaded", count=count + 1)

    def test_sighup_with_a_renewed_certificate(self) -> None:
        """New connections get it; those that stand, stand. Shown by a wrong host name in it."""
        self.renew(Role.INTERMEDIATE, "relay1", self.relay, hosts=["elsewhere.example"])
        bob = self.deployment.agent("bob", {"echo": ANY_PORT})
        self.assertIn("127.0.0.1", bob.wait_for("control_lost")["reason"])
        self.renew(Role.INTERMEDIATE, "relay1", self.relay, hosts=["127.0.0.1"])
        bob.wait_for("control_connected")
        self.renew(Role.AGENT, "alice", self.alice, days=10)
        self.renew(Role.CONNECTOR, "office", self.office, services=["echo"])
        self.assert_undisturbed()

    def test_sighup_with_bad_files(self) -> None:
        """The old certificate stays in use, also for new connections."""
        (self.deployment.certs / "relay1.pem").write_text("nonsense")
        self.relay.signal(signal.SIGHUP)
        reason = self.relay.wait_for("certificate_reload_failed")["reason"]
        self.assertIn("relay1.pem: holds no valid PEM certificate", reason)
        self.deployment.agent("bob", {"echo": ANY_PORT}).wait_for("control_connected")
        self.deployment.issue(Role.CONNECTOR, "alice", services=["echo"])
        self.alice.signal(signal.SIGHUP)
        reason = self.alice.wait_for("certificate_reload_failed")["reason"]
        self.assertIn("connector alice of realm lab cannot be run as agent", reason)
        self.assert_undisturbed()

    def assert_undisturbed(self) -> None:
        """The connections that were there still are, and new ones work."""
        for connection in (self.connection, self.open_echo(self.alice)):
            self.assertTrue(self.answers(connection))
        for node in (self.alice, self.office):
            self.assertEqual([], node.find("control_lost"))

    def test_a_relay_that_dies_and_comes_back(self) -> None:
        """The nodes notice, connect and register again by themselves, and new streams work: at
        once for an agent without a session, soon for one that has to give its session up."""
        bob = self.deployment.agent("bob", {"echo": ANY_PORT}, path="relay-only")
        bob.wait_for("control_connected")
        self.relay.kill()
        died = time.monotonic()
        self.relay.start()
        self.office.wait_for("registered", timeout=60, count=2)
        for agent in (self.alice, bob):
            agent.wait_for("control_connected", timeout=60, count=2)
        connected = time.monotonic() - died
        self.assertTrue(self.answers(self.open_echo(bob)))
        wait_until(lambda: self.answers(self.open_echo(self.alice)), "a stream of alice")
        worked = time.monotonic() - died
        print(f"\n      connected again after {connected:.1f} s, alice after {worked:.1f} s")


class DemoTests(RolesTestCase):
    """``p2pnet demo``; its files go to the directory of the test."""

    def demo(self, *options: str) -> Process:
        """Start it."""
        temporary = f"TMPDIR={self.directory}"
        command = ["env", temporary, "COLUMNS=100", script("p2pnet"), "demo", *options]
        return self.deployment.run("demo", command)

    def left(self) -> list[int]:
        """Its processes that run."""
        return processes_in(self.directory / "p2pnet-demo-")

    def assert_nothing_left(self) -> None:
        """No process and no file."""
        self.assertEqual([], self.left())
        self.assertEqual([], list(self.directory.glob("p2pnet-demo-*")))

    def test_the_timeline_as_json(self) -> None:
        """One object, from which a program learns whether it worked."""
        demo = self.demo("--json", "--size", "4")
        self.assertEqual(0, demo.wait(TIMEOUT), demo.output())
        result = json.loads(demo.output())
        self.assertIs(result["ok"], True)
        self.assertEqual(4 << 20, result["bytes"])
        times = [step["at"] for step in result["timeline"]]
        self.assertEqual(sorted(times), times)
        self.assert_nothing_left()

    def test_the_timeline_as_text(self) -> None:
        """Every step that there is to see, each with its time, in their order."""
        demo = self.demo("--size", "1")
        self.assertEqual(0, demo.wait(TIMEOUT), demo.output())
        for step in (
            r"Intermediate listens +UDP 127\.0\.0\.1:\d+",
            r"Connector: control connected +\d+\.\d ms",
            r"Agent: control connected +\d+\.\d ms",
            r"Connector: registered +web",
            r"session opened +with connector office",
            r"path.* relayed",
            r"end-to-end handshake +\d+\.\d ms",
            r"first byte +\d+\.\d ms",
            r"download complete +1 MiB at \d+\.\d MB/s, SHA-256 equal",
            r"everything stopped",
        ):
            self.assertRegex(demo.output(), rf"(?m)^ +\d+\.\d{{3}} +{step}")
        self.assert_nothing_left()

    def test_a_demo_that_is_killed(self) -> None:
        """Its processes end with it."""
        if shutil.which("setpriv") is None:
            raise SkipTest("setpriv is not installed (Debian: util-linux)")
        demo = self.demo("--size", "64")
        wait_until(lambda: len(self.left()) >= 4, "four processes")
        demo.kill()
        wait_until(lambda: not self.left(), "no process left behind")
