"""What the simulated tests share: realms that must end clean, protocols, and mishaps."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2pnet import reports
from p2pnet.core.intermediate.forwarding import Forwarder
from p2pnet.core.intermediate.introductions import Introductions
from p2pnet.core.intermediate.nodes import ConnectedNodes
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.ledger import Ledger
from p2pnet.core.peer.finder import ServiceFinder
from p2pnet.core.peer.sessions import Sessions, SessionTable
from p2pnet.core.timers import Timers
from p2pnet.endpoints import P2PClientEndpoint, P2PServerEndpoint
from p2pnet.interfaces import Datagrams
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node
from p2pnet.node.connector import ConnectorNode
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.testing.network import Link, SimulatedNetwork, SimulatedTransport
from p2pnet.testing.realm import Realm, Simulation

PARTS = (Introductions, ServiceFinder, Sessions, SessionTable)
TABLES = (
    dict, list, set, collections.deque, Multiplexer, Timers,
    ConnectedNodes, Forwarder, Introductions, Ledger, MemoryDirectory,
)  # fmt: skip


class Socket(SimulatedTransport):
    """A socket that mishaps can happen to."""

    _network: SimulatedNetwork
    _receive: Callable[[Datagrams], Any]
    plugged = False

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket."""
        super().start(receive)
        self._receive, self.plugged = receive, True

    def stop(self) -> None:
        """Close the socket; also what is left of the process once its machine is gone."""
        if self.plugged:
            super().stop()
        self.plugged = False

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send, if there is still a way out."""
        if self.plugged:
            super().send(datagrams, ttl)

    def move(self, host: str, port: int) -> None:
        """From now on the packets come from there, as when a NAT has lost its mapping."""
        self.stop()
        self._address = (host, port)
        self.start(self._receive)


class Network(SimulatedNetwork):
    """A simulated network with such sockets."""

    def transport(self, host: str, port: int = 0) -> Socket:
        """A socket on `host`; port 0 for any."""
        return Socket(self, super().transport(host, port).get_address())


def crash(node: Node) -> None:
    """The node's machine is gone without a word."""
    node.transport.stop()


@implementer(IHalfCloseableProtocol)
class Talk(Protocol):
    """Keeps what it hears, and how that ended."""

    transport: Any
    half_close = True

    def __init__(self) -> None:
        self.heard = bytearray()
        self.read_ended = False
        self.why: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Listen."""
        self.heard += data

    def readConnectionLost(self) -> None:
        """The other end has said everything."""
        self.read_ended = True

    def writeConnectionLost(self) -> None:
        """We have."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.why = reason


class Echo(Talk):
    """Says what it hears, and closes when the other end does."""

    def dataReceived(self, data: bytes) -> None:
        """Repeat."""
        super().dataReceived(data)
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        """Nothing to repeat will come."""
        super().readConnectionLost()
        self.transport.loseConnection()


class Talks(Factory):
    """Makes protocols of a kind and keeps them."""

    noisy = False

    def __init__(self, kind: Callable[[], Protocol] = Talk) -> None:
        self.made: list[Any] = []
        self._kind = kind

    def buildProtocol(self, addr: Any) -> Protocol:
        """One more."""
        protocol = self._kind()
        self.made.append(protocol)
        return protocol


def leftovers(core: Any, *expected: str) -> dict[str, int]:
    """Sizes of the tables of a core and its parts that are not empty, but for the `expected`."""
    named = [item for part in _parts_of(core) for item in vars(part).items()]
    tables = {id(value): name for name, value in named}  # a part may share one of its core's
    found = {n: len(v) for n, v in named if isinstance(v, TABLES) and tables[id(v)] == n}
    return {name: size for name, size in found.items() if size and name not in expected}


def _parts_of(thing: Any) -> Iterator[Any]:
    for value in vars(thing).values():
        if isinstance(value, PARTS):
            yield from _parts_of(value)
    yield thing


class RelayedSimulation(Simulation):
    """Agents whose sessions stay on the relay, unless a test names another policy."""

    def agent(self, *where: Any, **options: Any) -> AgentNode:
        """An Agent."""
        return super().agent(*where, **{"policy": "relay-only", **options})


class SimulationCase(SynchronousTestCase):
    """A test on a simulated network, which must end without an error and without a loose end."""

    errors_expected = False

    def simulate(
        self, seed: int = 1, link: Link | None = None, *, keep_trace: bool = False
    ) -> Simulation:
        """An empty realm of relayed sessions. It is stopped, and looked at, when the test ends."""
        simulation = RelayedSimulation(Network(seed, link, keep_trace), Realm())
        self.addCleanup(self._end, simulation)
        return simulation

    def _end(self, simulation: Simulation) -> None:
        simulation.stop()
        self.assertEqual([], simulation.network.clock.getDelayedCalls())
        errors = [dict(node.driver.errors) for node in simulation.nodes if node.driver.errors]
        self.assertEqual([], [] if self.errors_expected else errors)

    def trio(
        self, simulation: Simulation, kind: Callable[[], Protocol] = Echo
    ) -> tuple[AgentNode, ConnectorNode, Talks]:
        """Beside a new Intermediate: an agent, a connector that serves it "web", and its talks."""
        simulation.intermediate()
        connector, served = self.serve(simulation, kind)
        agent = simulation.agent()
        self.run_until(simulation, lambda: agent.core.links[0].is_ready)
        return agent, connector, served

    def serve(
        self, simulation: Simulation, kind: Callable[[], Protocol] = Echo, **options: Any
    ) -> tuple[ConnectorNode, Talks]:
        """A connector that serves alice "web", registered, and the talks it will have."""
        connector = simulation.connector({"web": ["alice"]}, **options)
        served = Talks(kind)
        self.successResultOf(P2PServerEndpoint(connector, "web").listen(served))
        self.run_until(simulation, lambda: simulation.reported(connector, reports.Registered))
        return connector, served

    def connecting(self, agent: AgentNode, service: str = "web") -> Deferred[Any]:
        """A talk of the agent with a service, as soon as it is accepted."""
        return P2PClientEndpoint(agent, service).connect(Talks())

    def talk(self, simulation: Simulation, agent: AgentNode, service: str = "web") -> Any:
        """A talk that must come about."""
        waiting = self.connecting(agent, service)
        self.run_until(simulation, lambda: waiting.called)
        return self.successResultOf(waiting)

    def refused(
        self, simulation: Simulation, agent: AgentNode, kind: type[Exception], service: str = "web"
    ) -> Any:
        """The error of a talk that must not come about."""
        waiting = self.connecting(agent, service)
        self.run_until(simulation, lambda: waiting.called)
        return self.failureResultOf(waiting, kind).value

    def run_until(
        self, simulation: Simulation, done: Callable[[], Any], seconds: float = 60.0
    ) -> None:
        """Let virtual time pass until `done()`, which must be within so many seconds."""
        in_time = simulation.network.run_until(done, seconds)
        self.assertTrue(in_time, f"not within {seconds} s, seed {simulation.network.seed}")

    def names(self, reports: Iterable[reports.Report]) -> list[str]:
        """The names of reports, in order."""
        return [report.name for report in reports]
