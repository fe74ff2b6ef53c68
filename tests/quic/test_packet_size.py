"""How large packets are, and what becomes of them where large ones do not get through."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events
from p2pnet.quic.congestion import CONTROLLERS
from p2pnet.wire.packet_size import BASE
from tests.quic.harness import Pair, client_settings, server_settings

DATA = bytes(range(256)) * 4000


class SizeTestCase(SynchronousTestCase):
    """A client that sends to a server."""

    def connect(self, congestion: str = "cubic", seed: int = 0) -> None:
        """Set both up."""
        settings = {"congestion": congestion}
        self.pair = Pair(
            client=client_settings(**settings), server=server_settings(**settings), seed=seed
        )
        self.one, self.other = self.pair.connect()

    def begin(self) -> int:
        """Begin to send DATA. Returns the stream's id."""
        stream_id = self.one.open_stream()
        self.pair.sent.clear()
        self.pair.client.upload(self.one, stream_id, DATA)
        return stream_id

    def has_arrived(self, stream_id: int) -> bool:
        """Whether all of it is there, as it was sent."""
        return self.pair.server.received(self.other, stream_id) == DATA

    def finish(self, stream_id: int) -> None:
        """Wait until it is."""
        self.assertTrue(self.pair.run_until(lambda: self.has_arrived(stream_id)))

    @property
    def largest(self) -> int:
        """Bytes of the largest datagram since begin()."""
        return max(size for _, _, size in self.pair.sent)

    @property
    def holes(self) -> int:
        """How many black holes the client has found."""
        return len(self.pair.client.happened(events.BlackHoleDetected))


class PacketSizeTests(SizeTestCase):
    """Connection.set_max_datagram_size()."""

    def test_packets_have_the_size_that_was_set(self) -> None:
        """With any controller, from small to jumbo frames and back, also amid a transfer."""
        for congestion in CONTROLLERS:
            self.connect(congestion)
            for size in (1452, 16000, BASE):
                self.one.set_max_datagram_size(size)
                self.finish(self.begin())
                self.assertEqual(size, self.largest, congestion)

    def test_every_copy_of_the_size_follows(self) -> None:
        """And windows hold as many packets as they must; aioquic would stall on one forgotten."""
        for congestion, least in (("cubic", 2), ("reno", 2), ("bbr", 4)):
            self.connect(congestion)
            recovery: Any = self.one.engine._loss
            self.one.set_max_datagram_size(16000)
            self.assertEqual(16000, recovery._pacer._max_datagram_size)
            self.assertGreaterEqual(recovery.congestion_window, least * 16000)
        model = recovery._cc.model
        for part in (recovery._cc, model, model.loss):
            self.assertEqual(16000, part.max_datagram_size)

    def test_none_is_larger_once_it_was_lowered(self) -> None:
        """Neither what waits to be sent nor what was lost goes out again in its old size."""
        for congestion in CONTROLLERS:
            self.connect(congestion, seed=1)
            self.one.set_max_datagram_size(8952)
            self.pair.loss = 0.05
            stream_id = self.begin()
            self.pair.run(0.1)
            self.assertEqual(8952, self.largest)
            self.assertFalse(self.has_arrived(stream_id))
            self.one.set_max_datagram_size(BASE)
            self.pair.sent.clear()
            self.finish(stream_id)
            self.assertEqual(BASE, self.largest, congestion)

    def test_datagrams_fit_every_path(self) -> None:
        """One that was queued for a larger packet would block all others on a smaller path."""
        self.connect()
        before = self.one.datagram_limit
        self.one.set_max_datagram_size(1452)
        self.assertEqual(before, self.one.datagram_limit)
        self.one.send_datagram(bytes(before))
        self.one.set_max_datagram_size(BASE)
        self.pair.run(0.1)
        self.assertEqual(1, len(self.pair.server.happened(events.DatagramReceived)))

    def test_it_is_never_more_than_a_length_of_two_bytes_can_tell(self) -> None:
        """A longer STREAM frame would be garbled."""
        self.connect()
        self.one.set_max_datagram_size(65507)
        self.finish(self.begin())
        self.assertEqual(1 << 14, self.largest)

    def test_it_is_never_less_than_every_path_carries(self) -> None:
        """RFC 9000 section 14."""
        self.connect()
        self.one.set_max_datagram_size(1)
        self.finish(self.begin())
        self.assertEqual(BASE, self.largest)


class BlackHoleTests(SizeTestCase):
    """RFC 8899 section 4.3."""

    def fall(self, congestion: str) -> int:
        """Have large packets vanish amid a transfer, until that is noticed."""
        self.connect(congestion)
        self.one.set_max_datagram_size(1452)
        stream_id = self.begin()
        self.pair.run(0.1)
        self.pair.mtu = 1400
        self.assertTrue(self.pair.run_until(lambda: self.holes, 2.0), congestion)
        return stream_id

    def test_it_is_noticed_and_small_packets_go_on(self) -> None:
        """After three probe timeouts or losses, whatever the controller."""
        for congestion in CONTROLLERS:
            stream_id = self.fall(congestion)
            self.one.set_max_datagram_size(BASE)
            self.finish(stream_id)
            self.assertEqual(1, self.holes)

    def test_it_is_noticed_while_small_packets_are_acknowledged(self) -> None:
        """Then no probe timeout tells of it: each acknowledgement puts that off."""
        self.connect()
        self.one.set_max_datagram_size(1452)
        self.pair.mtu = 1400
        self.begin()
        small = self.one.open_stream()
        for _ in range(100):
            if self.holes:
                return
            self.one.send(small, b"x")
            self.pair.run(0.02)
        self.fail("not noticed")

    def test_chance_and_queues_are_none(self) -> None:
        """Some packets are lost, large or small: others arrive."""
        self.connect(seed=3)
        self.one.set_max_datagram_size(1452)
        self.pair.loss = 0.03
        self.finish(self.begin())
        self.assertEqual(0, self.holes)

    def test_small_packets_that_get_lost_are_none(self) -> None:
        """Where all do, the path is dead."""
        self.connect()
        self.begin()
        self.pair.run(0.05)
        self.pair.loss = 1.0
        self.pair.run(5.0)
        self.assertEqual(0, self.holes)
