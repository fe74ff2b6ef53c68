"""Many nodes on one socket, which an Intermediate takes for as many processes."""

import dataclasses
import datetime
import heapq
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from p2pnet.identity import Credentials, Role
from p2pnet.net.batched import ANCILLARY_SPACE, joined_size, open_socket, split
from p2pnet.quic import events
from p2pnet.quic.connection import NO_ERROR, Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message

AT_A_TIME = 16  # handshakes; with twice as many half-open ones the Intermediate demands Retry
PING_EVERY = 15.0  # seconds

Take = Callable[[Connection, Message], object]


def load_credentials(certs: Path, name: str) -> Credentials:
    """Those of a node of a Deployment."""
    return Credentials.load(
        cert=certs / f"{name}.pem", key=certs / f"{name}.key", ca=certs / "ca.pem"
    )


def receive_all(udp: socket.socket) -> list[tuple[bytes, Address]]:
    """What waits in a socket of open_socket()."""
    received = []
    try:
        while True:
            data, ancillary, _, source = udp.recvmsg(65535, ANCILLARY_SPACE)
            received += [
                (datagram, source) for datagram in split(data, joined_size(data, ancillary))
            ]
    except BlockingIOError:
        return received


class Crowd:
    """Nodes on one socket, all with one certificate.

    :param take: gets each message that is no answer to a greeting, with its connection.
    :param version: of the protocol; an Intermediate of another checkout may speak an older one.
    :ivar ready: how many are connected. `lost`: how many were, or could not be.
    """

    def __init__(
        self,
        credentials: Credentials,
        intermediate: Address,
        take: Take = lambda *_: None,
        version: tuple[int, int] = messages.VERSION,
    ) -> None:
        self.ready = self.lost = 0
        self.socket = open_socket("127.0.0.1", 0)
        self._address = intermediate
        self._take = take
        self._version = version
        self._mux = Multiplexer()
        self._settings = ConnectionProfile(
            credentials=credentials, roles=frozenset({Role.INTERMEDIATE}),
            utcnow=lambda: datetime.datetime.now(datetime.UTC), alpn=f"p2pnet/{version[0]}",
            engine=FAST, host=intermediate[0],
        )  # fmt: skip
        self._buffers: dict[Connection, MessageBuffer[Message]] = {}
        self._pings: list[tuple[float, int, Connection]] = []
        self.connections: list[Connection] = []

    def connect(self, nodes: int, others: Iterable[Credentials] = ()) -> None:
        """Connect so many more, as `others` as far as these reach."""
        profiles = (dataclasses.replace(self._settings, credentials=other) for other in others)
        goal, begun = self.ready + self.lost + nodes, self.ready + self.lost
        while self.ready + self.lost < goal:
            while begun < goal and begun - self.ready - self.lost < AT_A_TIME:
                profile = next(profiles, self._settings)
                self._mux.connect(profile, self._address, time.monotonic())
                begun += 1
            self.turn()

    def leave(self) -> None:
        """Close all connections, each of which counts as lost then."""
        for connection in self.connections:
            connection.close(NO_ERROR, "")
        self.connections.clear()
        self._pings.clear()
        while self.ready:
            self.turn()

    def send(self, connection: Connection, message: Message) -> None:
        """On the control stream of one of `connections`."""
        connection.send(messages.CONTROL_STREAM, encode_message(message))

    def idle(self, seconds: float) -> None:
        """Let that much time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def turn(self) -> None:
        """Send what is due, wait a moment for an answer, and take it."""
        now = time.monotonic()
        while self._pings and self._pings[0][0] <= now:
            when, number, connection = heapq.heappop(self._pings)
            connection.ping()
            heapq.heappush(self._pings, (when + PING_EVERY, number, connection))
        for data, address in self._mux.datagrams_to_send(now):
            self.socket.sendto(data, address)
        timer = self._mux.get_timer()
        wait = min(0.01, max(0.0001, (timer or now + 1.0) - now))
        select.select([self.socket], [], [], wait)
        for data, source in receive_all(self.socket):
            self._mux.receive_datagram(data, source, time.monotonic())
        self._mux.handle_timer(time.monotonic())
        while (item := self._mux.next_event()) is not None:
            self._handle(*item)

    def _handle(self, connection: Connection, event: Any) -> None:
        match event:
            case events.HandshakeCompleted():
                self.send(connection, messages.Hello(self._version, os.urandom(8)))
                self._buffers[connection] = MessageBuffer(messages.decode_message)
            case events.StreamDataReceived(stream_id, data, _):
                connection.consume(stream_id, len(data))
                for message in self._buffers[connection].feed(data):
                    if isinstance(message, messages.Welcome):
                        self.ready += 1
                        self.connections.append(connection)
                        when = time.monotonic() + PING_EVERY * (self.ready % 997) / 997
                        heapq.heappush(self._pings, (when, self.ready, connection))
                    else:
                        self._take(connection, message)
            case events.ConnectionClosed():
                self.ready -= connection in self._buffers
                self.lost += 1
                if connection in self.connections:
                    self.connections.remove(connection)
