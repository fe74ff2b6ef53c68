"""Attacks of an authenticated peer with frames, on two multiplexers joined in memory."""

from __future__ import annotations

from typing import Any

from aioquic.quic.recovery import MAX_ACK_RANGES
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events
from p2pnet.quic.frame_budget import MAX_IDLE_FRAMES
from p2pnet.quic.packet_numbers import FIRST_PERIOD
from p2pnet.quic.profile import FAST, STOCK
from p2pnet.wire.varint import varint
from tests.quic.harness import Pair, client_settings, protected, server_settings

STREAMS = 512  # of an agent at a connector, as shipped


class FrameTestCase(SynchronousTestCase):
    """A connection whose client sends what it likes, once for each engine of the server."""

    def pairs(self) -> list[Attacker]:
        """One for each engine."""
        return [Attacker(engine) for engine in (FAST, STOCK)]


class Attacker:
    """A client that makes its own 1-RTT packets.

    :ivar server: the connection that is attacked.
    """

    def __init__(self, engine: str) -> None:
        self.pair = Pair(
            peer=True, client=client_settings(),
            server=server_settings(engine=engine, max_streams=STREAMS),
        )  # fmt: skip
        self.one, self.server = self.pair.connect()
        self._engine: Any = self.one.engine
        self.one.send(self.one.open_stream(), b"x")
        self.pair.run_until_quiet()

    def send(self, plain: bytes) -> None:
        """A packet with these frames, to which the server may answer."""
        data = protected(self._engine, plain)
        mux = self.pair.server.mux
        mux.receive_datagram(data, self.pair.server_address, self.pair.now)
        self.pair.server.take_events()
        mux.datagrams_to_send(self.pair.now)
        self.pair.server.take_events()

    def refusal(self, plain: bytes, most: int) -> str:
        """Send the packet up to `most` times. Returns why the server closed, "" if it did not."""
        for _ in range(most):
            self.send(plain)
            closed = self.pair.server.happened(events.ConnectionClosed, self.server)
            if closed:
                return closed[0].reason
        return ""


class AcknowledgementTests(FrameTestCase):
    """Acknowledgements of what did not arrive (RFC 9000 section 21.4)."""

    def test_an_acknowledgement_of_a_packet_never_sent_closes(self) -> None:
        """The next packet's number, and one that is far away."""
        for attacker in self.pairs():
            engine: Any = attacker.server.engine
            number = engine._packet_number + 1
            for frame in (varint(number), varint(1 << 60)):
                if attacker.server.is_open:
                    reason = attacker.refusal(b"\x02" + frame + b"\0\0\0", 1)
                    self.assertIn("packets that were not sent", reason)

    def test_blind_acknowledgements_of_a_download_close(self) -> None:
        """Each of all packets so far, whether it came or not: one of the first was skipped."""
        for attacker in self.pairs():
            server, mux = attacker.server, attacker.pair.server.mux
            engine: Any = server.engine
            server.send(0, bytes(10_000_000))
            sent = len(mux.datagrams_to_send(attacker.pair.now))
            while server.is_open and sent < 100_000:
                attacker.pair.now += 0.01
                number = engine._packet_number - 1  # a guess that is never wrong
                attacker.send(b"\x02" + varint(number) + b"\0\0" + varint(min(number, 500)))
                sent = engine._packet_number
            self.assertFalse(server.is_open)
            self.assertLess(sent, 8 * FIRST_PERIOD)


class IdleFrameTests(FrameTestCase):
    """Packets full of frames that change nothing."""

    def test_packets_of_frames_that_change_nothing_close(self) -> None:
        """300 empty STREAM frames cost 30 times as much as a usual packet."""
        stream, old = b"\x0a\0\0", b"\x0a\0\1x"
        blocked, windows, stop = b"\x15\0\0", b"\x11\0\0", b"\x05\0\0"
        for frame in (stream, old, blocked, windows, stop, b"\x01\0", b"\x31\0", b"\x06\0\0"):
            for attacker in self.pairs():
                reason = attacker.refusal(frame * 300, MAX_IDLE_FRAMES // 250)
                self.assertEqual("too many frames that change nothing", reason, frame)

    def test_one_large_packet_is_not_taken_to_its_end(self) -> None:
        """A datagram of 64 KiB has 20,000 of them."""
        for attacker in self.pairs():
            reason = attacker.refusal(b"\x0a\0\0" * 20_000, 1)
            self.assertEqual("too many frames that change nothing", reason)

    def test_acknowledgements_in_many_pieces_close(self) -> None:
        """In one frame at once, in several soon; a receiver keeps MAX_ACK_RANGES ranges."""
        for attacker in self.pairs():
            many = b"\x02" + varint(1000) + b"\0" + varint(MAX_ACK_RANGES) + b"\0"
            reason = attacker.refusal(many + b"\0\0" * MAX_ACK_RANGES, 1)
            self.assertIn("in many pieces", reason)
        for attacker in self.pairs():
            reason = attacker.refusal(b"\x02\0\0\0\0" * 200, MAX_IDLE_FRAMES // 200 + 1)
            self.assertEqual("too many frames that change nothing", reason)

    def test_what_an_honest_peer_does_at_most_is_taken(self) -> None:
        """Little on each of all streams, over a path that delays, loses and repeats; all end."""
        for engine in (FAST, STOCK):
            pair = Pair(
                peer=True, client=client_settings(engine=engine),
                server=server_settings(engine=engine, max_streams=STREAMS),
            )  # fmt: skip
            one, other = pair.connect()
            streams = [4 * number for number in range(STREAMS)]
            for _ in streams:
                one.send(one.open_stream(), b"x")
            pair.run_until_quiet()
            pair.loss, pair.jitter, pair.copies = 0.05, 0.02, 0.05
            for _ in range(8):
                for stream_id in streams:
                    one.send(stream_id, b"question")
                    other.send(stream_id, b"a")
                pair.run(0.01)
            for stream_id in streams:
                one.reset(stream_id, 7)
            pair.run(5.0)
            self.assertTrue(one.is_established and other.is_established)
