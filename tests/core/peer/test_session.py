"""Tests of p2pnet.core.peer.session: what agent and connector make of each other's bytes.

Both ends are real; the test writes to the stream what a node of another make could.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet import reports
from p2pnet.core.peer.ends import AgentSession, Need
from p2pnet.core.peer.session import Announcement
from p2pnet.core.peer.stream import Stream, StreamState
from p2pnet.quic import events as quic_events
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.stream import (
    ACCEPTED,
    StreamHeader,
    StreamKind,
    decode_stream_header,
    encode_capsule,
)
from tests.core.peer.pair import ADDRESS, SESSION, SessionCase

HEADER = StreamHeader(StreamKind.BYTES, "web").encode()
FLOW_HEADER = StreamHeader(StreamKind.FLOW, "web").encode()


class HeaderTests(SessionCase):
    """What comes first on a stream."""

    def test_a_header_may_come_byte_by_byte_with_data_at_its_end(self) -> None:
        """The request is made when it is complete, and not before."""
        stream = self.open()
        for index in range(len(HEADER)):
            self.assertEqual([], self.requested)
            self.write(stream, HEADER[index : index + 1])
        (requested,) = self.requested
        self.assertEqual(("web", StreamKind.BYTES), (requested.service, requested.kind))
        self.write(stream, b"GET")
        self.assertEqual(b"GET", requested.owner.data)

    @settings(max_examples=10)
    @given(st.lists(st.integers(min_value=1, max_value=7), min_size=5, max_size=5))
    def test_cuts_between_header_data_and_end_make_no_difference(self, cuts: list[int]) -> None:
        """The same request, early data and end, however they are cut."""
        self.requested.clear()
        stream, rest = self.open(), HEADER + b"0123456789"
        for cut in cuts:
            self.write(stream, rest[:cut])
            rest = rest[cut:]
        self.write(stream, rest, end=True)
        (requested,) = self.requested
        self.assertEqual((b"0123456789", True), (requested.owner.data, requested.owner.ended))
        stream.reset()
        self.settle()

    def test_a_garbage_header_resets_the_stream(self) -> None:
        """An unknown kind, no name, too long a name, a name that is no text: all are told."""
        garbage = (b"\x03\x03web", b"\x01\x00", b"\x01\xff", b"\x01\x02\xff\xff", b"GET / HTTP/1.1")
        for data in garbage:
            stream = self.open()
            self.write(stream, data)
            self.assert_reset(stream, ErrorCode.PROTOCOL_ERROR)
        self.assertEqual([], self.requested)

    @settings(max_examples=25)
    @given(st.binary(min_size=1, max_size=80))
    def test_any_bytes_are_a_header_or_reset_the_stream(self, data: bytes) -> None:
        """Nothing raises, and nobody is asked for a service that was not named."""
        self.requested.clear()
        stream = self.open()
        self.write(stream, data, end=True)
        try:
            decoded = decode_stream_header(data)
        except DecodeError:
            decoded = None
        allowed = decoded is not None and decoded[0].service == "web"
        self.assertEqual(allowed, bool(self.requested))
        stream.reset()
        self.settle()
        self.assertEqual({}, self.other_session.streams)

    def test_a_stream_that_ends_before_its_header_is_reset(self) -> None:
        """Half a header is none."""
        stream = self.open()
        self.write(stream, HEADER[:3], end=True)
        self.assert_reset(stream, ErrorCode.PROTOCOL_ERROR)

    def test_a_service_that_is_not_this_connectors_is_refused(self) -> None:
        """With the code for it, and an event that names the agent."""
        stream = self.open()
        self.write(stream, StreamHeader(StreamKind.BYTES, "no such thing").encode())
        self.assert_reset(stream, ErrorCode.UNKNOWN_SERVICE)
        (refused,) = self.connector.happened(reports.StreamRefused)
        self.assertEqual(("alice", "no such thing"), (refused.peer, refused.service))


class AnswerTests(SessionCase):
    """Between the request and the answer, and after it."""

    def test_early_data_and_its_end_are_there_when_the_stream_is_accepted(self) -> None:
        """A request need not wait for a round trip."""
        stream = self.open()
        self.write(stream, HEADER + b"GET /", end=True)
        (requested,) = self.requested
        self.assertEqual((b"GET /", True), (requested.owner.data, requested.owner.ended))
        requested.accept()
        requested.write(b"200")
        requested.write_end()
        self.settle()
        self.assertEqual((b"200", True), (stream.owner.data, stream.owner.ended))
        self.assertIs(StreamState.OPEN, stream.state)

    def test_late_data_of_a_refused_stream_is_dropped(self) -> None:
        """It does not look like a new stream, and the connection goes on."""
        stream = self.open()
        self.write(stream, HEADER)
        self.requested[0].refuse(ErrorCode.TARGET_REFUSED, "no")
        assert stream.session is not None
        for _ in range(20):
            stream.session.connection.send(stream.stream_id, bytes(5000))
        self.settle()
        self.assert_reset(stream, ErrorCode.TARGET_REFUSED)
        self.assertEqual(1, len(self.requested))
        other = self.open()
        self.write(other, HEADER)
        self.assertEqual(2, len(self.requested))

    def test_an_answer_counts_once(self) -> None:
        """Accepted is not refused later, nor the other way round."""
        streams = []
        for _ in range(2):
            streams.append(self.open())
            self.write(streams[-1], HEADER)
        first, second = self.requested
        first.accept()
        first.refuse(ErrorCode.TARGET_REFUSED, "no")
        first.accept()
        second.refuse(ErrorCode.TARGET_REFUSED, "no")
        second.accept()
        self.settle()
        states = [stream.state for stream in streams]
        self.assertEqual([StreamState.OPEN, StreamState.CLOSED], states)
        self.assertEqual(b"", streams[0].owner.data)

    def test_a_wrong_accept_byte_resets_the_stream(self) -> None:
        """It could be anything but a service's answer."""
        stream = self.open()
        self.write(stream, HEADER)
        (requested,) = self.requested
        self.write(requested, b"\x01hello")
        self.assertEqual((ErrorCode.PROTOCOL_ERROR, "stream answered with 0x01"),
                         stream.owner.outcome)  # fmt: skip
        self.assertEqual(ErrorCode.PROTOCOL_ERROR, requested.owner.outcome[0])
        self.assertEqual(b"", stream.owner.data)

    def test_an_end_instead_of_an_answer_resets_the_stream(self) -> None:
        """A service that sends nothing was still accepted first."""
        stream = self.open()
        self.write(stream, HEADER)
        self.write(self.requested[0], b"", end=True)
        self.assertEqual(
            (ErrorCode.PROTOCOL_ERROR, "stream ended before it was accepted"), stream.owner.outcome
        )

    def test_an_unknown_reset_code_is_a_reset_all_the_same(self) -> None:
        """From a newer version."""
        stream = self.open()
        self.write(stream, HEADER)
        self.other_session.connection.reset(self.requested[0].stream_id, 0x7777)
        self.settle()
        self.assertEqual((0x7777, "reset by the peer"), stream.owner.outcome)
        (refused,) = self.agent.happened(reports.StreamRefused)
        self.assertEqual("cancelled", refused.code)


class FlowParsingTests(SessionCase):
    """Datagrams on a flow's stream and in DATAGRAM frames."""

    def test_capsules_may_come_byte_by_byte(self) -> None:
        """An empty datagram is one too."""
        stream = self.open(StreamKind.FLOW)
        payloads = [b"one", b"", b"three"]
        for byte in FLOW_HEADER + b"".join(map(encode_capsule, payloads)):
            self.write(stream, bytes([byte]))
        self.assertEqual(payloads, self.requested[0].owner.payloads)

    def test_frames_for_no_flow_are_dropped(self) -> None:
        """For a byte stream, for no stream, and without an id."""
        stream = self.open()
        self.write(stream, HEADER)
        self.requested[0].accept()
        for data in (bytes([stream.stream_id // 4]) + b"x", b"\x3fx", b"", b"\xff"):
            self.session.connection.send_datagram(data)
        self.settle()
        self.assertEqual([], self.requested[0].owner.payloads)
        self.assertIsNone(stream.owner.outcome)

    def test_an_accepted_flow_has_its_first_byte_taken_off(self) -> None:
        """Also when a capsule follows at once."""
        stream = self.open(StreamKind.FLOW)
        self.write(stream, FLOW_HEADER)
        self.write(self.requested[0], ACCEPTED + encode_capsule(b"answer"))
        self.assertEqual([b"answer"], stream.owner.payloads)


class EndTests(SessionCase):
    """How streams end, and what a session says of itself."""

    def test_a_session_is_known_by_what_was_announced_until_the_handshake(self) -> None:
        """Without a connection there is nobody to speak to."""
        announced = Announcement(SESSION, "office", b"instance")
        session = AgentSession(announced, 1.0, self.agent.emit, Need("web", "prefer-direct"))
        self.assertEqual(
            (SESSION, ADDRESS, "office", b"instance", 1.0),
            (session.id, session.address, session.peer_name, session.instance, session.created),
        )
        self.assertFalse(session.has_connection or session.is_established)
        self.assertIsNone(session.peer)
        self.assertIn("office", repr(session))
        assert self.session.peer is not None
        self.assertEqual("office", self.session.peer.name)

    def test_a_stream_is_over_when_both_parts_ended_and_says_what_it_carried(self) -> None:
        """With one report at each end."""
        stream, other = self.talk()
        stream.write(b"question")
        stream.write_end()
        self.settle()
        self.assertIsNone(stream.owner.outcome)
        other.write(b"the answer")
        other.write_end()
        self.settle()
        for end, (sent, received) in ((self.agent, (8, 10)), (self.connector, (10, 8))):
            (finished,) = end.happened(reports.StreamFinished)
            self.assertEqual((sent, received), (finished.sent, finished.received))
            self.assertEqual("no_error", finished.code)
            self.assertGreater(finished.seconds, 0)
            self.assertEqual({}, end.session.streams)

    def test_a_peer_that_reads_no_more_ends_the_sending_part(self) -> None:
        """With code 0 its own bytes are still on their way; any other code is a reset."""
        stream, other = self.talk()
        other.write(b"last words")
        other.discard_input()
        other.write_end()
        self.settle()
        self.assertEqual((b"last words", True), (stream.owner.data, stream.owner.ended))
        self.assertEqual((ErrorCode.NO_ERROR, ""), stream.owner.outcome)
        stream, other = self.talk()
        self.other_session.connection.stop(other.stream_id, ErrorCode.TARGET_REFUSED)
        self.settle()
        self.assertEqual((ErrorCode.TARGET_REFUSED, "reset by the peer"), stream.owner.outcome)

    def test_a_lost_connection_breaks_every_stream_once(self) -> None:
        """And a code of 0 is no proper end for a stream."""
        one, _ = self.talk()
        two, _ = self.talk()
        for _ in range(2):
            self.session.abandon(ErrorCode.NO_ERROR, "not used any more", self.now)
        outcome = ErrorCode.CANCELLED, "not used any more"
        self.assertEqual([outcome, outcome], [one.owner.outcome, two.owner.outcome])

    def test_what_comes_for_a_stream_that_is_gone_is_dropped(self) -> None:
        """Data gives its credit back; the rest changes nothing."""
        stream, _ = self.talk()
        stream.reset()
        before = len(self.agent.events)
        for event in (
            quic_events.StreamDataReceived(stream.stream_id, b"late", True),
            quic_events.StreamReset(stream.stream_id, 0),
            quic_events.StreamStopped(stream.stream_id, 0),
            quic_events.StreamWritable(stream.stream_id),
        ):
            self.session.handle(event, self.now)
        self.assertEqual(before, len(self.agent.events))

    def test_a_stream_that_was_blocked_learns_when_it_may_go_on(self) -> None:
        """Once most of what was written left."""
        stream, other = self.talk()
        self.assertFalse(stream.write(bytes(300_000)))
        while len(other.owner.data) < 300_000:
            self.settle()
        self.assertEqual(1, stream.owner.writable)

    def test_data_behind_the_end_of_a_broken_stream_is_not_delivered(self) -> None:
        """A wrong answer resets the stream before its data is looked at."""
        stream = self.open()
        self.session.handle(
            quic_events.StreamDataReceived(stream.stream_id, b"\x01data", True), self.now
        )
        self.assertEqual(b"", stream.owner.data)
        self.assertIs(StreamState.CLOSED, stream.state)

    def test_regression_durations_are_not_negative(self) -> None:
        """A session that was idle for long counted from its last event."""
        self.now += 100.0
        stream = Stream("web", StreamKind.BYTES, self.now, self.agent.emit)
        self.session.open(stream, self.now)
        self.session.close_stream(stream, ErrorCode.NO_ERROR, "")
        (finished,) = self.agent.happened(reports.StreamFinished)
        self.assertEqual(0.0, finished.seconds)
