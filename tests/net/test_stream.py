"""Tests of p2pnet.net.stream: a stream is a transport as Twisted programs know them."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.protocols.basic import FileSender
from zope.interface.verify import verifyObject

from p2pnet import reports
from p2pnet.errors import ServiceError, SessionLost
from p2pnet.node.agent import AgentNode
from p2pnet.quic.connection import HIGH_WATER
from p2pnet.quic.flow_control import ROUND_TRIPS, STREAM_WINDOW
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import ErrorCode
from tests.net.support import CHUNK, Endless
from tests.sim.support import SimulationCase, Talk

MEBIBYTE = 1 << 20


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
        """What was produced and not read is in one of two places of limited size.

        The one at the reader grows with what was read before.
        """
        kept = sum(map(len, deaf.transport._kept))
        window = max(STREAM_WINDOW, int(ROUND_TRIPS) * len(deaf.heard))
        self.assertLessEqual(kept, window)
        self.assertGreater(kept, STREAM_WINDOW // 2)
        self.assertLessEqual(
            producer.produced - len(deaf.heard), window + HIGH_WATER + 2 * len(CHUNK)
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
        (finished,) = simulation.reported(simulation.nodes[1], reports.StreamFinished)
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

    def test_regression_a_close_waits_for_the_producer(self) -> None:
        """What it still has comes first; it was thrown away."""
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
