"""Rows of packets: how a transfer is sent, and what bounds a row. For the fast engine alone."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.fast.rows import MAX_ROW
from p2pnet.quic.profile import FAST
from tests.quic import harness
from tests.quic.harness import Pair

SIZE = 1200  # bytes of a packet


class RowTests(SynchronousTestCase):
    """An Agent that uploads on an established connection."""

    def setUp(self) -> None:
        self.patch(harness, "ENGINE", FAST)
        self.pair = Pair()
        self.one = self.pair.dial()
        self.pair.run(1.0)
        engine: Any = self.one.engine
        self.engine = engine
        self.stream = self.one.open_stream()
        self.rows: list[list[bytes]] = []
        make = engine._make_row

        def make_row(stream_id: int, now: float) -> list[bytes]:
            row: list[bytes] = make(stream_id, now)
            self.rows.append(row)
            return row

        engine._make_row = make_row

    def begin(self, size: int) -> None:
        """Send the first byte, so that the stream has begun, and have `size` more wait."""
        self.one.send(self.stream, b"0")
        self.pair.run(1.0)
        self.rows.clear()
        self.one.send(self.stream, bytes(size))

    def test_a_transfer_is_made_of_them(self) -> None:
        """Nearly all packets are of the full size and in rows, and every byte arrives."""
        data = bytes(range(256)) * 4000
        before = self.engine._packet_number
        self.pair.client.upload(self.one, self.stream, data)
        self.pair.run(20.0)
        server = self.pair.server
        (accepted,) = {connection for connection, _ in server.events}
        self.assertEqual(data, server.received(accepted, self.stream))
        packets = [packet for row in self.rows for packet in row]
        self.assertEqual({SIZE}, {len(packet) for packet in packets})
        self.assertGreater(len(packets), 0.8 * (self.engine._packet_number - before))

    @given(st.integers(2, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 300))
    def test_what_bounds_one(self, window: int, credit: int, stream: int, waiting: int) -> None:
        """The congestion window, both windows of the peer, the pacer, and what there is."""
        self.setUp()
        self.begin(waiting * SIZE)
        engine, sender = self.engine, self.engine._streams[self.stream].sender
        loss = engine._loss
        loss._cc.congestion_window = window * SIZE
        engine._remote_max_data = engine._remote_max_data_used + credit * SIZE
        engine._streams[self.stream].max_stream_data_remote = 1 + stream * SIZE
        self.assertIsNone(loss._pacer.next_send_time(now=self.pair.now))
        most = min(window, credit, stream, waiting, loss._pacer.room(), MAX_ROW)
        row = engine._make_row(self.stream, self.pair.now)
        # A packet carries a little less than SIZE of the stream, so that one more may fit.
        self.assertIn(len(row), (most, most + 1) if most >= 2 else (0, 2))
        self.assertLessEqual(loss.bytes_in_flight, window * SIZE)
        self.assertEqual(SIZE * len(row), loss.bytes_in_flight)
        self.assertLessEqual(sender.highest_offset, 1 + min(credit, stream, waiting) * SIZE)
        self.assertLessEqual(engine._remote_max_data_used, engine._remote_max_data)

    def test_none_of_a_stream_that_is_blocked_over_or_unknown(self) -> None:
        """That is for what knows all cases."""
        self.begin(20 * SIZE)
        self.assertEqual([], self.engine._make_row(self.stream + 4, self.pair.now))
        self.engine._streams[self.stream].is_blocked = True
        self.assertEqual([], self.engine._make_row(self.stream, self.pair.now))
        self.engine._streams[self.stream].is_blocked = False
        self.engine.reset_stream(self.stream, 1)
        self.assertEqual([], self.engine._make_row(self.stream, self.pair.now))

    def test_none_of_what_is_sent_again(self) -> None:
        """Lost bytes go before new ones, and cost no credit of the connection again."""
        self.begin(40 * SIZE)
        self.assertIsNone(self.engine._loss._pacer.next_send_time(now=self.pair.now))
        row = self.engine._make_row(self.stream, self.pair.now)
        self.assertTrue(row)
        used = self.engine._remote_max_data_used
        self.engine.path_changed(self.pair.now, lost=True)
        self.assertEqual([], self.engine._make_row(self.stream, self.pair.now))
        self.pair.run(5.0)
        self.assertEqual(1 + 40 * SIZE, self.engine._streams[self.stream].sender.highest_offset)
        self.assertEqual(1 + 40 * SIZE, self.engine._remote_max_data_used)
        self.assertGreater(used, SIZE)
