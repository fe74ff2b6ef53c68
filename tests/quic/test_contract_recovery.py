"""What p2pnet relies on inside aioquic's loss recovery; see test_contract.py."""

import inspect
import math
from typing import Any

from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery

from p2pnet.quic.pacer import BurstPacer
from p2pnet.quic.recovery import PathAwareRecovery
from tests.quic.harness import Pair
from tests.quic.test_contract import ContractTestCase


class RecoveryTests(ContractTestCase):
    """What PathAwareRecovery and Engine.path_changed() touch."""

    def test_loss(self) -> None:
        """_loss is the recovery, whose class can be changed."""
        message = "_loss: Engine.__init__, PathAwareRecovery"
        self.assertIs(PathAwareRecovery, type(self.client._loss), message)
        self.assertIsInstance(self.client._loss, QuicPacketRecovery, message)

    def test_rtt(self) -> None:
        """_rtt_initialized, _latest, _min, _smoothed, _variance follow the round trips."""
        message = "_rtt_*: Engine.smoothed_rtt, path_changed"
        loss = self.client._loss
        self.assertIs(True, loss._rtt_initialized, message)
        for name in ("_rtt_latest", "_rtt_min", "_rtt_smoothed"):
            self.assertTrue(0.02 <= getattr(loss, name) < 0.05, f"{name}; {message}")
        self.assertGreater(loss._rtt_variance, 0, message)
        fresh = Pair().dial().engine._loss
        values = [fresh._rtt_latest, fresh._rtt_min, fresh._rtt_smoothed, fresh._rtt_variance]
        self.assertEqual([0.0, math.inf, 0.0, 0.0], values, message)
        self.assertIs(False, fresh._rtt_initialized, message)

    def test_detection_of_loss(self) -> None:
        """_detect_loss of a space whose oldest packet was sent last of all only clears the time."""
        message = "_detect_loss, loss_time: PathAwareRecovery._detect_loss"
        loss, space = self.client._loss, self.client._loss.spaces[-1]
        self.ping()
        sent = dict(space.sent_packets)
        self.assertGreater(min(sent), space.largest_acked_packet, message)
        space.loss_time = 1.0
        QuicPacketRecovery._detect_loss(loss, now=self.pair.now + 10, space=space)
        self.assertEqual((None, sent), (space.loss_time, space.sent_packets), message)
        space.loss_time = 1.0
        loss._detect_loss(now=self.pair.now + 10, space=space)
        self.assertEqual((None, sent), (space.loss_time, space.sent_packets), message)

    def test_bytes_in_flight(self) -> None:
        """bytes_in_flight counts what elicits an acknowledgement until that comes."""
        message = "bytes_in_flight: Engine.bytes_in_flight"
        self.pair.run(1.0)
        self.assertEqual(0, self.client._loss.bytes_in_flight, message)
        self.ping()
        self.assertGreater(self.client._loss.bytes_in_flight, 0, message)
        self.pair.run(1.0)
        self.assertEqual(0, self.client._loss.bytes_in_flight, message)

    def test_largest_received_packet(self) -> None:
        """It grows with each packet that could be decrypted, in the space of that."""
        message = "spaces, largest_received_packet: Engine.newest_packet"
        self.pair.run(1.0)
        before = [space.largest_received_packet for space in self.client._loss.spaces]
        self.ping()
        self.pair.run(1.0)
        after = [space.largest_received_packet for space in self.client._loss.spaces]
        self.assertEqual((3, before[:2]), (len(after), after[:2]), message)
        self.assertGreater(after[2], before[2], message)

    def test_on_packets_lost(self) -> None:
        """It gives what is in packets out again, and counts them as in flight no more."""
        message = "_on_packets_lost: Engine.path_changed"
        parameters = set(inspect.signature(QuicPacketRecovery._on_packets_lost).parameters)
        self.assertLessEqual({"congestion_event", "now", "packets", "space"}, parameters, message)
        stream = self.client.get_next_available_stream_id()
        self.one.send(stream, b"lost")
        self.pair.run(0.001)
        self.assertGreater(self.client._loss.bytes_in_flight, 0, message)
        self.client.path_changed(self.pair.now, lost=True)
        self.assertEqual(0, self.client._loss.bytes_in_flight, message)
        again = self.client.datagrams_to_send(self.pair.now)
        self.assertTrue(again, message)

    def test_on_ack_received(self) -> None:
        """It samples the round trip; `space.sent_packets` still has the packet with its time."""
        message = "on_ack_received, sent_packets, sent_time: PathAwareRecovery"
        parameters = inspect.signature(QuicPacketRecovery.on_ack_received).parameters
        expected = ["self", "ack_rangeset", "ack_delay", "now", "space"]
        self.assertEqual(expected, list(parameters), message)
        sent = self.ping()
        self.assertEqual(self.client._packet_number - 1, sent.packet_number, message)
        self.assertTrue(self.pair.now - 0.001 <= sent.sent_time <= self.pair.now, message)

    def ping(self) -> Any:
        """The packet of a PING that the client just sent."""
        self.one.ping()
        self.pair.run(0.001)
        return list(self.client._loss.spaces[-1].sent_packets.values())[-1]

    def test_what_is_noted_of_a_packet_that_is_sent(self) -> None:
        """Its number, when it was, that it is in flight and wants an answer: nothing else."""
        message = "_time_of_last_sent_ack_eliciting_packet, on_packet_sent: on_row_sent"
        parameters = inspect.signature(QuicPacketRecovery.on_packet_sent).parameters
        self.assertEqual(["self", "packet", "space"], list(parameters), message)
        self.pair.run(1.0)
        loss, space = self.client._loss, self.client._loss.spaces[-1]
        before, seen = dict(vars(loss)), dict(vars(space))
        sent = self.ping()
        self.assertEqual(sent.sent_time, loss._time_of_last_sent_ack_eliciting_packet, message)
        self.assertEqual(1, space.ack_eliciting_in_flight, message)
        self.assertIs(sent, space.sent_packets[sent.packet_number], message)
        changed = {name for name, value in vars(loss).items() if before[name] != value}
        self.assertEqual({"_time_of_last_sent_ack_eliciting_packet"}, changed, message)
        changed = {name for name, value in vars(space).items() if seen[name] != value}
        self.assertEqual({"ack_eliciting_in_flight"}, changed, message)

    def test_samples_of_the_old_path_are_ignored(self) -> None:
        """_cc.on_rtt_measurement can be replaced on the instance, and is called by name."""
        message = "_cc.on_rtt_measurement, _pacer.packet_time: PathAwareRecovery"
        self.one.ping()
        self.pair.run(0.005)
        self.client.path_changed(self.pair.now)
        self.pair.run(0.1)
        self.assertIn("on_rtt_measurement", dir(type(self.client._loss._cc)), message)
        self.assertNotIn("on_rtt_measurement", vars(self.client._loss._cc), message)
        self.assertIn("packet_time", vars(self.client._loss._pacer), message)

    def test_congestion_control(self) -> None:
        """_cc is made by create_congestion_control; the recovery reads its window and flight."""
        message = "_cc, bytes_in_flight, _congestion_recovery_start_time: Engine.path_changed"
        loss, sent = self.client._loss, self.ping()
        for algorithm in ("cubic", "reno"):
            loss._cc = create_congestion_control(algorithm, max_datagram_size=1200)
            loss._cc.bytes_in_flight = 4321
            self.assertEqual(4321, loss.bytes_in_flight, message)
            window = loss.congestion_window
            # The loss of a packet shrinks the window only if it was sent after this time.
            loss._cc._congestion_recovery_start_time = sent.sent_time
            loss._cc.on_packets_lost(now=self.pair.now, packets=[sent])
            self.assertEqual(window, loss.congestion_window, message)
            loss._cc._congestion_recovery_start_time = sent.sent_time - 1
            loss._cc.on_packets_lost(now=self.pair.now, packets=[sent])
            self.assertLess(loss.congestion_window, window, message)

    def test_packet_sizes(self) -> None:
        """Controllers keep _max_datagram_size, and Cubic grows by additive_increase_factor."""
        message = "_max_datagram_size, additive_increase_factor: PathAwareRecovery"
        loss = self.client._loss
        for algorithm in ("cubic", "reno"):
            loss._cc = create_congestion_control(algorithm, max_datagram_size=1200)
            self.client.set_max_datagram_size(16000)
            made = create_congestion_control(algorithm, max_datagram_size=16000)
            names = {name for name, value in vars(made).items() if value == 16000}
            self.assertEqual({16000}, {getattr(loss._cc, name) for name in names}, message)
            self.assertEqual(32000, loss._cc.congestion_window, "RFC 9002 section 7.2")
            self.assertEqual(16000, loss._pacer._max_datagram_size, message)
            self.client.set_max_datagram_size(1200)

    def test_sent_bytes(self) -> None:
        """A packet's sent_bytes are the size of its datagram."""
        message = "sent_bytes: LargePackets"
        packet = self.ping()
        self.assertEqual(self.pair.sent[-1][2], packet.sent_bytes, message)

    def test_pacer(self) -> None:
        """_pacer can be replaced; a new one lets packets pass at once."""
        message = "_pacer: Engine.__init__ and path_changed"
        self.assertIs(BurstPacer, type(self.client._loss._pacer), message)
        fresh = QuicPacketPacer(max_datagram_size=1200)
        self.assertIsNone(fresh.next_send_time(now=self.pair.now), message)

    def test_bucket(self) -> None:
        """A pacer's bucket fills with time up to bucket_max; a packet costs packet_time of it."""
        message = "packet_time, bucket_time, bucket_max, update_bucket: BurstPacer"
        pacer = QuicPacketPacer(max_datagram_size=1000)
        pacer.update_rate(congestion_window=10_000, smoothed_rtt=0.1)
        self.assertEqual((0.01, 0.025), (pacer.packet_time, pacer.bucket_max), message)
        pacer.update_bucket(now=1.0)
        self.assertEqual(0.025, pacer.bucket_time, message)
        pacer.update_after_send(now=1.0)
        self.assertAlmostEqual(0.015, pacer.bucket_time, msg=message)

    def test_pto_count(self) -> None:
        """_pto_count doubles the probe timeout, without bound."""
        message = "_pto_count: Engine.path_changed, or the sender sleeps after an outage"
        self.pair.server.sends = False
        self.one.ping()
        self.pair.run(5.0)
        self.assertGreater(self.client._loss._pto_count, 2, message)
        self.client.path_changed(self.pair.now)
        self.assertEqual(0, self.client._loss._pto_count, message)

    def test_spaces(self) -> None:
        """spaces are the packet number spaces, each with its loss_time."""
        message = "spaces, loss_time: Engine.path_changed"
        self.assertEqual([None] * 3, [s.loss_time for s in self.client._loss.spaces], message)
