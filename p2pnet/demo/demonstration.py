"""A download through all three roles, with the direct path cut and mended in its middle."""

import dataclasses
import hashlib
import http.client
import os
import time
from pathlib import Path
from typing import Any

from p2pnet.demo.stage import Stage
from p2pnet.testing.processes import Deployment, ProcessError, RoleProcess, Service, script
from p2pnet.wire.address import parse_host_port

MEBIBYTE = 1 << 20
CHUNK = 1 << 16
WEB_START_TIMEOUT = 30.0  # seconds
CUT_AT = 0.3  # fraction of the download
CUT_FOR = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of the timeline.

    :ivar what: the event.
    :ivar at: its time, in seconds from the start.
    :ivar detail: figures and addresses, may be empty.
    """

    what: str
    at: float
    detail: str


class Demonstration:
    """Runs the demonstration on a stage and keeps its timeline.

    :param directory: for configurations, certificates and logs.
    :param megabytes: size of the download in MiB.
    :ivar steps: the timeline, sorted by run().
    :ivar figures: results by name, for the JSON output.
    """

    def __init__(self, stage: Stage, directory: Path, megabytes: int) -> None:
        self.steps: list[Step] = []
        self.figures: dict[str, Any] = {}
        self._stage = stage
        self._directory = directory
        self._size = megabytes * MEBIBYTE
        self._started = time.time()

    def note(self, what: str, when: float, detail: str = "") -> None:
        """Add a step that happened at `when` (seconds since 1970)."""
        self.steps.append(Step(what, round(when - self._started, 4), detail))

    def run(self) -> bool:
        """Start all processes, download the file and stop them.

        Returns whether the download equals the served file. Raises ProcessError for a process that
        fails.
        """
        with self._stage, Deployment(self._directory, realm="demo") as deployment:
            self.note("throw-away PKI created", time.time(), "CA and three certificates")
            digest = self._make_file()
            port = self._start_web_server(deployment)
            self._start_roles(deployment, port)
            ok = self._download(digest)
        self.note("everything stopped", time.time())
        self.steps.sort(key=lambda step: step.at)
        return ok

    def _make_file(self) -> str:
        digest = hashlib.sha256()
        site = self._directory / "site"
        site.mkdir()
        with open(site / "file.bin", "wb") as file:
            for _ in range(self._size // MEBIBYTE):
                block = os.urandom(MEBIBYTE)
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def _start_web_server(self, deployment: Deployment) -> int:
        server = deployment.run(
            "web",
            [
                script("twistd"), "--nodaemon", "--pidfile=web.pid", "web",
                "--path", "site", "--listen", "tcp:0:interface=127.0.0.1",
            ],
            self._stage.prefixes[1],
        )  # fmt: skip
        deadline = time.monotonic() + WEB_START_TIMEOUT
        while time.monotonic() < deadline and server.returncode is None:
            for line in server.output().splitlines():
                if "Site starting on " in line:
                    port = int(line.rsplit(" ", 1)[1])
                    self.note("web server started", time.time(), f"127.0.0.1:{port}")
                    return port
            time.sleep(0.05)
        raise ProcessError(f"the web server did not start\n{server.output()}")

    def _start_roles(self, deployment: Deployment, port: int) -> None:
        stage = self._stage
        relay_at, office_at, alice_at = stage.prefixes
        relay = deployment.intermediate("relay1", stage.listen, relay_at)
        services = {"web": Service(f"tcp:127.0.0.1:{port}", ["alice"])}
        self.office = deployment.connector(
            "office", services, office_at, **stage.connector_settings
        )
        local = {"web": "tcp:0:interface=127.0.0.1"}
        self.alice = deployment.agent("alice", local, alice_at, **stage.agent_settings)
        stage.set_out(self.office)
        listening = relay.wait_for("listening")
        self.note("Intermediate listens", listening["time"], f"UDP {listening['address']}")
        registered = self.office.wait_for("registered")
        for node, label in ((self.office, "Connector"), (self.alice, "Agent")):
            event = node.wait_for("control_connected")
            self.note(
                f"{label}: control connected", event["time"],
                f"{event['seconds'] * 1000:.1f} ms, observed as {event['address']}",
            )  # fmt: skip
        self.note("Connector: registered", registered["time"], ", ".join(registered["services"]))

    def _download(self, digest: str) -> bool:
        host, port = parse_host_port(self.alice.wait_for("listening", what="web")["address"])
        begun = time.time()
        self.note("download requested", begun, f"http://{host}:{port}/file.bin")
        connection = http.client.HTTPConnection(host, port)
        connection.sock = self._stage.connect((host, port))
        connection.request("GET", "/file.bin")
        response = connection.getresponse()
        seen = hashlib.sha256(first := response.read(1))
        first_at = time.time()
        size = len(first)
        cable = Cable(self._stage, self.alice)
        while block := response.read(CHUNK):
            seen.update(block)
            size += len(block)
            cable.follow(size / self._size)
        ended = time.time()
        connection.close()
        ok = seen.hexdigest() == digest and size == self._size
        self._note_session(self.alice)
        self._note_paths(cable)
        self.note("first byte", first_at, f"{(first_at - begun) * 1000:.1f} ms after the request")
        rate = size / (ended - first_at) / 1e6
        self.note(
            "download complete", ended,
            f"{size / MEBIBYTE:.0f} MiB at {rate:.1f} MB/s, SHA-256 {'equal' if ok else 'DIFFERS'}",
        )  # fmt: skip
        self.figures |= {
            "bytes": size,
            "sha256_ok": ok,
            "first_byte_ms": round((first_at - begun) * 1000, 2),
            "throughput_mb_s": round(rate, 2),
        }
        return ok

    def _note_session(self, agent: RoleProcess) -> None:
        opened = agent.wait_for("session_opened")
        handshake = agent.wait_for("handshake_completed")
        self.note("session opened", opened["time"], f"with connector {opened['peer']}")
        self.note(
            "end-to-end handshake", handshake["time"],
            f"{handshake['seconds'] * 1000:.1f} ms, {handshake['peer']}",
        )  # fmt: skip
        self.figures |= {
            "control_connected_ms": round(agent.wait_for("control_connected")["seconds"] * 1000, 2),
            "handshake_ms": round(handshake["seconds"] * 1000, 2),
        }

    def _note_paths(self, cable: "Cable") -> None:
        opened = self.alice.wait_for("session_opened")["time"]
        selected = self.alice.find("path_selected")
        for path in selected:
            both = " and " in path["address"]
            what = "path: relay and direct" if both else f"path: {path['path']}"
            self.note(what, path["time"], path["reason"])
        for found in self.office.find("packet_size_found"):
            self.note("Connector: packet size", found["time"], f"{found['size']} bytes, directly")
        for what, when in cable.pulled:
            self.note(what, when)
        direct = [path["time"] for path in selected if path["path"] == "direct"]
        self.figures |= {
            "path": selected[-1]["path"],
            "paths": [path["path"] for path in selected],
            "time_to_direct_ms": round((direct[0] - opened) * 1000, 2) if direct else None,
        }


class Cable:
    """Cuts the direct path in the middle of the download, and mends it.

    :ivar pulled: a text and a time (seconds since 1970) for the cut, then for the mending.
    """

    def __init__(self, stage: Stage, agent: RoleProcess) -> None:
        self.pulled: list[tuple[str, float]] = []
        self._stage = stage
        self._agent = agent

    def follow(self, done: float) -> None:
        """Cut or mend the direct path if the fraction `done` of the download calls for it."""
        now = time.time()
        if not self.pulled and done > CUT_AT and self._agent.find("path_selected", path="direct"):
            self._stage.cut()
            self.pulled.append(("direct path cut", now))
        elif len(self.pulled) == 1 and now - self.pulled[0][1] > CUT_FOR:
            self._stage.mend()
            self.pulled.append(("direct path restored", now))
