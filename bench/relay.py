"""What relaying costs an Intermediate, for each datagram.

::

    python -m bench.relay --frames 200000 --workers 2

A real Intermediate under twistd with each kind of socket and each number of processes, alternating,
and sessions of real Agents' and a real Connector's cores through it, one whose frames come to each
process. 1000-byte datagrams are poured into them in bursts, in turn. `cpu_us` is the processor time
of each process of the Intermediate for one of its frames, `per_second` how many that makes if each
has a processor of its own, `one_way_us` how long one datagram alone takes from end to end, through
the last process.
"""

import datetime
import itertools
import socket
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.crowd import load_credentials, receive_all
from p2pnet import events
from p2pnet.core.agent import AgentCore
from p2pnet.core.connector import AllowList, ConnectorCore
from p2pnet.core.node import NodeCore
from p2pnet.identity import Role
from p2pnet.lab.processes import Deployment, LabError, cpu_seconds
from p2pnet.lab.report import Figures, alternate, parser, show
from p2pnet.net.batched import (
    SEGMENT_SIZE,
    SOL_UDP,
    UDP_SEGMENT,
    open_socket,
)
from p2pnet.wire.address import Address
from p2pnet.wire.relay import RELAY_OVERHEAD, encode_relay_frame

SIZE = 1000  # bytes of a datagram
BURST = 32  # datagrams
AT_ONCE = 512  # datagrams under way, so that none is lost in a socket
LOST_AFTER = 0.5  # seconds
PATIENCE = 10.0  # seconds
ALONE = 2000  # datagrams of which one at a time is under way
RATE = 10**10  # bytes a second; quotas are counted, and never reached
QUIC = b"\x40"  # what an Intermediate takes for the session's own


def utcnow() -> datetime.datetime:
    """The calendar's clock."""
    return datetime.datetime.now(datetime.UTC)


class Peer:
    """A core on a socket, driven by hand."""

    def __init__(self, core: NodeCore) -> None:
        self.core = core
        self.socket = open_socket("127.0.0.1", 0)
        core.connect(time.monotonic())

    def turn(self) -> list[events.Event]:
        """Send, receive, and see what happened."""
        happened = []
        for data, address in self.core.datagrams_to_send(time.monotonic()):
            self.socket.sendto(data, address)
        for data, source in receive_all(self.socket):
            self.core.receive_datagram(data, source, time.monotonic())
        self.core.handle_timer(time.monotonic())
        while (event := self.core.next_event()) is not None:
            happened.append(event)
        return happened


def pour(
    bursts: Iterator[tuple[socket.socket, Sequence[bytes]]],
    receiver: socket.socket,
    address: Address,
    frames: int,
) -> tuple[int, int]:
    """Send so many frames to `address`: bursts, all frames of one length, and the sockets for them.

    Returns how many came to the receiver, and how many got lost.
    """
    sent, received, heard_at = 0, 0, time.monotonic()
    while sent < frames or sent > received:
        if sent < frames and sent - received < AT_ONCE:
            sender, burst = next(bursts)
            segments = [(SOL_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(len(burst[0])))]
            sender.sendmsg(burst, segments, 0, address)
            sent += len(burst)
        came = len(receive_all(receiver))
        if came:
            received, heard_at = received + came, time.monotonic()
        elif time.monotonic() - heard_at > LOST_AFTER:
            break
    return received, sent - received


class Course:
    """Sessions through an Intermediate, one for each of its processes, and what is poured in."""

    def __init__(self, deployment: Deployment, name: str, udp: str, workers: int) -> None:
        self.relay = deployment.intermediate(name, udp=udp, session_rate=RATE, workers=workers)
        self._credentials = {
            node: load_credentials(deployment.certs, node) for node in ("agent", "connector")
        }
        self._intermediate = deployment.intermediates[-1]
        started = [self.relay.wait_for("worker_started", worker=n) for n in range(1, workers)]
        self._pids = [self.relay.pid, *(event["pid"] for event in started)]
        self.connector = Peer(
            ConnectorCore(
                self._credentials["connector"], [self._intermediate], services=["web"],
                authorizer=AllowList({"web": ["*"]}), utcnow=utcnow,
            )
        )  # fmt: skip
        self._until(events.Registered, self.connector)
        self._agents: list[Peer] = []
        self._sources: dict[int, tuple[Peer, bytes]] = {}  # by the process that gets the frames
        while len(self._sources) < workers:
            self._add_agent(workers)

    def _add_agent(self, workers: int) -> None:
        """A session, whose channel comes to a process by chance."""
        core = AgentCore(self._credentials["agent"], [self._intermediate], utcnow=utcnow)
        agent = Peer(core)
        self._agents.append(agent)
        self._until(events.ControlConnected, agent)
        core.open_stream("web", time.monotonic())
        self._until(events.HandshakeCompleted, agent, self.connector)
        (session,) = core.sessions.values()
        ((self._address, path),) = session.relays.items()
        frame = encode_relay_frame(path.channel, QUIC + bytes(SIZE - RELAY_OVERHEAD - 1))
        self._sources[path.channel[0] % workers] = agent, frame

    def _until(self, kind: type[Any], *peers: Peer) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for peer in peers:
                if any(isinstance(event, kind) for event in peer.turn()):
                    return
            time.sleep(0.001)
        raise LabError(f"no {kind.__name__} in {PATIENCE} s")

    def keep_up(self) -> None:
        """Let the control connections live, which nobody looked after for a while."""
        peers = (*self._agents, self.connector)
        for link in (link for peer in peers for link in peer.core.links):
            link.hurry(time.monotonic())  # asks the Intermediate at once
        for _ in range(3):
            for peer in peers:
                peer.turn()
            time.sleep(0.01)

    def cpu_seconds(self) -> list[float]:
        """Of each process of the Intermediate."""
        return list(map(cpu_seconds, self._pids))

    def pour(self, frames: int) -> tuple[list[float], int]:
        """Microseconds of processor of each process for each of its frames, and how many frames
        got lost."""
        bursts = itertools.cycle(
            (agent.socket, [frame] * BURST) for _, (agent, frame) in sorted(self._sources.items())
        )
        before = self.cpu_seconds()
        received, lost = pour(bursts, self.connector.socket, self._address, frames)
        used = [after - was for was, after in zip(before, self.cpu_seconds(), strict=True)]
        share = max(received, 1) / len(used)
        return [seconds / share * 1e6 for seconds in used], lost

    def alone(self) -> float:
        """Median of the microseconds that one frame takes from end to end."""
        agent, frame = self._sources[max(self._sources)]
        self.connector.socket.settimeout(PATIENCE)
        times = []
        for _ in range(ALONE):
            begun = time.perf_counter()
            agent.socket.sendto(frame, self._address)
            self.connector.socket.recv(65535)
            times.append(time.perf_counter() - begun)
        self.connector.socket.setblocking(False)
        return statistics.median(times) * 1e6


def measure(course: Course, courses: Iterable[Course], frames: int) -> Figures:
    """One round of a course."""
    for each in courses:
        each.keep_up()
    costs, lost = course.pour(frames)
    return {
        "cpu_us": statistics.mean(costs),
        "per_second": sum(1e6 / cost for cost in costs) if all(costs) else None,
        "one_way_us": course.alone(),
        "lost": lost,
    }


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=200_000, help="how many each time")
    options.add_argument("--rounds", type=int, default=3, help="how many times")
    options.add_argument("--workers", type=int, default=1, help="also with so many processes")
    arguments = options.parse_args()
    kinds = {"batched": ("auto", 1), "plain": ("plain", 1)}
    if arguments.workers > 1:
        kinds[f"batched, {arguments.workers} processes"] = ("auto", arguments.workers)
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        deployment.issue(Role.AGENT, "agent")
        deployment.issue(Role.CONNECTOR, "connector", services=["web"])
        courses = {
            name: Course(deployment, f"relay-{number}", *kind)
            for number, (name, kind) in enumerate(kinds.items())
        }
        cases = {
            name: partial(measure, course, courses.values(), arguments.frames)
            for name, course in courses.items()
        }
        found = alternate(cases, arguments.rounds)
    rows = [{"socket": name, **figures} for name, figures in found.items()]
    show({f"Relaying {SIZE} bytes": rows}, arguments.json)


if __name__ == "__main__":
    main()
