"""Real role processes on this machine: a throw-away realm, and twistd for each role.

::

    with Deployment(directory) as deployment:
        relay = deployment.intermediate("relay1")
        office = deployment.connector("office", {"web": Service("tcp:127.0.0.1:8080", ["alice"])})
        alice = deployment.agent("alice", {"web": "tcp:0:interface=127.0.0.1"})
        address = alice.wait_for("listening", what="web")["address"]

A deployment ends each process that it started, by its id. Where setpriv is installed, the processes
also end with this one.
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
from p2pnet.testing.procfs import cpu_seconds, resident, stat_fields
from p2pnet.wire.address import parse_host_port

POLL = 0.02  # seconds between reads of an event log
START_TIMEOUT = 30.0  # seconds of a Deadline, by which wait_for() must succeed
STOP_TIMEOUT = 20.0  # seconds of a Deadline, by which stop() must succeed; a drain takes up to 10


class ProcessError(Exception):
    """A process failed or was too slow; the message holds the end of its output."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A service of a connector: the endpoint of its target, and its agents ("*" for all)."""

    target: str
    allow: Sequence[str] = ("*",)


def slowness() -> float:
    """The factor by which a program may be slower now than on an idle machine, at least 1.

    It is the mean number of runnable processes of a minute for each processor.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Deadline:
    """A limit in seconds, which the load of the machine extends."""

    def __init__(self, seconds: float) -> None:
        self._begun = time.monotonic()
        self._seconds = seconds

    @property
    def passed(self) -> bool:
        """Whether the time is over, at the present load of the machine."""
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
    """The path of a console script beside this Python, or else on PATH. Raises ProcessError."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ProcessError(f"{name} is not installed beside {sys.executable}")
    return found


def guarded(command: Sequence[str]) -> list[str]:
    """`command` with a prefix that ends it together with this process, if setpriv is installed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else list(command)


class Process:
    """A child process whose output goes to a file.

    :param command: the program and its arguments.
    :param prefix: a program and arguments that precede the command, for example to run it in a
        network namespace.
    :ivar directory: its working directory.
    :ivar output_path: the file of its standard output and error, NAME.out in the directory.
    """

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.directory = directory
        self.output_path = directory / f"{name}.out"
        self._command = guarded([*prefix, *command])
        self._process: Any = None  # a Popen, or what start() of a subclass has in its place

    def start(self) -> Self:
        """Start the process and return this object. Raises OSError."""
        with open(self.output_path, "ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    @property
    def pid(self) -> int:
        """The id of the started process."""
        assert self._process is not None
        return int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """The exit status of the process, None while it runs and before its start."""
        return None if self._process is None else self._process.poll()

    def output(self) -> str:
        """The text that the process has printed so far."""
        return self.output_path.read_text(errors="replace")

    def resident(self) -> int:
        """The resident memory of the process and its descendants in bytes (Linux)."""
        return round(self._sum(resident))

    def cpu_seconds(self) -> float:
        """The processor time of the process and its running descendants in seconds (Linux)."""
        return self._sum(cpu_seconds)

    def _sum(self, figure: Callable[[int], float]) -> float:
        total = 0.0
        for pid in self.family():
            with contextlib.suppress(OSError):  # it ended meanwhile
                total += figure(pid)
        return total

    def family(self) -> list[int]:
        """The ids of the process and its descendants (Linux)."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                pid = int(path.name)
                children.setdefault(int(stat_fields(pid)[1]), []).append(pid)
        family = [self.pid]
        for pid in family:
            family += children.get(pid, ())
        return family

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the started process."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for the end and return the exit status. Raises ProcessError after a Deadline."""
        deadline = Deadline(timeout)
        while (status := self.returncode) is None:
            if deadline.passed:
                reason = f"still running after {timeout} s"
                raise ProcessError(f"{self.name} is {reason}\n{self._tail()}")
            time.sleep(POLL)
        return status

    def terminate(self) -> None:
        """Send SIGTERM to the process if it runs, and do not wait for its end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the process with SIGTERM, or with SIGKILL after `timeout` seconds."""
        if self._process is None or self._process.poll() is not None:
            return
        self.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        if self._process is not None and self.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-15:])


class RoleProcess(Process):
    """A role under twistd, with its event log.

    :param config: path of the role's TOML file.
    :ivar event_log: path of the event log, NAME.events in the directory.
    """

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
        """All events in the event log so far, oldest first."""
        with contextlib.suppress(FileNotFoundError), open(self.event_log, "rb") as log:
            log.seek(self._read)  # callers poll, and a log grows long
            *lines, rest = log.read().split(b"\n")
            self._read = log.tell() - len(rest)
            self._events += [json.loads(line) for line in lines]
        return list(self._events)

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events with the name `event` and the given values of fields, oldest first."""
        return [
            e for e in self.events()
            if e["event"] == event and all(e.get(k) == v for k, v in fields.items())
        ]  # fmt: skip

    def wait_for(
        self, event: str, timeout: float = START_TIMEOUT, count: int = 1, **fields: Any
    ) -> dict[str, Any]:
        """Wait for the `count`-th event with a name and given values of fields; return the event.

        Raises ProcessError after a Deadline of `timeout` seconds, or at the end of the process.
        """
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
    """A string, number or list of strings in TOML, whose form of these is that of JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


class Deployment:
    """A new realm in a directory, and its processes; a context manager that ends them.

    A `prefix` runs a process elsewhere, for example in a network namespace; see Process.

    :cvar defaults: settings of every role, which its own settings override.
    :cvar role_process: the class of the roles' processes.
    :ivar processes: all processes, in the order of their start.
    :ivar intermediates: the addresses of the Intermediates, for later Connectors and Agents.
    """

    defaults: ClassVar[Mapping[str, object]] = {}
    role_process: ClassVar[type[RoleProcess]] = RoleProcess

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
        """End all processes, in the reverse order of their start."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.stop()

    def issue(self, role: Role, name: str, **options: Any) -> None:
        """Write a certificate and key for a node to `certs`; `options` are those of pki.issue()."""
        pki.save(self.certs, name, *pki.issue(*self._authority, role, name, **options), force=True)

    def run(self, name: str, command: Sequence[str], prefix: Sequence[str] = ()) -> Process:
        """Start another program, which stop() ends with the roles."""
        process = Process(name, command, self.directory, prefix).start()
        self.processes.append(process)
        return process

    def role(
        self, role: Role, name: str, settings: Mapping[str, object],
        tables: Iterable[tuple[str, Mapping[str, object]]] = (), prefix: Sequence[str] = (),
    ) -> RoleProcess:  # fmt: skip
        """Write the configuration of a role, start its process and return that.

        :param settings: values of the role's table.
        :param tables: (name, values) of each table in an array, such as ``service``.
        """
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
        process = self.role_process(role, name, self.directory, config, prefix)
        process.start()
        self.processes.append(process)
        return process

    def intermediate(
        self, name: str, listen: str = "127.0.0.1:0", prefix: Sequence[str] = (),
        **settings: object,
    ) -> RoleProcess:  # fmt: skip
        """Start an Intermediate and let later nodes connect to it. Raises ProcessError."""
        host = parse_host_port(listen)[0]
        self.issue(Role.INTERMEDIATE, name, hosts=[host])
        process = self.role(Role.INTERMEDIATE, name, {"listen": listen, **settings}, prefix=prefix)
        self.intermediates.append(process.wait_for("listening")["address"])
        return process

    def connector(
        self, name: str, services: Mapping[str, Service], prefix: Sequence[str] = (),
        **settings: object,
    ) -> RoleProcess:  # fmt: skip
        """Start a Connector of services, given by name."""
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
        """Start an Agent with forwards: the local listener (an endpoint string) of each service."""
        self.issue(Role.AGENT, name)
        return self.role(
            Role.AGENT, name, self._peer_settings(prefix, settings),
            [("forward", {"service": s, "listen": listen}) for s, listen in forwards.items()],
            prefix,
        )  # fmt: skip

    def _peer_settings(
        self, prefix: Sequence[str], settings: Mapping[str, object]
    ) -> dict[str, object]:
        """The common settings of Connectors and Agents, with loopback sockets unless prefixed."""
        bind = {} if prefix else {"bind": "127.0.0.1:0"}
        return {"intermediates": self.intermediates, **bind, **settings}
