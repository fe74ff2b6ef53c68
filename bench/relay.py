"""What relaying costs an Intermediate, for each datagram.

::

    python -m bench.relay --frames 200000

A real Intermediate under twistd with each kind of socket, alternating, and a session of a real
Agent's and a real Connector's core through it, into which 1000-byte datagrams are poured in bursts.
Times are the Intermediate's own, of one processor. A second figure is how long one datagram alone
takes from end to end.
"""

import datetime
import itertools
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.crowd import load_credentials, receive_all
from p2pnet import events
from p2pnet.core.agent import AgentCore
from p2pnet.core.connector import AllowList, ConnectorCore
from p2pnet.core.node import NodeCore
from p2pnet.identity import Role
from p2pnet.lab.processes import Deployment, LabError, Process
from p2pnet.lab.report import Figures, alternate, parser, ratio, show
from p2pnet.net.batched import (
    SEGMENT_SIZE,
    SOL_UDP,
    UDP_SEGMENT,
    open_socket,
)
from p2pnet.wire.address import Address
from p2pnet.wire.relay import encode_relay_frame

SIZE = 1000  # bytes of a datagram
BURST = 32  # datagrams
AT_ONCE = 512  # datagrams under way, so that none is lost in a socket
LOST_AFTER = 0.5  # seconds
LIVING = 0.2  # seconds between rounds, for control connections
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
    relay: Process, sockets: tuple[socket.socket, socket.socket], address: Address,
    window: Sequence[bytes], frames: int,
) -> tuple[float, int]:  # fmt: skip
    """Send so many frames from the first socket to the second by way of `address`.

    They are those of `window`, all of one length, in turn and in bursts. Returns microseconds of
    the relay's processor for each, and how many got lost.
    """
    sender, receiver = sockets
    segments = [(SOL_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(len(window[0])))]
    bursts = itertools.cycle([window[i : i + BURST] for i in range(0, len(window), BURST)])
    before, sent, received, heard_at = relay.cpu_seconds(), 0, 0, time.monotonic()
    while sent < frames or sent > received:
        if sent < frames and sent - received < AT_ONCE:
            burst = next(bursts)
            sender.sendmsg(burst, segments, 0, address)
            sent += len(burst)
        came = len(receive_all(receiver))
        if came:
            received, heard_at = received + came, time.monotonic()
        elif time.monotonic() - heard_at > LOST_AFTER:
            break
    return (relay.cpu_seconds() - before) / max(received, 1) * 1e6, sent - received


class Course:
    """A session through an Intermediate, and what is poured into it."""

    def __init__(self, deployment: Deployment, name: str, udp: str) -> None:
        self.relay = deployment.intermediate(name, udp=udp, session_rate=RATE)
        intermediate = deployment.intermediates[-1]
        agent, connector = (
            load_credentials(deployment.certs, node) for node in ("agent", "connector")
        )
        self.connector = Peer(
            ConnectorCore(
                connector, [intermediate], services=["web"],
                authorizer=AllowList({"web": ["*"]}), utcnow=utcnow,
            )
        )  # fmt: skip
        self._until(events.Registered, self.connector)
        core = AgentCore(agent, [intermediate], utcnow=utcnow)
        self.agent = Peer(core)
        self._until(events.ControlConnected, self.agent)
        core.open_stream("web", time.monotonic())
        self._until(events.HandshakeCompleted, self.agent, self.connector)
        (session,) = core.sessions.values()
        ((self._address, path),) = session.relays.items()
        self._frame = encode_relay_frame(path.channel, QUIC + bytes(SIZE - 10))

    def _until(self, kind: type[Any], *peers: Peer) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for peer in peers or (self.agent, self.connector):
                if any(isinstance(event, kind) for event in peer.turn()):
                    return
            time.sleep(0.001)
        raise LabError(f"no {kind.__name__} in {PATIENCE} s")

    def live(self) -> None:
        """Let the nodes do what is due, and hear the answer."""
        for peer in (self.agent, self.connector):
            for link in peer.core.links:
                link.hurry(time.monotonic())  # asks the Intermediate at once
        end = time.monotonic() + LIVING
        while time.monotonic() < end:
            self.agent.turn()
            self.connector.turn()
            time.sleep(0.001)

    def pour(self, frames: int) -> tuple[float, int]:
        """See pour()."""
        sockets = (self.agent.socket, self.connector.socket)
        return pour(self.relay, sockets, self._address, [self._frame] * BURST, frames)

    def alone(self) -> float:
        """Median of the microseconds that one frame takes from end to end."""
        self.connector.socket.settimeout(PATIENCE)
        times = []
        for _ in range(ALONE):
            begun = time.perf_counter()
            self.agent.socket.sendto(self._frame, self._address)
            self.connector.socket.recv(65535)
            times.append(time.perf_counter() - begun)
        self.connector.socket.setblocking(False)
        return statistics.median(times) * 1e6


def measure(courses: Mapping[str, Course], udp: str, frames: int) -> Figures:
    """One round of a course."""
    for course in courses.values():
        course.live()  # or the Intermediate would take the nodes for dead
    course = courses[udp]
    cost, lost = course.pour(frames)
    return {
        "cpu_us": cost,
        "frames/s_and_core": ratio(1e6, cost),
        "one_way_us": course.alone(),
        "lost": lost,
    }


def main() -> None:
    """Print the figures of both kinds of socket."""
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=200_000, help="how many each time")
    options.add_argument("--rounds", type=int, default=3, help="how many times")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        deployment.issue(Role.AGENT, "agent")
        deployment.issue(Role.CONNECTOR, "connector", services=["web"])
        courses = {udp: Course(deployment, f"relay-{udp}", udp) for udp in ("auto", "plain")}
        cases = {udp: partial(measure, courses, udp, arguments.frames) for udp in courses}
        found = alternate(cases, arguments.rounds)
    rows = [{"socket": udp, **figures} for udp, figures in found.items()]
    show({f"Relaying {SIZE} bytes": rows}, arguments.json)


if __name__ == "__main__":
    main()
