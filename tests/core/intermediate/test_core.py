"""Tests of p2pnet.core.intermediate.core: one socket for control packets and relay frames."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.config.cores import intermediate_core
from p2pnet.config.roles import IntermediateConfig
from p2pnet.core import events
from p2pnet.core.intermediate.core import QUIET
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.quic import events as quic_events
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.testing.realm import Simulation
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.demux import MAGIC_COOKIE
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.core.support import credentials, make_intermediate

HERE: Address = ("192.0.2.1", 4433)
AGENT: Address = ("203.0.113.1", 50000)
CONNECTOR: Address = ("198.51.100.1", 50000)
SESSION = bytes(range(16))
STEP = 0.01  # seconds


class Node:
    """The QUIC connection of a node, driven by hand, and the messages that came by it."""

    def __init__(self, role: Role, name: str, address: Address) -> None:
        self.address = address
        self.mux = Multiplexer()
        profile = ConnectionProfile(
            credentials(role, name), frozenset({Role.INTERMEDIATE}), utcnow,
            messages.ALPN, FAST, host=HERE[0],
        )  # fmt: skip
        self.connection = self.mux.connect(profile, HERE, 0.0)
        self.told: list[Message] = []
        self.closed: quic_events.ConnectionClosed | None = None
        self._buffer = MessageBuffer(messages.decode_message)
        self._instance = len(name).to_bytes(8, "big")

    def say(self, message: Message) -> None:
        """Queue a message."""
        self.connection.send(messages.CONTROL_STREAM, encode_message(message))

    def take_events(self) -> None:
        """Greet after the handshake, and keep what comes."""
        while (item := self.mux.next_event()) is not None:
            match item[1]:
                case quic_events.HandshakeCompleted():
                    self.say(messages.Hello(messages.VERSION, self._instance))
                case quic_events.StreamDataReceived(_, data, _):
                    self.told += self._buffer.feed(data)
                case quic_events.ConnectionClosed():
                    self.closed = item[1]

    def of(self, kind: type[Message]) -> list[Any]:
        """The messages of a kind."""
        return [message for message in self.told if isinstance(message, kind)]


class CoreCase(SynchronousTestCase):
    """An Intermediate and nodes, joined in memory."""

    def setUp(self) -> None:
        """The Intermediate, alone."""
        self.core = make_intermediate()
        self.nodes: list[Node] = []
        self.events: list[events.Event] = []
        self.now = 0.0

    def node(self, role: Role, name: str, address: Address) -> Node:
        """A node that connects and greets."""
        node = Node(role, name, address)
        self.nodes.append(node)
        self.run_for()
        return node

    def run_for(self, seconds: float = 0.2) -> None:
        """Carry packets both ways and let timers run, in steps of 10 ms."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self.core.handle_timer(self.now)
            for node in self.nodes:
                node.mux.handle_timer(self.now)
                for data, _ in node.mux.datagrams_to_send(self.now):
                    self.core.receive_datagram(data, node.address, self.now)
            while (event := self.core.next_event()) is not None:
                self.events.append(event)
            for data, address in self.core.datagrams_to_send(self.now):
                for node in self.nodes:
                    if node.address == address:
                        node.mux.receive_datagram(data, HERE, self.now)
            for node in self.nodes:
                node.take_events()

    def reported(self, kind: type[reports.Report]) -> list[Any]:
        """The reports of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def session(self) -> tuple[Node, Node, bytes]:
        """Two nodes that a session joins, and the channel from agent to connector."""
        office = self.node(Role.CONNECTOR, "office", CONNECTOR)
        office.say(messages.Register(("web",)))
        alice = self.node(Role.AGENT, "alice", AGENT)
        alice.say(messages.SessionRequest(1, SESSION, "web"))
        self.run_for()
        office.say(messages.SessionAnswer(SESSION))
        self.run_for()
        (opened,) = alice.of(messages.SessionOpened)
        return alice, office, opened.send_channel


class ControlTests(CoreCase):
    """The way of a control packet."""

    def test_only_an_intermediates_certificate_will_do(self) -> None:
        """Nodes would refuse any other."""
        config, alice = Simulation.config(IntermediateConfig), credentials(Role.AGENT, "alice")
        self.assertRaises(ValueError, intermediate_core, config, alice, utcnow=utcnow)

    def test_a_node_is_greeted_and_counted(self) -> None:
        """It learns its address; nothing waits any more then."""
        self.assertEqual([None, None], [self.core.get_timer(), self.core.next_event()])
        alice = self.node(Role.AGENT, "alice", AGENT)
        self.assertEqual(
            [messages.ObservedAddress(0, *AGENT), messages.Welcome(messages.VERSION)], alice.told
        )
        self.assertEqual(1, len(self.core.nodes))
        self.assertEqual(1, len(self.reported(reports.NodeConnected)))
        self.assertIsNotNone(self.core.get_timer())

    def test_a_node_that_moves_learns_it(self) -> None:
        """Its packets come from elsewhere, as when a NAT lost its mapping."""
        alice = self.node(Role.AGENT, "alice", AGENT)
        alice.address = ("203.0.113.9", 6000)
        alice.connection.ping()
        self.run_for()
        self.assertEqual(messages.ObservedAddress(1, "203.0.113.9", 6000), alice.told[-1])

    def test_a_new_certificate_is_for_new_connections(self) -> None:
        """The old ones live on."""
        alice = self.node(Role.AGENT, "alice", AGENT)
        renewed = credentials(Role.INTERMEDIATE, "relay2")
        self.core.credentials = renewed
        self.assertIs(renewed, self.core.credentials)
        office = self.node(Role.CONNECTOR, "office", CONNECTOR)
        peers = [node.connection.peer for node in (alice, office)]
        self.assertEqual(["relay1", "relay2"], [peer.name for peer in peers if peer is not None])

    def test_a_closed_core_closes_the_connection_of_every_node(self) -> None:
        """With the code for a stop in order, and a reason."""
        alice = self.node(Role.AGENT, "alice", AGENT)
        self.core.close(self.now)
        self.run_for()
        reason = "intermediate stopped"
        assert alice.closed is not None
        self.assertEqual((ErrorCode.SHUTDOWN, reason), (alice.closed.code, alice.closed.reason))


class FrameTests(CoreCase):
    """The way of a relay frame, and of what is nobody's."""

    def test_a_frame_goes_to_the_other_end_unchanged(self) -> None:
        """Either way."""
        alice, _, channel = self.session()
        frame = encode_relay_frame(channel, b"payload")
        self.core.receive_datagram(frame, alice.address, self.now)
        self.assertEqual([(frame, CONNECTOR)], self.core.datagrams_to_send(self.now))
        self.assertEqual(0, self.core.dropped["relay"])

    def test_a_frame_for_nobody_is_dropped_and_counted(self) -> None:
        """Nothing is answered."""
        self.core.receive_datagram(encode_relay_frame(bytes(8), b"payload"), AGENT, 0.0)
        self.assertEqual([], self.core.datagrams_to_send(0.0))
        self.assertEqual(1, self.core.dropped["relay"])

    def test_everything_else_is_counted_by_its_kind(self) -> None:
        """STUN is for nodes, not for the Intermediate."""
        for data in (b"\x00\x01\x00\x00" + MAGIC_COOKIE + bytes(12), b"\x10", b"", b"\x40short"):
            self.core.receive_datagram(data, AGENT, 0.0)
        dropped = self.core.dropped
        self.assertEqual((1, 2, 1), (dropped["stun"], dropped["unknown"], dropped["quic"]))
        self.assertEqual((0, 0), (dropped["failures"], self.core.retries_sent))


class DrainTests(CoreCase):
    """An Intermediate that is about to stop."""

    def test_without_traffic_the_drain_is_finished_at_once(self) -> None:
        """Every node is told; asking again changes nothing."""
        alice, office, _ = self.session()
        self.run_for(QUIET + 0.1)
        for _ in range(2):
            self.core.drain(5.0, self.now)
        self.run_for()
        for node in (alice, office):
            self.assertEqual([messages.Draining(5.0)], node.of(messages.Draining))
        self.assertEqual([reports.DrainStarted(5.0, 1)], self.reported(reports.DrainStarted))
        self.assertEqual([reports.DrainFinished(0)], self.reported(reports.DrainFinished))

    def test_a_drain_waits_for_a_second_without_frames(self) -> None:
        """But takes no new sessions meanwhile."""
        alice, _, channel = self.session()
        self.core.drain(60.0, self.now)
        self.core.receive_datagram(encode_relay_frame(channel, b"x"), alice.address, self.now)
        alice.say(messages.SessionRequest(2, bytes(16), "web", policy="other"))
        self.run_for()
        (refused,) = alice.of(messages.SessionRefused)
        self.assertEqual(ErrorCode.DRAINING, refused.code)
        self.run_for(QUIET - 0.4)
        self.assertEqual([], self.reported(reports.DrainFinished))
        self.run_for(QUIET)
        self.assertEqual([reports.DrainFinished(0)], self.reported(reports.DrainFinished))

    def test_a_drain_does_not_wait_for_ever(self) -> None:
        """It says how many sessions were still busy."""
        alice, _, channel = self.session()
        self.core.drain(0.5, self.now)
        for _ in range(6):
            self.core.receive_datagram(encode_relay_frame(channel, b"x"), alice.address, self.now)
            self.run_for(0.1)
        self.assertEqual([reports.DrainFinished(1)], self.reported(reports.DrainFinished))
