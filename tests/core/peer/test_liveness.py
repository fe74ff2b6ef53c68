"""Tests of p2pnet.core.peer.liveness: pings, and the silence that ends a connection."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.liveness import (
    PING_IN_USE,
    PING_INTERVAL,
    PING_TIMEOUT,
    PINGS,
    PROBE_ROUND_TRIPS,
    PROBE_TIMEOUT,
    Due,
    Liveness,
)

RTT = 0.05


class LivenessTests(SynchronousTestCase):
    """A connection that came up at time 0, driven from one timer to the next."""

    def setUp(self) -> None:
        """The connection is up."""
        self.liveness = Liveness()
        self.liveness.answered(RTT, 0.0)
        self.pings: list[float] = []
        self.lost_at: float | None = None
        self.now = 0.0
        self.relayed_at: float | None = None

    def note(self, due: Due | None) -> None:
        """Keep when a ping was due, and when the connection was given up."""
        if due is Due.PING:
            self.pings.append(self.now)
        elif due is Due.GIVE_UP:
            self.lost_at = self.now

    def relay(self, ago: float = 0.0) -> None:
        """The Intermediate relayed a packet, so many seconds ago."""
        self.relayed_at = self.now - ago

    def run_to(
        self, end: float, *, in_use: bool = False, each: Callable[[], None] = lambda: None
    ) -> None:
        """Let time pass until `end`, or until the connection is given up; call `each` before each
        timer."""
        while self.lost_at is None and self.liveness.get_timer() <= end:
            self.now = self.liveness.get_timer()
            each()
            due = self.liveness.handle_timer(self.now, relayed_at=self.relayed_at, in_use=in_use)
            self.note(due)
        self.now = end

    def test_an_idle_connection_is_pinged_every_15_seconds(self) -> None:
        """Each ping is answered at once."""
        for second in range(1, 50):
            before = len(self.pings)
            self.run_to(float(second))
            if len(self.pings) > before:
                self.liveness.answered(RTT, self.now)
        self.assertEqual([PING_INTERVAL, 2 * PING_INTERVAL, 3 * PING_INTERVAL], self.pings)
        self.assertIsNone(self.lost_at)

    def test_an_unanswered_ping_is_repeated_and_then_the_connection_is_lost(self) -> None:
        """Five pings in five seconds."""
        self.run_to(60.0)
        self.assertEqual([15.0, 16.0, 17.0, 18.0, 19.0], self.pings)
        self.assertEqual(PINGS, len(self.pings))
        self.assertEqual(PING_INTERVAL + PING_TIMEOUT, self.lost_at)
        self.assertEqual(PING_TIMEOUT, self.liveness.timeout)

    def test_a_silent_intermediate_that_relays_streams_is_probed_early(self) -> None:
        """After five seconds, and has two for its answer."""
        self.run_to(60.0, in_use=True)
        self.assertEqual(PING_IN_USE, self.pings[0])
        self.assertEqual(PINGS, len(self.pings))
        assert self.lost_at is not None
        self.assertAlmostEqual(PING_IN_USE + PROBE_TIMEOUT, self.lost_at)

    def test_relayed_packets_spare_probes_but_not_the_regular_ping(self) -> None:
        """Or QUIC would take the connection for idle."""
        self.run_to(15.5, in_use=True, each=lambda: self.relay(1.0))
        self.assertEqual([PING_INTERVAL], self.pings)

    def test_silence_is_counted_from_the_last_relayed_packet(self) -> None:
        """It came at 3 s, so the probe leaves at 8 s."""
        self.now = 3.0
        self.relay()
        self.run_to(8.2, in_use=True)
        self.assertEqual([8.0], self.pings)

    def test_an_answer_that_queues_behind_relayed_packets_is_waited_for(self) -> None:
        """For as long as packets come."""
        self.run_to(40.0, each=self.relay)
        self.assertIsNone(self.lost_at)
        self.run_to(60.0)
        assert self.lost_at is not None
        self.assertLessEqual(self.lost_at, 40.0 + 2 * PING_TIMEOUT)

    def test_a_probe_under_way_is_not_begun_again(self) -> None:
        """Or doubt that comes again and again would keep a dead connection."""
        self.note(self.liveness.probe(0.0))
        for tenth in range(1, 30):
            self.run_to(tenth / 10)
            self.note(self.liveness.probe(self.now) if self.lost_at is None else None)
        self.assertEqual(PINGS, len(self.pings))
        self.assertAlmostEqual(PROBE_TIMEOUT, self.lost_at or 0.0)

    def test_another_network_begins_the_probe_again(self) -> None:
        """What left through the old network may be lost."""
        self.note(self.liveness.probe(0.0))
        self.run_to(1.0)
        self.note(self.liveness.network_changed(1.0))
        self.run_to(60.0)
        self.assertAlmostEqual(1.0 + PROBE_TIMEOUT, self.lost_at or 0.0)

    def test_a_slow_path_has_eight_round_trips_for_a_probe(self) -> None:
        """Two seconds are too short by satellite."""
        self.liveness.answered(0.6, 0.0)
        self.note(self.liveness.probe(0.0))
        self.run_to(60.0)
        self.assertAlmostEqual(PROBE_ROUND_TRIPS * 0.6, self.lost_at or 0.0)

    def test_a_timer_that_comes_too_early_does_nothing(self) -> None:
        """Its time stays."""
        due = self.liveness.get_timer()
        self.assertIsNone(self.liveness.handle_timer(due - 0.1, relayed_at=None, in_use=True))
        self.assertEqual(due, self.liveness.get_timer())

    @given(
        st.lists(st.tuples(st.sampled_from("atpn"), st.floats(0.01, 8.0)), max_size=30),
        st.booleans(),
    )
    def test_it_always_ends_in_loss_once_nothing_comes_any_more(
        self, events: list[tuple[str, float]], in_use: bool
    ) -> None:
        """Within 20 s and a time-out of silence, whatever came before; and no time stands still."""
        self.setUp()
        for event, pause in events:
            match event:
                case "a":
                    self.liveness.answered(RTT, self.now)
                case "t":
                    self.relay()
                case "p":
                    self.note(self.liveness.probe(self.now))
                case "n":
                    self.note(self.liveness.network_changed(self.now))
            self.run_to(self.now + pause, in_use=in_use)
            if self.lost_at is not None:
                return
        silent_from = self.now
        self.run_to(silent_from + 60.0, in_use=in_use)
        assert self.lost_at is not None
        limit = PING_INTERVAL + 2 * PING_TIMEOUT
        self.assertLessEqual(self.lost_at - silent_from, limit)
        self.assertLess(len(self.pings), 500)
