"""Two `Paths` face to face in memory: which ways a session takes, when, and why."""

from __future__ import annotations

import itertools

from p2pnet.reports import (
    CandidatesExchanged,
    ChecksFailed,
    ChecksStarted,
    PathSelected,
)
from p2pnet.traversal.direct import DirectState
from p2pnet.traversal.health import ASK_AFTER, DEAD_AFTER
from p2pnet.traversal.path_events import PeerGone, WaysChanged
from p2pnet.traversal.paths import FAREWELL
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire.address import Address
from p2pnet.wire.check import decode_check, encode_success
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.packet_size import BASE
from p2pnet.wire.path_messages import CandidateOffer
from tests.traversal.ends import AGENT, CONNECTOR, OTHER_RELAY, RELAY, SESSION
from tests.traversal.path_ends import PathsCase, describe

USUAL = 1452  # bytes of a packet on a path of Ethernet's MTU
MOVED: Address = ("198.51.100.1", 6000)


class PhaseTests(PathsCase):
    """From the relay to the direct way, and back."""

    def test_a_session_begins_relayed_and_is_direct_within_a_quarter_of_a_second(self) -> None:
        """An offer, an answer, and one check each way."""
        self.begin()
        self.assert_ways("relayed")
        self.world.run(0.25)
        self.assert_ways("direct")
        for end in self.both:
            self.assertEqual(["relayed", "direct"], end.ways())
            self.assertEqual(["relayed", "direct"], [s.path for s in end.said(PathSelected)])
            self.assertEqual([], end.said(ChecksFailed))
        (exchanged,) = self.agent.said(CandidatesExchanged)
        self.assertIn("host 203.0.113.1:5000", exchanged.local)
        self.assertIn("host 198.51.100.1:5000", exchanged.remote)
        (started,) = self.connector.said(ChecksStarted)
        self.assertEqual((0.05, 1), (started.delay, started.pairs))

    def test_the_first_way_and_a_new_way_say_whether_packets_got_lost(self) -> None:
        """Packets without a way are lost; those on a working way still arrive."""
        self.connect()
        first, second = self.agent.said(WaysChanged)
        self.assertEqual((True, False), (first.lost, second.lost))
        self.assertEqual((False, False), (first.planned, second.planned))

    def test_silence_is_doubt_then_both_ways_then_the_relay_alone(self) -> None:
        """Within 0.4 s packets take both ways, and a second later the direct way only has checks.

        Then what was sent before still arrives through the relay.
        """
        self.connect()
        for end in self.both:
            end.talk()
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run(8.0)
        for end in self.both:
            self.assertEqual(["both", "relayed"], end.ways(cut))
            self.assertApproximates(0.25, end.when("both", cut) - cut, 0.15)
            self.assertApproximates(1.2, end.when("relayed", cut) - cut, 0.3)
            doubt, silence = end.said(WaysChanged, cut)
            self.assertEqual((True, False), (doubt.lost, doubt.planned))
            self.assertTrue(silence.planned)
            self.assertTrue(end.machine.is_direct_doubtful)
        self.world.direct.is_cut = False
        self.world.run(1.5)
        self.assert_ways("direct")
        self.assertEqual([], self.agent.said(ChecksFailed))

    def test_packets_arrive_without_a_gap_while_the_direct_way_dies(self) -> None:
        """The relay repeats them as soon as there is doubt."""
        self.connect()
        self.agent.talk(every=0.05)
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run(5.0)
        times = [at for at, _, _ in self.connector.received if at >= cut - 0.1]
        self.assertLess(max(b - a for a, b in itertools.pairwise(times)), 0.4)

    def test_a_dead_way_is_given_up_after_ten_seconds_and_revived_by_a_check(self) -> None:
        """Both ends check it every four seconds; no signal is needed for that."""
        self.connect()
        self.agent.talk()
        self.world.direct.is_cut = self.world.signals.is_cut = True
        cut = self.world.now
        self.world.run(DEAD_AFTER + 10.0)
        for end in self.both:
            self.assertIs(DirectState.NONE, end.machine.snapshot().direct.state)
            self.assertIn("silent", end.said(ChecksFailed)[0].reason)
        self.world.direct.is_cut = False
        back = self.world.now
        self.world.run(5.0)
        self.assert_ways("direct")
        self.assertEqual(["both", "relayed", "direct"], self.agent.ways(cut))
        self.assertLess(self.agent.when("direct", back) - back, 4.5)

    def test_an_idle_session_stays_direct(self) -> None:
        """Its checks are answered: nothing is reported, and few are sent."""
        self.connect()
        start, sent = self.world.now, len(self.agent.checks)
        self.world.run(600.0)
        self.assert_ways("direct")
        self.assertEqual([], [event for at, event in self.agent.events if at > start])
        self.assertLess(len(self.agent.checks) - sent, 60)

    def test_a_peer_that_doubts_makes_this_end_doubt(self) -> None:
        """Its packets come through the relay: it may receive none of ours directly."""
        self.connect()
        for end in self.both:
            end.send()
        self.world.run(3.0)
        now = self.world.now
        self.connector.machine.using = tuple(self.connector.machine.relays.values())
        self.connector.send()
        self.world.direct.is_cut = True
        self.world.run(0.05)
        self.assertEqual(["both"], self.agent.ways(now))

    def test_a_straggler_on_the_relay_is_no_doubt(self) -> None:
        """In the second after the peer went direct, its relayed packets are late ones."""
        self.begin()
        self.agent.talk(every=0.02)
        self.connector.talk(every=0.02)
        self.world.relays[RELAY].delay = 0.5
        self.world.run(10.0)
        self.assertEqual(["relayed", "direct"], self.agent.ways())

    def test_a_refuted_doubt_lengthens_the_grace_of_stragglers(self) -> None:
        """A peer that keeps sending through the relay is doubted ever less often."""
        self.connect()
        self.connector.send()
        self.world.run(2.0)
        doubts = []
        for _ in range(400):
            self.world.run(0.1)
            self.connector._number += 1
            packet = (self.connector._number, 0, False)
            self.agent.hear(packet, CONNECTOR, RELAY, None)
            if self.agent.kinds == ["direct", "relayed"]:
                doubts.append(self.world.now)
                self.world.run(0.2)
        gaps = [b - a for a, b in itertools.pairwise(doubts)]
        self.assertGreater(len(gaps), 2)
        for shorter, longer in itertools.pairwise(gaps):
            self.assertGreater(longer, 1.5 * shorter)

    def test_a_forged_check_is_refused(self) -> None:
        """Before and after the exchange of candidates."""
        self.meet()
        forged = decode_check(encode_success(bytes(12), AGENT, "a guess"))
        self.assertFalse(self.agent.machine.receive_check(forged, CONNECTOR, 0.0))
        self.connect()
        self.assertFalse(self.agent.machine.receive_check(forged, CONNECTOR, self.world.now))
        self.assertFalse(self.agent.machine.has_news)

    def test_the_direct_way_leads_to_the_address_that_answered(self) -> None:
        """And to no other; to none before."""
        self.begin()
        self.assertFalse(self.agent.machine.leads_to(CONNECTOR))
        self.connect()
        self.assertTrue(self.agent.machine.leads_to(CONNECTOR))
        self.assertFalse(self.agent.machine.leads_to(MOVED))

    def test_the_tag_starts_the_transaction_ids(self) -> None:
        """So that a node finds the session of an answer."""
        self.connect()
        for end in self.both:
            for _, out in end.checks:
                self.assertTrue(decode_check(out.data).transaction_id.startswith(end.machine.tag))


class FarewellTests(PathsCase):
    """An Intermediate says that the peer ended the session."""

    def report(self) -> None:
        """It says so now."""
        machine = self.agent.machine
        self.agent.do(
            lambda now: machine.farewell(ErrorCode.NO_ERROR, "the peer closed the session", now)
        )

    def test_it_is_believed_at_once_without_any_way(self) -> None:
        """Nobody contradicts."""
        self.begin(SELECTORS["relay-only"]())
        self.agent.do(self.agent.machine.remove_relay, RELAY, "closed")
        self.report()
        gone = PeerGone(ErrorCode.NO_ERROR, "the peer closed the session")
        self.assertEqual([gone], self.agent.said(PeerGone))

    def test_it_is_believed_after_two_seconds_of_silence(self) -> None:
        """The direct way is checked at once."""
        self.connect()
        self.world.direct.is_cut = True
        word = self.world.now
        self.report()
        self.world.run_until(lambda: self.agent.said(PeerGone), 5.0)
        self.assertApproximates(FAREWELL, self.world.now - word, 1.0)

    def test_regression_silence_confirms_it_in_time_and_once(self) -> None:
        """The timer was forgotten, so that it waited for the next check, up to a second later."""
        self.connect()
        self.world.direct.is_cut = True
        word = self.world.now
        self.report()
        self.world.run_until(lambda: self.agent.said(PeerGone), 5.0)
        self.assertApproximates(FAREWELL - ASK_AFTER, self.world.now - word, 0.001)
        self.world.run(5.0)
        self.assertEqual(1, len(self.agent.said(PeerGone)))

    def test_it_is_refuted_by_the_answer_of_a_check(self) -> None:
        """Whoever said so; and it stays refuted when the way is silent later."""
        self.connect()
        self.report()
        self.world.run(5.0)
        self.assertEqual([], self.agent.said(PeerGone))
        self.assertTrue(self.agent.is_direct)
        self.agent.talk()
        self.world.direct.is_cut = True
        self.world.run(30.0)
        self.assertEqual([], self.agent.said(PeerGone))

    def test_another_relay_contradicts(self) -> None:
        """The session goes on there."""
        self.begin(SELECTORS["relay-only"]())
        self.add_relay(OTHER_RELAY)
        self.agent.do(self.agent.machine.remove_relay, RELAY, "closed")
        self.report()
        self.world.run(5.0)
        self.assertEqual([], self.agent.said(PeerGone))


class PolicyTests(PathsCase):
    """What the four selectors make of the ways."""

    def use(self, name: str, delay: float = 0.02) -> None:
        """Begin under a policy, and let there be traffic."""
        self.begin(SELECTORS[name]())
        self.world.direct.delay = delay
        self.agent.talk()
        self.connector.talk()
        self.world.run(3.0)

    def test_prefer_direct_is_direct_however_slow(self) -> None:
        """The relay is faster here."""
        self.use("prefer-direct", delay=0.3)
        self.assert_ways("direct")

    def test_lowest_rtt_is_direct_only_where_that_is_faster(self) -> None:
        """By 30 %: 20 ms against 40, and 38 against 40."""
        self.use("lowest-rtt", delay=0.01)
        self.assert_ways("direct")
        self.use("lowest-rtt", delay=0.019)
        self.assert_ways("relayed")
        self.assertEqual(BASE, self.agent.machine.packet_size)
        self.assertIs(DirectState.GOOD, self.agent.machine.snapshot().direct.state)

    def test_relay_only_offers_nothing(self) -> None:
        """No signal, no check, no opener; another network changes nothing."""
        self.use("relay-only")
        self.agent.do(self.agent.machine.network_changed)
        self.agent.do(self.agent.machine.candidates_changed)
        self.assert_ways("relayed")
        self.assertEqual(([], []), (self.agent.signals, self.agent.sent))

    def test_direct_only_waits_for_the_direct_way_and_keeps_to_it(self) -> None:
        """Relays carry messages about paths alone, also amid doubt and when the way is dead."""
        self.begin(SELECTORS["direct-only"]())
        self.assert_ways("relayed")
        self.assertFalse(self.agent.machine.carry_data)
        self.world.run(1.0)
        self.assert_ways("direct")
        self.agent.talk()
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run(DEAD_AFTER + 1.0)
        self.assertEqual(["both", "relayed"], self.agent.ways(cut)[:2])
        changes = self.agent.said(WaysChanged)
        for change in changes:
            self.assertEqual(change.carry_data, describe(change.ways) == "direct")
        paths = [said.path for said in self.agent.said(PathSelected)]
        self.assertEqual(["none", "direct", "direct", "none"], paths[:4])

    def test_the_connector_follows_the_policy_of_an_offer(self) -> None:
        """An Intermediate, which introduces the two, could lie about the policy."""
        self.begin(SELECTORS["direct-only"](), SELECTORS["prefer-direct"]())
        self.world.run(1.0)
        self.assertEqual("direct-only", self.connector.machine.snapshot().policy)

    def test_regression_the_policy_of_an_offer_counts_at_once(self) -> None:
        """The connector answered by the relay what came directly, until its own way was proven."""
        self.begin(SELECTORS["direct-only"](), SELECTORS["prefer-direct"]())
        self.world.run_until(lambda: self.agent.signalled(CandidateOffer))
        self.world.run(self.world.signals.delay)
        self.assertEqual(["relayed"], self.connector.kinds)
        self.assertFalse(self.connector.said(WaysChanged)[-1].carry_data)

    def test_a_connector_cannot_change_the_policy_of_an_agent(self) -> None:
        """By an offer, which is not its to make: the agent's data would go through relays."""
        self.begin(SELECTORS["direct-only"]())
        offer = CandidateOffer("AAAAAAAA", "A" * 24, (), "prefer-direct")
        self.agent.do(self.agent.machine.take_signal, offer, 0.0)
        self.assertEqual("direct-only", self.agent.machine.snapshot().policy)
        self.assertFalse(self.agent.machine.carry_data)


class SnapshotTests(PathsCase):
    """What there is, in each phase."""

    def test_each_phase_has_its_state(self) -> None:
        """From nothing to the end of the direct way."""
        self.meet()
        empty = self.agent.machine.snapshot()
        self.assertEqual((SESSION.hex(), "prefer-direct"), (empty.session, empty.policy))
        self.assertEqual(((), BASE, ()), (empty.using, empty.packet_size, empty.relays))
        self.assertEqual((None, ()), (empty.direct.address, empty.direct.pairs))
        self.add_relay()
        self.agent.send()
        relayed = self.agent.machine.snapshot()
        self.assertEqual([RELAY], [relay.address for relay in relayed.relays])
        self.assertEqual((0.04, True), (relayed.relays[0].cost, relayed.relays[0].in_use))
        self.assertEqual(0.04, relayed.relay_rtt)
        self.assertIs(DirectState.NONE, relayed.direct.state)
        self.world.run(3.0)
        good = self.agent.machine.snapshot()
        self.assertIs(DirectState.GOOD, good.direct.state)
        self.assertEqual((CONNECTOR, USUAL), (good.direct.address, good.direct.packet_size))
        self.assertAlmostEqual(0.04, good.direct.rtt or 0.0)
        (pair,) = good.direct.pairs
        self.assertTrue(pair.nominated)
        self.agent.talk()
        self.world.direct.is_cut = True
        states = []
        for seconds in (0.5, 1.5, 9.0):
            self.world.run(seconds)
            states.append(self.agent.machine.snapshot().direct.state)
        self.assertEqual([DirectState.DOUBTFUL, DirectState.SILENT, DirectState.NONE], states)
        dead = self.agent.machine.snapshot().direct
        self.assertEqual((None, None, 1), (dead.address, dead.rtt, dead.failures))
        self.assertGreater(dead.next_round or 0.0, self.world.now)


class NewsTests(PathsCase):
    """has_news and get_timer(): a caller that follows them misses nothing."""

    def test_get_timer_ends_the_news(self) -> None:
        """And there is news again after whatever changes something."""
        self.meet()
        machine = self.agent.machine
        self.assertFalse(machine.has_news)
        machine.add_relay(RELAY, bytes(8), 0.04, "granted", 0.0)
        self.assertTrue(machine.has_news)
        machine.get_timer()
        self.assertFalse(machine.has_news)
        machine.handle_timer(5.0)
        self.assertTrue(machine.has_news)

    def test_packets_are_no_news_while_all_is_well(self) -> None:
        """An answer that was expected changes nothing, directly or through a relay."""
        self.connect()
        machine, now = self.agent.machine, self.world.now
        machine.sent(now, answer_due=True, rtt=0.04)
        self.assertTrue(machine.has_news)  # the check that follows silence
        machine.get_timer()
        machine.heard(CONNECTOR, now + 0.04)
        machine.heard(MOVED, now + 0.04)
        machine.heard_relayed(RELAY, now + 0.05)
        self.assertFalse(machine.has_news)

    def test_the_answer_of_a_keepalive_is_no_news(self) -> None:
        """It puts everything off."""
        self.connect()
        machine, now = self.agent.machine, self.world.now
        machine.network_changed(now)
        (request,) = machine.datagrams_to_send()
        machine.get_timer()
        self.connector.do(self.connector.machine.receive_check, decode_check(request.data), AGENT)
        answer = self.connector.sent[-1][1]
        check = decode_check(answer.data)
        self.assertTrue(machine.receive_check(check, CONNECTOR, now + 0.04))
        self.assertFalse(machine.has_news)
