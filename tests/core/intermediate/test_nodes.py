"""Tests of p2pnet.core.intermediate.nodes: control connections, and who speaks for a name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.intermediate.nodes import MAX_BACKLOG, ConnectedNode, ConnectedNodes
from p2pnet.identity import Role
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.encoding import encode_message
from tests.core.support import FakeConnection, credentials

AGENT: Address = ("203.0.113.1", 50000)
ONE, OTHER = bytes(7) + b"\x01", bytes(7) + b"\x02"


def connection_of(role: Role, name: str) -> FakeConnection:
    """A control connection of a node that proved its name."""
    return FakeConnection(AGENT, credentials(role, name).identity)


class ConnectedNodeTests(SynchronousTestCase):
    """One control connection."""

    def setUp(self) -> None:
        """An agent that did not greet yet."""
        self.connection = connection_of(Role.AGENT, "alice")
        self.node = ConnectedNode(self.connection, AGENT)

    def test_a_node_is_who_its_certificate_says(self) -> None:
        """Role and name."""
        self.assertTrue(self.node.is_agent)
        self.assertEqual("alice", self.node.identity.name)
        self.assertFalse(ConnectedNode(connection_of(Role.CONNECTOR, "office"), AGENT).is_agent)

    def test_messages_come_in_pieces_and_give_credit_back(self) -> None:
        """A message is there once its last byte is."""
        hello = messages.Hello(messages.VERSION, ONE)
        data = encode_message(hello)
        self.assertEqual([], self.node.receive(0, data[:5]))
        self.assertEqual([hello], self.node.receive(0, data[5:]))
        self.assertEqual(len(data), self.connection.consumed)
        self.assertRaises(DecodeError, self.node.receive, 0, b"\xff\xff\xff\xff")

    def test_each_observed_address_has_a_higher_number(self) -> None:
        """So that the node can tell which is the latest."""
        for host in ("203.0.113.1", "203.0.113.2"):
            self.node.address = (host, 50000)
            self.node.send_address()
        self.assertEqual(
            [
                messages.ObservedAddress(0, "203.0.113.1", 50000),
                messages.ObservedAddress(1, "203.0.113.2", 50000),
            ],
            self.connection.sent,
        )

    def test_a_node_that_reads_nothing_is_disconnected(self) -> None:
        """Rather than have its messages fill the memory."""
        self.connection.backlog = MAX_BACKLOG
        self.node.send_address()
        self.assertIsNone(self.connection.closed)
        self.connection.backlog = MAX_BACKLOG + 1
        self.node.send_address()
        self.assertEqual((0, "control messages are not being read"), self.connection.closed)

    def test_only_a_node_that_greeted_gets_a_goodbye(self) -> None:
        """The connection is closed either way."""
        closed = (ErrorCode.SHUTDOWN, "stopped")
        self.node.dismiss(*closed)
        self.assertEqual(([], closed), (self.connection.sent, self.connection.closed))
        self.node.instance = ONE
        self.node.dismiss(*closed)
        self.assertEqual([messages.Goodbye(*closed)], self.connection.sent)


class ConnectedNodesTests(SynchronousTestCase):
    """All control connections."""

    def setUp(self) -> None:
        """Nobody."""
        self.nodes = ConnectedNodes()

    def greet(self, role: Role, name: str, instance: bytes) -> tuple[ConnectedNode, object]:
        """A node that connects and greets, and the one that spoke for its name before."""
        node = self.nodes.add(connection_of(role, name))
        return node, self.nodes.greet(node, instance)

    def test_a_node_is_found_by_its_connection(self) -> None:
        """Until it is removed."""
        connection = connection_of(Role.AGENT, "alice")
        self.assertIsNone(self.nodes.find(connection))
        node = self.nodes.add(connection)
        self.assertIs(node, self.nodes.find(connection))
        self.assertEqual((node, AGENT), (connection.owner, node.address))
        self.assertEqual([node], list(self.nodes))
        self.nodes.remove(node)
        self.assertIsNone(self.nodes.find(connection))
        self.assertEqual(0, len(self.nodes))

    def test_a_connector_takes_the_place_of_an_earlier_one_of_its_name(self) -> None:
        """Whatever process it is; the end of the earlier connection changes nothing then."""
        first, nobody = self.greet(Role.CONNECTOR, "office", ONE)
        self.assertIsNone(nobody)
        second, earlier = self.greet(Role.CONNECTOR, "office", OTHER)
        self.assertIs(first, earlier)
        self.nodes.remove(first)
        self.assertEqual({"office": second}, self.nodes.connectors)
        self.nodes.remove(second)
        self.assertEqual({}, self.nodes.connectors)

    def test_processes_of_an_agent_live_side_by_side(self) -> None:
        """But a process that comes back takes its own place, and no agent is a connector."""
        first, _ = self.greet(Role.AGENT, "alice", ONE)
        _, nobody = self.greet(Role.AGENT, "alice", OTHER)
        self.assertIsNone(nobody)
        again, earlier = self.greet(Role.AGENT, "alice", ONE)
        self.assertIs(first, earlier)
        self.nodes.remove(first)
        self.assertIs(again, self.greet(Role.AGENT, "alice", ONE)[1])
        self.assertEqual({}, self.nodes.connectors)

    def test_an_agent_that_left_is_forgotten(self) -> None:
        """Its process may come back as a new one."""
        node, _ = self.greet(Role.AGENT, "alice", ONE)
        self.nodes.remove(node)
        self.assertIsNone(self.greet(Role.AGENT, "alice", ONE)[1])
