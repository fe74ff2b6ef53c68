"""What BBR achieves at a bottleneck: the real QUIC code on virtual time.

Figures are shares and queues of the simulated link, so they are the same on every machine. The
limits leave room below what was measured; bench/congestion.py shows the figures themselves.
"""

import statistics

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.controller import Bbr
from tests.quic.bbr.bottleneck import MBIT, Bottleneck, Flow, Link

SIZE = 1200  # bytes
RATE = 10 * MBIT
RTT = 0.04
SETTLED = 1.0  # seconds; Startup is over
END = 3.0


class LawTestCase(SynchronousTestCase):
    """One flow, unless a test has more."""

    def transfer(
        self, link: Link, congestion: str = "bbr", end: float = END
    ) -> tuple[float, float, float]:
        """Upload until `end`: utilisation, mean queue and retransmissions once it has settled."""
        bottleneck = Bottleneck(link, congestion)
        bottleneck.run(end)
        return (
            bottleneck.utilisation(SETTLED, end)[0],
            bottleneck.queueing(SETTLED, end),
            bottleneck.retransmitted()[0],
        )


class LossTests(LawTestCase):
    """Loss that is not congestion does not lower the rate."""

    def test_a_clean_path_is_filled_without_a_queue(self) -> None:
        """Even if the buffer would hold four times what is under way."""
        used, queue, again = self.transfer(Link(RATE, RTT, buffer=4 * RATE * RTT))
        self.assertGreater(used, 0.9)
        self.assertLess(queue, 0.01)
        self.assertEqual(0.0, again)

    def test_one_percent_of_loss_costs_little(self) -> None:
        """Cubic gets less than a quarter of it, here as on the networks."""
        used, queue, again = self.transfer(Link(2 * RATE, RTT, loss=0.01))
        self.assertGreater(used, 0.85)
        self.assertLess(queue, 0.01)
        self.assertLess(again, 0.03)
        cubic, _, _ = self.transfer(Link(2 * RATE, RTT, loss=0.01), "cubic")
        self.assertLess(cubic, used / 4)

    def test_five_percent_of_loss(self) -> None:
        """It is learnt, though each round loses another number of packets."""
        used, _, again = self.transfer(Link(RATE, RTT, loss=0.05))
        self.assertGreater(used, 0.6)
        self.assertLess(again, 0.08)

    def test_loss_in_bursts(self) -> None:
        """Fifteen packets at a time, one in a hundred."""
        used, _, _ = self.transfer(Link(RATE, RTT, loss=0.01, burst=15))
        self.assertGreater(used, 0.7)


class PathTests(LawTestCase):
    """Paths of other kinds."""

    def test_a_policer_is_not_mistaken_for_random_loss(self) -> None:
        """What is above its rate is lost without a queue; the rate is found and kept."""
        used, _, again = self.transfer(Link(2 * RATE, RTT, policer=RATE), end=5.0)
        self.assertGreater(2 * used, 0.85)
        self.assertLess(again, 0.1)

    def test_acknowledgements_in_bunches(self) -> None:
        """Every 20 ms, as over Wi-Fi. Startup ends too early there: it takes some seconds more."""
        used, _, _ = self.transfer(Link(RATE, RTT, bunching=0.02), end=8.0)
        self.assertGreater(used, 0.85)

    def test_jitter(self) -> None:
        """A quarter of the round trip."""
        used, _, _ = self.transfer(Link(RATE, RTT, jitter=0.01))
        self.assertGreater(used, 0.85)

    def test_a_short_buffer(self) -> None:
        """A third of what is under way."""
        used, _, again = self.transfer(Link(RATE, RTT, buffer=RATE * RTT / 3))
        self.assertGreater(used, 0.85)
        self.assertLess(again, 0.05)

    def test_a_lan(self) -> None:
        """A millisecond, of which the acknowledgement's delay is the half."""
        used, queue, again = self.transfer(Link(RATE, 0.001))
        self.assertGreater(used, 0.9)
        self.assertLess(queue, 0.02)
        self.assertLess(again, 0.01)

    def test_a_long_path_is_not_limited_by_receive_windows(self) -> None:
        """40 Mbit/s at 200 ms have 1 MB under way; a stream's first window is half of that."""
        bottleneck = Bottleneck(Link(2 * RATE, 0.2), "bbr")
        bottleneck.run(5.0)
        self.assertGreater(bottleneck.utilisation(4.0, 5.0)[0], 0.85)


class InitialWindowTests(SynchronousTestCase):
    """What may be under way before anything is known of the path but its round trip."""

    def test_a_long_path_starts_with_more(self) -> None:
        """Ten packets in a LAN, 20 from where half a megabyte a second has so many under way."""
        for rtt, window in ((0.0005, 10 * SIZE), (0.03, 15_000), (0.2, 20 * SIZE)):
            controller = Bbr(max_datagram_size=SIZE)
            controller.on_rtt_measurement(now=1.0, rtt=rtt)
            self.assertEqual(window, controller.congestion_window)
            assert controller.pacing_rate is not None
            self.assertLess(controller.pacing_rate * rtt, 3 * window)  # not at once
            controller.on_rtt_measurement(now=2.0, rtt=1.0)
            self.assertEqual(window, controller.congestion_window)


class ChangeTests(LawTestCase):
    """Paths that change under way."""

    def test_a_drop_of_bandwidth_is_followed(self) -> None:
        """To a fifth: within two seconds the rate is found and the queue that it made is gone.

        The buffer is a BDP of before, so a round trip is 240 ms until then. Afterwards a packet
        takes 2.4 ms, and two are acknowledged together.
        """
        bottleneck = Bottleneck(Link(2 * RATE, RTT), "bbr")
        bottleneck.run(2.0)
        bottleneck.link.rate = 2 * RATE / 5
        bottleneck.run(6.0)
        self.assertGreater(bottleneck.utilisation(4.0, 6.0)[0], 0.8)
        self.assertLess(bottleneck.queueing(4.0, 6.0), 0.04)

    def test_a_drop_without_loss_is_followed(self) -> None:
        """A buffer that never overflows says nothing, but the round trip does."""
        bottleneck = Bottleneck(Link(RATE, RTT, buffer=20 * RATE * RTT), "bbr")
        bottleneck.run(2.0)
        bottleneck.link.rate = RATE / 5
        bottleneck.run(6.0)
        self.assertGreater(bottleneck.utilisation(3.0, 6.0)[0], 0.75)
        self.assertLess(bottleneck.queueing(5.0, 6.0), 0.04)

    def test_more_bandwidth_is_found(self) -> None:
        """Twice as much, by the probes of five seconds."""
        bottleneck = Bottleneck(Link(RATE / 2, RTT), "bbr")
        bottleneck.run(2.0)
        bottleneck.link.rate = RATE
        bottleneck.run(7.0)
        self.assertGreater(bottleneck.utilisation(6.0, 7.0)[0], 0.85)

    def test_an_outage_is_over_when_it_is(self) -> None:
        """Persistent congestion takes the window, not what is known of the path."""
        bottleneck = Bottleneck(Link(RATE, RTT), "bbr")
        bottleneck.run(1.5)
        bottleneck.link.loss = 1.0
        bottleneck.run(2.5)
        bottleneck.link.loss = 0.0
        bottleneck.run(5.0)
        self.assertGreater(bottleneck.utilisation(4.0, 5.0)[0], 0.85)

    def switch(self, flow: Flow, bottleneck: Bottleneck, name: str | None, rtt: float) -> None:
        """Both ends send along another path from now on."""
        bottleneck.link.rtt = rtt
        for end in (flow.one, flow.other):
            assert end is not None
            end.path_changed(bottleneck.now, path=name)

    def goodput_after_return(self, *, known: bool) -> float:
        """Share of the link in the second after going back to a long path."""
        bottleneck = Bottleneck(Link(RATE, 0.1), "bbr")
        (flow,) = bottleneck.flows
        bottleneck.run(2.0)
        for end in (flow.one, flow.other):
            assert end is not None
            end.name_path("relayed")
        self.switch(flow, bottleneck, "direct", 0.01)
        bottleneck.run(3.0)
        self.switch(flow, bottleneck, "relayed" if known else "another", 0.1)
        bottleneck.run(4.0)
        return bottleneck.utilisation(3.1, 3.6)[0]

    def test_a_return_to_a_known_path_starts_warm(self) -> None:
        """At the rate that it had; one that is new starts from the initial window."""
        warm, cold = self.goodput_after_return(known=True), self.goodput_after_return(known=False)
        self.assertGreater(warm, 0.7)
        self.assertGreater(warm, 1.5 * cold)


class SharedTests(LawTestCase):
    """Flows that share a link."""

    def test_a_cubic_flow_keeps_a_quarter(self) -> None:
        """With a buffer of two BDP."""
        bottleneck = Bottleneck(Link(RATE / 2, RTT, buffer=RATE * RTT), "bbr", "cubic", starts=1.0)
        bottleneck.run(10.0)
        bbr, cubic = bottleneck.utilisation(3.0, 10.0)
        self.assertGreater(cubic, 0.25)
        self.assertGreater(bbr, 0.25)
        self.assertGreater(bbr + cubic, 0.85)

    def test_another_bbr_flow_finds_room(self) -> None:
        """One that comes later, within some seconds."""
        bottleneck = Bottleneck(Link(RATE / 2, RTT), "bbr", "bbr", starts=1.0)
        bottleneck.run(10.0)
        shares = bottleneck.utilisation(4.0, 10.0)
        self.assertGreater(min(shares), 0.2)
        self.assertGreater(sum(shares), 0.85)


class AppLimitedTests(LawTestCase):
    """A flow that sends now and then."""

    def test_pauses_do_not_lower_the_rate(self) -> None:
        """A burst each second is through as fast as the fifth time as the second."""
        bottleneck = Bottleneck(Link(RATE, RTT), "bbr")
        (flow,) = bottleneck.flows
        flow.greedy = False
        size = int(0.4 * RATE)

        def send() -> None:
            flow.send(size)
            bottleneck.pump(flow)

        for second in range(1, 7):
            bottleneck.at(float(second), send)
        bottleneck.run(7.0)
        took = []
        for second in range(2, 7):
            arrived = [flow.received(second, second + tenths / 10) for tenths in range(1, 11)]
            took.append(sum(received < 0.99 * size for received in arrived))
        self.assertLess(statistics.median(took), 7, took)
        self.assertGreater(flow.controller.model.bandwidth, 0.8 * RATE)
