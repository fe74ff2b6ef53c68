"""Real role processes on this machine: a throw-away realm, and twistd for each role.

::

    with Deployment(directory) as deployment:
        relay = deployment.intermediate("relay1")
        office = deployment.connector("office", {"web": Service("tcp:127.0.0.1:8080", ["alice"])})
        alice = deployment.agent("alice", {"web": "tcp:0:interface=127.0.0.1"})
        address = alice.wait_for("listening", what="web")["address"]

Every process that was started is ended by its own id, also when this process dies.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from p2pnet import pki
from p2pnet.identity import Role
from p2pnet.wire.address import parse_host_port

POLL = 0.02  # seconds between looks at an event log
START_TIMEOUT = 30.0  # seconds of a Deadline for a process to do what is waited for
STOP_TIMEOUT = 20.0  # seconds of a Deadline; a drain takes up to 10


class ProcessError(Exception):
    """A process did not do what was waited for; the message holds the end of its output."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A service of a connector: its target and the agents that may use it."""

    target: str
    allow: Sequence[str] = ("*",)


def slowness() -> float:
    """How much longer a program may take now than on an idle machine, from 1 up.

    That is the number of processes that want to run, a mean over a minute, for each processor.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Deadline:
    """A limit of so many seconds, which a loaded machine extends while it lasts."""

    def __init__(self, seconds: float) -> None:
        self._begun = time.monotonic()
        self._seconds = seconds

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self._begun > self._seconds * slowness()


def run_to_end(
    command: Sequence[str], timeout: float = START_TIMEOUT, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a program as subprocess.run() does, with a Deadline of `timeout` seconds.

    Raises subprocess.TimeoutExpired, after the program was killed.
    """
    deadline = Deadline(timeout)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **options) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=1.0)
            except subprocess.TimeoutExpired as error:
                if deadline.passed:
                    process.kill()
                    raise subprocess.TimeoutExpired(command, timeout, error.output) from None
            else:
                status = process.returncode
                return subprocess.CompletedProcess(command, status, output, errors)


def script(name: str) -> str:
    """The path of a console script of this Python's environment, or of that name on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ProcessError(f"{name} is not installed beside {sys.executable}")
    return found


def guarded(command: Sequence[str]) -> list[str]:
    """`command`, made to end with this process where the system can do that."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else list(command)


def stat_fields(pid: int) -> list[str]:
    """What Linux tells of a process, from its state on: field 3 of proc(5) is the first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident(pid: int) -> int:
    """Resident memory of a process in bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used (Linux)."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process:
    """A child process whose output goes to a file.

    :param prefix: a program, with arguments, that becomes the command; see Host.prefix.
    :ivar directory: its working directory.
    """

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.directory = directory
        self.output_path = directory / f"{name}.out"
        self._command = guarded([*prefix, *command])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it."""
        with open(self.output_path, "ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    def output(self) -> str:
        """What it printed."""
        return self.output_path.read_text(errors="replace")

    def resident(self) -> int:
        """Resident memory in bytes of it and its children (Linux)."""
        return round(self._sum(resident))

    def cpu_seconds(self) -> float:
        """Processor time that it and its children have used, as far as they still run (Linux)."""
        return self._sum(cpu_seconds)

    def _sum(self, figure: Callable[[int], float]) -> float:
        total = 0.0
        for pid in self.family():
            with contextlib.suppress(OSError):  # a child that ended just now
                total += figure(pid)
        return total

    def family(self) -> list[int]:
        """Its process id and those of its children, theirs included (Linux)."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # that one ended just now
                pid = int(path.name)
                children.setdefault(int(stat_fields(pid)[1]), []).append(pid)
        family = [self.pid]
        for pid in family:
            family += children.get(pid, ())
        return family

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Its exit status. Raises ProcessError after a Deadline of `timeout` seconds."""
        assert self._process is not None
        deadline = Deadline(timeout)
        while (status := self._process.poll()) is None:
            if deadline.passed:
                raise ProcessError(
                    f"{self.name} is still running after {timeout} s\n{self._tail()}"
                )
            time.sleep(POLL)
        return status

    def terminate(self) -> None:
        """Send it SIGTERM, if it runs, and do not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End it: SIGTERM, and SIGKILL if that does not help."""
        if self._process is None or self._process.poll() is not None:
            return
        self.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-15:])


class RoleProcess(Process):
    """One role under twistd, with its event log."""

    def __init__(
        self, role: Role, name: str, directory: Path, config: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.event_log = directory / f"{name}.events"
        self._events: list[dict[str, Any]] = []
        self._read = 0  # bytes of the event log
        super().__init__(
            name,
            [
                script("twistd"), "--nodaemon", f"--pidfile={name}.pid", f"p2p-{role}",
                "--config", str(config), "--event-log", str(self.event_log),
            ],
            directory,
            prefix,
        )  # fmt: skip

    def events(self) -> list[dict[str, Any]]:
        """Everything in its event log."""
        with contextlib.suppress(FileNotFoundError), open(self.event_log, "rb") as log:
            log.seek(self._read)  # a log grows long, and is looked at often
            *lines, rest = log.read().split(b"\n")
            self._read = log.tell() - len(rest)
            self._events += [json.loads(line) for line in lines]
        return list(self._events)

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of that name whose fields are as given."""
        return [
            e for e in self.events()
            if e["event"] == event and all(e.get(k) == v for k, v in fields.items())
        ]  # fmt: skip

    def wait_for(
        self, event: str, timeout: float = START_TIMEOUT, count: int = 1, **fields: Any
    ) -> dict[str, Any]:
        """The `count`-th such event, once it is there. Raises ProcessError."""
        deadline = Deadline(timeout)
        while len(found := self.find(event, **fields)) < count:
            if self.returncode is not None:
                raise ProcessError(f"{self.name} ended with {self.returncode}\n{self._tail()}")
            if deadline.passed:
                raise ProcessError(
                    f"{self.name}: no {event} {fields} in {timeout} s\n{self._tail()}"
                )
            time.sleep(POLL)
        return found[count - 1]


def toml_value(value: object) -> str:
    """A string, number or list of strings as TOML (which JSON's forms of those are)."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


class Deployment:
    """A realm of its own in `directory`, and the processes that belong to it.

    A `prefix` has its process run elsewhere, such as on a host of a laboratory.

    :cvar defaults: settings of every role, unless it is given others.
    """

    defaults: ClassVar[Mapping[str, object]] = {}

    def __init__(self, directory: Path, realm: str = "lab") -> None:
        self.directory = directory
        self.realm = realm
        self.certs = directory / "certs"
        self.processes: list[Process] = []
        self.intermediates: list[str] = []
        self._authority = pki.create_authority(realm)
        self.certs.mkdir(parents=True, exist_ok=True)
        pki.save(self.certs, pki.AUTHORITY, *self._authority)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, the last one started first."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.stop()

    def issue(self, role: Role, name: str, **options: Any) -> None:
        """A certificate and key for a node, in the realm's directory."""
        pki.save(self.certs, name, *pki.issue(*self._authority, role, name, **options), force=True)

    def run(self, name: str, command: Sequence[str], prefix: Sequence[str] = ()) -> Process:
        """Start any other program, to be ended with the rest."""
        process = Process(name, command, self.directory, prefix).start()
        self.processes.append(process)
        return process

    def role(
        self, role: Role, name: str, settings: Mapping[str, object],
        tables: Iterable[tuple[str, Mapping[str, object]]] = (), prefix: Sequence[str] = (),
    ) -> RoleProcess:  # fmt: skip
        """Write the role's configuration and start it."""
        files = {
            "ca": str(self.certs / "ca.pem"),
            "cert": str(self.certs / f"{name}.pem"),
            "key": str(self.certs / f"{name}.key"),
        }
        sections: list[tuple[str, Mapping[str, object]]] = [
            (f"[{role}]", {**files, **self.defaults, **settings})
        ]
        sections += [(f"[[{table}]]", row) for table, row in tables]
        config = self.directory / f"{name}.toml"
        config.write_text(
            "\n".join(
                "\n".join([head, *(f"{k} = {toml_value(v)}" for k, v in body.items())])
                for head, body in sections
            )
            + "\n"
        )
        process = RoleProcess(role, name, self.directory, config, prefix)
        process.start()
        self.processes.append(process)
        return process

    def intermediate(
        self, name: str, listen: str = "127.0.0.1:0", prefix: Sequence[str] = (),
        **settings: object,
    ) -> RoleProcess:  # fmt: skip
        """Start an Intermediate, and have later nodes use it."""
        host = parse_host_port(listen)[0]
        self.issue(Role.INTERMEDIATE, name, hosts=[host])
        process = self.role(Role.INTERMEDIATE, name, {"listen": listen, **settings}, prefix=prefix)
        self.intermediates.append(process.wait_for("listening")["address"])
        return process

    def connector(
        self, name: str, services: Mapping[str, Service], prefix: Sequence[str] = (),
        **settings: object,
    ) -> RoleProcess:  # fmt: skip
        """Start a Connector of those services."""
        self.issue(Role.CONNECTOR, name, services=list(services))
        return self.role(
            Role.CONNECTOR, name, self._peer_settings(prefix, settings),
            [
                ("service", {"name": service, "target": s.target, "allow": list(s.allow)})
                for service, s in services.items()
            ],
            prefix,
        )  # fmt: skip

    def agent(
        self, name: str, forwards: Mapping[str, str], prefix: Sequence[str] = (),
        **settings: object,
    ) -> RoleProcess:  # fmt: skip
        """Start an Agent with those forwards (service to local listener)."""
        self.issue(Role.AGENT, name)
        return self.role(
            Role.AGENT, name, self._peer_settings(prefix, settings),
            [("forward", {"service": s, "listen": listen}) for s, listen in forwards.items()],
            prefix,
        )  # fmt: skip

    def _peer_settings(
        self, prefix: Sequence[str], settings: Mapping[str, object]
    ) -> dict[str, object]:
        """What Connectors and Agents share. On this machine itself they stay on loopback."""
        bind = {} if prefix else {"bind": "127.0.0.1:0"}
        return {"intermediates": self.intermediates, **bind, **settings}
