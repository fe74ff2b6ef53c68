"""What many nodes cost an Intermediate: the handshakes, the memory, and the time while they idle.

::

    python -m bench.idle --nodes 2000 --seconds 60

A real Intermediate under twistd, and all nodes on one socket of this process, which greet it and
then answer nothing but pings, every 15 seconds as nodes do. Times are the Intermediate's own, of
one processor.
"""

import collections
import datetime
import heapq
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from p2pnet.identity import Credentials, Role
from p2pnet.lab.processes import Deployment
from p2pnet.lab.report import Row, parser, show
from p2pnet.quic import events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.settings import Settings
from p2pnet.wire import messages
from p2pnet.wire.address import Address, parse_host_port

AT_A_TIME = 16  # handshakes; with twice as many half-open ones the Intermediate demands Retry
PING_EVERY = 15.0  # seconds
SETTLE = 3.0  # seconds, for what comes after a handshake
CONTROL_STREAM = 0


class Crowd:
    """Nodes on one socket.

    :ivar ready: how many are connected. `lost`: how many were, or could not be.
    """

    def __init__(self, credentials: Credentials, intermediate: Address) -> None:
        self.ready = self.lost = 0
        self._address = intermediate
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._mux = Multiplexer()
        self._settings = Settings(
            credentials=credentials, roles=frozenset({Role.INTERMEDIATE}),
            utcnow=lambda: datetime.datetime.now(datetime.UTC), alpn=messages.ALPN,
            host=intermediate[0],
        )  # fmt: skip
        self._buffers: dict[Connection, messages.MessageBuffer] = {}
        self._pings: list[tuple[float, int, Connection]] = []
        self._counts: collections.Counter[str] = collections.Counter()

    def connect(self, nodes: int) -> None:
        """Connect so many more."""
        goal, begun = self.ready + self.lost + nodes, self.ready + self.lost
        while self.ready + self.lost < goal:
            while begun < goal and begun - self.ready - self.lost < AT_A_TIME:
                self._mux.connect(self._settings, self._address, time.monotonic())
                begun += 1
            self._turn()

    def idle(self, seconds: float) -> None:
        """Let that much time pass."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            while self._pings and self._pings[0][0] <= now:
                when, number, connection = heapq.heappop(self._pings)
                connection.ping()
                heapq.heappush(self._pings, (when + PING_EVERY, number, connection))
            self._turn()

    def _turn(self) -> None:
        """Send what is due, wait a moment for an answer, and take it."""
        now = time.monotonic()
        for data, address in self._mux.datagrams_to_send(now):
            self._socket.sendto(data, address)
        timer = self._mux.get_timer()
        self._socket.settimeout(min(0.01, max(0.0001, (timer or now + 1.0) - now)))
        try:
            while True:
                data, source = self._socket.recvfrom(65535)
                self._mux.receive_datagram(data, source, time.monotonic())
                self._socket.settimeout(0)
        except (TimeoutError, BlockingIOError):
            pass
        self._mux.handle_timer(time.monotonic())
        while (item := self._mux.next_event()) is not None:
            self._handle(*item)

    def _handle(self, connection: Connection, event: Any) -> None:
        match event:
            case events.HandshakeCompleted():
                hello = messages.Hello(messages.VERSION, os.urandom(8))
                connection.send(CONTROL_STREAM, messages.encode_message(hello))
                self._buffers[connection] = messages.MessageBuffer()
            case events.StreamDataReceived(stream_id, data, _):
                connection.consume(stream_id, len(data))
                for message in self._buffers[connection].feed(data):
                    if isinstance(message, messages.Welcome):
                        self.ready += 1
                        when = time.monotonic() + PING_EVERY * (self.ready % 997) / 997
                        heapq.heappush(self._pings, (when, self.ready, connection))
            case events.ConnectionClosed():
                self.ready -= connection in self._buffers
                self.lost += 1


def measure(nodes: int, seconds: float) -> Row:
    """The figures of one Intermediate with so many nodes that idle for so long."""
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory)) as deployment:
        relay = deployment.intermediate("relay", max_connections=nodes + AT_A_TIME)
        deployment.issue(Role.AGENT, "agent")
        certs = deployment.certs
        credentials = Credentials.load(
            cert=certs / "agent.pem", key=certs / "agent.key", ca=certs / "ca.pem"
        )
        crowd = Crowd(credentials, parse_host_port(deployment.intermediates[0]))
        crowd.connect(AT_A_TIME)  # what is there once only
        crowd.idle(SETTLE)
        memory, cpu, before = relay.resident(), relay.cpu_seconds(), crowd.ready
        crowd.connect(nodes - AT_A_TIME)
        handshakes = relay.cpu_seconds() - cpu
        crowd.idle(SETTLE)
        connected = crowd.ready - before
        grown, cpu = relay.resident() - memory, relay.cpu_seconds()
        crowd.idle(seconds)
        return {
            "nodes": crowd.ready,
            "lost": crowd.lost,
            "KiB_a_node": grown / connected / 1024,
            "handshake_ms": handshakes / connected * 1000,
            "handshakes/s_and_core": connected / handshakes,
            "idle_share_of_core": (relay.cpu_seconds() - cpu) / seconds,
        }


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=2000, help="how many")
    options.add_argument("--seconds", type=float, default=60.0, help="how long they idle")
    arguments = options.parse_args()
    rows = [measure(arguments.nodes, arguments.seconds)]
    show({"Nodes at an Intermediate": rows}, arguments.json)


if __name__ == "__main__":
    main()
