"""Tests of p2pnet.core.peer.session: what agent and connector make of each other's bytes.

Both ends are real; the test writes to the stream what a node of another make could.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet import reports
from p2pnet.core.peer.stream import Stream, StreamOwner, StreamState
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.stream import (
    ACCEPTED,
    StreamHeader,
    StreamKind,
    decode_stream_header,
    encode_capsule,
)
from tests.sim.support import SimulationCase

HEADER = StreamHeader(StreamKind.BYTES, "web").encode()
FLOW_HEADER = StreamHeader(StreamKind.FLOW, "web").encode()


class Owner:
    """Keeps what a stream says to its owner."""

    def __init__(self, stream: Stream) -> None:
        self.data = b""
        self.ended = False
        self.payloads: list[bytes] = []
        self.outcome: tuple[int, str] | None = None
        stream.owner = self

    def received(self, data: bytes, end: bool) -> None:
        """Bytes, or the end of them."""
        self.data += data
        self.ended = self.ended or end

    def datagram(self, payload: bytes) -> None:
        """A datagram of a flow."""
        self.payloads.append(payload)

    def writable(self) -> None:
        """More may be written."""

    def closed(self, code: int, reason: str) -> None:
        """The stream is over."""
        assert self.outcome is None
        self.outcome = code, reason


class Raw(Stream):
    """A stream that starts with nothing; the test writes the header, or what it likes."""

    def attach(self, session: StreamOwner, stream_id: int) -> None:
        """Belong to the session without a word."""
        self.session, self.stream_id = session, stream_id
        self.advance(StreamState.REQUESTED)


class SessionCase(SimulationCase):
    """An agent and a connector with a session between them."""

    def setUp(self) -> None:
        """The connector keeps what is requested, and does not answer yet."""
        self.simulation: Simulation = self.simulate()
        self.agent: AgentNode
        self.connector: ConnectorNode
        self.agent, self.connector, _ = self.trio(self.simulation)
        self.talk(self.simulation, self.agent).transport.loseConnection()
        self.requested: list[Stream] = []
        self.connector.unserve("web")
        self.connector.serve("web", self.take)
        (self.session,) = self.agent.core.sessions
        (self.other_session,) = self.connector.core.sessions
        self.settle()

    def take(self, stream: Stream) -> None:
        """A requested stream."""
        Owner(stream)
        self.requested.append(stream)

    def settle(self) -> None:
        """Let everything arrive that is on its way."""
        for node in (self.agent, self.connector):
            node.driver.wake()
        self.simulation.network.run(0.2)

    def open(self, kind: StreamKind = StreamKind.BYTES) -> Raw:
        """A stream without a header."""
        stream = Raw("web", kind, self.agent.driver.now, self.agent.core.emit)
        Owner(stream)
        session: Any = self.session
        session.open(stream, self.agent.driver.now)
        return stream

    def write(self, stream: Stream, data: bytes, end: bool = False) -> None:
        """Bytes as they are, which arrive before anything else happens."""
        assert stream.session is not None
        stream.session.connection.send(stream.stream_id, data, end=end)
        self.settle()

    def assert_reset(self, stream: Stream, code: ErrorCode) -> None:
        """The stream is broken at both ends, and nothing remains of it."""
        self.assertEqual((code, "reset by the peer"), stream.owner.outcome)
        self.assertEqual({}, self.session.streams)
        self.assertEqual({}, self.other_session.streams)


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
        (refused,) = self.simulation.reported(self.connector, reports.StreamRefused)
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
        (refused,) = self.simulation.reported(self.agent, reports.StreamRefused)
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
