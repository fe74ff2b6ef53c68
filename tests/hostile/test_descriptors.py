"""A Connector that is out of file descriptors, because of one agent or of all of them."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError, ConnectBindError
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from p2pnet import reports
from p2pnet.errors import OverLimit
from p2pnet.node.agent import AgentNode
from p2pnet.roles.connector import FlowForwarder, StreamForwarder, Targets
from p2pnet.testing.realm import Simulation
from tests.hostile.support import HostileCase
from tests.net.test_early import Target
from tests.net.test_flow import MemoryReactor

OUT_OF_DESCRIPTORS = errno.EMFILE, os.strerror(errno.EMFILE)


@implementer(IStreamClientEndpoint)
class Memory:
    """A target that is connected at once, unless the process is out of descriptors.

    :ivar made: the connections.
    """

    def __init__(self, *, has_descriptors: bool = True) -> None:
        self.made: list[Target] = []
        self._has_descriptors = has_descriptors

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """As Twisted's own endpoints do."""
        if not self._has_descriptors:
            return fail(ConnectBindError(*OUT_OF_DESCRIPTORS))
        transport = Target()
        self.made.append(transport)
        protocol = transport.protocol = protocolFactory.buildProtocol(None)
        protocol.makeConnection(transport)
        done: Deferred[Any] = Deferred()
        done.callback(protocol)
        return done


class Exhausted(MemoryReactor):
    """A reactor that opens no socket."""

    def listenUDP(self, *where: Any, **options: Any) -> Any:
        """Fail as Twisted does."""
        raise CannotListenError("0.0.0.0", 0, OSError(*OUT_OF_DESCRIPTORS))


class DescriptorTests(HostileCase):
    """Connections to targets."""

    def forward(self, simulation: Simulation, target: Memory, descriptors: int) -> Targets:
        """Let the service lead to a target."""
        targets = Targets(descriptors, flows=descriptors)
        forwarder = StreamForwarder(target, self.connector.driver, targets, 0)
        self.connector.unserve("web")
        self.connector.serve("web", forwarder.forward)
        return targets

    def open(self, simulation: Simulation, agent: AgentNode, count: int) -> int:
        """Open streams. Returns how many of them are accepted; the others are over a limit."""
        results: list[Any] = []
        for each in self.settled(simulation, agent, count):
            each.addErrback(lambda failure: failure.trap(OverLimit) and None)
            each.addCallback(results.append)
        return sum(result is not None for result in results)

    def test_an_agent_takes_all_but_the_share_of_another(self) -> None:
        """Its newest stream ends for it, and the socket of that stream is closed."""
        simulation = self.realm()
        target = Memory()
        self.forward(simulation, target, descriptors=8)
        mallory = simulation.agent("203.0.113.66", "mallory")
        self.assertEqual(8, self.open(simulation, mallory, 20))
        bob = simulation.agent("203.0.113.2", "bob")
        self.assertEqual(2, self.open(simulation, bob, 4))
        simulation.network.run(1.0)
        self.assertEqual(8, sum(transport.connected for transport in target.made))
        self.assertEqual(10, len(target.made))

    def test_a_connection_that_is_over_makes_room(self) -> None:
        """Whichever end closes; nothing is left of it in the ledger."""
        simulation = self.realm()
        target = Memory()
        targets = self.forward(simulation, target, descriptors=2)
        mallory = simulation.agent("203.0.113.66", "mallory")
        self.assertEqual(2, self.open(simulation, mallory, 3))
        target.made[0].loseConnection()
        simulation.network.run(1.0)
        self.assertEqual(1, self.open(simulation, mallory, 2))
        mallory.stopService()
        simulation.network.run(1.0)
        self.assertEqual(0, len(targets._ledger))

    def test_regression_no_descriptor_for_a_stream_is_over_a_limit(self) -> None:
        """The agent was told that the target is unreachable."""
        simulation = self.realm()
        targets = self.forward(simulation, Memory(has_descriptors=False), descriptors=8)
        bob = simulation.agent("203.0.113.2", "bob")
        self.refused(simulation, bob, OverLimit)
        (refused,) = simulation.reported(self.connector, reports.StreamRefused)
        self.assertIn("Too many open files", refused.reason)
        self.assertEqual(0, len(targets._ledger))

    def test_regression_no_descriptor_for_a_flow_is_over_a_limit(self) -> None:
        """The flow stayed, without an answer, and a traceback was in the log."""
        simulation = self.realm()
        targets, wake = Targets(8, flows=8), self.connector.driver.wake
        reactor = Exhausted(simulation.network.clock)
        forwarder = FlowForwarder(reactor, "10.0.0.1", 53, targets, wake)
        self.connector.unserve("web")
        self.connector.serve("web", forwarder.forward)
        bob = simulation.agent("203.0.113.2", "bob")
        flow = bob.open_flow("web")
        self.run_until(simulation, lambda: flow.is_closed, 2.0)
        (refused,) = simulation.reported(self.connector, reports.StreamRefused)
        self.assertEqual("over_limit", refused.code)
        self.assertEqual(0, len(targets._ledger))
        self.assertEqual([], self.flushLoggedErrors())
