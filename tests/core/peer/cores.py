"""The cores of an Agent and a Connector face to face; the test plays their Intermediates."""

from __future__ import annotations

import math
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import ConnectorCore
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.stream import Stream
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.encoding import Message
from p2pnet.wire.stream import StreamKind
from tests.core.peer.links import FakeLink
from tests.core.peer.pair import Host, Owner
from tests.core.support import make_agent, make_connector

RELAYS = ("192.0.2.1", "192.0.2.2")
PEER_RTT = 0.02
INSTANCES = {"alice": b"alice  1", "office": b"office 1"}
UP, DOWN = 1, 2  # added to the number of the relay for its channels: to the connector, and back


class Node(Host):
    """A core with its host, at an address.

    :ivar links: to the Intermediates; fakes, in place of those that the core has made.
    """

    def __init__(self, core: PeerCore, host: str) -> None:
        super().__init__()
        self.core = core
        self.address: Address = (host, 5000)
        self.links = [FakeLink(relay) for relay in RELAYS]
        core.links[:] = self.links
        core.set_local_addresses([host], 5000, [], 0.0)

    @property
    def session(self) -> Session:
        """The one session."""
        (session,) = self.core.sessions
        return session

    def pump(self, now: float) -> list[tuple[bytes, Address]]:
        """Handle what happened; what is to be sent is returned."""
        found: list[tuple[bytes, Address]] = []
        while True:
            while (event := self.core.next_event()) is not None:
                self.emit(event)
            datagrams = self.core.datagrams_to_send(now)
            found += datagrams
            if not datagrams and not self.core._events:
                return found

    @property
    def ways(self) -> list[Address]:
        """Where packets of the session go."""
        return [way.address for way in self.core.paths_of(self.session).using]


class CoreCase(SynchronousTestCase):
    """An agent and a connector whose datagrams take 10 ms.

    :ivar mtu: bytes; larger datagrams from one to the other get lost, with 0 all of them.
    :ivar silent: Intermediates that relay neither messages nor frames.
    :ivar relayed: the number of relay frames.
    """

    policy = "relay-only"

    def setUp(self) -> None:
        """Both are connected to two Intermediates."""
        self.now = 0.0
        names = [f"{relay}:4433" for relay in RELAYS]
        self.core: AgentCore = make_agent(names, random.Random(1).randbytes, path=self.policy)
        self.office: ConnectorCore = make_connector(names, random.Random(2).randbytes)
        self.agent = Node(self.core, "203.0.113.1")
        self.connector = Node(self.office, "198.51.100.1")
        self.nodes = [self.agent, self.connector]
        self.mtu = 1500
        self.silent: set[int] = set()
        self.relayed = 0
        self._flying: list[tuple[float, bytes, Address, Node]] = []

    # -- what happens between them ---------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            for node, other in (self.nodes, self.nodes[::-1]):
                self._send(node, other)
            if self._relay_messages():
                continue
            times = [node.core.get_timer() for node in self.nodes]
            times += [due for due, *_ in self._flying]
            when = min((time for time in times if time is not None), default=math.inf)
            if when > end:
                break
            self.now = max(self.now, when)
            self._arrive()
            for node in self.nodes:
                due = node.core.get_timer()
                if due is not None and due <= self.now:
                    node.core.handle_timer(self.now)
        self.now = end

    def _send(self, node: Node, other: Node) -> None:
        for data, address in node.pump(self.now):
            relay = address[0] in RELAYS and classify(data) is Kind.RELAY
            self.relayed += relay
            if relay and RELAYS.index(address[0]) not in self.silent:
                self._flying.append((self.now + 0.02, data, address, other))
            elif address == other.address and len(data) <= self.mtu:
                self._flying.append((self.now + 0.01, data, node.address, other))

    def _arrive(self) -> None:
        arrived = [item for item in self._flying if item[0] <= self.now]
        self._flying = [item for item in self._flying if item[0] > self.now]
        for _, data, source, node in arrived:
            node.core.receive_datagram(data, source, self.now)

    def _relay_messages(self) -> int:
        count = 0
        for number in range(len(RELAYS)):
            if number in self.silent:
                continue
            for node, other in (self.nodes, self.nodes[::-1]):
                for message in node.links[number].take_sent():
                    count += 1
                    self._relay_message(number, message, other)
        return count

    def _relay_message(self, number: int, message: Any, other: Node) -> None:
        match message:
            case messages.SessionRequest():
                self.request(number, message)
            case messages.SessionClosed():
                self.say(other, message, number)

    def request(self, number: int, request: messages.SessionRequest) -> None:
        """Do what an Intermediate does for a request, at once."""
        code, reason = self.offer(number, request.session, service=request.service)
        if code:
            refused = messages.SessionRefused(request.request, code, reason)
            self.say(self.agent, refused, number)
        else:
            self.open(number, request.request, request.session)

    def offer(self, number: int, session: bytes, **changes: Any) -> tuple[int, str]:
        """Offer a session to the connector. Returns its answer."""
        fields: dict[str, Any] = {
            "agent": "alice", "instance": INSTANCES["alice"], "service": "web",
            "send_channel": self.channel(number, session, DOWN),
            "receive_channel": self.channel(number, session, UP),
        }  # fmt: skip
        link = self.connector.links[number]
        before = link.take_sent()
        self.say(self.connector, messages.SessionOffer(session, **(fields | changes)), number)
        answer, *link.sent = link.sent
        link.sent[:0] = before
        assert isinstance(answer, messages.SessionAnswer) and answer.session == session
        return answer.code, answer.reason

    def open(self, number: int, request: int, session: bytes, **changes: Any) -> None:
        """Tell the agent that its session is open."""
        fields: dict[str, Any] = {
            "connector": "office", "instance": INSTANCES["office"], "peer_rtt": PEER_RTT,
            "send_channel": self.channel(number, session, UP),
            "receive_channel": self.channel(number, session, DOWN),
        }  # fmt: skip
        opened = messages.SessionOpened(request, session, **(fields | changes))
        self.say(self.agent, opened, number)

    def channel(self, number: int, session: bytes, direction: int) -> bytes:
        """A channel of an Intermediate."""
        return bytes([16 * number + direction]) + session[:7]

    def say(self, node: Node, message: Message, number: int = 0) -> None:
        """Let an Intermediate say something to a node."""
        node.core.take_message(node.links[number], message, self.now)

    def lose(self, node: Node, number: int) -> None:
        """Let a node lose an Intermediate, which says so to the other one."""
        node.links[number].bring_down("gone")
        node.core.link_failed(node.links[number], self.now)
        other = self.nodes[1 - self.nodes.index(node)]
        for session in other.core.sessions:
            closed = messages.SessionClosed(session.id, ErrorCode.PEER_LOST, "gone")
            self.say(other, closed, number)

    # -- streams ---------------------------------------------------------------------------------

    def stream(self, service: str = "web", kind: StreamKind = StreamKind.BYTES) -> Stream:
        """A stream of the agent's, opened just now."""
        stream = self.core.open_stream(service, self.now, kind)
        Owner(stream)
        return stream

    def talk(self) -> tuple[Stream, Stream]:
        """Both ends of a stream that is open."""
        before = len(self.connector.requested)
        stream = self.stream()
        self.run_for(1.0)
        (other,) = self.connector.requested[before:]
        other.accept()
        self.run_for(0.1)
        return stream, other

    def assert_echo(self, stream: Stream, other: Stream, seconds: float = 0.2) -> None:
        """Bytes go both ways in time."""
        before = len(stream.owner.data), len(other.owner.data)
        stream.write(b"question")
        other.write(b"answer")
        self.run_for(seconds)
        after = len(stream.owner.data), len(other.owner.data)
        self.assertEqual((before[0] + 6, before[1] + 8), after)

    def outcome_code(self, stream: Stream) -> ErrorCode:
        """How the stream ended."""
        assert stream.owner.outcome is not None
        return ErrorCode(stream.owner.outcome[0])
