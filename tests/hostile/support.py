"""What the attacks share: nodes that say what they like."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from p2pnet import reports
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.testing.realm import Simulation
from p2pnet.wire import messages
from p2pnet.wire.encoding import Message
from tests.sim.support import Echo, SimulationCase, Talks

HONEST = 2.0  # seconds in which an honest agent is served meanwhile


class Attacker:
    """An agent with a valid certificate whose messages a test chooses.

    :ivar answers: what its Intermediate says to that; the agent itself does not react.
    """

    def __init__(self, node: AgentNode) -> None:
        self.node = node
        self.answers: list[Message] = []
        node.core.take_message = (  # type: ignore[method-assign]
            lambda link, message, now: self.answers.append(message)
        )

    @property
    def is_connected(self) -> bool:
        """Whether its Intermediate takes its messages."""
        return self.node.core.links[0].is_ready

    def say(self, *said: Message) -> None:
        """Send messages to the Intermediate."""
        for message in said:
            self.node.core.links[0].send(message)
        self.node.driver.wake()

    def say_bytes(self, data: bytes) -> None:
        """Send bytes on the control stream as they are."""
        stream = self.node.core.links[0]._stream
        assert stream is not None
        stream.connection.send(messages.CONTROL_STREAM, data)
        self.node.driver.wake()

    def ask(self, count: int, service: str = "web", connector: str | None = "office") -> None:
        """Request so many sessions, each with an id of its own."""
        for number in range(count):
            session = self.node.core.entropy(16)
            self.say(messages.SessionRequest(number, session, service, connector))

    def refusals(self) -> list[messages.SessionRefused]:
        """The requests that were refused."""
        return [each for each in self.answers if isinstance(each, messages.SessionRefused)]


class HostileCase(SimulationCase):
    """An Intermediate, a connector that serves alice, bob and mallory "web", and attackers."""

    intermediate: IntermediateNode
    connector: ConnectorNode
    talks = Talks(Echo)

    def realm(self, **settings: Any) -> Simulation:
        """The realm; `settings` are those of the Intermediate."""
        simulation = self.simulate()
        self.intermediate = simulation.intermediate(**settings)
        self.connector = self.served(simulation)
        return simulation

    def served(self, simulation: Simulation, **options: Any) -> ConnectorNode:
        """A connector of "web", registered."""
        connector = simulation.connector({"web": ["alice", "bob", "mallory"]}, **options)
        connector.serve_protocol("web", self.talks)
        self.run_until(simulation, lambda: simulation.reported(connector, reports.Registered))
        return connector

    def attacker(self, simulation: Simulation, name: str = "mallory") -> Attacker:
        """An agent that is connected."""
        return Attacker(self.connected(simulation, "203.0.113.66", name))

    def connected(self, simulation: Simulation, *where: Any) -> AgentNode:
        """An agent whose Intermediate takes its messages soon."""
        agent = simulation.agent(*where)
        self.run_until(simulation, lambda: agent.core.links[0].is_ready, HONEST)
        return agent

    def settled(self, simulation: Simulation, agent: AgentNode, count: int) -> list[Deferred[Any]]:
        """So many streams of an agent to "web", once each is accepted or refused."""
        waiting = [self.connecting(agent) for _ in range(count)]
        self.run_until(simulation, lambda: all(each.called for each in waiting), HONEST)
        return waiting

    def assert_served(self, simulation: Simulation, name: str = "bob", **options: Any) -> None:
        """An honest agent that comes now is served soon."""
        agent = simulation.agent("203.0.113.2", name, **options)
        self.successResultOf(self.settled(simulation, agent, 1)[0])
