"""The health of a direct path: when it is asked, suspected and given up."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.health import (
    CONSENT,
    DEAD_AFTER,
    KEEPALIVE_IDLE,
    KEEPALIVE_USED,
    LONGEST_IDLE,
    SHORTEST_IDLE,
    SUSPECT_AFTER,
    Health,
    Keepalive,
    PathHealth,
)
from tests.traversal.support import TOLERANCE

RTT = 0.05


class Path:
    """A path that is looked at whenever its health asks for it, as a node does.

    :ivar answers: whether its checks are answered, after RTT.
    :ivar asked: when it was checked. `states`: (time, state), at each change.
    """

    def __init__(
        self, rtt: float = RTT, now: float = 1000.0, keepalive: Keepalive | None = None
    ) -> None:
        self.health = PathHealth(rtt, now, keepalive)
        self.now = now
        self.answers = True
        self.asked: list[float] = []
        self.states = [(now, Health.GOOD)]
        self._calls: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = itertools.count()

    def later(self, delay: float, call: Callable[[], Any]) -> None:
        """Do something then."""
        heapq.heappush(self._calls, (self.now + delay, next(self._count), call))

    def send(self, every: float, seconds: float) -> None:
        """Packets go out regularly for so long."""
        for number in range(round(seconds / every)):
            self.later(number * every, lambda: self.health.sent(self.now))

    def answer(self, rtt: float = RTT) -> None:
        """A check was answered."""
        self.health.heard(self.now, rtt)

    def look(self) -> None:
        """What a node does."""
        health = self.health
        if self.now >= health.next_ask() - TOLERANCE:
            health.asked(self.now)
            self.asked.append(self.now)
            if self.answers:
                self.later(RTT, self.answer)
        self.note(health.look(self.now))

    def note(self, state: Health) -> None:
        """Remember the state, if it is another one."""
        if state is not self.states[-1][1]:
            self.states.append((self.now, state))

    def run(self, seconds: float) -> None:
        """Let time pass, which must go on."""
        end, looks = self.now + seconds, 0
        while self.health.state is not Health.DEAD:
            due = min([self.health.get_timer(), *(call[0] for call in self._calls)])
            if due > end:
                break
            looks = looks + 1 if due <= self.now else 0
            assert looks < 10, f"time stands still at {self.now}"
            self.now = max(self.now, due)
            if self._calls and self._calls[0][0] <= self.now:
                heapq.heappop(self._calls)[2]()
                self.note(self.health.state)
            else:
                self.look()
        self.now = end

    def since(self, start: float, state: Health) -> float:
        """How long after `start` it first got into that state."""
        return next(when for when, what in self.states if what is state and when >= start) - start


class KeepaliveTests(SynchronousTestCase):
    """A path that works."""

    def test_an_idle_path_is_asked_every_15_s_then_as_rarely_as_mappings_last(self) -> None:
        """At most 25 s, within the 30 s of short-lived NAT mappings."""
        path = Path()
        path.run(20.0)  # it counts as used when it is new
        path.asked.clear()
        path.run(900.0)
        gaps = [round(b - a, 3) for a, b in itertools.pairwise(path.asked)]
        self.assertEqual([KEEPALIVE_IDLE] * 2, gaps[:2])
        self.assertEqual(sorted(gaps), gaps)
        self.assertEqual([LONGEST_IDLE] * 10, gaps[-10:])
        self.assertEqual([Health.GOOD], [state for _, state in path.states])

    def test_the_interval_stays_below_the_life_of_a_mapping(self) -> None:
        """A NAT that forgets after 19 s is found out once, and not tried again."""
        keepalive = Keepalive()
        intervals = []
        for _ in range(60):
            intervals.append(keepalive.interval)
            if keepalive.interval < 19.0:
                keepalive.kept()
            else:
                keepalive.lapsed()
        self.assertEqual(1, sum(interval > 19.0 for interval in intervals))
        for _ in range(20):
            keepalive.lapsed()
        self.assertEqual(SHORTEST_IDLE, keepalive.interval)

    def test_a_path_that_fell_silent_while_idle_is_asked_more_often_afterwards(self) -> None:
        """And one that fell silent in use is not: that was no mapping's end."""
        for idle, expected in ((True, 0.6 * KEEPALIVE_IDLE), (False, KEEPALIVE_IDLE)):
            keepalive = Keepalive()
            path = Path(keepalive=keepalive)
            path.run(20.0)
            if not idle:
                path.send(every=0.1, seconds=2.0)
            path.answers = False
            path.run(16.0)
            self.assertAlmostEqual(expected, keepalive.interval)

    def test_regression_single_packets_now_and_then_are_no_use(self) -> None:
        """The keepalive of an idle connection had the path asked every three seconds for ever."""
        path = Path()
        path.run(20.0)
        path.asked.clear()
        for number in range(10):
            path.later(15.0 * number, lambda: path.health.sent(path.now))
            path.later(15.0 * number + RTT, lambda: path.health.heard(path.now))
        path.run(150.0)
        self.assertLessEqual(len(path.asked), 150 / KEEPALIVE_IDLE)

    def test_a_path_in_use_is_asked_every_3_s_and_not_more(self) -> None:
        """Packets in either direction do not change that."""
        path = Path()
        path.send(every=0.1, seconds=60.0)
        for number in range(600):
            path.later(number * 0.1 + 0.05, lambda: path.health.heard(path.now))
        path.run(60.0)
        self.assertEqual(60 / KEEPALIVE_USED, len(path.asked))
        self.assertEqual([Health.GOOD], [state for _, state in path.states])

    def test_a_path_that_is_used_no_more_is_soon_asked_less(self) -> None:
        """After ten seconds."""
        path = Path()
        path.send(every=0.1, seconds=30.0)
        path.run(45.0)
        path.asked.clear()
        path.run(45.0)
        self.assertEqual(45 / KEEPALIVE_IDLE, len(path.asked))

    def test_the_figure_follows_the_answers(self) -> None:
        """It is the round-trip time of the last one."""
        path = Path(rtt=0.2)
        path.run(20.0)
        self.assertEqual(RTT, path.health.rtt)


class SilenceTests(SynchronousTestCase):
    """A path that was cut."""

    def silent(self, rtt: float = RTT) -> tuple[Path, float]:
        """A path on which a packet is sent and nothing comes back, and when that was."""
        path = Path(rtt)
        path.run(1.5)
        path.answers = False
        path.health.sent(path.now)
        return path, path.now

    def test_a_path_that_says_nothing_is_asked_after_about_100_ms(self) -> None:
        """A round trip and something, but no sooner."""
        path, start = self.silent()
        path.run(0.2)
        self.assertAlmostEqual(0.1, path.asked[0] - start)

    def test_it_is_asked_again_ever_less_often(self) -> None:
        """Once a second in the end, until it is given up."""
        path, _ = self.silent()
        path.run(30.0)
        gaps = [round(b - a, 3) for a, b in itertools.pairwise(path.asked)]
        self.assertEqual([0.1, 0.2, 0.4, 0.8], gaps[:4])
        self.assertEqual({1.0}, set(gaps[4:]))

    def test_it_is_suspect_after_a_fifth_of_a_second_and_dead_after_ten(self) -> None:
        """And in no other order."""
        path, start = self.silent()
        path.run(30.0)
        self.assertEqual(
            [Health.GOOD, Health.SUSPECT, Health.DEAD], [state for _, state in path.states]
        )
        self.assertAlmostEqual(SUSPECT_AFTER, path.since(start, Health.SUSPECT))
        self.assertAlmostEqual(DEAD_AFTER, path.since(start, Health.DEAD))

    def test_a_path_of_long_round_trips_is_given_more_time(self) -> None:
        """An answer that needs 300 ms cannot be missing before that."""
        path, start = self.silent(rtt=0.3)
        path.run(30.0)
        answered = path.asked[0] + 0.3
        self.assertGreater(path.since(start, Health.SUSPECT), answered - start)

    def test_an_idle_path_is_found_dead_by_its_keepalive(self) -> None:
        """Ten seconds after the first that was not answered."""
        path = Path()
        path.run(60.0)
        path.answers = False
        path.asked.clear()
        path.run(60.0)
        self.assertAlmostEqual(DEAD_AFTER, path.since(path.asked[0], Health.DEAD))

    def test_an_answer_ends_the_suspicion(self) -> None:
        """And is told as such, once."""
        path, _ = self.silent()
        path.run(5.0)
        self.assertIs(Health.SUSPECT, path.health.state)
        self.assertTrue(path.health.heard(path.now, RTT))
        self.assertFalse(path.health.heard(path.now, RTT))
        self.assertIs(Health.GOOD, path.health.look(path.now))
        self.assertIsNone(path.health.silent_since)

    def test_what_the_peer_sends_ends_a_silence_but_no_suspicion(self) -> None:
        """It says nothing about the other direction."""
        path, _ = self.silent()
        path.run(0.15)
        self.assertFalse(path.health.heard(path.now))
        path.run(0.15)
        self.assertIs(Health.GOOD, path.health.state)
        path, _ = self.silent()
        path.run(5.0)
        self.assertFalse(path.health.heard(path.now))
        self.assertIs(Health.SUSPECT, path.health.look(path.now))
        path.run(10.0)
        self.assertIs(Health.DEAD, path.health.state)


class ConsentTests(SynchronousTestCase):
    """RFC 7675: data goes only where a check was answered lately."""

    def test_regression_a_path_that_answered_long_ago_is_not_taken_up_again(self) -> None:
        """A pair that had been valid once was sent to for another thirty seconds."""
        health = PathHealth(RTT, 1000.0)
        health.answered_at = 1000.0 - CONSENT
        self.assertIs(Health.DEAD, health.look(1000.0))

    def test_consent_ends_although_packets_come(self) -> None:
        """They say nothing of whether it is wanted."""
        path = Path()
        path.answers = False
        path.send(every=0.5, seconds=60.0)
        for number in range(600):
            path.later(number * 0.1, lambda: path.health.heard(path.now))
        path.run(60.0)
        (when, state) = path.states[-1]
        self.assertIs(Health.DEAD, state)
        self.assertAlmostEqual(1000.0 + CONSENT, when, delta=0.2)


class DoubtTests(SynchronousTestCase):
    """A path on which the peer seems not to hear us."""

    def test_a_doubted_path_is_suspect_and_asked_at_once(self) -> None:
        """Its answer clears it."""
        path = Path()
        path.run(1.5)
        path.health.doubt(path.now)
        self.assertIs(Health.SUSPECT, path.health.state)
        start = path.now
        path.run(1.0)
        self.assertEqual([start], path.asked)
        self.assertIs(Health.GOOD, path.health.state)

    def test_a_doubted_path_without_an_answer_dies(self) -> None:
        """Doubting it again does not keep it."""
        path = Path()
        path.answers = False
        for number in range(100):
            path.later(0.2 * number, lambda: path.health.doubt(path.now))
        path.run(11.0)
        self.assertIs(Health.DEAD, path.health.state)


happenings = st.lists(
    st.tuples(
        st.sampled_from(["sent", "heard", "answered", "doubt"]),
        st.one_of(st.sampled_from([0.0, 0.1, 0.25, 3.0, 15.0]), st.floats(0.0, 20.0)),
        st.floats(0.0, 2.0),
    ),
    max_size=30,
)


class TimerTests(SynchronousTestCase):
    """What the timer says."""

    @given(st.floats(0.0, 2.0), st.floats(0.0, 1e9), happenings)
    def test_time_goes_on_whatever_happens(
        self, rtt: float, now: float, happened: list[tuple[str, float, float]]
    ) -> None:
        """After a look the timer is in the future, and the path is never left unwatched."""
        path = Path(rtt, now)
        path.answers = False
        for what, delay, figure in happened:
            path.run(delay)
            if path.health.state is Health.DEAD:
                break
            if what == "sent":
                path.health.sent(path.now)
            elif what == "doubt":
                path.health.doubt(path.now)
            else:
                path.health.heard(path.now, figure if what == "answered" else None)
            self.assertLessEqual(path.health.get_timer(), path.now + KEEPALIVE_IDLE)

    @given(st.floats(0.0, 1.0), st.floats(0.0, 1e6))
    def test_a_path_that_never_answers_is_asked_a_bounded_number_of_times(
        self, rtt: float, now: float
    ) -> None:
        """Suspicion costs little."""
        path = Path(rtt, now)
        path.answers = False
        path.health.sent(path.now)
        path.run(60.0)
        self.assertIs(Health.DEAD, path.health.state)
        self.assertLessEqual(len(path.asked), 16)
