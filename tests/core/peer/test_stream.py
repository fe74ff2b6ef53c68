"""Tests of p2pnet.core.peer.stream: what a host may do with a stream, before and after it opens."""

from __future__ import annotations

from p2pnet import reports
from p2pnet.core.peer.stream import Stream, StreamClosed, StreamRequested, StreamState
from p2pnet.quic.connection import HIGH_WATER
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import MAX_DATAGRAM, StreamKind
from tests.core.peer.pair import SessionCase


class WaitingTests(SessionCase):
    """A stream without a session yet."""

    def open_now(self, stream: Stream) -> Stream:
        """Let the session carry it; the connector's end is returned."""
        self.session.open(stream, self.now)
        self.settle()
        return self.requested[-1]

    def test_what_was_written_before_leaves_with_the_header(self) -> None:
        """And so does the end."""
        stream = self.make()
        self.assertTrue(stream.write(b"GET "))
        self.assertTrue(stream.write(b"/"))
        stream.write_end()
        self.assertTrue(stream.write(b"behind the end"))
        stream.write_end()
        other = self.open_now(stream)
        self.assertEqual((b"GET /", True), (other.owner.data, other.owner.ended))
        self.assertEqual(5, stream.sending.size)

    def test_a_host_that_wrote_much_is_asked_to_wait_and_told_to_go_on(self) -> None:
        """As on an open stream; watch_writable() asks for it in any case."""
        stream = self.make()
        self.assertFalse(stream.write(bytes(HIGH_WATER + 1)))
        stream.watch_writable()
        other = self.open_now(stream)
        while len(other.owner.data) <= HIGH_WATER:
            self.settle()
        self.assertEqual(1, stream.owner.writable)

    def test_a_stream_that_is_not_wanted_any_more_asks_for_nothing(self) -> None:
        """The connector learns that it need not answer."""
        stream = self.make()
        stream.discard_input()
        stream.discard_input()
        other = self.open_now(stream)
        self.assertTrue(other.sending.ended)
        self.assertFalse(stream.consume(1) or stream.is_closed)

    def test_a_reset_is_told_once_and_then_nothing_happens(self) -> None:
        """To nobody else: no packet leaves."""
        stream = self.make()
        stream.reset(ErrorCode.CANCELLED, "changed my mind")
        stream.reset()
        self.assertEqual((ErrorCode.CANCELLED, "changed my mind"), stream.owner.outcome)
        self.assertTrue(stream.write(b"data"))
        stream.write_end()
        stream.discard_input()
        stream.fail(ErrorCode.UNREACHABLE, "too late")
        self.assertFalse(stream.send_datagram(b"data"))
        self.assertFalse(stream.consume(1))
        self.assertEqual([StreamClosed], [type(event) for event in self.agent.events])

    def test_a_stream_without_a_session_fails_with_a_report(self) -> None:
        """No connector's name is known for it."""
        stream = self.make()
        stream.fail(ErrorCode.UNREACHABLE, "nobody answers")
        self.assertEqual((ErrorCode.UNREACHABLE, "nobody answers"), stream.owner.outcome)
        (refused,) = self.agent.happened(reports.StreamRefused)
        self.assertEqual(("", "web", "unreachable"), (refused.peer, refused.service, refused.code))

    def test_it_takes_no_answer(self) -> None:
        """There is nobody to answer to."""
        stream = self.make()
        stream.accept()
        stream.refuse(ErrorCode.TARGET_REFUSED, "no")
        self.assertIs(StreamState.WAITING, stream.state)
        self.assertEqual("<Stream -1 web waiting>", repr(stream))


class OpenTests(SessionCase):
    """A stream on a connection."""

    def test_bytes_go_both_ways_until_both_parts_end(self) -> None:
        """Each is counted."""
        stream, other = self.talk()
        stream.write(b"question")
        self.settle()
        other.write(b"answer")
        other.write_end()
        self.settle()
        self.assertEqual((b"question", b"answer"), (other.owner.data, stream.owner.data))
        self.assertEqual((8, 6), (stream.sending.size, stream.receiving.size))
        self.assertTrue(stream.receiving.ended)
        stream.write_end()
        self.settle()
        self.assertEqual([0, 0], [end.owner.outcome[0] for end in (stream, other)])

    def test_reading_no_more_is_no_error(self) -> None:
        """Both ends are told that the stream ended properly."""
        stream, other = self.talk()
        stream.write_end()
        stream.discard_input()
        self.settle()
        self.assertEqual([(0, ""), (0, "")], [end.owner.outcome for end in (stream, other)])

    def test_a_reset_reaches_the_other_end_with_its_code(self) -> None:
        """The reason stays here."""
        stream, other = self.talk()
        stream.reset(ErrorCode.TARGET_REFUSED, "broken")
        self.settle()
        self.assertEqual((ErrorCode.TARGET_REFUSED, "broken"), stream.owner.outcome)
        self.assertEqual((ErrorCode.TARGET_REFUSED, "reset by the peer"), other.owner.outcome)

    def test_a_producer_may_ask_when_little_is_unsent(self) -> None:
        """Also if write() never said that it is too much."""
        stream, _ = self.talk()
        stream.watch_writable()
        self.settle()
        self.assertEqual(1, stream.owner.writable)
        stream.reset()
        stream.watch_writable()
        self.settle()
        self.assertEqual(1, stream.owner.writable)

    def test_used_bytes_give_credit(self) -> None:
        """Whether it is sent at once depends on how much it is."""
        stream, other = self.talk()
        stream.owner = other.owner = None
        stream.write(bytes(HIGH_WATER))
        while (received := other.receiving.size) < HIGH_WATER:
            self.settle()
            self.assertGreater(other.receiving.size, received)
        self.assertTrue(other.consume(HIGH_WATER))
        self.assertFalse(other.consume(0))


class FlowTests(SessionCase):
    """Datagrams."""

    def test_datagrams_of_any_size_arrive(self) -> None:
        """In DATAGRAM frames, or on the flow's stream if they are too large for one."""
        stream, other = self.talk(StreamKind.FLOW)
        payloads = [b"", b"small", bytes(60_000), bytes(MAX_DATAGRAM)]
        for payload in payloads:
            self.assertTrue(stream.send_datagram(payload))
            self.settle()
        for _ in range(10):
            self.settle()
        self.assertEqual(payloads, other.owner.payloads)
        self.assertFalse(stream.send_datagram(bytes(MAX_DATAGRAM + 1)))
        self.assertEqual(sum(map(len, payloads)), stream.sending.size)
        self.assertEqual(stream.stream_id, 4 * stream.flow_id)

    def test_datagrams_sent_before_there_is_a_session_arrive(self) -> None:
        """As many as fit; the others are dropped, as UDP would."""
        stream = self.make(StreamKind.FLOW)
        self.assertTrue(stream.send_datagram(b"early"))
        sent = 1
        while stream.send_datagram(bytes(50_000)):
            sent += 1
        self.assertLessEqual(len(stream.sending.buffer), HIGH_WATER)
        self.session.open(stream, self.now)
        self.settle()
        other = self.requested[0]
        self.assertTrue(stream.send_datagram(b"before the answer"))
        for _ in range(20):
            self.settle()
        self.assertEqual(b"early", other.owner.payloads[0])
        self.assertEqual(sent + 1, len(other.owner.payloads))

    def test_a_backed_up_flow_drops_datagrams(self) -> None:
        """Large ones at the high-water mark of the stream, small ones when the queue is full."""
        stream, _ = self.talk(StreamKind.FLOW)
        results = [stream.send_datagram(bytes(60_000)) for _ in range(10)]
        self.assertEqual((True, False), (results[0], results[-1]))
        results = [stream.send_datagram(b"small") for _ in range(1000)]
        self.assertEqual((True, False), (results[0], results[-1]))


class AnswerTests(SessionCase):
    """What the connector's host may say."""

    def test_a_refusal_has_a_code_for_the_agent_and_a_reason_for_the_log(self) -> None:
        """It counts once."""
        stream = self.make()
        self.session.open(stream, self.now)
        self.settle()
        (requested,) = self.requested
        requested.refuse(ErrorCode.TARGET_UNREACHABLE, "the target is down")
        requested.refuse(ErrorCode.TARGET_REFUSED, "again")
        requested.accept()
        self.settle()
        self.assertEqual(ErrorCode.TARGET_UNREACHABLE, stream.owner.outcome[0])
        (refused,) = self.connector.happened(reports.StreamRefused)
        self.assertEqual("the target is down", refused.reason)
        self.assertEqual(1, len(self.connector.happened(StreamRequested)))
