"""What relaying costs an Intermediate, for each datagram.

::

    python -m bench.relay --frames 200000 --workers 2

A real Intermediate under twistd with each kind of socket and each number of processes, alternating,
and sessions of real Agents' and a real Connector's cores through it, one whose frames come to each
process. 1000-byte datagrams are poured into them in bursts, in turn. `cpu_us` is the processor time
of each process of the Intermediate for one of its frames, `per_second` how many that makes if each
has a processor of its own. `added_us` is how much longer a datagram that is alone takes one way,
for going through the last process; `forwarder_us` is the same of a plain forwarder in Python, with
nothing to look up but an address (bench/hop.py).
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
from typing import Any, TypeVar

from bench.crowd import receive_all
from bench.hop import added
from bench.report import Figures, alternate, parser, show
from p2pnet import reports
from p2pnet.config.cores import agent_core, connector_core, load_credentials
from p2pnet.config.roles import AgentConfig, ConnectorConfig, PeerConfig, ServiceConfig
from p2pnet.core import events
from p2pnet.core.peer.node import PeerCore
from p2pnet.identity import Role
from p2pnet.net.batched import (
    SEGMENT_SIZE,
    SOL_UDP,
    UDP_SEGMENT,
    open_socket,
)
from p2pnet.testing.processes import Deployment, ProcessError, cpu_seconds
from p2pnet.traversal.way import Way
from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import RELAY_OVERHEAD

SIZE = 1000  # bytes of a datagram
BURST = 32  # datagrams
AT_ONCE = 512  # datagrams under way, so that none is lost in a socket
LOST_AFTER = 0.5  # seconds
PATIENCE = 10.0  # seconds
RATE = 10**10  # bytes a second; quotas are counted, and never reached
QUIC = b"\x40"  # what an Intermediate takes for the session's own

C = TypeVar("C", bound=PeerConfig)


def utcnow() -> datetime.datetime:
    """The calendar's clock."""
    return datetime.datetime.now(datetime.UTC)


class Peer:
    """A core on a socket, driven by hand."""

    def __init__(self, core: PeerCore) -> None:
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


def frame_for(way: Way) -> bytes:
    """A frame of SIZE bytes that goes along the way."""
    return way.header + QUIC + bytes(SIZE - RELAY_OVERHEAD - 1)


class Course:
    """Sessions through an Intermediate, one for each of its processes, and what is poured in."""

    def __init__(self, deployment: Deployment, name: str, udp: str, workers: int) -> None:
        self.relay = deployment.intermediate(name, udp=udp, session_rate=RATE, workers=workers)
        self._certs = deployment.certs
        self._intermediate = deployment.intermediates[-1]
        started = [self.relay.wait_for("worker_started", worker=n) for n in range(1, workers)]
        self._pids = [self.relay.pid, *(event["pid"] for event in started)]
        web = ServiceConfig(name="web", target="", allow=("*",))
        config = self._config(ConnectorConfig, services=(web,))
        self.connector = Peer(connector_core(config, load_credentials(config), utcnow=utcnow))
        self._until(reports.Registered, self.connector)
        self._agents: list[Peer] = []
        self._sources: dict[int, tuple[Peer, bytes]] = {}  # by the process that gets the frames
        self._backs: dict[int, bytes] = {}  # frames of the connector's, the other way
        while len(self._sources) < workers:
            self._add_agent(workers)

    def _config(self, kind: type[C], **settings: Any) -> C:
        certs, name = self._certs, kind.table
        return kind(
            ca=certs / "ca.pem", cert=certs / f"{name}.pem", key=certs / f"{name}.key",
            intermediates=(self._intermediate,), **settings,
        )  # fmt: skip

    def _add_agent(self, workers: int) -> None:
        """A session, whose channel comes to a process by chance."""
        config = self._config(AgentConfig, path="relay-only")
        core = agent_core(config, load_credentials(config), utcnow=utcnow)
        agent = Peer(core)
        self._agents.append(agent)
        self._until(reports.ControlConnected, agent)
        core.open_stream("web", time.monotonic())
        self._until(reports.HandshakeCompleted, agent, self.connector)
        (session,) = core.sessions
        ((self._address, way),) = core.paths_of(session).relays.items()
        worker = way.header[1] % workers
        self._sources[worker] = agent, frame_for(way)
        back = self.connector.core.sessions.find(session.id)
        assert back is not None
        back_way = self.connector.core.paths_of(back).relays[self._address]
        self._backs[worker] = frame_for(back_way)

    def _until(self, kind: type[Any], *peers: Peer) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for peer in peers:
                if any(isinstance(event, kind) for event in peer.turn()):
                    return
            time.sleep(0.001)
        raise ProcessError(f"no {kind.__name__} in {PATIENCE} s")

    def keep_up(self) -> None:
        """Let the control connections live, which nobody looked after for a while."""
        peers = (*self._agents, self.connector)
        for link in (link for peer in peers for link in peer.core.links):
            link.network_changed(time.monotonic())  # asks the Intermediate at once
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

    def added(self) -> tuple[float, float]:
        """Microseconds that a hop adds: this one, and a plain forwarder."""
        agent, frame = self._sources[max(self._sources)]
        ends = agent.socket, self.connector.socket
        return added(*ends, frame, self._backs[max(self._sources)], self._address)


def measure(course: Course, courses: Iterable[Course], frames: int) -> Figures:
    """One round of a course."""
    for each in courses:
        each.keep_up()
    costs, lost = course.pour(frames)
    hop, forwarder = course.added()
    return {
        "cpu_us": statistics.mean(costs),
        "per_second": sum(1e6 / cost for cost in costs) if all(costs) else None,
        "added_us": hop,
        "forwarder_us": forwarder,
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
