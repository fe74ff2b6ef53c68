"""What a node may send to addresses that proved nothing."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.budget import (
    BURST,
    MAX_HOSTS,
    MAX_PORTS,
    MAX_UNPROVEN,
    MEMORY,
    PACING,
    PATIENCE,
    SHARES,
    Cause,
    SendBudget,
    host_of,
)
from p2pnet.wire.address import Address

VICTIM: Address = ("198.18.0.99", 5000)


def session(number: int) -> bytes:
    """The name of a session."""
    return number.to_bytes(2, "big")


class HostTests(SynchronousTestCase):
    """How many packets a host gets."""

    def setUp(self) -> None:
        """A budget that was never used."""
        self.budget = SendBudget()

    def sent(self, address: Address, cause: Cause, now: float, tries: int = 300) -> int:
        """How many of so many packets may go to an address at once."""
        return sum(self.budget.allows(address, cause, now) for _ in range(tries))

    def test_the_shares_are_the_whole(self) -> None:
        """Each cause has one."""
        self.assertEqual(set(Cause), set(SHARES))
        self.assertEqual(MAX_UNPROVEN, sum(SHARES.values()))

    def test_half_of_a_share_goes_at_once_and_the_rest_in_ten_minutes(self) -> None:
        """A cause never uses what another may need."""
        self.assertEqual(75, self.sent(VICTIM, Cause.NAMED, 0.0))
        self.assertEqual(25, self.sent(VICTIM, Cause.ASKED, 0.0))
        self.assertEqual(75, self.sent(VICTIM, Cause.NAMED, MEMORY))
        self.assertEqual(25, self.sent(VICTIM, Cause.ASKED, MEMORY))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 40)), max_size=120))
    def test_no_ten_minutes_have_more_than_200_packets(
        self, bursts: list[tuple[float, int]]
    ) -> None:
        """Whatever is tried when, for whatever cause, at whatever ports."""
        self.budget = SendBudget()
        now, sent = 0.0, list[float]()
        for (pause, tries), cause in zip(bursts, itertools.cycle(Cause), strict=False):
            now += pause
            for number in range(tries):
                address = VICTIM[0], 5000 + number % 7
                sent += [now] * self.budget.allows(address, cause, now)
        for start in sent:
            self.assertLessEqual(sum(start <= at < start + MEMORY for at in sent), MAX_UNPROVEN)

    def test_four_ports_of_a_host_are_checked(self) -> None:
        """Others have their chance when these were left for ten minutes; requests prove more."""
        ports = [(VICTIM[0], 5000 + number) for number in range(MAX_PORTS + 1)]
        self.assertEqual([1, 1, 1, 1, 0], [self.sent(p, Cause.NAMED, 0.0, 1) for p in ports])
        self.assertEqual(1, self.sent(ports[-1], Cause.ASKED, 0.0, 1))
        self.assertEqual(1, self.sent(ports[0], Cause.NAMED, 1.0, 1))
        self.assertEqual(0, self.sent(ports[-1], Cause.NAMED, MEMORY - 1.0, 1))
        self.assertEqual(1, self.sent(ports[-1], Cause.NAMED, MEMORY, 1))

    def test_a_host_that_answered_is_not_counted_for_ten_minutes(self) -> None:
        """None of its ports."""
        self.sent(VICTIM, Cause.NAMED, 0.0)
        self.budget.answered(("198.18.0.99", 6000), 1.0)
        self.assertEqual(300, self.sent(("198.18.0.99", 7000), Cause.NAMED, MEMORY))
        self.assertLess(self.sent(VICTIM, Cause.NAMED, MEMORY + 1.0), 300)

    def test_an_answer_of_a_host_that_got_nothing_is_no_news(self) -> None:
        """Such a host was forgotten meanwhile."""
        self.budget.answered(VICTIM, 0.0)
        self.assertEqual(75, self.sent(VICTIM, Cause.NAMED, 0.0))

    def test_a_64_is_one_host(self) -> None:
        """Anybody has as many addresses of it as there are."""
        self.assertEqual(host_of(("2001:db8::1", 1)), host_of(("2001:db8::2:3", 2)))
        self.assertNotEqual(host_of(("2001:db8::1", 1)), host_of(("2001:db8:0:1::1", 1)))
        self.assertNotEqual(host_of(("192.0.2.1", 1)), host_of(("192.0.2.2", 1)))

    def test_other_hosts_do_not_make_a_count_forgotten(self) -> None:
        """Not even when there is no room for more; those that are idle make room."""
        self.sent(VICTIM, Cause.NAMED, 0.0)
        for number in range(2 * MAX_HOSTS):
            self.sent((f"10.{number >> 8}.{number & 255}.1", 5000), Cause.NAMED, number / 100, 1)
            self.assertEqual(0, self.sent(VICTIM, Cause.NAMED, 0.0, 1))
        self.assertEqual(MAX_HOSTS, len(self.budget._hosts))

    def test_hosts_without_room_share_one_count(self) -> None:
        """All others got packets a moment ago, which pacing prevents."""
        for number in range(MAX_HOSTS):
            self.sent((f"10.{number >> 8}.{number & 255}.1", 5000), Cause.ASKED, 0.0, 1)
        sent = [self.sent((f"172.16.0.{n}", 5000), Cause.ASKED, 0.0, 1) for n in range(100)]
        self.assertEqual(25, sum(sent))
        self.assertEqual(MAX_HOSTS, len(self.budget._hosts))


class TurnTests(SynchronousTestCase):
    """How many packets leave in a second, and whose."""

    def setUp(self) -> None:
        """A budget that was never used."""
        self.budget = SendBudget()

    def use_up(self, now: float = 0.0) -> None:
        """Leave no packet for the moment."""
        while self.budget.take_spare(now):
            pass

    def play(self, sessions: int, seconds: float, since: float = 0.0) -> list[tuple[float, int]]:
        """Let so many sessions send all that they may: when which of them sent."""
        due = dict.fromkeys(range(sessions), since)
        sent = []
        while min(due.values()) < since + seconds:
            now, number = min((at, number) for number, at in due.items())
            due[number] = self.budget.turn(session(number), now)
            if due[number] == now:
                sent.append((now, number))
                due[number] = now + PACING
        return sent

    def test_a_session_alone_never_waits(self) -> None:
        """Its own pace is that of the node."""
        self.use_up()
        sent = self.play(1, 10.0, since=PACING)
        self.assertApproximates(10.0 / PACING, len(sent), 1)

    def test_many_sessions_share_one_pace_and_take_turns(self) -> None:
        """As many packets as of one session; none gets two more than another."""
        self.use_up()
        sent = self.play(128, 20.0)
        self.assertApproximates(20.0 / PACING, len(sent), 2)
        counts = [sum(number == who for _, number in sent) for who in range(128)]
        self.assertLessEqual(max(counts) - min(counts), 1)

    def test_the_burst_is_for_openers(self) -> None:
        """Who would have to wait sends none, and none goes before a session that waits."""
        self.assertEqual([True] * BURST + [False], [
            self.budget.take_spare(0.0) for _ in range(BURST + 1)
        ])  # fmt: skip
        turn = self.budget.turn(session(1), 0.0)
        self.assertAlmostEqual(PACING, turn)
        self.assertFalse(self.budget.take_spare(turn))
        self.assertEqual(turn, self.budget.turn(session(1), turn))
        self.assertTrue(self.budget.take_spare(turn + PACING))

    def test_a_session_that_ended_or_was_late_delays_nobody(self) -> None:
        """Others come after those only that wait."""
        self.use_up()
        for number in range(100):
            self.budget.turn(session(number), 0.0)
        for number in range(50):
            self.budget.leave(session(number))
        self.assertAlmostEqual(51 * PACING, self.budget.turn(session(200), 0.0))
        self.assertEqual(5.0 + PATIENCE, self.budget.turn(session(201), 5.0 + PATIENCE))

    def test_a_session_whose_turn_another_took_is_next(self) -> None:
        """It asks again at the time that it learns."""
        self.use_up()
        first, second = (self.budget.turn(session(number), 0.0) for number in (1, 2))
        self.assertEqual(second, self.budget.turn(session(2), second))
        self.assertAlmostEqual(second, self.budget.turn(session(1), second), 6)
        self.assertLess(first, second)
