"""What BBR relies on inside aioquic; see test_contract.py."""

import inspect
from typing import Any

from aioquic.quic.congestion.base import QuicCongestionControl, create_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery

from p2pnet.quic.bbr.controller import Bbr
from p2pnet.quic.bbr.pacer import Pacer
from p2pnet.quic.recovery import BbrRecovery
from tests.quic.harness import Pair, client_settings, server_settings
from tests.quic.test_contract import ContractTestCase


class BbrContractTests(ContractTestCase):
    """A connection of two engines that use BBR, as aioquic drives it."""

    def setUp(self) -> None:
        bbr = {"congestion": "bbr", "engine": "stock"}
        self.pair = Pair(client=client_settings(**bbr), server=server_settings(**bbr))
        self.one, self.other = self.pair.connect()
        self.client: Any = self.one.engine
        self.server: Any = self.other.engine
        self.calls: list[str] = []

    def record(self, target: Any, *names: str) -> None:
        """Note each call of these methods, which go on to do what they do."""
        for name in names:
            method = getattr(target, name)

            def call(*args: Any, name: str = name, method: Any = method, **kwargs: Any) -> Any:
                self.calls.append(name)
                return method(*args, **kwargs)

            setattr(target, name, call)

    def test_registration(self) -> None:
        """register_congestion_control makes a name good for the configuration."""
        message = "register_congestion_control: bbr/controller.py"
        controller = create_congestion_control("bbr", max_datagram_size=1200)
        self.assertIs(Bbr, type(controller), message)
        self.assertIsInstance(controller, QuicCongestionControl, message)
        self.assertIs(Bbr, type(self.client._loss._cc), message)
        self.assertIs(BbrRecovery, type(self.client._loss), message)

    def test_only_max_datagram_size_is_known_to_a_controller(self) -> None:
        """And all of them keep it as _max_datagram_size, or max_datagram_size for ours."""
        message = "_max_datagram_size: PathAwareRecovery makes another controller of the kind"
        for name in ("cubic", "reno"):
            controller: Any = create_congestion_control(name, max_datagram_size=1300)
            self.assertEqual(1300, controller._max_datagram_size, message)
            self.assertEqual(1300, type(controller)(max_datagram_size=1300)._max_datagram_size)

    def test_the_order_of_calls(self) -> None:
        """Each packet, the round-trip time, and then the losses of the same ACK frame."""
        message = "on_ack_received: when BbrRecovery says that an ACK frame is done"
        controller = self.client._loss._cc
        self.record(
            controller, "on_packet_acked", "on_rtt_measurement", "on_packets_lost", "on_ack_done"
        )
        recovery = self.client._loss
        self.one.send(self.one.open_stream(), bytes(12000))
        self.pair.loss = 1.0
        self.pair.run(0.0)
        self.pair.loss = 0.0
        sent = len(recovery.spaces[-1].sent_packets)
        self.assertGreater(sent, 5)
        for _ in range(2):
            self.one.ping()
            self.pair.run(0.0)
        self.pair.run_until(lambda: "on_ack_done" in self.calls)
        expected = ["on_packet_acked", "on_rtt_measurement", "on_packets_lost", "on_ack_done"]
        self.assertEqual(expected, sorted(set(self.calls), key=self.calls.index), message)

    def test_packets_carry_what_we_add(self) -> None:
        """QuicSentPacket has no slots, `sent_time` is set before the controller sees it."""
        message = "QuicSentPacket: RateSampler.sent puts a snapshot there"
        self.assertFalse(hasattr(QuicSentPacket, "__slots__"), message)
        self.one.ping()
        self.pair.run(0.0)
        packet = list(self.client._loss.spaces[-1].sent_packets.values())[-1]
        self.assertIs(self.client._loss._cc.sampler, packet.snapshot.sampler, message)
        self.assertEqual(self.pair.now, packet.sent_time, message)

    def test_the_pacer_is_asked_for_each_packet(self) -> None:
        """next_send_time before, update_after_send after it; update_rate after an ACK."""
        message = "next_send_time, update_after_send, update_rate: Pacer has aioquic's interface"
        for name in ("next_send_time", "update_after_send", "update_rate"):
            theirs = inspect.signature(getattr(QuicPacketPacer, name)).parameters
            self.assertEqual(list(theirs), list(inspect.signature(getattr(Pacer, name)).parameters))
        pacer = self.client._loss._pacer
        self.assertIs(Pacer, type(pacer), message)
        self.record(pacer, "next_send_time", "update_after_send", "refund", "update_rate")
        self.one.send(self.one.open_stream(), bytes(1000))
        self.pair.run(0.0)
        expected = ["next_send_time", "update_after_send", "next_send_time", "refund"]
        self.assertEqual(expected, self.calls, message)
        self.pair.run(0.5)
        self.assertIn("update_rate", self.calls, message)

    def test_pacing_at(self) -> None:
        """_pacing_at is when the pacer lets the next packet pass, None if it is not what waits."""
        message = "_pacing_at: Engine.datagrams_to_send tells by it that there is no more data"
        self.client.datagrams_to_send(self.pair.now)
        self.assertIsNone(self.client._pacing_at, message)
        self.client._loss._pacer.next_send_time = lambda now: now + 1.0
        self.one.ping()
        self.client.datagrams_to_send(self.pair.now)
        self.assertEqual(self.pair.now + 1.0, self.client._pacing_at, message)

    def test_on_packet_sent(self) -> None:
        """It is called for every packet, with its space, which says what is paced."""
        message = "on_packet_sent, is_application_data: BbrRecovery, the pacer's refund"
        parameters = inspect.signature(QuicPacketRecovery.on_packet_sent).parameters
        self.assertEqual(["self", "packet", "space"], list(parameters), message)
        kinds = [space.is_application_data for space in self.client._loss.spaces]
        self.assertEqual([False, False, True], kinds, message)

    def test_replace_controller(self) -> None:
        """_cc and _pacer may be replaced at any time, as long as the flight goes along."""
        message = "_cc, _pacer, bytes_in_flight: BbrRecovery._replace_controller"
        self.one.send(self.one.open_stream(), bytes(5000))
        self.pair.run(0.0)
        before = self.client.bytes_in_flight
        self.assertGreater(before, 5000, message)
        self.one.path_changed(self.pair.now, path="another")
        self.assertEqual(before, self.client.bytes_in_flight, message)
        self.pair.run_until_quiet()
        self.assertEqual(0, self.client.bytes_in_flight, message)

    def test_a_due_acknowledgement_is_not_held_back(self) -> None:
        """ack_at is when it is due; at exactly that time aioquic would still ask the pacer."""
        message = "ack_at: Engine._make_datagrams, or a virtual clock would stand still there"
        space = self.server._loss.spaces[-1]
        self.assertIsNone(space.ack_at, message)
        self.server._loss._pacer.next_send_time = lambda now: now + 1.0
        self.one.ping()
        self.pair.run_until(lambda: space.ack_at is not None)
        when = space.ack_at
        self.assertEqual(1, len(self.server.datagrams_to_send(when)), message)
