"""The state machine: what leads from phase to phase, and the bounds that go with it."""

import collections
import math

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.model import Ack, Model
from p2pnet.quic.bbr.phases import (
    GAINS,
    PROBE_BW,
    PROBE_RTT_SECONDS,
    STEADY,
    TRANSITIONS,
    Phase,
    PhaseMachine,
)
from p2pnet.quic.bbr.rate import RateSample, RateSampler, Snapshot

SIZE = 1200
RATE = 2.5e6  # bytes/s
RTT = 0.04


class PhaseCase(SynchronousTestCase):
    """A machine that is told of a round of acknowledgements at a time.

    :ivar rate: what the path delivers. `queue`: seconds that the round trip is longer.
    :ivar seen: the phases in order.
    """

    def setUp(self) -> None:
        self.model = Model(SIZE)
        self.machine = PhaseMachine(self.model)
        self.sampler = RateSampler()
        self.now = 0.0
        self.rate = 1e5
        self.queue = 0.0
        self.delivered = self.lost = 0
        self.in_flight = 20 * SIZE
        self.seen = [self.machine.phase]

    def round(self, *, lost: int = 0, app_limited: bool = False, window: int = 0) -> Phase:
        """A round trip, with one acknowledgement of all that was delivered in it."""
        self.now += RTT + self.queue
        size = int(self.rate * (RTT + self.queue))
        prior = Snapshot(
            self.sampler, self.delivered, 0.0, 0.0, app_limited, size + lost, self.lost
        )
        self.delivered += size
        self.lost += lost
        for _ in range(lost // SIZE):
            self.model.loss.lost_one(prior.delivered, SIZE)
        sample = RateSample(self.rate, size, lost, prior, size, lost)
        ack = Ack(self.now, RTT + self.queue, sample, self.in_flight, window or size, True)
        calm = self.machine.is_calm
        self.model.update(ack, calm=calm, delivered=self.delivered)
        if self.machine.phase in STEADY:
            self.model.adapt_to_loss(size)
        self.machine.update(ack, self.delivered, restarted=False)
        self.model.end_loss_round(sample)
        if self.machine.phase is not self.seen[-1]:
            self.seen.append(self.machine.phase)
        return self.machine.phase

    def start_up(self) -> None:
        """Double each round until the path is full, and drain the queue."""
        while self.rate < RATE:
            self.rate = min(2 * self.rate, RATE)
            self.assertIs(Phase.STARTUP, self.round())
        while self.machine.phase is not Phase.CRUISE:
            self.round()

    def reach(self, phase: Phase) -> None:
        """Go on until then."""
        for _ in range(300):
            if self.round() is phase:
                return
        self.fail(f"{phase} was not reached: {self.seen}")


class TransitionTests(PhaseCase):
    """From one to the next."""

    def test_every_phase_has_gains_and_a_way_on_and_can_be_reached(self) -> None:
        """As the tables say."""
        self.assertEqual(set(Phase), set(GAINS))
        self.assertEqual(set(Phase), set(TRANSITIONS))
        self.assertTrue(all(TRANSITIONS.values()))
        self.assertEqual(set(Phase) - {Phase.STARTUP}, set().union(*TRANSITIONS.values()))

    def test_no_other_transition_is_allowed(self) -> None:
        """The machine asserts it."""
        for phase, following in TRANSITIONS.items():
            for other in set(Phase) - following:
                self.machine.phase = phase
                self.assertRaises(AssertionError, self.machine.advance, other)

    def test_startup_goes_on_while_the_bandwidth_grows(self) -> None:
        """And ends with the third round in which it did not; then the queue is drained."""
        self.in_flight = 10 * int(RATE * RTT)
        while self.rate < RATE:
            self.rate = min(1.5 * self.rate, RATE)
            self.assertIs(Phase.STARTUP, self.round())
        phases = [self.round() for _ in range(4)]
        self.assertEqual([Phase.STARTUP, Phase.STARTUP, Phase.DRAIN, Phase.DRAIN], phases)
        self.in_flight = int(RATE * RTT)
        self.assertIn(self.round(), PROBE_BW)

    def test_loss_alone_does_not_end_startup(self) -> None:
        """A deviation from the draft: the bandwidth still grows."""
        while self.rate < RATE:
            self.rate *= 1.5
            self.assertIs(Phase.STARTUP, self.round(lost=int(self.rate * RTT * 0.1)))

    def test_loss_ends_startup_sooner_once_the_bandwidth_does_not_grow(self) -> None:
        """After two rounds rather than three."""
        self.rate = RATE
        self.round()
        self.in_flight = 10 * int(RATE * RTT)
        phases = [self.round(lost=int(RATE * RTT * 0.1)) for _ in range(2)]
        self.assertEqual([Phase.STARTUP, Phase.DRAIN], phases)

    def test_regression_what_startup_overflows_does_not_lower_the_rate_after_it(self) -> None:
        """By 30 %, until the next probe."""
        self.rate = RATE
        self.round()
        self.in_flight = 10 * int(RATE * RTT)
        while self.round(lost=int(RATE * RTT * 0.1)) is not Phase.DRAIN:
            pass
        self.rate = RATE / 2  # more is not sent now
        self.round(lost=int(RATE * RTT * 0.1))
        self.round(lost=int(RATE * RTT * 0.1))
        self.in_flight = int(RATE * RTT / 2)
        for _ in range(3):
            self.round()
        self.assertIs(Phase.CRUISE, self.machine.phase)
        self.assertEqual(RATE, self.model.bandwidth)
        self.round(lost=int(RATE * RTT * 0.1))  # of what was sent since
        self.round()
        self.assertLess(self.model.bandwidth, RATE)

    def test_lack_of_data_does_not_end_startup(self) -> None:
        """Nothing is known of the path then."""
        for _ in range(20):
            self.assertIs(Phase.STARTUP, self.round(app_limited=True))

    def test_a_cycle_probes_for_bandwidth(self) -> None:
        """Down, cruise, refill, up, and again, some two or three seconds later."""
        self.start_up()
        began = self.now
        self.reach(Phase.UP)
        self.assertEqual([Phase.CRUISE, Phase.REFILL, Phase.UP], self.seen[-3:])
        self.assertTrue(1.9 < self.now - began < 3.3, self.now - began)
        self.reach(Phase.DOWN)
        self.reach(Phase.CRUISE)

    def test_more_bandwidth_is_found_by_the_probe(self) -> None:
        """It stays in Up for as long as there is more."""
        self.start_up()
        self.reach(Phase.UP)
        for _ in range(8):
            self.rate *= 1.25
            self.assertIs(Phase.UP, self.round())
        self.assertEqual(self.rate, self.model.bandwidth)

    def test_probe_rtt_comes_each_five_seconds_and_lasts_a_fifth(self) -> None:
        """Unless a smaller round trip was seen by itself."""
        self.start_up()
        self.queue = 0.001
        self.reach(Phase.PROBE_RTT)
        began = self.now
        self.assertLess(self.machine.bound, RATE * RTT)
        self.in_flight = int(RATE * RTT / 3)
        self.reach(Phase.CRUISE)
        self.assertTrue(PROBE_RTT_SECONDS < self.now - began < PROBE_RTT_SECONDS + 4 * RTT)

    def test_flows_that_delivered_different_amounts_do_not_probe_in_step(self) -> None:
        """The time between probes follows from that."""
        waits: collections.Counter[float] = collections.Counter()
        for number in range(64):
            self.setUp()
            self.delivered = number * 1_000_000
            self.start_up()
            self.reach(Phase.DOWN)
            waits[round(self.machine._wait, 1)] += 1
        self.assertGreater(len(waits), 6)
        self.assertTrue(all(2.0 <= wait <= 3.0 for wait in waits), waits)


class BoundTests(PhaseCase):
    """What loss does."""

    def test_a_probe_that_loses_too_much_ends_and_sets_the_long_term_bound(self) -> None:
        """At what was in flight; other flows are left some room below it."""
        self.start_up()
        self.reach(Phase.UP)
        prior = Snapshot(self.sampler, self.delivered, 0.0, 0.0, False, 120_000, self.lost)
        self.machine.lost(prior, 2000, self.now, 100_000, self.delivered)
        self.assertIs(Phase.UP, self.machine.phase)
        self.machine.lost(prior, 3000, self.now, 100_000, self.delivered)
        self.assertIs(Phase.DOWN, self.machine.phase)
        self.assertEqual(120_000, self.model.inflight_hi)
        self.reach(Phase.CRUISE)
        self.assertAlmostEqual(0.85 * self.model.inflight_hi, self.machine.bound)

    def test_loss_of_other_times_does_not_touch_the_long_term_bound(self) -> None:
        """There was no probe."""
        self.start_up()
        prior = Snapshot(self.sampler, self.delivered, 0.0, 0.0, False, 120_000, self.lost)
        self.machine.lost(prior, 60_000, self.now, 100_000, self.delivered)
        self.assertTrue(math.isinf(self.model.inflight_hi))
        self.assertIs(Phase.CRUISE, self.machine.phase)

    def test_loss_lowers_the_short_term_bounds_until_the_next_probe(self) -> None:
        """To what was delivered, by three tenths a round at most."""
        self.start_up()
        self.rate = 0.6 * RATE
        for expected in (1.0, 0.7, 0.6, 0.6):  # the first round has a sample of before
            self.round(lost=20 * SIZE)
            self.assertAlmostEqual(expected, self.model.bandwidth / RATE)
        self.rate = RATE
        self.reach(Phase.UP)
        self.assertEqual(RATE, self.model.bandwidth)

    def test_a_single_lost_packet_lowers_nothing(self) -> None:
        """The draft reacts to any loss."""
        self.start_up()
        for _ in range(20):
            self.round(lost=SIZE)
        self.assertEqual(RATE, self.model.bandwidth)


class CollapseTests(PhaseCase):
    """A bandwidth that is not there any more."""

    def test_three_slow_rounds_through_a_queue_start_from_what_there_is(self) -> None:
        """And drain the queue, rather than fill it for two cycles."""
        self.start_up()
        self.rate, self.queue = 0.3 * RATE, 0.1
        self.in_flight = int(RATE * RTT)
        phases = [self.round() for _ in range(4)]  # the first has a sample of before
        self.assertEqual([Phase.CRUISE, Phase.CRUISE, Phase.CRUISE, Phase.DRAIN], phases)
        self.assertAlmostEqual(0.3, self.model.bandwidth / RATE)

    def test_slow_rounds_without_a_queue_are_no_collapse(self) -> None:
        """Random loss, or a process that was busy."""
        self.start_up()
        self.rate = 0.3 * RATE
        for _ in range(10):
            self.assertIsNot(Phase.DRAIN, self.round())

    def test_slow_rounds_for_lack_of_data_are_no_collapse(self) -> None:
        """Whatever the round trip."""
        self.start_up()
        self.rate, self.queue = 0.3 * RATE, 0.1
        for _ in range(10):
            self.assertIsNot(Phase.DRAIN, self.round(app_limited=True))
