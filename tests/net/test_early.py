"""Tests of streams that are used before there is a session, or a target."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import StringTransportWithDisconnection
from zope.interface import implementer

from p2pnet.core.peer.stream import StreamState
from p2pnet.net.stream import StreamTransport
from p2pnet.quic.connection import HIGH_WATER
from p2pnet.roles.connector import ANSWERED_WITHIN, StreamForwarder, Targets
from p2pnet.testing.realm import Simulation
from tests.net.support import CHUNK, Endless
from tests.sim.support import Echo, SimulationCase, Talk, Talks

MEBIBYTE = 1 << 20


class Target(StringTransportWithDisconnection):
    """A connection to a target, in memory."""

    def loseWriteConnection(self) -> None:
        """Half-close, which is of no consequence here."""


@implementer(IStreamClientEndpoint)
class Later:
    """A target that takes its time to be connected to."""

    def __init__(self, ready: Deferred[Any]) -> None:
        self._ready = ready

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Once it is ready, to the transport that it fires with."""

        def connected(transport: Any) -> Any:
            protocol = transport.protocol = protocolFactory.buildProtocol(None)
            protocol.makeConnection(transport)
            return protocol

        return self._ready.addCallback(connected)


class EarlyTests(SimulationCase):
    """A transport can be used before there is a session."""

    def early(self) -> tuple[Simulation, Talk, StreamTransport, Talks]:
        """A talk that has only begun to look for its other end."""
        simulation = self.simulate()
        agent, _, served = self.trio(simulation, Echo)
        talk, transport = Talk(), agent.open("web")
        transport.connect(talk)
        return simulation, talk, transport, served

    def test_what_is_written_early_comes_first(self) -> None:
        """The end too."""
        simulation, talk, transport, served = self.early()
        transport.write(b"early")
        transport.loseWriteConnection()
        self.run_until(simulation, lambda: talk.why, 2.0)
        self.assertEqual((b"early", b"early"), (talk.heard, served.made[0].heard))

    def test_an_early_producer_is_paused_until_there_is_a_session(self) -> None:
        """It cannot fill the memory meanwhile."""
        simulation, _, transport, served = self.early()
        producer = Endless(transport, simulation.network.clock, streaming=True)
        simulation.network.run(0.05)
        self.assertLessEqual(producer.produced, HIGH_WATER + len(CHUNK))
        self.run_until(simulation, lambda: served.made and len(served.made[0].heard) > MEBIBYTE)
        transport.abortConnection()

    def test_regression_an_early_close_is_a_close(self) -> None:
        """The stream stayed open for ever, at both ends."""
        simulation, talk, transport, served = self.early()
        transport.write(b"the last word")
        transport.loseConnection()
        self.run_until(simulation, lambda: talk.why and served.made and served.made[0].why, 2.0)
        self.assertEqual(b"the last word", served.made[0].heard)
        talk.why.trap(error.ConnectionDone)  # type: ignore[union-attr]
        for node in simulation.nodes[1:]:
            (session,) = node.core.sessions
            self.assertEqual({}, session.streams)

    def test_regression_an_early_abort_is_told_to_the_protocol(self) -> None:
        """connectionLost() was never called."""
        simulation, talk, transport, served = self.early()
        transport.abortConnection()
        self.run_until(simulation, lambda: talk.why, 2.0)
        simulation.network.run(2.0)
        self.assertEqual([], served.made)

    def late(self) -> tuple[Simulation, StreamTransport, Deferred[Any]]:
        """A stream to a target that is not connected to before the Deferred fires."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        target: Deferred[Any] = Deferred()
        connector.unserve("web")
        forwarder = StreamForwarder(Later(target), connector.driver, Targets(10, 10), 0)
        connector.serve("web", forwarder.forward)
        transport = agent.open("web")
        transport.connect(Talk())
        return simulation, transport, target

    def opening(self, question: bytes, answer: bytes) -> float:
        """Seconds from the target's connection to word of it, with what was asked and answered."""
        simulation, transport, target = self.late()
        transport.write(question)
        simulation.network.run(1.0)
        clock = simulation.network.clock
        begun, connection = clock.seconds(), Target()
        target.callback(connection)
        if answer:
            connection.protocol.dataReceived(answer)
        self.run_until(simulation, lambda: transport.stream.state is StreamState.OPEN, 1.0)
        self.assertEqual(answer, transport.protocol.heard)  # type: ignore[union-attr]
        return clock.seconds() - begun

    def test_word_of_the_target_goes_with_its_answer(self) -> None:
        """If it was asked something, and answers soon; else for itself."""
        alone = self.opening(b"", b"")
        self.assertAlmostEqual(alone, self.opening(b"question", b"answer"))
        self.assertAlmostEqual(alone + ANSWERED_WITHIN, self.opening(b"question", b""))

    def test_regression_an_early_close_does_not_cost_the_target_the_last_word(self) -> None:
        """A client that wrote and closed was forgotten while the target was being connected to."""
        simulation, transport, target = self.late()
        transport.write(b"the last word")
        transport.loseConnection()
        simulation.network.run(1.0)
        connection = Target()
        target.callback(connection)
        simulation.network.run(1.0)
        self.assertEqual(b"the last word", connection.value())
        self.assertFalse(connection.connected)
