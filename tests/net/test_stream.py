"""Tests of p2pnet.net.stream: a stream is a transport as Twisted programs know them."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IPullProducer,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.basic import FileSender
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2pnet import events
from p2pnet.errors import ServiceError, SessionLost
from p2pnet.lab.simulation import Simulation
from p2pnet.net.stream import StreamTransport
from p2pnet.node import AgentNode
from p2pnet.quic.connection import HIGH_WATER
from p2pnet.quic.engine import STREAM_WINDOW
from p2pnet.roles.connector import StreamForwarder
from p2pnet.wire.errors import ErrorCode
from tests.sim.support import Echo, SimulationCase, Talk, Talks

CHUNK = bytes(16 * 1024)
MEBIBYTE = 1 << 20


@implementer(IPushProducer, IPullProducer)
class Endless:
    """Writes for as long as it may."""

    def __init__(self, transport: Any, clock: Any, streaming: bool) -> None:
        self.transport = transport
        self.produced = 0
        self.paused = self.stopped = False
        self._clock = clock
        self._streaming = streaming
        transport.registerProducer(self, streaming)
        if streaming:
            self._push()

    def resumeProducing(self) -> None:
        """Write one chunk, or go on."""
        self.paused = False
        if self._streaming:
            self._push()
        else:
            self._write()

    def pauseProducing(self) -> None:
        """Wait."""
        self.paused = True

    def stopProducing(self) -> None:
        """The transport is gone."""
        self.stopped = True

    def _write(self) -> None:
        self.produced += len(CHUNK)
        self.transport.write(CHUNK)

    def _push(self) -> None:
        if not self.paused and not self.stopped:
            self._write()
            self._clock.callLater(0.001, self._push)


class Deaf(Talk):
    """Reads nothing until it is told to."""

    def connectionMade(self) -> None:
        """Do not even begin."""
        self.transport.pauseProducing()


class Plain(Protocol):
    """A protocol that knows no half-close."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.why: Any = None

    def dataReceived(self, data: bytes) -> None:
        """Listen."""
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        self.why = reason


class StreamCase(SimulationCase):
    """A talk, and the other end of it."""

    def begin(self, kind: Any = Talk) -> tuple[Simulation, AgentNode, Any, Any]:
        """The simulation, the agent, its talk, and the connector's."""
        simulation = self.simulate()
        agent, _, served = self.trio(simulation, kind)
        return simulation, agent, self.talk(simulation, agent), served.made[0]

    def assert_done(self, *talks: Any) -> None:
        """They ended well."""
        for talk in talks:
            talk.why.trap(error.ConnectionDone)


class BackpressureTests(StreamCase):
    """A slow reader slows the writer down, whatever is between them."""

    def stall(self, streaming: bool) -> tuple[Simulation, Endless, Any]:
        """An endless writer in front of a reader that does not read, some time later."""
        simulation, _, talk, deaf = self.begin(Deaf)
        producer = Endless(talk.transport, simulation.network.clock, streaming)
        simulation.network.run(5.0)
        return simulation, producer, deaf

    def check_bounds(self, producer: Endless, deaf: Any) -> int:
        """What was produced and not read is in one of two places of limited size."""
        kept = sum(map(len, deaf.transport._kept))
        self.assertLessEqual(kept, STREAM_WINDOW)
        self.assertGreater(kept, STREAM_WINDOW // 2)
        self.assertLessEqual(
            producer.produced - len(deaf.heard), STREAM_WINDOW + HIGH_WATER + 2 * len(CHUNK)
        )
        return producer.produced

    def test_an_endless_push_producer_is_paused_until_somebody_reads(self) -> None:
        """At a window and a buffer of bytes; and again when the reader stops once more."""
        simulation, producer, deaf = self.stall(streaming=True)
        before = self.check_bounds(producer, deaf)
        self.assertTrue(producer.paused)
        deaf.transport.resumeProducing()
        self.run_until(simulation, lambda: len(deaf.heard) > MEBIBYTE)
        self.assertGreater(producer.produced, before + MEBIBYTE // 4)
        deaf.transport.pauseProducing()
        simulation.network.run(5.0)
        heard = len(deaf.heard)
        simulation.network.run(5.0)
        self.check_bounds(producer, deaf)
        self.assertEqual(heard, len(deaf.heard))

    def test_an_endless_pull_producer_is_asked_only_while_somebody_reads(self) -> None:
        """The same for the other kind."""
        simulation, producer, deaf = self.stall(streaming=False)
        self.check_bounds(producer, deaf)
        deaf.transport.resumeProducing()
        self.run_until(simulation, lambda: len(deaf.heard) > MEBIBYTE)

    def test_the_connector_is_slowed_down_by_the_agents_reader_as_well(self) -> None:
        """The other direction."""
        simulation, _, talk, other = self.begin()
        talk.transport.pauseProducing()
        producer = Endless(other.transport, simulation.network.clock, streaming=True)
        simulation.network.run(10.0)
        self.check_bounds(producer, talk)

    def test_a_stalled_stream_does_not_stall_the_others(self) -> None:
        """They share the connection, not the window."""
        simulation, agent, talk, _ = self.begin(Deaf)
        Endless(talk.transport, simulation.network.clock, streaming=True)
        simulation.network.run(5.0)
        other = self.talk(simulation, agent)
        other.transport.write(bytes(100_000))
        other.transport.loseConnection()
        self.run_until(simulation, lambda: other.why, 1.0)
        # Its reader is deaf as well; what counts is that the bytes got there.
        simulation.network.run(1.0)
        (finished,) = simulation.reported(simulation.nodes[1], events.StreamFinished)
        self.assertEqual(100_000, finished.received)

    def test_a_file_is_sent_by_a_pull_producer_as_over_tcp(self) -> None:
        """twisted.protocols.basic.FileSender, unchanged."""
        simulation, _, talk, other = self.begin()
        data = simulation.network.random.randbytes(MEBIBYTE)
        sent = FileSender().beginFileTransfer(io.BytesIO(data), talk.transport)
        sent.addCallback(lambda _: talk.transport.loseConnection())
        self.run_until(simulation, lambda: other.why)
        self.assertTrue(data == other.heard)

    def test_a_producer_is_stopped_when_the_stream_is_over(self) -> None:
        """Also one that comes too late."""
        simulation, _, talk, other = self.begin()
        producer = Endless(talk.transport, simulation.network.clock, streaming=True)
        self.assertRaises(RuntimeError, talk.transport.registerProducer, producer, True)
        other.transport.abortConnection()
        self.run_until(simulation, lambda: talk.why, 1.0)
        self.assertTrue(producer.stopped)
        self.assertTrue(Endless(talk.transport, simulation.network.clock, streaming=True).stopped)


class ClosingTests(StreamCase):
    """The ends of a stream."""

    def test_it_is_a_transport_a_consumer_and_a_producer(self) -> None:
        """As the interfaces have it."""
        _, _, talk, _ = self.begin()
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, talk.transport))
        self.assertEqual(("web", "office"), vars_of(talk.transport.getPeer()))
        self.assertEqual(("web", ""), vars_of(talk.transport.getHost()))

    def test_the_agent_may_half_close_and_still_be_answered(self) -> None:
        """The end of a request, and then its answer."""
        simulation, _, talk, other = self.begin()
        talk.transport.writeSequence([b"a ", b"request"])
        talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: other.read_ended, 1.0)
        self.assertEqual(b"a request", other.heard)
        talk.transport.write(b"too late")
        simulation.network.run(0.5)
        self.assertIsNone(talk.why)
        other.transport.write(b"an answer")
        other.transport.loseConnection()
        self.run_until(simulation, lambda: talk.read_ended and talk.why, 1.0)
        self.assertEqual((b"an answer", b"a request"), (talk.heard, other.heard))
        self.assert_done(talk, other)

    def test_the_connector_may_half_close_and_still_be_told_more(self) -> None:
        """The other way round."""
        simulation, _, talk, other = self.begin()
        other.transport.loseWriteConnection()
        self.run_until(simulation, lambda: talk.read_ended, 1.0)
        talk.transport.write(b"more")
        self.run_until(simulation, lambda: other.heard == b"more", 1.0)
        talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: talk.why and other.why, 1.0)
        self.assert_done(talk, other)

    def test_a_protocol_without_half_close_is_closed_by_the_others(self) -> None:
        """As TCP does it."""
        simulation, _, talk, other = self.begin(Plain)
        talk.transport.write(b"bye")
        talk.transport.loseWriteConnection()
        self.run_until(simulation, lambda: talk.why and other.why, 1.0)
        self.assertEqual(b"bye", other.heard)
        self.assert_done(talk, other)

    def test_everything_written_arrives_before_the_end(self) -> None:
        """loseConnection() at once after a write, many times what can be under way."""
        simulation, _, talk, other = self.begin()
        data = simulation.network.random.randbytes(MEBIBYTE)
        talk.transport.write(data)
        talk.transport.loseConnection()
        talk.transport.loseConnection()
        self.run_until(simulation, lambda: other.why)
        self.assertTrue(data == other.heard)
        self.assert_done(talk, other)

    def test_a_close_waits_for_the_producer(self) -> None:
        """What it still has comes first."""
        simulation, _, talk, other = self.begin()
        producer = Endless(talk.transport, simulation.network.clock, streaming=False)
        talk.transport.loseConnection()
        simulation.network.run(0.2)
        self.assertIsNone(other.why)
        talk.transport.unregisterProducer()
        self.run_until(simulation, lambda: other.why, 10.0)
        self.assertEqual(producer.produced, len(other.heard))

    def test_what_comes_after_a_close_is_thrown_away(self) -> None:
        """And the other end is asked to stop."""
        simulation, _, talk, other = self.begin()
        Endless(other.transport, simulation.network.clock, streaming=True)
        simulation.network.run(0.3)
        heard = len(talk.heard)
        talk.transport.loseConnection()
        self.run_until(simulation, lambda: talk.why and other.why, 2.0)
        self.assertEqual(heard, len(talk.heard))
        self.assert_done(talk, other)

    def test_an_abort_is_a_reset_at_the_other_end(self) -> None:
        """What was not read yet is lost, and the reason says that this was no proper end."""
        simulation, _, talk, other = self.begin(Deaf)
        talk.transport.write(b"unread")
        simulation.network.run(0.5)
        talk.transport.abortConnection()
        talk.transport.abortConnection()
        self.run_until(simulation, lambda: talk.why and other.why, 1.0)
        self.assertEqual(b"", other.heard)
        reason = other.why.value
        assert isinstance(reason, ServiceError)
        self.assertEqual((ErrorCode.CANCELLED, "reset by the peer"), (reason.code, reason.reason))

    def test_calls_on_a_stream_that_is_over_do_nothing(self) -> None:
        """connectionLost() was the last word."""
        simulation, _, talk, other = self.begin()
        other.transport.abortConnection()
        self.run_until(simulation, lambda: talk.why)
        for call in ("loseConnection", "abortConnection", "loseWriteConnection",
                     "pauseProducing", "resumeProducing", "stopProducing"):  # fmt: skip
            getattr(talk.transport, call)()
        talk.transport.write(b"hello?")
        simulation.network.run(1.0)

    def test_the_end_waits_for_a_paused_reader(self) -> None:
        """It hears everything first, and only then that this was all."""
        simulation, _, talk, deaf = self.begin(Deaf)
        talk.transport.write(b"all of it")
        talk.transport.loseConnection()
        simulation.network.run(1.0)
        self.assertEqual((b"", False, None), (deaf.heard, deaf.read_ended, deaf.why))
        deaf.transport.resumeProducing()
        self.run_until(simulation, lambda: deaf.why, 1.0)
        self.assertEqual((b"all of it", True), (deaf.heard, deaf.read_ended))
        self.assert_done(deaf)

    def test_a_stop_of_either_node_is_told_to_the_protocols_at_both_ends(self) -> None:
        """The session is lost, and why."""
        for index in (1, 2):
            simulation, _, *talks = self.begin()
            simulation.nodes[index].stopService()
            simulation.network.run(1.0)
            for talk in talks:
                talk.why.trap(SessionLost)
                self.assertIn("node stopped", str(talk.why.value))


def vars_of(address: Any) -> tuple[str, str]:
    """The fields of a ServiceAddress."""
    return address.service, address.node


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
            (session,) = node.core.sessions.values()
            self.assertEqual({}, session.streams)

    def test_regression_an_early_abort_is_told_to_the_protocol(self) -> None:
        """connectionLost() was never called."""
        simulation, talk, transport, served = self.early()
        transport.abortConnection()
        self.run_until(simulation, lambda: talk.why, 2.0)
        simulation.network.run(2.0)
        self.assertEqual([], served.made)

    def test_regression_an_early_close_does_not_cost_the_target_the_last_word(self) -> None:
        """A client that wrote and closed was forgotten while the target was being connected to."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        target: Deferred[Any] = Deferred()
        connector.unserve("web")
        connector.serve("web", StreamForwarder(Later(target), connector.driver.wake).take)
        transport = agent.open("web")
        transport.connect(Talk())
        transport.write(b"the last word")
        transport.loseConnection()
        simulation.network.run(1.0)
        connection = Target()
        target.callback(connection)
        simulation.network.run(1.0)
        self.assertEqual(b"the last word", connection.value())
        self.assertFalse(connection.connected)


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
