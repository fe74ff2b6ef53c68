"""Tests of p2pnet.core.intermediate.control: what each message and each event of a node does."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.control import GREETING_TIMEOUT, ControlConnections
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.nodes import ConnectedNodes
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.intermediate.shares import make_ledger
from p2pnet.core.intermediate.workers import SharedForwarder
from p2pnet.core.timers import Timers
from p2pnet.identity import Role
from p2pnet.quic import events as quic_events
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message, encode_message
from tests.core.support import FakeConnection, credentials

AGENT: Address = ("203.0.113.1", 50000)
CONNECTOR: Address = ("198.51.100.1", 50000)
SESSION = bytes(range(16))
CREDENTIALS = ("abcd", "a" * 22)  # username fragment and password


class ControlCase(SynchronousTestCase):
    """Control connections without a network."""

    def setUp(self) -> None:
        """Nobody is connected."""
        self.events: list[events.Event] = []
        self.timers = Timers()
        self.ledger = make_ledger(max_connections=4, max_sessions=10, max_per_node=10)
        self.nodes = ConnectedNodes()
        self.directory = MemoryDirectory()
        self.introductions = Introductions(
            SharedForwarder(self.events.append), self.directory, self.nodes.connectors,
            self.events.append, random.Random(1).randbytes, self.timers, self.ledger, rate=0,
        )  # fmt: skip
        self.control = ControlConnections(
            self.nodes, self.directory, self.introductions, self.timers, self.ledger,
            self.events.append,
        )  # fmt: skip

    def connect(self, role: Role, name: str, address: Address) -> FakeConnection:
        """A node whose handshake succeeded."""
        identity = credentials(role, name).identity
        connection = FakeConnection(address, identity)
        self.control.handle(connection, quic_events.HandshakeCompleted(identity), 0.0)
        return connection

    def say(self, connection: FakeConnection, *said: Message) -> None:
        """Let the node send messages, all of them in one packet."""
        data = b"".join(map(encode_message, said))
        self.control.handle(connection, quic_events.StreamDataReceived(0, data, False), 0.0)

    def close(self, connection: FakeConnection, code: int = 0, reason: str = "gone") -> None:
        """Let the node close its connection."""
        self.control.handle(connection, quic_events.ConnectionClosed(code, reason, True), 0.0)

    def greet(self, role: Role, name: str, address: Address, instance: int = 1) -> FakeConnection:
        """A node that connects and greets."""
        connection = self.connect(role, name, address)
        self.say(connection, messages.Hello(messages.VERSION, instance.to_bytes(8, "big")))
        return connection

    def pair(self) -> tuple[FakeConnection, FakeConnection]:
        """An agent and a connector that a session joins."""
        office = self.greet(Role.CONNECTOR, "office", CONNECTOR)
        self.say(office, messages.Register(("web",)))
        alice = self.greet(Role.AGENT, "alice", AGENT)
        self.say(alice, messages.SessionRequest(1, SESSION, "web"))
        self.say(office, messages.SessionAnswer(SESSION))
        self.assertIsInstance(alice.sent[-1], messages.SessionOpened)
        return alice, office


class GreetingTests(ControlCase):
    """From the handshake to a node that may say anything."""

    def test_a_hello_is_answered_with_address_and_welcome(self) -> None:
        """In the lower of the two minor versions; and the node is reported."""
        alice = self.connect(Role.AGENT, "alice", AGENT)
        self.assertEqual([], self.events)
        self.say(alice, messages.Hello((messages.VERSION[0], 99), bytes(8) + b""))
        self.assertEqual(
            [messages.ObservedAddress(0, *AGENT), messages.Welcome(messages.VERSION)], alice.sent
        )
        (connected,) = self.events
        assert isinstance(connected, reports.NodeConnected)
        self.assertEqual("203.0.113.1:50000", connected.address)

    def test_a_greeting_that_does_not_come_in_time_ends_the_connection(self) -> None:
        """One that came does not; nor does the time of a node that is gone already."""
        silent = self.connect(Role.AGENT, "alice", AGENT)
        gone = self.connect(Role.AGENT, "bob", AGENT)
        self.close(gone)
        greeted = self.greet(Role.CONNECTOR, "office", CONNECTOR)
        self.timers.handle_timer(GREETING_TIMEOUT)
        self.assertEqual((ErrorCode.PROTOCOL_ERROR, "no greeting in time"), silent.closed)
        self.assertEqual((None, None), (gone.closed, greeted.closed))

    def test_a_name_with_the_most_connections_makes_room_for_another(self) -> None:
        """Of four connections that there may be; its newest one is closed, with a reason."""
        processes = [self.greet(Role.AGENT, "alice", AGENT, number) for number in range(1, 6)]
        full = (ErrorCode.OVER_LIMIT, "all 4 connections are in use")
        self.assertEqual([None] * 4 + [full], [each.closed for each in processes])
        self.greet(Role.CONNECTOR, "office", CONNECTOR)
        reason = "other names want their share of the intermediate's connections"
        self.assertEqual((ErrorCode.OVER_LIMIT, reason), processes[3].closed)
        self.assertEqual(messages.Goodbye(ErrorCode.OVER_LIMIT, reason), processes[3].sent[-1])
        for process in processes:
            self.close(process)
        self.assertEqual(1, len(self.ledger))

    def test_only_hello_may_come_first_and_only_once(self) -> None:
        """In a version of the same major number."""
        hello = messages.Hello(messages.VERSION, bytes(7) + b"\x01")
        rude = self.connect(Role.AGENT, "alice", AGENT)
        self.say(rude, messages.SessionRequest(1, SESSION, "web"), hello)
        self.assertEqual((ErrorCode.PROTOCOL_ERROR, "no greeting first"), rude.closed)
        self.assertEqual([], rude.sent)
        twice = self.greet(Role.AGENT, "bob", AGENT)
        self.say(twice, hello)
        foreign = self.connect(Role.AGENT, "carol", AGENT)
        self.say(foreign, messages.Hello((3, 0), bytes(8)))
        reason = "this intermediate speaks p2pnet/2, once greeted"
        for connection in (twice, foreign):
            self.assertEqual((ErrorCode.PROTOCOL_ERROR, reason), connection.closed)

    def test_malformed_bytes_end_the_connection(self) -> None:
        """With the code for that."""
        alice = self.greet(Role.AGENT, "alice", AGENT)
        event = quic_events.StreamDataReceived(0, b"\x00\x00\x00\x01\xff", False)
        self.control.handle(alice, event, 0.0)
        assert alice.closed is not None
        self.assertEqual(ErrorCode.PROTOCOL_ERROR, alice.closed[0])

    def test_an_earlier_process_with_the_certificate_is_dismissed(self) -> None:
        """It gets to know why."""
        first = self.greet(Role.CONNECTOR, "office", CONNECTOR, 1)
        second = self.greet(Role.CONNECTOR, "office", CONNECTOR, 2)
        assert first.closed is not None
        self.assertEqual(ErrorCode.SUPERSEDED, first.closed[0])
        self.assertEqual(messages.Goodbye(*first.closed), first.sent[-1])
        self.assertIsNone(second.closed)

    def test_a_connection_that_fails_in_the_handshake_is_reported(self) -> None:
        """With its address, if there is one, and why."""
        for address, text in ((AGENT, "203.0.113.1:50000"), (None, "?")):
            stranger = FakeConnection(AGENT)
            stranger.address = address  # type: ignore[assignment]
            self.close(stranger, reason="no certificate")
            self.assertEqual(reports.NodeRefused(text, "no certificate"), self.events[-1])

    def test_a_client_in_handshake_is_no_node(self) -> None:
        """Strangers get as far as that."""
        self.control.packet_arrived(FakeConnection(AGENT))
        self.assertEqual((0, None), (len(self.nodes), self.timers.get_timer()))

    def test_a_node_that_left_does_not_come_back_by_a_late_packet(self) -> None:
        """Nor do later events of its connection count."""
        alice = self.connect(Role.AGENT, "alice", AGENT)
        self.close(alice)
        self.control.packet_arrived(alice)
        self.close(alice)
        self.assertEqual(0, len(self.nodes))
        self.assertEqual([reports.NodeRefused("203.0.113.1:50000", "gone")], self.events)


class AddressTests(ControlCase):
    """A node whose packets come from elsewhere."""

    def test_a_node_that_moved_learns_its_new_address(self) -> None:
        """And the frames of its sessions are forwarded from and to there."""
        alice, _ = self.pair()
        alice.address = ("203.0.113.7", 6000)
        self.control.packet_arrived(alice)
        self.assertEqual(messages.ObservedAddress(1, "203.0.113.7", 6000), alice.sent[-1])
        moved = self.events[-1]
        assert isinstance(moved, reports.NodeMoved)
        self.assertEqual("203.0.113.7:6000", moved.address)

    def test_before_the_greeting_nobody_is_told(self) -> None:
        """The Welcome will come with the new address."""
        alice = self.connect(Role.AGENT, "alice", AGENT)
        alice.address = ("203.0.113.7", 6000)
        self.control.packet_arrived(alice)
        self.assertEqual(([], []), (alice.sent, self.events))


class MessageTests(ControlCase):
    """Who may say what."""

    def test_only_services_of_the_certificate_are_registered(self) -> None:
        """Each other one is refused with a reason; twice the same counts once."""
        office = self.greet(Role.CONNECTOR, "office", CONNECTOR)
        self.say(office, messages.Register(("web", "mail", "web")))
        refused, registered = office.sent[-2:]
        assert isinstance(refused, messages.RegistrationRefused)
        self.assertEqual(("mail", ErrorCode.NOT_GRANTED), (refused.service, refused.code))
        self.assertEqual(messages.Registered(("web",)), registered)
        realm = credentials(Role.CONNECTOR, "office").identity.realm
        self.assertEqual(1, len(self.directory.lookup(realm, "web")))
        self.assertEqual([], self.directory.lookup(realm, "mail"))
        self.assertIsInstance(self.events[-1], reports.ServicesRegistered)

    def test_what_is_the_other_roles_part_ends_the_connection(self) -> None:
        """And nothing else happens."""
        for role, name, message in (
            (Role.AGENT, "alice", messages.Register(("web",))),
            (Role.AGENT, "alice", messages.SessionAnswer(SESSION)),
            (Role.CONNECTOR, "office", messages.SessionRequest(1, SESSION, "web")),
            (Role.CONNECTOR, "office", messages.Welcome(messages.VERSION)),
        ):
            node = self.greet(role, name, AGENT)
            self.say(node, message)
            tag = message.__struct_config__.tag
            self.assertEqual((ErrorCode.PROTOCOL_ERROR, f"{role} may not send {tag}"), node.closed)
            self.assertEqual((0, 0), (len(self.directory), len(self.introductions)))
            self.close(node)

    def test_a_session_begins_and_ends_by_messages(self) -> None:
        """Between an agent and a connector."""
        alice, office = self.pair()
        self.assertEqual(1, len(self.introductions))
        self.say(alice, messages.SessionClosed(SESSION, 0, "not used"))
        self.assertEqual(messages.SessionClosed(SESSION, 0, "not used"), office.sent[-1])
        self.assertEqual(0, len(self.introductions))

    def test_nothing_counts_once_the_connection_is_closed(self) -> None:
        """Though messages wait behind the one that closed it."""
        alice = self.greet(Role.AGENT, "alice", AGENT)
        self.say(alice, messages.Register(()), messages.SessionRequest(1, SESSION, "web"))
        self.assertEqual(2, len(alice.sent))

    def test_an_event_of_no_concern_is_ignored(self) -> None:
        """Nodes may open streams that nobody reads."""
        alice = self.greet(Role.AGENT, "alice", AGENT)
        self.control.handle(alice, quic_events.StreamReset(4, 0), 0.0)
        self.assertIsNone(alice.closed)


class LeavingTests(ControlCase):
    """A node whose connection is over."""

    def test_the_sessions_of_a_node_that_is_lost_may_resume(self) -> None:
        """The other end gets the code for that; services and name are free."""
        alice, office = self.pair()
        self.close(office)
        closed = alice.sent[-1]
        assert isinstance(closed, messages.SessionClosed)
        self.assertEqual(ErrorCode.PEER_LOST, closed.code)
        self.assertEqual("connector office left: gone", closed.reason)
        self.assertEqual((0, {}, 1), (len(self.directory), self.nodes.connectors, len(self.nodes)))
        self.assertIsInstance(self.events[-1], reports.NodeLost)

    def test_a_node_that_stops_ends_its_sessions(self) -> None:
        """For good."""
        alice, office = self.pair()
        self.close(alice, ErrorCode.SHUTDOWN, "node stopped")
        closed = office.sent[-1]
        assert isinstance(closed, messages.SessionClosed)
        self.assertEqual(ErrorCode.SHUTDOWN, closed.code)
