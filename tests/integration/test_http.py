"""HTTP and plain TCP through three real processes, and what the event logs say about it."""

import atexit
import contextlib
import hashlib
import http.client
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from lab.forked import ForkedDeployment
from p2pnet.testing.processes import (
    Deadline,
    Deployment,
    Process,
    ProcessError,
    RoleProcess,
    Service,
    slowness,
)
from p2pnet.wire.address import Address, parse_host_port

TIMEOUT = 120.0  # seconds for anything, on a busy machine
AT_ONCE = 3.0  # seconds, times slowness(), for what must not wait for any timeout of ours
MEBIBYTE = 1 << 20
ANY_PORT = "tcp:0:interface=127.0.0.1"

WEB_SERVER = """
import functools, hashlib, http.server, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (block := self.rfile.read(min(left, 1 << 16))):
            digest.update(block)
            left -= len(block)
        self.send_response(200)
        self.send_header("Content-Length", "64")
        self.end_headers()
        self.wfile.write(digest.hexdigest().encode())

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer.request_queue_size = 1024
handler = functools.partial(Handler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print("port", server.server_port, flush=True)
server.serve_forever()
"""


def wait_until(done: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
    """Return as soon as `done()`. Raises ProcessError that names `what` after a Deadline."""
    deadline = Deadline(timeout)
    while not done():
        if deadline.passed:
            raise ProcessError(f"{what}: not in {timeout} s")
        time.sleep(0.02)


def wait_for_output(process: Process, pattern: str) -> re.Match[str]:
    """What `pattern` found in the output of `process`, once it is there. Raises ProcessError."""

    def found() -> re.Match[str] | None:
        if process.returncode is not None:
            raise ProcessError(f"{process.name} ended\n{process.output()}")
        return re.search(pattern, process.output())

    wait_until(found, f"{pattern!r} from {process.name}")
    match = found()
    assert match is not None
    return match


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody uses now, for a program that cannot pick one itself."""
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listener_of(agent: RoleProcess, service: str) -> Address:
    """Where the agent listens for connections to a service."""
    return parse_host_port(agent.wait_for("listening", what=service)["address"])


class DeploymentTestCase(SynchronousTestCase):
    """Tests that have one deployment in common for each class.

    Trial calls no setUpClass(): the first test of a class deploys, and its last test or else the
    end of the process takes everything down.

    :cvar resources: what is ended then.
    """

    resources: ClassVar[contextlib.ExitStack]
    _left: ClassVar[set[str]]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """Start what the tests of the class need."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Deploy, unless an earlier test did."""
        cls = type(self)
        if "resources" in vars(cls):
            return
        cls._left = {name for name in dir(cls) if name.startswith("test_")}
        cls.resources = contextlib.ExitStack()
        atexit.register(cls.resources.close)
        deployment = ForkedDeployment(Path(self.mktemp()).absolute())
        self.deploy(cls.resources.enter_context(deployment))

    def tearDown(self) -> None:
        """Take down what no test needs any more."""
        self._left.discard(self.id().rpartition(".")[2])
        if not self._left:
            self.resources.close()


class OfficeTestCase(DeploymentTestCase):
    """Connector office offers a web server, a listener of the test and some that refuse."""

    path = "prefer-direct"
    office: ClassVar[RoleProcess]
    alice: ClassVar[RoleProcess]
    site: ClassVar[Path]
    target: ClassVar[socket.socket]
    web_address: ClassVar[Address]
    eve: ClassVar[RoleProcess]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """The services, and Agent alice with a listener for each, also for one there is not."""
        cls.site = deployment.directory / "site"
        cls.site.mkdir()
        server = deployment.directory / "server.py"
        server.write_text(WEB_SERVER)
        web = deployment.run("web", [sys.executable, str(server), str(cls.site)])
        deployment.intermediate("relay1")
        cls.target = cls.resources.enter_context(socket.create_server(("127.0.0.1", 0)))
        cls.target.settimeout(TIMEOUT)
        deaf = cls.resources.enter_context(socket.socket())  # bound, so that nobody else listens
        deaf.bind(("127.0.0.1", 0))
        web_port = wait_for_output(web, r"port (\d+)")[1]
        services = {
            "web": Service(f"tcp:127.0.0.1:{web_port}", ["alice"]),
            "raw": Service(f"tcp:127.0.0.1:{cls.target.getsockname()[1]}"),
            "deaf": Service(f"tcp:127.0.0.1:{deaf.getsockname()[1]}"),
            "secret": Service(f"tcp:127.0.0.1:{web_port}", ["bob"]),
        }
        cls.office = deployment.connector("office", services)
        forwards = dict.fromkeys([*services, "nowhere"], ANY_PORT)
        cls.alice = deployment.agent("alice", forwards, path=cls.path)
        cls.eve = deployment.agent("eve", {"secret": ANY_PORT})
        cls.office.wait_for("registered")
        cls.web_address = listener_of(cls.alice, "web")

    def make_file(self, name: str, size: int) -> str:
        """Let the web server serve a file of random bytes; returns its hash."""
        data = os.urandom(size)
        (self.site / name).write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def open_http(self) -> http.client.HTTPConnection:
        """An HTTP connection to the web server through alice."""
        connection = http.client.HTTPConnection(*self.web_address, timeout=TIMEOUT)
        self.addCleanup(connection.close)
        return connection

    def open_tcp(self, service: str, agent: RoleProcess | None = None) -> socket.socket:
        """A TCP connection to a service."""
        address = listener_of(agent or self.alice, service)
        client = socket.create_connection(address, TIMEOUT)
        self.addCleanup(client.close)
        return client

    def open_raw(self) -> tuple[socket.socket, socket.socket]:
        """A TCP connection to the test's own listener: the client's end and the service's."""
        client = self.open_tcp("raw")
        service, _ = self.target.accept()
        self.addCleanup(service.close)
        service.settimeout(TIMEOUT)
        return client, service


def fetch_hash(connection: http.client.HTTPConnection, path: str) -> str:
    """The hash of what is served there; the connection stays open."""
    connection.request("GET", path)
    response = connection.getresponse()
    digest = hashlib.sha256()
    while block := response.read(1 << 16):
        digest.update(block)
    return digest.hexdigest()


def read_to_end(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def reset(connection: socket.socket) -> None:
    """End a connection by a TCP reset instead of properly."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class HttpTests(OfficeTestCase):
    """An ordinary web server and an ordinary HTTP client, and all bytes through the relay."""

    path = "relay-only"

    def test_a_download_of_64_mib(self) -> None:
        """Every byte arrives, and the logs of both ends tell how many there were."""
        expected = self.make_file("large", 64 * MEBIBYTE)
        connection = self.open_http()
        self.assertEqual(expected, fetch_hash(connection, "/large"))
        connection.close()
        wait_until(lambda: self._finished(self.alice, "received"), "stream_finished of alice")
        wait_until(lambda: self._finished(self.office, "sent"), "stream_finished of office")
        (self.site / "large").unlink()

    def test_an_upload_of_64_mib(self) -> None:
        """The same the other way; the server tells the hash of what it got."""
        expected = self.make_file("upload", 64 * MEBIBYTE)
        connection = self.open_http()
        with open(self.site / "upload", "rb") as file:
            connection.request("PUT", "/", file, {"Content-Length": str(64 * MEBIBYTE)})
            self.assertEqual(expected.encode(), connection.getresponse().read())
        connection.close()
        wait_until(lambda: self._finished(self.office, "received"), "stream_finished of office")
        (self.site / "upload").unlink()

    def _finished(self, role: RoleProcess, way: str) -> bool:
        """Whether a stream that carried 64 MiB and little more ended properly."""
        finished = role.find("stream_finished", service="web", code="no_error")
        return any(64 * MEBIBYTE < event[way] < 65 * MEBIBYTE for event in finished)

    def test_200_parallel_requests(self) -> None:
        """Each gets its own file, and all of them share one session with the connector."""
        count = 200
        hashes = [self.make_file(f"{n}", 20_000 + 100 * n) for n in range(count)]
        together = threading.Barrier(count)

        def get(number: int) -> str:
            connection = self.open_http()
            connection.connect()
            together.wait(TIMEOUT)
            with contextlib.closing(connection):
                return fetch_hash(connection, f"/{number}")

        with ThreadPoolExecutor(count) as pool:
            self.assertEqual(hashes, list(pool.map(get, range(count))))
        self.assertEqual(1, len(self.alice.find("session_opened")))

    def test_500_streams_open_at_once(self) -> None:
        """Connections that are kept alive: each answers again after all of them were opened."""
        count = 500
        hashes = [self.make_file(f"{n}", 100 + n) for n in range(count)]
        connections = [self.open_http() for _ in range(count)]
        for _ in range(2):
            got = [fetch_hash(c, f"/{number}") for number, c in enumerate(connections)]
            self.assertEqual(hashes, got)
        opened, finished = (
            len(self.alice.find(event, service="web"))
            for event in ("stream_opened", "stream_finished")
        )
        self.assertGreaterEqual(opened - finished, count)
        self.assertEqual(1, len(self.alice.find("session_opened")))


class TcpTests(OfficeTestCase):
    """What TCP has besides bytes, and what becomes of a connection that is refused."""

    def test_a_client_that_half_closes(self) -> None:
        """The service answers only after the end of the question."""
        question = os.urandom(MEBIBYTE)
        client, service = self.open_raw()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self._send_and_end, client, question)
            self.assertEqual(question, read_to_end(service))
            asked.result()
        service.sendall(b"the answer")
        service.close()
        self.assertEqual(b"the answer", read_to_end(client))

    def test_a_service_that_half_closes(self) -> None:
        """What the client sends after the end of the answer still arrives."""
        client, service = self.open_raw()
        self._send_and_end(service, b"hello and good-bye")
        self.assertEqual(b"hello and good-bye", read_to_end(client))
        self._send_and_end(client, b"the rest")
        self.assertEqual(b"the rest", read_to_end(service))
        self.alice.wait_for("stream_finished", service="raw", code="no_error", sent=8)

    def _send_and_end(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    def test_regression_a_service_that_resets(self) -> None:
        """The client gets a reset too, not an end that looks proper."""
        client, service = self.open_raw()
        service.sendall(b"begun")
        self.assertEqual(b"begun", client.recv(5))
        reset(service)
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.alice.wait_for("stream_finished", service="raw", code="cancelled", received=5)

    def test_regression_a_client_that_resets(self) -> None:
        """The service gets a reset too."""
        client, service = self.open_raw()
        client.sendall(b"begun!")
        self.assertEqual(b"begun!", service.recv(6))
        reset(client)
        self.assertRaises(ConnectionResetError, service.recv, 1)
        self.office.wait_for("stream_finished", service="raw", code="cancelled", received=6)

    def test_regression_two_listeners_on_any_port(self) -> None:
        """Port 0 is another one each time, not the same listener twice."""
        addresses = {listener_of(self.alice, service) for service in ("raw", "deaf")}
        self.assertEqual(2, len(addresses))

    def assert_closed(self, service: str, agent: RoleProcess | None = None) -> None:
        """A connection to it is closed at once, without a byte; perhaps before we see it open."""
        with contextlib.suppress(ConnectionResetError):
            client = self.open_tcp(service, agent)
            client.settimeout(AT_ONCE * slowness())
            self.assertEqual(b"", client.recv(1))

    def test_a_target_that_refuses(self) -> None:
        """The agent learns what it was, the connector also what the system said."""
        self.assert_closed("deaf")
        refused: dict[str, Any] = {"service": "deaf", "code": "target_refused"}
        self.alice.wait_for("stream_refused", peer="office", **refused)
        reason = self.office.wait_for("stream_refused", peer="alice", **refused)["reason"]
        self.assertIn("Connection refused", reason)

    def test_a_service_that_nobody_offers(self) -> None:
        """The Intermediate says so."""
        self.assert_closed("nowhere")
        expected: dict[str, Any] = {
            "service": "nowhere",
            "code": "unknown_service",
            "reason": "no connector serves nowhere now",
        }
        self.alice.wait_for("session_refused", **expected)
        self.alice.wait_for("stream_refused", peer="", **expected)

    def test_an_agent_that_may_use_nothing_of_the_connector(self) -> None:
        """The Connector refuses the session, and both ends know for which agent and service."""
        self.assert_closed("secret", self.eve)
        refused: dict[str, Any] = {"service": "secret", "code": "not_authorized"}
        reason = "connector office refuses secret to agent eve"
        self.eve.wait_for("session_refused", reason=reason, **refused)
        self.eve.wait_for("stream_refused", peer="", reason=reason, **refused)
        self.office.wait_for("session_refused", reason="eve", **refused)

    def test_an_agent_that_may_use_another_service_only(self) -> None:
        """A session that stands already does not help: each stream is authorized by itself."""
        self.open_raw()
        self.assert_closed("secret")
        refused: dict[str, Any] = {"service": "secret", "code": "not_authorized"}
        self.alice.wait_for("stream_refused", peer="office", **refused)
        self.office.wait_for("stream_refused", peer="alice", **refused)
