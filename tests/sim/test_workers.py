"""Tests of an Intermediate with workers on a simulated network, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.workers import RelayWorker
from p2pnet.interfaces import Datagrams
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.node.agent import AgentNode
from p2pnet.testing.network import Link
from p2pnet.testing.realm import Realm
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.worker_messages import Stray, WorkerMessage
from tests.sim.support import Echo, Network, RelayedSimulation, SimulationCase

WORKERS = 3
HEARD_AFTER = 0.005  # seconds for which what a worker says is under way


class SimulatedPool(WorkerPool):
    """Workers whose processes are cores in this one, and frames that are steered to them.

    :ivar forwarded: frames that were sent on, by all processes.
    """

    def __init__(self, network: Network, address: Address) -> None:
        super().__init__(network.clock, *address, WORKERS, "plain")
        self.clock = network.clock
        self.inner = network.transport(*address)
        self.cores: dict[int, RelayWorker] = {}
        self.timers: dict[int, IDelayedCall] = {}
        self.forwarded = 0

    @property
    def gathers(self) -> bool:
        """Datagrams come one by one."""
        return False

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Begin."""
        self.receive = receive
        self.inner.start(self.steer)
        for number in range(1, WORKERS + 1):
            self.begin(number)

    def begin(self, number: int) -> None:
        """A worker relays."""
        self.cores[number] = core = RelayWorker()
        for message in self.owner.worker_added(number):
            core.receive_message(message, self.clock.seconds())
        self.owner.worker_started(number, number)

    def kill(self, number: int) -> None:
        """A worker dies, with what it had not told."""
        del self.cores[number]
        self.owner.worker_lost(number, "killed", 1.0)

    def steer(self, datagrams: Datagrams) -> None:
        """To the process that a byte of a frame names, if it lives."""
        for data, source in datagrams:
            number = data[1] % (1 + WORKERS) if classify(data) is Kind.RELAY else 0
            core = self.cores.get(number)
            if core is None:
                self.receive([(data, source)])
            else:
                core.receive_datagram(data, source, self.clock.seconds())
                self.send(core.datagrams_to_send(self.clock.seconds()))
                self.hear(number)

    def broadcast(self, message: WorkerMessage) -> None:
        """Tell all, before what is sent now arrives."""
        for number, core in self.cores.items():
            core.receive_message(message, self.clock.seconds())
            self.hear(number)

    def hear(self, number: int) -> None:
        """What a worker says arrives a little later; and it wants to be called some time."""
        core = self.cores.get(number)
        if core is None:
            return
        while (event := core.next_event()) is not None:
            assert isinstance(event, events.MessageNeeded)
            self.clock.callLater(HEARD_AFTER, self.heard, number, core, event.message)
        when, timer = core.get_timer(), self.timers.get(number)
        if when is not None and (timer is None or not timer.active()):
            delay = when - self.clock.seconds()
            self.timers[number] = self.clock.callLater(delay, self.due, number)

    def heard(self, number: int, core: RelayWorker, message: WorkerMessage) -> None:
        """It arrives, unless the worker died."""
        if isinstance(message, Stray):
            self.receive([(message.data, message.source)])
        elif self.cores.get(number) is core:
            self.owner.worker_message(number, message)

    def due(self, number: int) -> None:
        """A worker reports."""
        if number in self.cores:
            self.cores[number].handle_timer(self.clock.seconds() + 1e-6)
            self.hear(number)

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send, and count."""
        self.forwarded += sum(classify(data) is Kind.RELAY for data, _ in datagrams)
        self.inner.send(datagrams, ttl)

    def get_address(self) -> Address:
        """The address of all."""
        return self.inner.get_address()

    def stop(self) -> Deferred[Any]:
        """End all."""
        for timer in self.timers.values():
            if timer.active():
                timer.cancel()
        self.cores.clear()
        self.inner.stop()
        return succeed(None)


class PooledSimulation(RelayedSimulation):
    """A realm whose Intermediates have workers."""

    pool: SimulatedPool

    def process(self, host: str, port: int = 0) -> Any:
        """With a pool for an Intermediate."""
        if not port:
            return super().process(host)
        network: Any = self.network
        self.pool = SimulatedPool(network, (host, port))
        return network.clock, self.pool


class WorkersTests(SimulationCase):
    """Agents that are relayed to a connector, whose channels come to all processes."""

    def pooled(self, agents: int, seed: int) -> tuple[PooledSimulation, list[AgentNode]]:
        """Nodes that are connected."""
        simulation = PooledSimulation(Network(seed, Link()), Realm())
        self.addCleanup(self._end, simulation)
        simulation.intermediate()
        self.serve(simulation, Echo)
        nodes = [simulation.agent(f"203.0.113.{number + 1}") for number in range(agents)]
        self.run_until(simulation, lambda: all(node.core.links[0].is_ready for node in nodes))
        return simulation, nodes

    def transfer(
        self, simulation: PooledSimulation, agents: list[AgentNode], mishap: Callable[[], Any]
    ) -> None:
        """Have each agent's bytes echoed, with a mishap amid it."""
        talks = [self.talk(simulation, agent) for agent in agents]
        data = simulation.network.random.randbytes(1 << 19)
        for talk in talks:
            talk.transport.write(data)
            talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: len(talks[0].heard) > 10_000)
        mishap()
        self.run_until(simulation, lambda: all(talk.why for talk in talks))
        for talk in talks:
            self.assertEqual(sha256(data).digest(), sha256(talk.heard).digest())

    def end(self, simulation: PooledSimulation, agents: list[AgentNode]) -> list[Any]:
        """End the sessions. Returns what was reported of them."""
        for agent in agents:
            agent.stopService()
        intermediate = simulation.nodes[0]

        def closed() -> list[Any]:
            return simulation.reported(intermediate, reports.RelayClosed)

        self.run_until(simulation, lambda: len(closed()) == len(agents))
        return closed()

    def test_no_frame_is_dropped_and_each_is_counted(self) -> None:
        """Every worker knows a session before its ends do, and tells all before it is closed."""
        simulation, agents = self.pooled(6, seed=1)
        self.transfer(simulation, agents, lambda: None)
        closed = self.end(simulation, agents)
        # Last words may come when the Intermediate has closed the session already.
        self.assertLessEqual(simulation.nodes[0].core.forwarder.dropped, 2 * len(agents))
        self.assertEqual(simulation.pool.forwarded, sum(report.frames for report in closed))

    def test_a_nat_that_moves_an_agent_moves_it_for_all_workers(self) -> None:
        """The transfer goes on, from another address."""
        simulation, agents = self.pooled(4, seed=2)

        def move() -> None:
            for number, agent in enumerate(agents):
                socket: Any = agent.transport
                socket.move(f"203.0.113.{100 + number}", 40_000)

        self.transfer(simulation, agents, move)
        self.assertEqual(4, len(simulation.reported(simulation.nodes[0], reports.NodeMoved)))
        for agent in agents:
            self.assertEqual([], simulation.reported(agent, reports.SessionClosed))

    def test_workers_that_die_and_return_disturb_nobody(self) -> None:
        """No packet is lost, and the sessions are closed in order in the end."""
        simulation, agents = self.pooled(6, seed=3)

        def disturb() -> None:
            for number in (1, 2, 3):
                simulation.pool.kill(number)
                simulation.network.run(0.1)
            for number in (2, 3):
                simulation.pool.begin(number)
                simulation.network.run(0.1)

        self.transfer(simulation, agents, disturb)
        self.assertEqual(0, simulation.nodes[0].core.forwarder.dropped)
        self.assertEqual(6, len(self.end(simulation, agents)))

    def test_a_drain_waits_for_what_workers_forward(self) -> None:
        """And not for longer than there is something."""
        simulation, agents = self.pooled(4, seed=4)
        talks = [self.talk(simulation, agent) for agent in agents]
        intermediate = simulation.nodes[0]
        stopped: list[Any] = []
        until = simulation.network.clock.seconds() + 4.0
        while (now := simulation.network.clock.seconds()) < until:
            for talk in talks:
                talk.transport.write(b"still here")
            simulation.network.run(0.2)
            if now > until - 3.0 and not stopped:
                stopped.append(intermediate.stopService())
            self.assertEqual([], simulation.reported(intermediate, reports.DrainFinished))
        self.run_until(simulation, lambda: stopped[0].called, 5.0)
        finished = simulation.reported(intermediate, reports.DrainFinished)
        self.assertEqual([reports.DrainFinished(0)], finished)
