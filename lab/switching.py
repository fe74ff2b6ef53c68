"""What switching between relay and direct path costs those who use a session meanwhile.

::

    acquire()
    with Cell(BEHAVIORS["port-restricted"], BEHAVIORS["port-restricted"]) as cell:
        for kind, done in compare(cell, Course(megabytes=256, switches=10)).items():
            print(kind, done.intact, done.rates)

A switch to the relay is forced by losing everything between the two sites without notice, one back
by joining them again. Rates are of the time between switches, when the path has settled.
"""

import contextlib
import dataclasses
import itertools
import math
import select
import socket
import struct
import threading
import time
from typing import Self

from lab.traffic import BLOCK, Direction, connect, listen
from lab.trial import Cell
from p2pnet.testing.processes import POLL, ProcessError, RoleProcess, Service
from p2pnet.wire.address import parse_host_port

DIRECT, RELAY, SWITCHING = "direct", "relay", "switching"
POLICIES = {DIRECT: "prefer-direct", RELAY: "relay-only"}
MEBIBYTE = 1 << 20
SETTLE = 0.5  # seconds after a switch that belong to no phase,
SLOW_START = 80  # and delays of a link: ten round trips by way of the relay
OUTAGE = 5.0  # seconds on the relay; after 10 direct is given up, and not tried again at once
KILLED_FOR = 1.0  # seconds without direct path while echoes go on, and with it in between
PATIENCE = 30.0  # seconds for a switch, and for the last answers
TIMEOUT = 120.0  # seconds without a byte
ECHO_INTERVAL = 0.02  # seconds
ECHO = struct.Struct("!Q24x")  # a message: its number and some weight


@dataclasses.dataclass(frozen=True)
class Course:
    """A transfer to be measured.

    :ivar megabytes: MiB to transfer at least, shared by the phases between switches.
    :ivar switches: how often the path changes, beginning with direct.
    :ivar upload: from the Agent's side to the Connector's, rather than the other way.
    """

    megabytes: int = 256
    switches: int = 10
    upload: bool = False


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How one transfer went.

    :ivar rates: bytes/s of each phase, by the path in use.
    :ivar switches: how often each node took another path, by its role.
    :ivar problems: what must not happen and did.
    """

    lost: int
    intact: bool
    seconds: float
    stall: float
    rates: dict[str, list[float]]
    switches: dict[str, int]
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class Echoes:
    """How an exchange of short messages went.

    :ivar round_trips: seconds each.
    :ivar gaps: the longest time in seconds between two answers, for each time the path was killed.
    :ivar worst_gap: the longest of all, in seconds.
    """

    sent: int
    lost: int
    round_trips: list[float]
    gaps: list[float]
    worst_gap: float
    switches: dict[str, int]
    problems: list[str]


def reflect(connection: socket.socket) -> None:
    """Send back what comes, to the end."""
    with contextlib.suppress(OSError):
        while data := connection.recv(BLOCK):
            connection.sendall(data)


class EchoClient(threading.Thread):
    """Sends a numbered message at every interval until `finish` is set, and waits for the rest.

    :ivar sent: when each message was sent; `answers`: when each came back (monotonic seconds).
    :ivar problem: what went wrong, "" if nothing did.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self.problem = ""
        self.finish = threading.Event()
        self._unread = b""
        self.sent: list[float] = []
        self.answers: list[float] = []

    def run(self) -> None:
        """Send and read."""
        due = time.monotonic()
        deadline = math.inf
        try:
            while (now := time.monotonic()) < deadline and not self.problem:
                if self.finish.is_set():
                    due, deadline = math.inf, min(deadline, now + PATIENCE)
                    if len(self.answers) == len(self.sent):
                        return
                elif now >= due:
                    self._connection.sendall(ECHO.pack(len(self.sent)))
                    self.sent.append(now)
                    due += ECHO_INTERVAL
                wait = min(max(0.0, due - time.monotonic()), ECHO_INTERVAL)
                if select.select([self._connection], [], [], wait)[0]:
                    self._read()
        except OSError as error:
            self.problem = str(error)

    def _read(self) -> None:
        data = self._connection.recv(BLOCK)
        if not data:
            self.problem = "the connection ended"
        self._unread += data
        while len(self._unread) >= ECHO.size:
            message, self._unread = self._unread[: ECHO.size], self._unread[ECHO.size :]
            if message != ECHO.pack(len(self.answers)):
                self.problem = f"another answer than {len(self.answers)} came"
            self.answers.append(time.monotonic())

    def worst_gap(self, start: float = 0.0, end: float = math.inf) -> float:
        """The longest time between two answers of which the later came between these times."""
        pairs = itertools.pairwise(self.answers)
        return max((b - a for a, b in pairs if start <= b <= end), default=0.0)


class Passage:
    """A session of new processes between a cell's sites, with one TCP connection through it.

    :ivar near, far: the ends of that connection, at the Agent's and at the Connector's host.
    """

    def __init__(self, cell: Cell, path: str = DIRECT) -> None:
        self._cell = cell
        self._path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self.wait_for(self._path, 0.0)
            self.begun = time.time()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        cell = self._cell
        here, there = cell.sites
        for site in cell.sites:
            site.restart()
        stack.callback(cell.topology.mend)
        # Names are new each time: the Intermediate may not have noticed yet that others are gone.
        number = len(cell.deployment.processes)
        service = f"service{number}"
        listener = stack.enter_context(listen(there.host))
        target = Service(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
        connector = cell.deployment.connector(
            f"connector{number}", {service: target}, there.host.prefix
        )
        agent = cell.deployment.agent(
            f"agent{number}", {service: "tcp:0:interface=127.0.0.1"}, here.host.prefix,
            path=POLICIES[self._path],
        )  # fmt: skip
        self.nodes = [agent, connector]
        for node in self.nodes:
            stack.callback(node.stop)
            node.wait_for("control_connected")
        connector.wait_for("registered")
        address = parse_host_port(agent.wait_for("listening", what=service)["address"])
        self.near, self.far = connect(here.host, address, listener, TIMEOUT)
        for end in (self.near, self.far):
            stack.enter_context(end)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def switch(self, path: str) -> float:
        """Have the session go over to `path`; when both ends had done so (seconds since 1970)."""
        now = time.time()
        if path == RELAY:
            self._cell.topology.cut(*self._cell.sites)
        else:
            self._cell.topology.mend()
        return self.wait_for(path, now)

    def wait_for(self, path: str, since: float) -> float:
        """When both ends had taken `path`, later than `since`. Raises ProcessError."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            last = [(_choices(node) or [(0.0, "")])[-1] for node in self.nodes]
            if all(chosen == path for _, chosen in last):
                return max(since, *(when for when, _ in last))
            time.sleep(POLL)
        raise ProcessError(f"no switch to the {path} path in {PATIENCE:.0f} s")

    def switches(self) -> dict[str, int]:
        """How often each node took another path since the passage was entered."""
        counts = [sum(when > self.begun for when, _ in _choices(node)) for node in self.nodes]
        return dict(zip(("agent", "connector"), counts, strict=True))

    def finish(self) -> list[str]:
        """Close the connection; what the event logs tell that no change of path may cause."""
        self.near.close()
        self.far.close()
        found = []
        for node in self.nodes:
            node.wait_for("stream_finished")
            found += [
                f"{node.name}: {event['event']} {event['code']}"
                for event in node.events() if event.get("code", "no_error") != "no_error"
            ]  # fmt: skip
            if len(node.find("handshake_completed")) != 1:
                found.append(f"{node.name}: not one connection from end to end")
        return found


def _choices(node: RoleProcess) -> list[tuple[float, str]]:
    """When the node took which path. One that is doubtful, with all sent on the relay as well,
    counts as the relay."""
    choices = [
        (e["time"], DIRECT if e["path"] == DIRECT and " and " not in e["address"] else RELAY)
        for e in node.find("path_selected")
    ]
    return [next(same) for _, same in itertools.groupby(choices, lambda choice: choice[1])]


def transfer(cell: Cell, course: Course, path: str, *, switching: bool = False) -> Transfer:
    """Do one transfer, on `path` alone or beginning there. Raises ProcessError, OSError."""
    rates: dict[str, list[float]] = {DIRECT: [], RELAY: []}
    size = course.megabytes * MEBIBYTE
    share = size // (course.switches + 1)
    with Passage(cell, path) as passage:
        ends = (passage.near, passage.far) if course.upload else (passage.far, passage.near)
        begun = switched = time.time()
        carried = Direction(*ends)
        for number in range(course.switches + 1):
            if number and switching:
                path = RELAY if path == DIRECT else DIRECT
                switched = passage.switch(path)
            rates[path].append(_phase(cell, carried, share, path, switched))
        carried.wait_for(size)
        carried.end()
        carried.join()
        seconds = time.time() - begun
        switches, problems = passage.switches(), passage.finish()
    if not carried.is_intact:
        problems.append(f"{carried.received} of {carried.sent} bytes arrived, {carried.problem}")
    lost, (stall, _) = max(0, carried.lost), carried.longest_silence()
    return Transfer(lost, carried.is_intact, seconds, stall, rates, switches, problems)


def _phase(cell: Cell, carried: Direction, share: int, path: str, switched: float) -> float:
    """Bytes/s of the next `share` bytes, once the path taken at `switched` has settled."""
    delay = cell.conduct.conditions.delay if cell.conduct.conditions else 0.0
    start = max(time.time(), switched + SETTLE + SLOW_START * delay)
    time.sleep(max(0.0, start - time.time()))
    carried.wait_for(carried.received + share, start + OUTAGE if path == RELAY else math.inf)
    return carried.rate(start, time.time())


def compare(cell: Cell, course: Course) -> dict[str, Transfer]:
    """A transfer with switches, and one on each path alone. Raises ProcessError, OSError."""
    return {
        DIRECT: transfer(cell, course, DIRECT),
        SWITCHING: transfer(cell, course, DIRECT, switching=True),
        RELAY: transfer(cell, course, RELAY),
    }


def echo(cell: Cell, kills: int) -> Echoes:
    """Exchange echoes while the direct path comes and goes. Raises ProcessError, OSError."""
    killed = []
    with Passage(cell) as passage:
        client = EchoClient(passage.near)
        threading.Thread(target=reflect, args=[passage.far], daemon=True).start()
        client.start()
        for _ in range(kills):
            time.sleep(KILLED_FOR)
            at = time.monotonic()
            passage.switch(RELAY)
            time.sleep(KILLED_FOR)
            passage.switch(DIRECT)
            killed.append((at, time.monotonic()))
        time.sleep(SETTLE)
        client.finish.set()
        client.join()
        switches, problems = passage.switches(), passage.finish()
    if client.problem:
        problems.append(f"echo: {client.problem}")
    lost = len(client.sent) - len(client.answers)
    times = [back - out for out, back in zip(client.sent, client.answers, strict=False)]
    gaps = [client.worst_gap(*around) for around in killed]
    return Echoes(len(client.sent), lost, times, gaps, client.worst_gap(), switches, problems)
