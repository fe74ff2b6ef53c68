"""What the fast engine relies on inside aioquic, beyond test_contract.py. All on stock engines."""

from typing import Any

from aioquic import tls
from aioquic.quic.connection import QuicReceiveContext
from aioquic.quic.events import PingAcknowledged
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES
from aioquic.quic.stream import FinalSizeError, QuicStreamReceiver, QuicStreamSender

from p2pnet.quic.profile import STOCK
from tests.quic import harness
from tests.quic.harness import CLIENT
from tests.quic.test_contract import ContractTestCase

ONE_RTT = tls.Epoch.ONE_RTT
ACKED, LOST = QuicDeliveryState.ACKED, QuicDeliveryState.LOST


class FastContractTestCase(ContractTestCase):
    """An established connection of two stock engines, and what one of them sends."""

    def setUp(self) -> None:
        self.patch(harness, "ENGINE", STOCK)
        super().setUp()

    def send(self) -> bytes:
        """The one datagram that the client sends now."""
        ((data, address),) = self.client.datagrams_to_send(self.pair.now)
        self.assertEqual(harness.SERVER, address)
        return bytes(data)

    def ping(self) -> bytes:
        """A packet with a PING, not delivered."""
        self.client.send_ping(7)
        return self.send()


class PacketTests(FastContractTestCase):
    """How aioquic protects a 1-RTT packet, and what it notes of it."""

    def test_protection(self) -> None:
        """_cryptos has a pair of contexts; hp._mask and aead undo what was done to a packet."""
        message = "_cryptos, _mask, key_phase, _aead, _iv: PacketProtection"
        number, data = self.client._packet_number, self.ping()
        pair = self.server._cryptos[ONE_RTT]
        mask = pair.recv.hp._mask(data[13:29])
        first = data[0] ^ (mask[0] & 0x1F)
        self.assertEqual(0x41 | self.client._spin_bit << 5, first & ~0x04, message)
        self.assertEqual((0, 0), (pair.key_phase, pair.recv.key_phase), message)
        self.assertEqual(self.server.host_cid, data[1:9], message)
        self.assertEqual(self.client._peer_cid.cid, data[1:9], message)
        truncated = int.from_bytes(data[9:11], "big") ^ int.from_bytes(mask[1:3], "big")
        self.assertEqual(number, truncated, message)
        header = bytes([first]) + data[1:9] + number.to_bytes(2, "big")
        self.assertEqual(b"\x01\x00", pair.recv.aead.decrypt(data[11:], header, number), message)
        own = self.client._cryptos[ONE_RTT].send
        self.assertEqual(data[11:], own.aead.encrypt(b"\x01\x00", header, number), message)
        nonce = (own.aead._iv ^ number).to_bytes(12, "big")
        self.assertEqual(data[11:], own.aead._aead.encrypt(nonce, b"\x01\x00", header), message)

    def test_zero_rtt_keys(self) -> None:
        """A server tears the 0-RTT keys down with the first 1-RTT packet; we never have any."""
        message = "_cryptos[ZERO_RTT].recv.is_valid: FastReceiver waits for it"
        for engine in (self.client, self.server):
            self.assertFalse(engine._cryptos[tls.Epoch.ZERO_RTT].recv.is_valid(), message)

    def test_update_key_requested(self) -> None:
        """_update_key_requested is set until a packet is sent under the new keys."""
        message = "_update_key_requested: aioquic's turn"
        pair = self.client._cryptos[ONE_RTT]
        self.assertIs(False, pair._update_key_requested, message)
        self.client.request_key_update()
        self.assertIs(True, pair._update_key_requested, message)
        self.ping()
        self.assertEqual((False, 1), (pair._update_key_requested, pair.key_phase), message)

    def test_record_of_a_packet(self) -> None:
        """A QuicSentPacket says what was sent, and the idle timer starts again."""
        message = "QuicSentPacket, _close_at, _ack_eliciting_sent_since_receipt: RowSender"
        self.pair.run(1.0)
        self.assertIs(False, self.client._ack_eliciting_sent_since_receipt, message)
        data = self.ping()
        record = list(self.client._loss.spaces[-1].sent_packets.values())[-1]
        self.assertIs(QuicSentPacket, type(record), message)
        expected = QuicSentPacket(
            ONE_RTT, True, True, False, self.client._packet_number - 1, record.packet_type,
            self.pair.now, len(data), [(self.client._on_ping_delivery, ((7,),))],
        )  # fmt: skip
        self.assertEqual(expected, record, message)
        record.attached = "BBR's state"
        self.assertIs(True, self.client._ack_eliciting_sent_since_receipt, message)
        idle = self.client._idle_timeout()
        self.assertEqual(self.pair.now + idle, self.client._close_at, message)
        self.assertEqual(20.0, idle, message)

    def test_record_of_a_receipt(self) -> None:
        """A received packet is noted in its space, the spin bit follows, and an ACK gets due."""
        message = "_ack_delay, ack_at, ack_queue, _spin_bit, _spin_highest_pn: FastReceiver._opened"
        space, number = self.server._spaces[ONE_RTT], self.client._packet_number
        self.server.receive_datagram(self.ping(), CLIENT, self.pair.now)
        self.assertEqual(number, space.largest_received_packet, message)
        self.assertEqual(self.pair.now, space.largest_received_time, message)
        self.assertIn(space.expected_packet_number, (number, number + 1), message)
        self.assertEqual(self.pair.now + self.server._ack_delay, space.ack_at, message)
        self.assertEqual(number, space.ack_queue[-1].stop - 1, message)
        self.assertIn(number, space.received_packets, message)
        self.assertEqual(number, self.server._spin_highest_pn, message)
        self.assertEqual(self.client._spin_bit, self.server._spin_bit, message)

    def test_ack_delay_exponents(self) -> None:
        """_local_ack_delay_exponent and _remote_ack_delay_exponent shift microseconds."""
        message = "ack delay: frames.ack's callers"
        for engine in (self.client, self.server):
            exponents = engine._local_ack_delay_exponent, engine._remote_ack_delay_exponent
            self.assertEqual((3, 3), exponents, message)

    def test_payload_received(self) -> None:
        """_payload_received handles frames from any on, and says whether they want an ACK."""
        message = "_payload_received: FastReceiver._leave_frames"
        context = QuicReceiveContext(
            epoch=ONE_RTT, host_cid=self.client.host_cid, quic_logger_frames=None,
            network_path=self.client._network_paths[0], time=self.pair.now, version=None,
        )  # fmt: skip
        self.assertEqual((True, False), self.client._payload_received(context, b"\1"), message)
        self.assertFalse(self.client._payload_received(context, b"\0\0")[0], message)

    def test_logger(self) -> None:
        """_logger takes what is wrong with a packet; _quic_logger is None unless configured."""
        message = "_logger, _quic_logger: FastReceiver"
        self.client._logger.warning("a test")
        self.assertIsNone(self.client._quic_logger, message)


class TurnTests(FastContractTestCase):
    """What says that there is something to send that only aioquic writes."""

    def test_nothing(self) -> None:
        """On an idle connection none of it is set."""
        for engine in (self.client, self.server):
            for name in (
                "_close_pending", "_probe_pending", "_ping_pending", "_retire_connection_ids",
                "_handshake_done_pending", "_streams_blocked_pending", "_remote_preferred_address",
                "_pacing_at",
            ):  # fmt: skip
                message = f"{name}: FastEngine._is_aioquics_turn"
                self.assertFalse(getattr(engine, name), message)
            self.assertTrue(all(item.was_sent for item in engine._host_cids), "_host_cids")
            self.assertTrue(engine._crypto_streams[ONE_RTT].sender.buffer_is_empty)
            (path,) = engine._network_paths
            self.assertEqual((True, 0), (path.is_validated, len(path.remote_challenges)))

    def test_something(self) -> None:
        """Each is set by what it is for."""
        self.client.send_ping(1)
        self.assertEqual([1], self.client._ping_pending, "_ping_pending")
        self.client.change_connection_id()
        self.assertEqual([0], self.client._retire_connection_ids, "_retire_connection_ids")
        for _ in range(17):
            self.one.send(self.one.open_stream(), b"x")
        self.assertTrue(self.client._streams_blocked_pending, "_streams_blocked_pending")
        self.client.close()
        self.assertTrue(self.client._close_pending, "_close_pending")

    def test_challenges(self) -> None:
        """local_challenge_sent says whether a new path of the peer was asked."""
        self.server.receive_datagram(self.ping(), ("198.51.100.9", 9), self.pair.now)
        path = self.server._network_paths[-1]  # the one in use stays the first
        self.assertEqual((False, False), (path.is_validated, path.local_challenge_sent))
        self.server.datagrams_to_send(self.pair.now)
        self.assertIs(True, path.local_challenge_sent, "_wants_probe")


class DeliveryTests(FastContractTestCase):
    """What is called when a frame is acknowledged or lost, by the handlers that go into records."""

    def test_ack(self) -> None:
        """_on_ack_delivery lets go of the numbers that the peer knows to have arrived."""
        space = self.client._spaces[ONE_RTT]
        space.ack_queue = RangeSet([range(3), range(5, 9)])
        self.client._on_ack_delivery(LOST, space, 6)
        self.assertEqual(2, len(space.ack_queue), "_on_ack_delivery")
        self.client._on_ack_delivery(ACKED, space, 6)
        self.assertEqual([range(7, 9)], list(space.ack_queue), "_on_ack_delivery")

    def test_limit(self) -> None:
        """_on_connection_limit_delivery has a lost limit announced again."""
        limit = self.client._local_max_data
        self.client._on_connection_limit_delivery(LOST, limit)
        self.assertEqual(0, limit.sent, "_on_connection_limit_delivery")

    def test_ping(self) -> None:
        """_on_ping_delivery tells of those that have a number."""
        self.client._on_ping_delivery(ACKED, (3,))
        self.client._on_ping_delivery(ACKED, ())
        self.assertEqual(PingAcknowledged(uid=3), self.client.next_event(), "_on_ping_delivery")
        self.assertIsNone(self.client.next_event(), "_on_ping_delivery")


class FastStreamTests(FastContractTestCase):
    """The parts of streams that are watched, and how aioquic keeps streams."""

    def test_classes_can_be_changed(self) -> None:
        """A part of a stream takes another class, and _streams another kind of dict."""
        stream = self.open_stream()
        self.assertIs(QuicStreamSender, type(stream.sender), "WatchedSender")
        self.assertIs(QuicStreamReceiver, type(stream.receiver), "WatchedReceiver")
        self.assertIs(dict, type(self.client._streams), "Streams")

    def test_sender(self) -> None:
        """Acknowledged in order, _buffer loses its front and _buffer_start moves on; see _acked."""
        message = "_buffer, _buffer_start, _buffer_fin, _acked, _reset_error_code: WatchedSender"
        sender: Any = QuicStreamSender(stream_id=0, writable=True)
        sender.write(b"0123456789")
        self.assertEqual((None, None), (sender._buffer_fin, sender._reset_error_code), message)
        sender.get_frame(10)
        sender.on_data_delivery(ACKED, 4, 6, False)
        self.assertEqual((1, 0), (len(sender._acked), sender._buffer_start), message)
        sender.on_data_delivery(ACKED, 0, 4, False)
        self.assertEqual((0, 6), (len(sender._acked), sender._buffer_start), message)
        self.assertEqual(b"6789", sender._buffer, message)

    def test_what_is_pending(self) -> None:
        """With the last frame taken, _pending is empty, and _pending_eof says if an end follows."""
        message = "_pending_eof, buffer_is_empty: WatchedSender.get_frame"
        sender: Any = QuicStreamSender(stream_id=0, writable=True)
        sender.write(b"0123")
        self.assertIs(False, sender._pending_eof, message)
        self.assertEqual(b"0123", sender.get_frame(10).data, message)
        self.assertEqual((0, False), (len(sender._pending), sender.buffer_is_empty), message)
        self.assertIsNone(sender.get_frame(10), message)
        self.assertIs(True, sender.buffer_is_empty, message)
        sender.write(b"", end_stream=True)
        self.assertEqual((True, False), (sender._pending_eof, sender.buffer_is_empty), message)
        self.assertIs(True, sender.get_frame(10).fin, message)
        self.assertIs(False, sender._pending_eof, message)

    def test_receiver(self) -> None:
        """A wrong final size raises before anything is changed."""
        message = "FinalSizeError: FastReceiver._take_stream leaves the frame to aioquic then"
        receiver: Any = QuicStreamReceiver(stream_id=0, readable=True)
        receiver.handle_frame(QuicStreamFrame(data=b"0123", offset=0, fin=False))
        before = {name: repr(value) for name, value in vars(receiver).items()}
        with self.assertRaises(FinalSizeError):
            receiver.handle_frame(QuicStreamFrame(data=b"0", offset=0, fin=True))
        self.assertEqual(before, {name: repr(v) for name, v in vars(receiver).items()}, message)

    def test_queue(self) -> None:
        """_streams_queue has every stream of _streams."""
        message = "_streams_queue: FastEngine._discard_stream"
        streams = [self.open_stream() for _ in range(3)]
        self.assertEqual(streams, self.client._streams_queue, message)
        self.assertEqual(streams, list(self.client._streams.values()), message)

    def test_a_stream_that_the_peer_opens(self) -> None:
        """_get_or_create_stream() makes the next one, which the limit then counts as used."""
        message = "_get_or_create_stream: FastReceiver._next_stream"
        limit = self.server._local_max_streams_bidi
        for number in range(2):
            self.assertEqual(number, limit.used, message)
            stream = self.server._get_or_create_stream(8, 4 * number)
            self.assertIs(stream, self.server._streams[4 * number], message)
            self.assertEqual(4 * number, stream.stream_id, message)
        self.assertEqual([0, 4], list(self.server._streams), message)

    def test_stream_limit(self) -> None:
        """_stream_limit() is what the peer may open; a stream that ended raises it."""
        message = "_stream_limit: FastEngine._discard_stream"
        self.assertIs(self.server._local_max_streams_bidi, self.server._stream_limit(0), message)
        stream = self.open_stream()
        for end in (self.one, self.other):
            end.send(stream.stream_id, b"", end=True)
            self.pair.run_until_quiet()
        self.assertEqual(17, self.server._local_max_streams_bidi.value, message)

    def test_configuration(self) -> None:
        """_configuration says how large a DATAGRAM frame may be (RFC 9221 section 3)."""
        message = "_configuration: FastReceiver._take_datagram"
        limit = self.client._configuration.max_datagram_frame_size
        self.assertEqual(limit, self.server._remote_max_datagram_frame_size, message)

    def test_credit_hooks(self) -> None:
        """The handlers of MAX_DATA, MAX_STREAM_DATA and MAX_STREAMS can be overridden."""
        handlers = self.client._QuicConnection__frame_handlers
        for kind, name in (
            (0x04, "_handle_reset_stream_frame"), (0x10, "_handle_max_data_frame"),
            (0x11, "_handle_max_stream_data_frame"),
        ):  # fmt: skip
            self.assertEqual(getattr(self.client, name), handlers[kind][0], name)
        self.assertTrue(callable(self.client._unblock_streams), "_unblock_streams")

    def test_credit(self) -> None:
        """_remote_max_data_used counts up to _remote_max_data."""
        self.open_stream(bytes(5000))
        self.pair.run_until_quiet()
        self.assertEqual(5000, self.client._remote_max_data_used, "_remote_max_data_used")
        limits = self.client._remote_max_data, self.server._local_max_data.sent
        self.assertEqual(limits[0], limits[1], "_remote_max_data")

    def test_ranges(self) -> None:
        """A RangeSet keeps a sorted list of ranges, of which MAX_ACK_RANGES are kept of packets."""
        numbers = RangeSet([range(1, 3), range(5, 8)])
        ranges = numbers._RangeSet__ranges  # type: ignore[attr-defined]
        self.assertEqual([range(1, 3), range(5, 8)], ranges, "_RangeSet__ranges: _add_last")
        self.assertGreater(MAX_ACK_RANGES, 1)
