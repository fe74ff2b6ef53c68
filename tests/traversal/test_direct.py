"""Two searches for the direct way face to face in memory: what they find, keep and give up."""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.reports import ChecksFailed
from p2pnet.traversal.direct import SILENT_AFTER, TRANSITIONS, DirectChanged, DirectState
from p2pnet.traversal.direct_path import REVIVE_EVERY, REVIVE_FOR
from p2pnet.traversal.exchange import RETRIES
from p2pnet.traversal.health import ASK_AFTER, CONSENT, DEAD_AFTER
from p2pnet.wire import path_messages as messages
from p2pnet.wire.address import Address
from p2pnet.wire.check import decode_check, encode_success
from p2pnet.wire.packet_size import BASE
from tests.traversal.ends import AGENT, CONNECTOR, SearchEnd, World

MOVED: Address = ("198.51.100.1", 6000)


class SearchCase(SynchronousTestCase):
    """`agent` controls, `connector` does not; their signals always find a way."""

    def begin(self) -> None:
        """Have the agent begin the first round."""
        self.world = World()
        self.agent = SearchEnd(self.world, AGENT, controlling=True)
        self.connector = SearchEnd(self.world, CONNECTOR, controlling=False)
        self.both = self.agent, self.connector
        self.agent.do(self.agent.machine.begin)

    def connect(self) -> None:
        """Have both find the direct way, and the size of its packets."""
        self.begin()
        self.world.run(3.0)
        self.assert_states(DirectState.GOOD)

    def talk(self, every: float = 0.1, seconds: float = 3600.0) -> None:
        """Have both send packets regularly."""
        until = self.world.now + seconds

        def again() -> None:
            if self.world.now < until:
                for end in self.both:
                    end.send()
                self.world.later(every, again)

        again()

    def assert_states(self, state: DirectState) -> None:
        """Both ends are in this state."""
        self.assertEqual([state] * 2, [end.machine.state for end in self.both])

    def reasons(self, end: SearchEnd, since: float = 0.0) -> list[str]:
        """Why the direct way of an end changed."""
        return [change.reason for change in end.said(DirectChanged, since)]


class StateTests(SearchCase):
    """DirectState and its transitions."""

    def test_the_table_of_transitions_is_total(self) -> None:
        """Every state has an entry, every entry leads to other states, and each can be reached."""
        self.assertEqual(set(DirectState), set(TRANSITIONS))
        for state, following in TRANSITIONS.items():
            self.assertLessEqual(following, set(DirectState) - {state})
        self.assertEqual(set(DirectState), set().union(*TRANSITIONS.values()))

    def test_a_search_finds_the_address_that_answers(self) -> None:
        """Both ends at once."""
        self.connect()
        for end, peer in ((self.agent, CONNECTOR), (self.connector, AGENT)):
            status = end.machine.snapshot()
            self.assertEqual((DirectState.GOOD, peer), (status.state, status.address))
            self.assertAlmostEqual(0.04, status.rtt or 0.0)
            self.assertGreater(status.packet_size, BASE)
            self.assertEqual((0, None), (status.failures, status.next_round))
            self.assertIn("host", self.reasons(end)[0])

    def test_before_the_first_round_there_is_nothing(self) -> None:
        """No way, no timer, and no packet is of interest."""
        self.world = World()
        end = SearchEnd(self.world, AGENT, controlling=True)
        machine = end.machine
        status = machine.snapshot()
        self.assertEqual((DirectState.NONE, None, None, BASE, ()), (
            status.state, status.address, status.rtt, status.packet_size, status.pairs
        ))  # fmt: skip
        self.assertEqual(math.inf, machine.get_timer())
        self.assertIsNone(machine.sent(0.0))
        machine.heard(CONNECTOR, 0.0)
        self.assertFalse(machine.heard_relayed(0.0, 0.04))
        self.assertFalse(machine.doubt(0.0))
        machine.black_hole(0.0)
        machine.handle_timer(0.0)
        forged = decode_check(encode_success(bytes(12), AGENT, "a guess"))
        self.assertFalse(machine.receive_check(forged, CONNECTOR, 0.0))
        self.assertFalse(machine.has_news)
        self.assertIsNone(machine.next_event())

    def test_silence_leads_from_state_to_state(self) -> None:
        """Each change has its reason; packets of the last one still arrive by a relay."""
        self.connect()
        self.talk()
        self.world.direct.is_cut = True
        cut = self.world.now
        seen = []
        for seconds in (0.5, 1.5, DEAD_AFTER):
            self.world.run(seconds)
            seen.append(self.agent.machine.state)
        self.assertEqual([DirectState.DOUBTFUL, DirectState.SILENT, DirectState.NONE], seen)
        changes = self.agent.said(DirectChanged, cut)
        self.assertEqual([False, True, False], [change.arrives for change in changes])
        self.assertEqual("it is silent", changes[0].reason)
        self.assertEqual("198.51.100.1:5000 is silent", changes[2].reason)
        ours = [failed.reason for failed in self.agent.said(ChecksFailed) if failed.retry_in]
        self.assertEqual(["the direct path went silent"], ours)

    def test_regression_a_doubtful_path_is_silent_in_time(self) -> None:
        """The timer was forgotten, so that it waited for the next check, up to a second later."""
        self.connect()
        self.agent.send()
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run_until(lambda: self.agent.machine.state is DirectState.SILENT, 5.0)
        self.assertApproximates(SILENT_AFTER, self.world.now - cut, 0.001)

    def test_the_doubt_of_a_slow_path_lasts_as_long_as_the_silence_before_it(self) -> None:
        """A round trip of two seconds: its packets are still under way."""
        self.begin()
        self.world.direct.delay = 1.0
        self.world.run(20.0)
        self.agent.send()
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run_until(lambda: self.agent.machine.state is DirectState.DOUBTFUL, 10.0)
        doubt = self.world.now - cut
        self.assertGreater(doubt, 2.0)
        self.world.run_until(lambda: self.agent.machine.state is DirectState.SILENT, 10.0)
        self.assertAlmostEqual(2 * doubt, self.world.now - cut, 3)

    def test_an_answer_ends_the_doubt(self) -> None:
        """The state is good again, and the size is searched anew."""
        self.connect()
        self.talk()
        self.world.direct.is_cut = True
        self.world.run(0.5)
        self.world.direct.is_cut = False
        self.world.run(0.5)
        self.assert_states(DirectState.GOOD)
        self.assertEqual("it answers again", self.reasons(self.agent)[-1])

    def test_packets_of_the_peer_do_not_end_the_doubt(self) -> None:
        """They say nothing of the other direction."""
        self.connect()
        now = self.world.now
        self.assertTrue(self.agent.machine.doubt(now))
        self.agent.machine.heard(CONNECTOR, now)
        self.assertIs(DirectState.DOUBTFUL, self.agent.machine.state)

    def test_without_consent_the_path_is_given_up(self) -> None:
        """Checks stay unanswered for 30 s, whatever packets arrive (RFC 7675)."""
        self.connect()
        start = self.world.now

        def hear() -> None:
            self.agent.machine.heard(CONNECTOR, self.world.now)
            self.world.later(0.05, hear)

        self.world.direct.is_cut = True
        hear()
        self.world.run(CONSENT - 4.0)  # the last answer came a while ago
        self.assertIsNotNone(self.agent.machine.path)
        self.world.run(5.0)
        self.assertIsNone(self.agent.machine.path)
        self.assertIn("198.51.100.1:5000 is silent", self.reasons(self.agent, start))

    def test_a_path_without_base_is_silent_though_it_answers(self) -> None:
        """Only checks are as small as that."""
        self.begin()
        self.world.direct.mtu = 1000
        self.world.run(6.0)
        self.assert_states(DirectState.SILENT)
        self.assertEqual(
            f"packets of {BASE} bytes do not get through", self.reasons(self.agent)[-1]
        )
        before = len(self.agent.events)
        self.world.run(10.0)
        self.assertEqual(before, len(self.agent.events))


class PacketTests(SearchCase):
    """What travels on the path."""

    def test_the_first_packet_without_an_answer_has_a_check_follow(self) -> None:
        """The time is returned once; an answer begins anew."""
        self.connect()
        machine, now = self.agent.machine, self.world.now
        self.assertEqual(now + ASK_AFTER, machine.sent(now))
        self.assertIsNone(machine.sent(now + 0.01))
        machine.heard(CONNECTOR, now + 0.05)
        self.assertEqual(now + 0.06 + ASK_AFTER, machine.sent(now + 0.06))

    def test_only_the_peers_address_counts(self) -> None:
        """A packet from elsewhere says nothing of the path."""
        self.connect()
        machine, now = self.agent.machine, self.world.now
        machine.sent(now)
        machine.heard(MOVED, now + 0.05)
        self.assertIsNone(machine.sent(now + 0.06))

    def test_relayed_packets_are_a_doubt_after_the_grace_period(self) -> None:
        """The peer was sending directly before."""
        self.connect()
        self.connector.send()
        self.world.run(0.5)
        machine = self.agent.machine
        self.assertFalse(machine.heard_relayed(self.world.now, 0.04))
        self.world.run(2.0)
        self.assertTrue(machine.heard_relayed(self.world.now, 0.04))
        self.assertIs(DirectState.DOUBTFUL, machine.state)
        self.world.run(1.0)
        self.assertIs(DirectState.GOOD, machine.state)

    def test_after_a_black_hole_packets_have_base(self) -> None:
        """Then the size is searched again."""
        self.connect()
        found = self.agent.machine.snapshot().packet_size
        self.agent.do(self.agent.machine.black_hole)
        self.assertEqual(BASE, self.agent.machine.snapshot().packet_size)
        self.world.run(5.0)
        self.assertEqual(found, self.agent.machine.snapshot().packet_size)


class RevivalTests(SearchCase):
    """A pair that was given up."""

    def lose(self) -> float:
        """Have both give the path up, without signals; returns when the line was cut."""
        self.connect()
        cut = self.world.now
        self.world.direct.is_cut = self.world.signals.is_cut = True
        self.talk(seconds=1.0)
        self.world.run(DEAD_AFTER + 2.0)
        self.assert_states(DirectState.NONE)
        return cut

    def test_it_is_checked_every_few_seconds_and_used_when_it_answers(self) -> None:
        """By both ends, so that NATs stay open."""
        self.lose()
        before = len(self.connector.checks)
        self.world.run(10 * REVIVE_EVERY)
        self.assertEqual(10, len(self.connector.checks) - before)
        self.world.direct.is_cut = False
        self.world.run(REVIVE_EVERY + 1.0)
        self.assert_states(DirectState.GOOD)

    def test_after_ten_minutes_only_rounds_look_for_a_way(self) -> None:
        """Nothing is due at the end that does not offer."""
        self.lose()
        self.world.run(REVIVE_FOR + REVIVE_EVERY)
        self.assertEqual(math.inf, self.connector.machine.get_timer())
        self.assertGreater(self.agent.machine.snapshot().failures, len(RETRIES))

    def test_a_peer_that_moved_replaces_the_silent_path(self) -> None:
        """Its checks come from elsewhere, and ours are answered there."""
        self.connect()
        self.talk()
        self.connector.move(MOVED)
        self.world.run(3.0)
        self.assertEqual(MOVED, self.agent.machine.snapshot().address)
        self.assert_states(DirectState.GOOD)


class RoundTests(SearchCase):
    """When rounds begin and how they end."""

    def offers(self) -> int:
        """The rounds that the agent began."""
        return len(self.agent.signalled(messages.CandidateOffer))

    def test_with_a_path_no_round_begins(self) -> None:
        """Relays may come and candidates change."""
        self.connect()
        self.agent.do(self.agent.machine.begin)
        self.agent.do(self.agent.machine.candidates_changed)
        self.connector.do(self.connector.machine.candidates_changed)
        self.world.run(1.0)
        self.assertEqual(1, self.offers())

    def test_another_network_has_the_path_checked_or_a_round_begun(self) -> None:
        """As far as there was a round before."""
        self.connect()
        before = len(self.agent.checks)
        self.agent.do(self.agent.machine.network_changed)
        self.assertEqual(before + 1, len(self.agent.checks))
        self.begin()
        self.world.signals.is_cut = True
        self.agent.do(self.agent.machine.network_changed)
        self.connector.do(self.connector.machine.network_changed)
        self.assertEqual(2, self.offers())

    def test_without_an_answer_to_any_check_the_round_fails_on_both_ends(self) -> None:
        """The peer learns it, and the next round is planned."""
        self.begin()
        self.world.direct.is_cut = True
        self.world.run(9.0)
        for end in self.both:
            self.assertIn("no check was answered", [f.reason for f in end.said(ChecksFailed)])
        self.assertIsNotNone(self.agent.machine.snapshot().next_round)
        (pair,) = self.connector.machine.snapshot().pairs
        self.assertEqual(AGENT, pair.address)
        unanswered: list[Any] = [event for _, event in self.agent.events]
        self.assertNotIn(DirectChanged, map(type, unanswered))
