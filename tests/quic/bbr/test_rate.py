"""Delivery-rate samples."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.rate import RateSample, RateSampler


@dataclasses.dataclass
class Packet:
    """As much of a sent packet as is looked at; the sampler adds to it."""

    sent_time: float
    sent_bytes: int = 1000
    snapshot: Any = None


class SamplerCase(SynchronousTestCase):
    """A sampler and what is in flight."""

    def setUp(self) -> None:
        self.sampler = RateSampler()
        self.in_flight = 0

    def send(self, at: float, size: int = 1000) -> Packet:
        """Send a packet."""
        packet = Packet(at, size)
        self.sampler.sent(packet, self.in_flight)
        self.in_flight += size
        return packet

    def ack(self, now: float, *packets: Packet) -> RateSample:
        """One acknowledgement of all these."""
        for packet in packets:
            self.sampler.acked(packet, now)
            self.in_flight -= packet.sent_bytes
        sample = self.sampler.sample(0.0)
        assert sample is not None
        return sample


class RateTests(SamplerCase):
    """What the rate is."""

    def test_the_rate_is_what_came_through_in_a_round_trip(self) -> None:
        """Fifty packets leave at once; from then on one arrives each 2 ms, and another leaves."""
        packets = [self.send(0.0) for _ in range(50)]
        for step in range(1, 200):
            sample = self.ack(0.05 + 0.002 * step, packets.pop(0))
            packets.append(self.send(0.05 + 0.002 * step))
        self.assertTrue(0.99 < sample.rate / 5e5 < 1.01, sample.rate)

    @given(st.floats(0.0001, 0.01), st.floats(0.0, 0.01), st.integers(2, 40))
    def test_acknowledgements_at_once_do_not_make_it_larger(
        self, gap: float, wait: float, count: int
    ) -> None:
        """However they are compressed, no rate is above that at which was sent."""
        self.setUp()
        packets = [self.send(1.0 + gap * i) for i in range(count)]
        samples = [self.ack(1.05 + gap * count + wait, packet) for packet in packets]
        sending = 1000 / gap
        self.assertLessEqual(max(s.rate for s in samples), sending * 1.0001 * count / (count - 1))

    def test_too_short_an_interval_gives_none(self) -> None:
        """One below the smallest round trip is an artefact."""
        packet = self.send(1.0)
        self.sampler.acked(packet, 1.01)
        sample = self.sampler.sample(0.02)
        assert sample is not None
        self.assertEqual((0.0, 1000), (sample.rate, sample.delivered))

    def test_idle_time_does_not_count(self) -> None:
        """The first packet after a pause starts the clock again."""
        self.ack(0.05, self.send(0.0))
        sample = self.ack(10.05, self.send(10.0))
        self.assertAlmostEqual(1000 / 0.05, sample.rate)

    def test_one_ack_of_many_packets_is_one_sample(self) -> None:
        """Of the newest packet; a sample without any is None."""
        packets = [self.send(0.01 * i) for i in range(5)]
        sample = self.ack(0.1, *packets)
        self.assertIs(packets[-1].snapshot, sample.prior)
        self.assertEqual((5000, 5000), (sample.acked, sample.delivered))
        self.assertIsNone(self.sampler.sample(0.0))


class LossTests(SamplerCase):
    """What is lost between two acknowledgements."""

    def test_losses_count_until_the_next_acknowledgement(self) -> None:
        """Also those that a timer found, with no ACK around it."""
        lost, arrives = self.send(0.0), self.send(0.0)
        prior = self.sampler.lost_one(lost)
        self.assertIs(lost.snapshot, prior)
        self.assertIsNone(self.sampler.sample(0.0))
        self.sampler.lost_one(self.send(0.0))
        sample = self.ack(0.1, arrives)
        self.assertEqual(2000, sample.lost)

    def test_packets_of_another_sampler_do_not_count(self) -> None:
        """They went along the path before this one."""
        old = RateSampler()
        packet, bare = Packet(0.0), Packet(0.0)
        old.sent(packet, 0)
        for stranger in (packet, bare):
            self.sampler.acked(stranger, 0.1)
            self.assertIsNone(self.sampler.lost_one(stranger))
        self.assertIsNone(self.sampler.sample(0.0))
        self.assertEqual((0, 0), (self.sampler.delivered, self.sampler.lost))


class AppLimitedTests(SamplerCase):
    """A sender that has too little to send."""

    def test_it_ends_when_what_was_in_flight_is_delivered(self) -> None:
        """Packets sent meanwhile are marked, later ones not."""
        first = self.send(0.0)
        self.sampler.app_limited(self.in_flight)
        second = self.send(0.01)
        self.assertFalse(self.ack(0.1, first).app_limited)
        third = self.send(0.1)
        self.assertTrue(self.ack(0.11, second).app_limited)
        self.assertTrue(self.ack(0.2, third).app_limited)
        self.assertFalse(self.ack(0.3, self.send(0.2)).app_limited)

    def test_it_may_begin_before_anything_was_delivered(self) -> None:
        """As every connection does."""
        self.assertFalse(self.sampler.is_app_limited)
        self.sampler.app_limited(0)
        self.assertTrue(self.sampler.is_app_limited)
        self.assertTrue(self.ack(0.1, self.send(0.0)).app_limited)
