"""Tests of p2pnet.core.peer.ends: the Agent opens streams, the Connector authorizes them."""

from __future__ import annotations

from p2pnet import reports
from p2pnet.core.ledger import Kind
from p2pnet.core.peer.ends import HEADER_TIMEOUT, MAX_HEADER
from p2pnet.core.peer.stream import Stream, StreamAccepted, StreamRequested, StreamState
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.names import MAX_NAME
from p2pnet.wire.stream import ACCEPTED, StreamHeader, StreamKind
from tests.core.peer.pair import SessionCase

HEADER = StreamHeader(StreamKind.BYTES, "web").encode()


class AgentTests(SessionCase):
    """The end that opens streams."""

    def test_an_accepted_stream_is_reported_at_both_ends(self) -> None:
        """And the host is told once."""
        stream, _ = self.talk()
        self.assertEqual([StreamAccepted(stream)], self.agent.happened(StreamAccepted))
        for end, peer in ((self.agent, "office"), (self.connector, "alice")):
            (opened,) = end.happened(reports.StreamOpened)
            self.assertEqual((peer, "web", "bytes"), (opened.peer, opened.service, opened.kind))

    def test_bytes_behind_the_answer_are_the_services(self) -> None:
        """In the same packet."""
        stream = self.open()
        self.write(stream, HEADER)
        self.write(self.requested[0], ACCEPTED + b"hello")
        self.assertEqual((b"hello", StreamState.OPEN), (stream.owner.data, stream.state))

    def test_another_byte_or_none_is_no_answer(self) -> None:
        """The stream is reset."""
        for data, end in ((b"\x07", False), (b"", True)):
            stream = self.open()
            self.write(stream, HEADER)
            self.write(self.requested[-1], data, end=end)
            self.assertEqual(ErrorCode.PROTOCOL_ERROR, stream.owner.outcome[0])
        self.assertEqual([], self.agent.happened(StreamAccepted))


class ConnectorTests(SessionCase):
    """The end at which streams arrive."""

    def test_the_longest_header_fits(self) -> None:
        """A name as long as names may be, byte by byte, is refused for what it says."""
        header = StreamHeader(StreamKind.BYTES, "x" * MAX_NAME).encode()
        self.assertEqual(MAX_HEADER, len(header))
        stream = self.open()
        for byte in header:
            self.assertIsNone(stream.owner.outcome)
            self.write(stream, bytes([byte]))
        self.assert_reset(stream, ErrorCode.UNKNOWN_SERVICE)

    def test_nobody_is_asked_for_a_service_that_the_agent_may_not_use(self) -> None:
        """The report names the agent; the data behind the header is dropped."""
        stream = self.open()
        self.write(stream, StreamHeader(StreamKind.BYTES, "ssh").encode() + b"data")
        self.assert_reset(stream, ErrorCode.UNKNOWN_SERVICE)
        self.assertEqual([], self.connector.happened(StreamRequested))
        (refused,) = self.connector.happened(reports.StreamRefused)
        self.assertEqual("agent alice: unknown_service", refused.reason)

    def test_early_data_arrives_while_the_host_decides(self) -> None:
        """In order."""
        stream = self.open()
        self.write(stream, HEADER + b"one ")
        self.write(stream, b"two")
        self.assertEqual(b"one two", self.requested[0].owner.data)

    def test_an_agent_that_reads_no_more_before_its_header_gets_no_answer(self) -> None:
        """The stream takes none; once it ended, it is over."""
        stream = self.make()
        stream.write(b"only this")
        stream.write_end()
        stream.discard_input()
        self.session.open(stream, self.now)
        self.settle()
        (requested,) = self.requested
        self.assertEqual((b"only this", True), (requested.owner.data, requested.owner.ended))
        self.assertEqual((ErrorCode.NO_ERROR, ""), requested.owner.outcome)

    def test_regression_a_stream_without_its_header_is_reset(self) -> None:
        """It stayed for ever. A header that comes in time, in pieces, is not late afterwards."""
        slow = self.open()
        self.write(slow, HEADER[:2])
        late = self.open()
        self.write(late, HEADER[:2])
        self.write(slow, HEADER[2:])
        self.timers.handle_timer(self.now + HEADER_TIMEOUT)
        self.settle()
        self.assertEqual((ErrorCode.PROTOCOL_ERROR, "reset by the peer"), late.owner.outcome)
        self.assertIsNone(slow.owner.outcome)
        self.assertEqual([slow.stream_id], list(self.other_session.streams))
        self.assertEqual((1, None), (len(self.ledger), self.timers.get_timer()))

    def test_an_agent_has_so_many_streams_and_no_more(self) -> None:
        """Those of its other sessions count; the others are refused."""
        for number in range(15):
            self.ledger.enter(Kind.STREAM, "web", number, of="alice")
        stream, _ = self.talk()
        second = self.open()
        self.write(second, HEADER + b"data")
        self.assertEqual((ErrorCode.OVER_LIMIT, "reset by the peer"), second.owner.outcome)
        (refused,) = self.connector.happened(reports.StreamRefused)
        self.assertEqual("agent alice: all 16 streams are in use", refused.reason)
        self.assertEqual([stream.stream_id], list(self.other_session.streams))
        stream.reset()
        self.settle()
        self.talk()

    def open_many(self, count: int, data: bytes) -> list[Stream]:
        """So many streams that begin with `data`."""
        streams: list[Stream] = []
        for _ in range(count):
            streams.append(self.open())
            self.write(streams[-1], data)
        return streams

    def test_regression_a_service_that_hangs_leaves_others_their_share(self) -> None:
        """The streams of one service took all that the agent could have."""
        streams = self.open_many(16, HEADER)
        self.assertEqual(16, len(self.ledger.things(Kind.STREAM, "web", of="alice")))
        other = self.open()
        self.write(other, StreamHeader(StreamKind.BYTES, "dns").encode())
        self.assertIsNone(other.owner.outcome)
        self.assertEqual((ErrorCode.OVER_LIMIT, "reset by the peer"), streams[-1].owner.outcome)
        self.assertEqual([None] * 15, [stream.owner.outcome for stream in streams[:-1]])

    def test_streams_without_header_are_limited_too(self) -> None:
        """They count until the header is there, and are reset at once."""
        streams = self.open_many(17, HEADER[:1])
        self.assertEqual((ErrorCode.OVER_LIMIT, "reset by the peer"), streams[16].owner.outcome)
        self.assertEqual(16, len(self.ledger.things(Kind.UNNAMED, "alice")))

    def test_a_stream_of_the_connectors_own_numbers_is_no_agents(self) -> None:
        """Only client-initiated bidirectional streams count (RFC 9000 section 2.1)."""
        self.assertIsNone(self.other_session._stream(1))
        self.assertEqual({}, self.other_session.streams)
