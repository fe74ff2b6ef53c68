"""What relaying costs as sessions grow, for each datagram.

::

    python -m bench.sessions --frames 200000

A real Intermediate under twistd for each number of sessions, in alternating rounds. Its nodes are a
crowd on two sockets of this process, that speaks only what it takes to have sessions. Datagrams of
1000 bytes go through all sessions in turn, in bursts of 32. Times are the Intermediate's own, of
one processor.
"""

import itertools
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.crowd import Crowd, load_credentials
from bench.relay import BURST, PATIENCE, QUIC, RATE, SIZE, pour
from bench.report import Figures, alternate, parser, ratio, show
from p2pnet.identity import Role
from p2pnet.quic.connection import Connection
from p2pnet.testing.processes import Deployment, ProcessError
from p2pnet.wire import messages
from p2pnet.wire.address import parse_host_port
from p2pnet.wire.encoding import Message
from p2pnet.wire.relay_frame import encode_relay_frame

COUNTS = (10, 100, 1000, 5000)
PER_AGENT = 100  # sessions
AT_A_TIME = 200  # requests
MEBIBYTE = 1 << 20


class Course:
    """An Intermediate, agents and a connector, and so many sessions between them."""

    def __init__(self, deployment: Deployment, sessions: int) -> None:
        self.relay = deployment.intermediate(
            f"relay{sessions}", session_rate=RATE,
            max_sessions=sessions, max_sessions_per_node=sessions,
        )  # fmt: skip
        self._address = parse_host_port(deployment.intermediates[-1])
        self._frames: list[bytes] = []
        certs = deployment.certs
        self._connectors = Crowd(load_credentials(certs, "connector"), self._address, self._offered)
        self._connectors.connect(1)
        self._connectors.send(self._connectors.connections[0], messages.Register(("load",)))
        self._agents = Crowd(load_credentials(certs, "agent"), self._address, self._opened)
        self._agents.connect(max(1, sessions // PER_AGENT))
        memory = self.relay.resident()
        self._open(sessions)
        self.memory = (self.relay.resident() - memory) / sessions / 1024

    def _open(self, sessions: int) -> None:
        agents, asked, deadline = self._agents.connections, 0, time.monotonic() + PATIENCE
        while len(self._frames) < sessions:
            while asked < sessions and asked - len(self._frames) < AT_A_TIME:
                # Naming the connector asks for a session of its own, where others are shared.
                request = messages.SessionRequest(asked, os.urandom(16), "load", "connector")
                self._agents.send(agents[asked % len(agents)], request)
                asked += 1
            before = len(self._frames)
            self.turn()
            if len(self._frames) > before:
                deadline = time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise ProcessError(f"{before} of {sessions} sessions")

    def turn(self) -> None:
        """Let both crowds live on."""
        self._agents.turn()
        self._connectors.turn()

    def _offered(self, connection: Connection, message: Message) -> None:
        if isinstance(message, messages.SessionOffer):
            self._connectors.send(connection, messages.SessionAnswer(message.session))

    def _opened(self, connection: Connection, message: Message) -> None:
        if isinstance(message, messages.SessionOpened):
            payload = QUIC + bytes(SIZE - 10)
            self._frames.append(encode_relay_frame(message.send_channel, payload))

    def idle(self, seconds: float) -> None:
        """Let that much time pass."""
        self._agents.idle(seconds / 2)
        self._connectors.idle(seconds / 2)

    def measure(self, frames: int) -> Figures:
        """One round."""
        window = [self._frames[i : i + BURST] for i in range(0, len(self._frames), BURST)]
        bursts = itertools.cycle((self._agents.socket, burst) for burst in window)
        used = self.relay.cpu_seconds()
        received, lost = pour(bursts, self._connectors.socket, self._address, frames)
        cost = (self.relay.cpu_seconds() - used) / max(received, 1) * 1e6
        return {
            "cpu_us": cost,
            "frames/s_and_core": ratio(1e6, cost),
            "lost": lost,
            "KiB_a_session": self.memory,
            "memory_MiB": self.relay.resident() / MEBIBYTE,
        }


def measure(counts: list[int], frames: int, rounds: int) -> list[dict[str, object]]:
    """A row for each number of sessions."""
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        deployment.issue(Role.AGENT, "agent")
        deployment.issue(Role.CONNECTOR, "connector", services=["load"])
        courses: dict[int, Course] = {}

        def round_of(course: Course) -> Figures:
            for other in courses.values():
                other.idle(0.2)  # or their nodes would be taken for dead
            return course.measure(frames)

        for count in sorted(counts, reverse=True):
            courses[count] = Course(deployment, count)
            for course in courses.values():
                course.idle(0.2)
        cases = {str(count): partial(round_of, courses[count]) for count in counts}
        found = alternate(cases, rounds)
    return [{"sessions": int(name), **figures} for name, figures in found.items()]


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--sessions", type=int, nargs="+", default=list(COUNTS))
    options.add_argument("--frames", type=int, default=200_000, help="how many each time")
    options.add_argument("--rounds", type=int, default=3, help="how many times")
    arguments = options.parse_args()
    rows = measure(arguments.sessions, arguments.frames, arguments.rounds)
    show({"Relaying, as sessions grow": rows}, arguments.json)


if __name__ == "__main__":
    main()
