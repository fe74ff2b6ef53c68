"""Backpressure both ways: what a peer may make us hold, and what a stalled reader holds back."""

import contextlib
import os
import tracemalloc
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.stream import StreamFinishedError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import engine, events, flow_control
from p2pnet.quic.connection import HIGH_WATER, LOW_WATER, Connection
from p2pnet.quic.flow_control import CONNECTION_WINDOW, STREAM_WINDOW, SharedCredit
from tests.quic.harness import TWICE, Pair, client_settings, server_settings

FLOW_CONTROL_ERROR = 0x03  # RFC 9000 section 20.1
PROTOCOL_VIOLATION = 0x0A
CODE = 0x16
MIB = 1 << 20


def send_at(connection: Connection, offset: int, data: bytes = b"x") -> int:
    """Send bytes at an offset of a new stream, with nothing before them. Returns the stream."""
    stream_id = connection.open_stream()
    connection.send(stream_id, b"")
    sender = connection.engine._streams[stream_id].sender
    sender._buffer_start = sender._buffer_stop = sender.highest_offset = offset
    connection.send(stream_id, data)
    return stream_id


class AttackTests(SynchronousTestCase):
    """A client that is authenticated, and hostile."""

    def attack(self, offset: int) -> tuple[events.ConnectionClosed | None, int]:
        """Send ten single bytes that far into ten streams, a round trip apart.

        Returns how the server closed the connection, if it did, and how much memory that took.
        """
        pair = Pair(server=server_settings(max_streams=600))
        one, other = pair.connect()
        tracemalloc.start()
        try:
            for _ in range(10):
                if one.is_open:
                    send_at(one, offset)
                pair.run_until_quiet()
            grown, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        closed = pair.server.happened(events.ConnectionClosed, other)
        return (closed[0] if closed else None), grown

    def test_ten_small_frames_take_little_memory(self) -> None:
        """Each at the far end of its stream's window: together too far for the connection's."""
        closed, grown = self.attack(STREAM_WINDOW - 1)
        assert closed is not None
        self.assertEqual(FLOW_CONTROL_ERROR, closed.code)
        self.assertLess(grown, 2 * MIB)

    def test_gaps_within_the_window_are_allowed(self) -> None:
        """Packets get lost, so a far byte may come first; it costs what the window is."""
        closed, grown = self.attack(CONNECTION_WINDOW // 10 - 1)
        self.assertIsNone(closed)
        self.assertLess(grown, 2 * MIB)

    def test_a_byte_beyond_the_window_closes_the_connection(self) -> None:
        """It takes a client that ignores its limits."""
        pair = Pair()
        one, other = pair.connect()
        stream_id = send_at(one, STREAM_WINDOW)
        one.engine._streams[stream_id].max_stream_data_remote = STREAM_WINDOW + 1
        pair.run_until_quiet()
        (closed,) = pair.server.happened(events.ConnectionClosed, other)
        self.assertEqual(FLOW_CONTROL_ERROR, closed.code)

    def test_resets_win_no_memory(self) -> None:
        """A reset gives its credit back, so it must give the memory back, too."""
        pair = Pair(server=server_settings(max_streams=600))
        one, other = pair.connect()
        tracemalloc.start()
        try:
            for _ in range(10):
                stream_id = send_at(one, STREAM_WINDOW - 1)
                pair.run_until_quiet()
                one.reset(stream_id, CODE)
                pair.run_until_quiet()
            grown, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertTrue(other.is_open)
        self.assertEqual(10, len(pair.server.happened(events.StreamReset, other)))
        self.assertLess(grown, 2 * MIB)

    def test_a_stream_full_of_gaps_closes_the_connection(self) -> None:
        """Each frame is compared with every gap before it, so that many would take minutes."""
        pair = Pair()
        one, other = pair.connect()
        stream_id = one.open_stream()
        one.send(stream_id, bytes(8 * engine.MAX_GAPS))
        sender = one.engine._streams[stream_id].sender
        for offset in range(0, 8 * engine.MAX_GAPS, 2):
            sender._pending.subtract(offset, offset + 1)
        pair.run_until_quiet()
        (closed,) = pair.server.happened(events.ConnectionClosed, other)
        self.assertEqual(PROTOCOL_VIOLATION, closed.code)

    def test_a_handshake_full_of_gaps_is_ended(self) -> None:
        """Before anybody is authenticated; one from the open network is not even begun."""
        pair = Pair(peer=True)
        one = pair.dial()
        stream = one.engine._crypto_streams[next(iter(one.engine._crypto_streams))]
        stream.sender._pending.subtract(0, 1)
        for offset in range(2, 8 * engine.MAX_CRYPTO_GAPS, 2):
            stream.sender._pending.subtract(offset, offset + 1)
        pair.run_until_quiet()
        self.assertEqual(PROTOCOL_VIOLATION, pair.server.happened(events.ConnectionClosed)[0].code)


class UndeliveredTests(SynchronousTestCase):
    """What the connection's window leaves out: what waits, and the gaps before it."""

    @given(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 9)), max_size=40)
    )
    @hypothesis_settings(max_examples=60, suppress_health_check=TWICE)
    def test_the_running_figure_is_that_of_the_definition(
        self, frames: list[tuple[int, int, int]]
    ) -> None:
        """Whatever order frames come in; those of length 9 end a stream, 0 is a reset."""
        _, other = Pair().connect()
        connection: Any = other.engine
        for stream, offset, length in frames:
            stream_id = bytes([stream << 2])
            frame = b"\x0e" + stream_id + bytes([offset, length]) + bytes(length)
            if length == 9:
                frame = b"\x0f" + frame[1:]
            elif not length:
                frame = b"\x04" + stream_id + b"\x00" + bytes([offset])
            buffer = Buffer(data=frame)
            kind = buffer.pull_uint_var()
            context: Any = None
            with contextlib.suppress(QuicConnectionError, StreamFinishedError):
                reset = kind == 4
                handle = (
                    connection._handle_reset_stream_frame
                    if reset
                    else connection._handle_stream_frame
                )
                handle(context, kind, buffer)
            receivers = [s.receiver for s in connection._streams.values()]
            expected = {
                s: r.highest_offset - r.starting_offset()
                for s, r in zip(connection._streams, receivers, strict=True)
                if not r.is_finished and r.highest_offset != r.starting_offset()
            }
            self.assertEqual(expected, connection._undelivered_of)
            self.assertEqual(sum(expected.values()), connection._undelivered)


class BackpressureTests(SynchronousTestCase):
    """A reader that pauses stops the sender, and nothing else."""

    def setUp(self) -> None:
        self.pair = Pair(server=server_settings(max_streams=600))
        self.one, self.other = self.pair.connect()
        self.pair.server.consumes = False

    def held(self) -> int:
        """Bytes that wait to be consumed at the server."""
        held: int = self.other.engine._held_total
        return held

    def upload(self, size: int) -> tuple[int, bytes]:
        """Start to send so many bytes on a new stream."""
        stream_id, data = self.one.open_stream(), os.urandom(size)
        self.pair.client.upload(self.one, stream_id, data)
        return stream_id, data

    def resume(self) -> None:
        """The server's host uses what it has, and from now on what comes, at once."""
        self.pair.server.consumes = True
        for event in self.pair.server.happened(events.StreamDataReceived, self.other):
            self.other.consume(event.stream_id, len(event.data))

    def test_a_paused_reader_holds_a_stream_window_at_most(self) -> None:
        """And the sender keeps little more than HIGH_WATER that is not yet sent."""
        stream_id, data = self.upload(3 * MIB)
        self.pair.run_until_quiet()
        self.assertEqual(STREAM_WINDOW, self.held())
        self.assertEqual(data[:STREAM_WINDOW], self.pair.server.received(self.other, stream_id))
        self.assertLess(self.one.unsent(stream_id), HIGH_WATER + 16384)

    def test_a_resumed_reader_gets_the_rest(self) -> None:
        """Intact, and nothing is held in the end."""
        stream_id, data = self.upload(3 * MIB)
        self.pair.run_until_quiet()
        self.resume()
        self.pair.run_until_quiet()
        self.assertTrue(data == self.pair.server.received(self.other, stream_id))
        self.assertEqual(0, self.held())

    def test_a_reader_in_small_steps_gets_all(self) -> None:
        """Windows are announced by the quarter, and no step is so small that none is."""
        stream_id, data = self.upload(2 * MIB)
        while len(self.pair.server.received(self.other, stream_id)) < len(data):
            before = self.held()
            self.pair.run_until_quiet()
            self.assertGreater(self.held(), before - 1, "the stream stalled")
            self.other.consume(stream_id, STREAM_WINDOW // 4)
        self.assertTrue(data == self.pair.server.received(self.other, stream_id))

    def test_stalled_streams_do_not_starve_another(self) -> None:
        """More of them than fit the connection's window."""
        stalled = [self.upload(STREAM_WINDOW)[0] for _ in range(6)]
        self.pair.run_until_quiet()
        self.assertEqual(6 * STREAM_WINDOW, self.held())
        stream_id, data = self.upload(2 * MIB)
        for _ in range(40):
            self.pair.run_until_quiet()
            self.other.consume(stream_id, STREAM_WINDOW)
        self.assertTrue(data == self.pair.server.received(self.other, stream_id))
        for stream in stalled:
            self.other.consume(stream, STREAM_WINDOW)
        self.assertEqual(0, self.held())

    def test_many_stalled_streams_stop_the_connection(self) -> None:
        """At MAX_HELD, lowered here so that the test is short; it goes on when they do."""
        limit = 4 * STREAM_WINDOW
        self.patch(flow_control, "MAX_HELD", limit)
        sent = dict(self.upload(STREAM_WINDOW) for _ in range(8))
        self.pair.run_until_quiet()
        self.assertTrue(limit - CONNECTION_WINDOW // 4 <= self.held() <= limit, self.held())
        self.resume()
        self.pair.run_until_quiet()
        for stream_id, data in sent.items():
            self.assertTrue(data == self.pair.server.received(self.other, stream_id))
        self.assertEqual(0, self.held())

    def test_connections_of_one_peer_share_their_credit(self) -> None:
        """Together they hold hardly more than one does; each keeps its first window."""
        limit = 4 * STREAM_WINDOW
        self.patch(flow_control, "MAX_HELD", limit)
        shared = SharedCredit()
        pairs = [(self.one, self.other), *(self.pair.connect() for _ in range(3))]
        for one, other in pairs:
            other.share_credit(shared)
            for _ in range(8):
                data = bytes(STREAM_WINDOW)
                self.pair.client.upload(one, one.open_stream(), data)
        self.pair.run_until_quiet()
        held = [other.engine._held_total for _, other in pairs]
        self.assertLessEqual(max(held), limit)
        self.assertLessEqual(sum(held), shared.total)
        self.assertLessEqual(shared.total, limit + 3 * CONNECTION_WINDOW)
        for _, other in pairs[1:]:
            other.share_credit(None)
        self.assertEqual(self.other.engine.windows.credit, shared.total)

    def test_reset_by_the_sender_returns_the_credit(self) -> None:
        """What was held is given up; consuming it afterwards does no harm."""
        for _ in range(5):
            stream_id, _data = self.upload(2 * MIB)
            self.pair.run_until_quiet()
            self.assertEqual(STREAM_WINDOW, self.held())
            self.one.reset(stream_id, CODE)
            self.pair.run_until_quiet()
            self.assertEqual(0, self.held())
            self.other.consume(stream_id, STREAM_WINDOW)
            self.assertEqual(0, self.held())
        codes = [reset.code for reset in self.pair.server.happened(events.StreamReset)]
        self.assertEqual([CODE] * 5, codes)

    def test_stop_by_the_reader_returns_the_credit(self) -> None:
        """The sender is told the code; what it sent meanwhile is dropped and not reported."""
        for round_number in range(5):
            stream_id, _data = self.upload(2 * MIB)
            self.pair.run_until_quiet()
            before = self.pair.server.received(self.other, stream_id)
            self.other.stop(stream_id, CODE + round_number)
            self.pair.run_until_quiet()
            self.assertEqual(0, self.held())
            self.assertEqual(before, self.pair.server.received(self.other, stream_id))
            stopped = self.pair.client.happened(events.StreamStopped, self.one)
            self.assertEqual(events.StreamStopped(stream_id, CODE + round_number), stopped[-1])
        self.assertEqual([], self.pair.server.happened(events.StreamReset))

    def test_reset_by_the_reader_returns_the_credit(self) -> None:
        """It gives up both directions."""
        stream_id, _data = self.upload(2 * MIB)
        self.pair.run_until_quiet()
        self.other.reset(stream_id, CODE)
        self.pair.run_until_quiet()
        self.assertEqual(0, self.held())
        for kind in (events.StreamStopped, events.StreamReset):
            self.assertEqual([kind(stream_id, CODE)], self.pair.client.happened(kind, self.one))

    def test_the_end_of_a_stream_holds_nothing(self) -> None:
        """A reader has nothing to consume when it comes alone."""
        for _ in range(5):
            stream_id = self.one.open_stream()
            self.one.send(stream_id, b"", end=True)
            self.pair.run_until_quiet()
            received = self.pair.server.happened(events.StreamDataReceived, self.other)
            self.assertEqual(events.StreamDataReceived(stream_id, b"", True), received[-1])
        self.assertEqual({}, self.other.engine._held)

    def test_consume_for_an_unknown_stream_does_no_harm(self) -> None:
        """One that never was, or more than was held."""
        self.other.consume(400, 1000)
        stream_id, _data = self.upload(1000)
        self.pair.run_until_quiet()
        self.other.consume(stream_id, 10_000)
        self.other.consume(stream_id, 10_000)
        self.assertEqual(0, self.held())
        self.assertTrue(self.other.is_open)


class WritableTests(SynchronousTestCase):
    """StreamWritable."""

    def setUp(self) -> None:
        self.pair = Pair(client=client_settings(), server=server_settings())
        self.one, self.other = self.pair.connect()
        self.stream_id = self.one.open_stream()

    def writable(self) -> int:
        """How many StreamWritable there were."""
        return len(self.pair.client.happened(events.StreamWritable, self.one))

    def test_it_does_not_come_while_send_says_true(self) -> None:
        """Nobody waits for it."""
        self.assertTrue(self.one.send(self.stream_id, bytes(HIGH_WATER)))
        self.pair.run_until_quiet()
        self.assertEqual(0, self.writable())

    def test_it_comes_once_when_little_is_unsent(self) -> None:
        """Not before LOW_WATER, however often send() said False."""
        self.assertFalse(self.one.send(self.stream_id, bytes(HIGH_WATER + 1)))
        self.assertFalse(self.one.send(self.stream_id, b"more"))
        unsent: list[int] = []

        def done() -> int:
            unsent.append(self.one.unsent(self.stream_id))
            return self.writable()

        self.assertTrue(self.pair.run_until(done))
        self.assertGreater(unsent[-2], LOW_WATER)
        self.assertLessEqual(unsent[-1], LOW_WATER)
        self.pair.run_until_quiet()
        self.assertEqual(1, self.writable())

    def test_it_does_not_come_from_a_stalled_stream(self) -> None:
        """The reader's window is used up; it comes when the reader goes on."""
        self.pair.server.consumes = False
        self.assertFalse(self.one.send(self.stream_id, bytes(STREAM_WINDOW + HIGH_WATER)))
        self.pair.run_until_quiet()
        self.assertEqual(0, self.writable())
        self.other.consume(self.stream_id, STREAM_WINDOW)
        self.pair.run_until_quiet()
        self.assertEqual(1, self.writable())

    def test_it_can_be_asked_for(self) -> None:
        """watch() gets it at once if little is unsent."""
        self.one.watch(self.stream_id)
        self.pair.run_until_quiet()
        self.assertEqual(1, self.writable())

    def test_it_does_not_come_for_a_stream_that_is_reset(self) -> None:
        """By either end."""
        for give_up in (self.one.reset, self.other.stop):
            stream_id = self.one.open_stream()
            self.pair.server.consumes = False
            self.assertFalse(self.one.send(stream_id, bytes(STREAM_WINDOW + HIGH_WATER)))
            self.pair.run_until_quiet()
            give_up(stream_id, CODE)
            self.pair.run_until_quiet()
            self.assertTrue(self.one.send(stream_id, b"too late"))
        self.assertEqual(0, self.writable())
