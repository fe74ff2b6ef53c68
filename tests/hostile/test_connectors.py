"""Bad and dead connectors beside an honest one that serves the same service."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from p2pnet import reports
from p2pnet.errors import ServiceError
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.testing.network import Link
from p2pnet.testing.realm import Simulation
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.sim.support import SimulationCase, crash

FIRST = 2.0  # seconds until the first stream is answered although a connector is bad
REPLACED = 7.0  # seconds until a new stream is answered after the connector of the session died
E2E_IDLE = 30.0  # seconds after which QUIC gives a silent end-to-end connection up
OFFICE = "198.51.100.1"
INTERMEDIATE = "192.0.2.1"


def accept_all_and_vanish(connector: ConnectorNode) -> list[bytes]:
    """Let a connector accept every offer and shake hands with nobody. Returns what it accepts."""
    accepted: list[bytes] = []

    def take_message(link: Any, message: Any, now: float) -> None:
        if isinstance(message, messages.SessionOffer):
            accepted.append(message.session)
            link.send(messages.SessionAnswer(message.session))

    connector.core.take_message = take_message  # type: ignore[method-assign]
    return accepted


class BlackHoleTests(SimulationCase):
    """Connectors with a grant that accept offers and never shake hands."""

    def begin(self, bad: int = 1, honest: bool = True) -> Simulation:
        """So many bad connectors, which an Intermediate prefers, and perhaps an honest one."""
        simulation = self.simulate()
        simulation.intermediate()
        self.bad = []
        for number in range(bad):
            host = f"198.51.100.{66 + number}"
            connector, _ = self.serve(simulation, host=host, name=f"evil{number}")
            self.bad.append(accept_all_and_vanish(connector))
        if honest:
            self.office, self.served = self.serve(simulation)
        self.alice = self.agent(simulation)
        return simulation

    def agent(self, simulation: Simulation, host: str = "203.0.113.1") -> AgentNode:
        """A process of alice's that is connected."""
        agent = simulation.agent(host)
        self.run_until(simulation, lambda: agent.core.links[0].is_ready)
        return agent

    def assert_answered(self, simulation: Simulation, agent: AgentNode, seconds: float) -> None:
        """A new stream is answered in time."""
        waiting = self.connecting(agent)
        self.run_until(simulation, lambda: waiting.called, seconds)
        self.successResultOf(waiting)

    def test_regression_a_connector_that_never_shakes_hands_costs_one_second(self) -> None:
        """Each of four streams failed, although an honest connector was idle."""
        simulation = self.begin()
        for _ in range(4):
            self.assert_answered(simulation, self.alice, FIRST)
        self.assertEqual(1, len(self.bad[0]))
        (session,) = self.alice.core.sessions
        self.assertEqual("office", session.peer_name)

    def test_every_new_agent_is_answered(self) -> None:
        """Nobody tells agents which connectors are bad."""
        simulation = self.begin()
        for number in range(2, 6):
            agent = self.agent(simulation, f"203.0.113.{number}")
            self.assert_answered(simulation, agent, FIRST)

    def test_the_loser_is_closed(self) -> None:
        """At the Agent, at the Intermediate and for the connector."""
        simulation = self.begin()
        self.assert_answered(simulation, self.alice, FIRST)
        simulation.network.run(0.1)
        (closed,) = simulation.reported(self.alice, reports.SessionClosed)
        self.assertEqual(
            ("evil0", "no_error", "connector office was faster"),
            (closed.peer, closed.code, closed.reason),
        )
        intermediate: Any = simulation.nodes[0]
        self.assertEqual(1, len(intermediate.core.introductions))

    def test_several_bad_connectors_are_passed_over_one_after_the_other(self) -> None:
        """A second for each."""
        simulation = self.begin(bad=3)
        self.assert_answered(simulation, self.alice, 3 + FIRST)
        self.assertEqual([1, 1, 1], [len(accepted) for accepted in self.bad])
        self.assertEqual(1, len(self.alice.core.sessions))

    def test_bad_connectors_alone_end_in_one_error_each(self) -> None:
        """The race finds no other one: there is one session."""
        simulation = self.begin(honest=False)
        error = self.refused(simulation, self.alice, ServiceError)
        self.assertEqual(ErrorCode.UNREACHABLE, error.code)
        self.assertEqual(1, len(self.bad[0]))

    def test_a_slow_handshake_wins_if_it_is_the_first(self) -> None:
        """The session of the second connector is sent back."""
        simulation = self.begin(bad=0)
        self.serve(simulation, name="annex", host="198.51.100.2")
        for host in ("203.0.113.1", OFFICE):
            simulation.network.connect(host, INTERMEDIATE, Link(delay=0.35))
        simulation.network.connect("198.51.100.2", INTERMEDIATE, Link(delay=0.45))
        simulation.network.run(5.0)
        self.assert_answered(simulation, self.alice, 6.0)
        simulation.network.run(5.0)
        (session,) = self.alice.core.sessions
        self.assertEqual("office", session.peer_name)
        intermediate: Any = simulation.nodes[0]
        self.assertEqual(2, len(simulation.reported(intermediate, reports.RelayOpened)))
        self.assertEqual(1, len(intermediate.core.introductions))

    def test_regression_a_connector_that_refuses_is_passed_over(self) -> None:
        """Each stream failed, although an honest connector was idle. Alone, it is believed."""
        for honest in (True, False):
            simulation = self.begin(honest=honest)
            core: Any = simulation.nodes[1].core
            core.take_message = lambda link, message, now: link.send(
                messages.SessionAnswer(message.session, ErrorCode.NOT_AUTHORIZED, "no")
            )
            for _ in range(3):
                if honest:
                    self.assert_answered(simulation, self.alice, FIRST)
                else:
                    error = self.refused(simulation, self.alice, ServiceError)
                    self.assertEqual(ErrorCode.NOT_AUTHORIZED, error.code)

    def test_a_connector_that_leaves_offers_unanswered_is_not_preferred_again(self) -> None:
        """Its acknowledgements of packets are no answer to an offer."""
        simulation = self.begin()
        core: Any = simulation.nodes[1].core
        core.take_message = lambda link, message, now: None
        self.assert_answered(simulation, self.agent(simulation, "203.0.113.2"), 2 + FIRST)
        self.assert_answered(simulation, self.agent(simulation, "203.0.113.3"), FIRST)


class DeadConnectorTests(SimulationCase):
    """The connector of a session dies, or is cut off for a while; another one lives."""

    def begin(self, policy: str = "relay-only") -> Simulation:
        """A session of the agent's with the office, and the annex."""
        simulation = self.simulate()
        simulation.intermediate()
        self.office, self.served = self.serve(simulation)
        self.alice = simulation.agent(policy=policy)
        self.run_until(simulation, lambda: self.alice.core.links[0].is_ready)
        self.talking = self.talk(simulation, self.alice)
        simulation.network.run(3.0)  # a direct way is found meanwhile
        _, self.annexed = self.serve(simulation, name="annex", host="198.51.100.2")
        return simulation

    def assert_replaced(self, simulation: Simulation) -> None:
        """One of the streams that are opened from now on is answered soon, by the annex."""
        waiting: list[Deferred[Any]] = []
        end = simulation.network.clock.seconds() + REPLACED
        while not any(each.called for each in waiting):
            self.assertLess(simulation.network.clock.seconds(), end)
            waiting.append(self.connecting(self.alice))
            simulation.network.run(0.5)
        self.assertGreater(len(self.annexed.made), 0)
        for each in waiting:
            each.addErrback(lambda _: None)

    def kept(self) -> bool:
        """Whether the session with the office and its stream live."""
        names = {session.peer_name for session in self.alice.core.sessions}
        return "office" in names and self.talking.why is None

    def test_regression_new_streams_leave_a_connector_that_was_killed(self) -> None:
        """They waited for as long as the session did, 30 s."""
        for policy in ("relay-only", "prefer-direct"):
            simulation = self.begin(policy)
            crash(self.office)
            self.assert_replaced(simulation)
            self.assertTrue(self.kept())
            self.run_until(simulation, lambda: self.talking.why, E2E_IDLE)
            self.talk(simulation, self.alice)

    def test_the_streams_of_a_connector_that_was_cut_off_recover(self) -> None:
        """The session has its 30 s; new streams stay where they are answered."""
        simulation = self.begin()
        simulation.network.connect(OFFICE, INTERMEDIATE, Link(loss=1.0))
        self.talking.transport.write(b"are you there?")
        self.assert_replaced(simulation)
        self.assertTrue(self.kept())
        simulation.network.connect(OFFICE, INTERMEDIATE, Link())
        self.run_until(simulation, lambda: self.talking.heard == b"are you there?", 20.0)
        before = len(self.annexed.made)
        self.talk(simulation, self.alice)
        self.assertEqual(before + 1, len(self.annexed.made))

    def test_new_streams_stay_with_the_only_connector(self) -> None:
        """The Intermediate is asked for another one now and then, not for each of them."""
        simulation = self.simulate()
        intermediate: Any = simulation.intermediate()
        self.serve(simulation)
        alice = simulation.agent(policy="relay-only")
        self.run_until(simulation, lambda: alice.core.links[0].is_ready)
        talk = self.talk(simulation, alice)
        requests: list[Any] = []
        introduce = intermediate.core.introductions.request

        def request(*args: Any) -> None:
            requests.append(args)
            introduce(*args)

        intermediate.core.introductions.request = request
        simulation.network.connect(OFFICE, INTERMEDIATE, Link(loss=1.0))
        talk.transport.write(b"are you there?")
        streams = []
        for _ in range(100):
            streams.append(self.connecting(alice))
            simulation.network.run(0.1)
        self.assertIn(len(requests), (1, 2))
        simulation.network.connect(OFFICE, INTERMEDIATE, Link())
        self.run_until(simulation, lambda: all(each.called for each in streams), 20.0)
        for each in streams:
            self.successResultOf(each)

    def test_an_agent_that_is_cut_off_itself_keeps_its_connector(self) -> None:
        """The silence is its own: no Intermediate answers either."""
        simulation = self.begin()
        simulation.network.connect("203.0.113.1", INTERMEDIATE, Link(loss=1.0))
        self.talking.transport.write(b"are you there?")
        streams = []
        for _ in range(16):
            streams.append(self.connecting(self.alice))
            simulation.network.run(0.5)
        simulation.network.connect("203.0.113.1", INTERMEDIATE, Link())
        self.run_until(simulation, lambda: all(each.called for each in streams), 20.0)
        for each in streams:
            self.successResultOf(each)
        self.assertEqual(b"are you there?", self.talking.heard)
        self.assertEqual(0, len(self.annexed.made))
