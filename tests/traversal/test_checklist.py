"""Two check lists and a network between them: who is checked when, and what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from p2pnet.testing.nat import Filtering, Mapping, NATBox
from p2pnet.testing.network import Link
from p2pnet.traversal.budget import Cause, SendBudget
from p2pnet.traversal.candidate import Candidate, CandidateType, gather_relay_candidate
from p2pnet.traversal.checklist import (
    GIVE_UP,
    ChecksExhausted,
    PairNominated,
    PairSucceeded,
)
from p2pnet.traversal.pair import PairState
from p2pnet.wire.check import ROLE_CONFLICT, decode_check, encode_error
from tests.traversal.support import (
    TOLERANCE,
    CheckListCase,
    Internet,
    Peer,
    begin,
    candidate,
    host,
    introduce,
)

NOWHERE = [(f"192.0.2.{100 + number}", 2000 + number) for number in range(16)]


def gaps(times: Iterable[float]) -> list[int]:
    """Milliseconds between moments."""
    return [round(1000 * (b - a)) for a, b in itertools.pairwise(times)]


class NominationTests(CheckListCase):
    """RFC 8445 section 8.1: one pair stays."""

    def test_two_open_hosts_settle_in_two_round_trips(self) -> None:
        """One to prove the pair, one to nominate it; then all is quiet."""
        one, other = self.connect()
        self.net.run(0.081)
        self.assert_settled(one, other)
        for peer in (one, other):
            self.assertEqual([PairSucceeded, PairNominated], [type(e) for e in peer.events])
            self.assertAlmostEqual(0.04, peer.events[0].pair.rtt)  # type: ignore[union-attr]
        self.assert_quiet(one, other)

    def test_only_the_controlling_side_nominates_and_only_one_pair(self) -> None:
        """Also when packets are lost, doubled and reordered."""
        for seed in range(20):
            bad = Link(delay=0.02, jitter=0.1, loss=0.3, duplication=0.3)
            one, other = self.connect(seed, bad)
            self.net.run(20.0)
            self.assert_settled(one, other)
            nominations = [sent for sent in one.requests if sent.check.nominates]
            self.assertEqual({other.local.address}, {sent.destination for sent in nominations})
            self.assertEqual([], [sent for sent in other.requests if sent.check.nominates])
            self.assert_quiet(one, other)

    def test_a_nomination_is_repeated_until_it_is_answered(self) -> None:
        """As often as any check; the first answer ends it."""
        one, other = self.connect()
        self.net.run_until(lambda: one.happened(PairSucceeded))
        self.cut(other, one)
        self.net.run(3.0)
        nominations = [sent.at for sent in one.requests if sent.check.nominates]
        self.assertEqual([50, 100, 200, 400, 800, 1000], gaps(nominations))
        self.assertIsNone(one.checks.selected)
        self.cut(other, one, link=Link(delay=0.02))
        self.net.run(1.1)
        self.assert_settled(one, other)
        self.assertEqual(1, len(one.happened(PairNominated)))
        self.assert_quiet(one, other)

    def test_regression_a_nomination_that_is_never_answered_is_given_up(self) -> None:
        """It was repeated every second for ever. The pair fails like one that was never valid."""
        one, other = self.connect()
        self.net.run_until(lambda: one.happened(PairSucceeded))
        self.cut(other, one)
        self.net.run(9.0)
        self.assertIs(PairState.FAILED, one.checks.pairs[other.local.address].state)
        self.assertIsNone(one.checks.best_valid())
        self.assertEqual(1, len(one.happened(ChecksExhausted)))
        self.assert_quiet(one, other)

    def test_regression_an_answer_that_comes_after_the_pair_failed_selects_nothing(self) -> None:
        """A nomination's answer was on its way when the path was given up."""
        one, other = self.connect()
        self.net.run_until(lambda: any(sent.check.nominates for sent in one.requests))
        (pair,) = one.checks.pairs.values()
        one.checks.fail(pair)
        self.net.run(1.0)
        self.assertIsNone(one.checks.selected)
        self.assertEqual([], one.happened(PairNominated))
        one.start()
        self.net.run(1.0)
        self.assert_settled(one, other)


class RoleTests(CheckListCase):
    """RFC 8445 section 7.3.1.1: the larger tie-breaker controls."""

    def test_a_role_conflict_is_resolved_whoever_has_the_larger_tie_breaker(self) -> None:
        """Both controlling, or both controlled, over short and long ways."""
        for both, seed, delay in itertools.product((True, False), range(6), (0.01, 0.3)):
            one, other = self.connect(seed, Link(delay=delay), (both, both))
            self.net.run(5.0)
            self.assert_settled(one, other)
            self.assert_quiet(one, other)
            breakers = [peer.requests[0].check.tie_breaker for peer in (one, other)]
            self.assertEqual(breakers[0] > breakers[1], one.checks.controlling)

    def test_regression_two_refusals_on_their_way_do_not_switch_the_role_twice(self) -> None:
        """Each switched it, so that with a long way there was no end to the conflict."""
        one, other = self.connect(1, Link(delay=0.3), (True, True))
        # The one that yields has sent several checks before it hears of the conflict.
        self.net.run(2.0)
        self.assert_settled(one, other)
        for peer in (one, other):
            roles = [sent.check.controlling for sent in peer.requests]
            self.assertLessEqual(sum(a != b for a, b in itertools.pairwise(roles)), 1)

    def test_another_error_is_an_answer_that_changes_no_role(self) -> None:
        """Only 487 is about roles (RFC 8445 section 7.2.5.1). Either way the host answered."""
        for code, controls in ((400, True), (ROLE_CONFLICT, False)):
            one, other = self.connect()
            (request,) = one.requests
            host, password = request.destination, other.credentials.password
            error = decode_check(encode_error(request.check.transaction_id, code, "no", password))
            self.assertTrue(one.checks.receive(error, host, 0.1))
            self.assertTrue(one.checks.has_news)
            self.assertEqual(controls, one.checks.controlling)
            self.assertFalse(one.checks.receive(error, host, 0.1), "a transaction has one answer")
            allowed = [one.budget.allows(host, Cause.NAMED, 0.1) for _ in range(300)]
            self.assertTrue(all(allowed), "a host that answers has no limit")

    def test_a_check_from_an_address_that_may_not_be_used_is_taken_and_not_answered(self) -> None:
        """It is authentic, so that nobody else has to look at it; nothing is sent there."""
        one, other = self.connect()
        (request,) = other.requests
        sent = len(one.sent)
        self.assertTrue(one.checks.receive(request.check, ("127.0.0.1", 5000), 0.1))
        one.pump()
        self.assertEqual(
            [], [each for each in one.sent[sent:] if each.destination[0] == "127.0.0.1"]
        )

    def test_a_conflict_under_loss_is_resolved_too(self) -> None:
        """Requests, answers and refusals alike get lost."""
        for both, seed in itertools.product((True, False), range(10)):
            one, other = self.connect(seed, Link(delay=0.05, loss=0.3), (both, both))
            self.net.run(20.0)
            self.assert_settled(one, other)


class TimingTests(CheckListCase):
    """RFC 8445 sections 6.1.4 and 14."""

    def test_no_two_checks_are_sent_within_20_ms(self) -> None:
        """With as many pairs as there may be, first checks, triggered ones and nominations."""
        one, other = self.connect()
        for peer in (one, other):
            peer.learn(*(candidate(CandidateType.HOST, address) for address in NOWHERE))
        self.net.run(10.0)
        for peer in (one, other):
            times = [sent.at for sent in peer.requests]
            self.assertGreater(len(times), 100)
            self.assertGreaterEqual(
                min(b - a for a, b in itertools.pairwise(times)), 0.02 - TOLERANCE
            )
        self.assert_settled(one, other)
        self.assert_quiet(one, other)

    def test_a_check_is_repeated_at_growing_intervals_and_given_up_after_8_s(self) -> None:
        """50, 100, 200 ms and so on up to 1 s, each with a transaction of its own."""
        one, _ = self.meet()
        one.learn(host(NOWHERE[0]))
        one.start()
        self.net.run(20.0)
        times = [sent.at for sent in one.requests]
        self.assertEqual([50, 100, 200, 400, 800] + [1000] * 6, gaps(times))
        self.assertEqual(12, len({sent.check.transaction_id for sent in one.requests}))
        self.assertEqual([ChecksExhausted()], one.events)
        self.assertLess(times[-1] - times[0], 8.0)
        self.assert_quiet(one)

    def test_regression_a_pair_is_given_up_in_time(self) -> None:
        """The timer was forgotten, so that it waited for the next check, up to a second later."""
        one, _ = self.meet()
        one.learn(host(NOWHERE[0]))
        one.start()
        self.net.run_until(lambda: one.happened(ChecksExhausted))
        self.assertAlmostEqual(GIVE_UP, self.net.clock.seconds() - one.requests[0].at)

    def test_a_host_that_does_not_answer_gets_no_more_checks(self) -> None:
        """Its pairs fail as if the checks got lost; so does an answer too many."""
        one, _ = self.meet()
        port = host(NOWHERE[0])
        one.learn(port)
        for _ in range(20):
            one.start()
            self.net.run(10.0)
        self.assertLess(len(one.requests), 75 + 200 / 8 + 1)
        self.assertEqual(20, len(one.happened(ChecksExhausted)))
        self.assert_quiet(one)

    def test_regression_lists_share_the_pace_of_their_node(self) -> None:
        """Each had its own. While they wait, each pair is checked before any is checked again."""
        self.meet()
        budget = SendBudget()
        while budget.take_spare(0.0):
            pass
        lists = []
        for number in range(4):
            one = Peer(self.net, f"198.51.100.{10 + number}", controlling=True)
            one.budget, one.name = budget, bytes([number])
            one.meet(self.other.credentials)
            hosts = [f"198.18.{number}.{n}" for n in range(16)]
            one.learn(*(candidate(CandidateType.HOST, (name, 2000)) for name in hosts))
            one.start()
            lists.append(one)
        self.net.run(1.5)
        times = sorted(sent.at for one in lists for sent in one.requests)
        self.assertLessEqual(len(times), 1.5 / 0.02 + 1)
        for one in lists:
            self.assertApproximates(len(times) / 4, len(one.requests), 1)
            checked = [sent.destination for sent in one.requests]
            self.assertEqual(len(checked[:16]), len(set(checked[:16])))

    def test_the_best_pairs_are_checked_first(self) -> None:
        """Each once before any is repeated, as long as there is something new."""
        one, _ = self.meet()
        found = [candidate(CandidateType.HOST, address, n) for n, address in enumerate(NOWHERE[:3])]
        one.learn(*found)
        one.start()
        self.net.run(0.05)
        self.assertEqual(NOWHERE[:3][::-1], [sent.destination for sent in one.requests])

    def test_pairs_of_one_foundation_wait_for_the_first_of_them(self) -> None:
        """Until that failed, or succeeded (RFC 8445 sections 6.1.2.6 and 7.2.5.3.3)."""
        one, other = self.meet()
        first = host(other.local.address)
        alike = Candidate(first.type, NOWHERE[0], first.priority - 1, first.foundation)
        self.cut(one, other)
        one.learn(first, alike)
        one.start()
        self.net.run(7.0)
        self.assertEqual({first.address}, {sent.destination for sent in one.requests})
        self.net.run(3.0)
        self.assertEqual(NOWHERE[0], one.requests[-1].destination)
        one, other = self.meet()
        one.learn(first, alike)
        one.start()
        self.net.run(0.06)
        self.assertIn(NOWHERE[0], [sent.destination for sent in one.requests])

    def test_nothing_is_sent_before_the_start(self) -> None:
        """Candidates alone cause no packet."""
        one, other = self.meet()
        introduce(one, other)
        one.start(after=0.5)
        self.net.run(0.49)
        self.assertEqual([], one.requests)
        self.net.run(0.02)
        self.assertEqual(1, len(one.requests))

    def test_regression_a_check_before_our_own_start_makes_no_busy_loop(self) -> None:
        """The triggered check was due for repetition, and was not repeated before the start."""
        one, other = self.meet()
        introduce(one, other)
        one.start()
        other.start(after=0.4)
        self.cut(other, one)
        self.net.run_until(lambda: other.sent)
        self.cut(one, other)
        # The timer of a node rings for other reasons too.
        other.checks.handle_timer(self.net.clock.seconds())
        other.pump()
        self.net.run(0.36)
        self.assertEqual([50, 100, 200], gaps(sent.at for sent in other.requests))
        for ends in ((one, other), (other, one)):
            self.cut(*ends, link=Link(delay=0.02))
        self.net.run(1.0)
        self.assert_settled(one, other)

    def test_an_end_that_is_never_told_to_start_still_answers_and_checks_back(self) -> None:
        """The word may have got lost with the Intermediate."""
        one, other = self.meet()
        introduce(one, other)
        one.start()
        self.net.run(1.0)
        self.assert_settled(one, other)
        self.assert_quiet(one, other)


class TrickleTests(CheckListCase):
    """Candidates that come late (RFC 8838), and rounds after the first."""

    def test_a_candidate_that_comes_during_the_checks_is_checked_at_once(self) -> None:
        """Nothing waits for the slow ones."""
        one, other = self.meet()
        one.learn(host(NOWHERE[0]))
        begin(one, other)
        self.net.run(3.0)
        one.learn(other.local)
        self.net.run(0.15)
        self.assert_settled(one, other)

    def test_a_candidate_that_comes_after_the_end_is_checked_too(self) -> None:
        """It is news."""
        one, other = self.meet()
        one.learn(host(NOWHERE[0]))
        begin(one, other)
        self.net.run(20.0)
        self.assert_quiet(one, other)
        one.learn(other.local)
        self.net.run(0.15)
        self.assert_settled(one, other)

    def test_hosts_with_ipv6_alone_meet_as_well(self) -> None:
        """There is nothing special about their addresses."""
        self.net = Internet(1, Link(delay=0.02))
        one, other = Peer(self.net, "2a00::1", controlling=True), Peer(self.net, "2a00::2")
        introduce(one, other)
        begin(one, other)
        self.net.run(0.1)
        self.assert_settled(one, other)

    def test_what_cannot_be_checked_makes_no_pair(self) -> None:
        """Known ones, relayed ones, disallowed ones, and those of another address family."""
        one, other = self.meet()
        one.learn(other.local)
        one.learn(other.local, gather_relay_candidate(("192.0.2.1", 4433)))
        one.learn(host(("224.0.0.1", 5000)), host(("127.0.0.1", 5000)), host(("2a00::1", 5000)))
        self.assertEqual([other.local.address], list(one.checks.pairs))

    def test_after_a_failure_a_new_round_begins_afresh(self) -> None:
        """And can succeed where the first did not."""
        one, other = self.meet()
        introduce(one, other)
        self.cut(one, other)
        self.cut(other, one)
        begin(one, other)
        self.net.run(20.0)
        self.assertEqual([ChecksExhausted()], one.events)
        self.assert_quiet(one, other)
        for ends in ((one, other), (other, one)):
            self.cut(*ends, link=Link(delay=0.02))
        begin(one, other)
        self.net.run(0.2)
        self.assert_settled(one, other)

    def test_a_path_that_died_is_nominated_again_when_it_is_back(self) -> None:
        """With the same pair, and only after it answered again."""
        one, other = self.connect()
        self.net.run(1.0)
        for peer in (one, other):
            pair = peer.checks.selected
            assert pair is not None
            peer.checks.fail(pair)
            self.assertIsNone(peer.checks.best_valid())
        begin(one, other)
        self.net.run(0.2)
        self.assert_settled(one, other)
        self.assertEqual(2, len(one.happened(PairNominated)))

    def test_regression_when_a_path_dies_older_answers_are_not_believed_any_more(self) -> None:
        """Another pair that had answered once was used at once, hours later."""
        self.net = Internet(1, Link(delay=0.02))
        box = NATBox(self.net, "198.51.100.1", Mapping.EIM, Filtering.EIF, hairpin=True)
        one = Peer(self.net, "10.0.0.2", controlling=True, box=box)
        other = Peer(self.net, "10.0.0.3", box=box)
        introduce(one, other)
        begin(one, other)
        self.net.run(5.0)
        selected = one.checks.selected
        assert selected is not None
        valid = [pair for pair in one.checks.pairs.values() if pair.is_valid]
        self.assertEqual(2, len(valid))
        one.checks.check(selected, self.net.clock.seconds())
        one.pump()
        self.net.run(1.0)
        one.checks.fail(selected)
        self.assertIsNone(one.checks.best_valid())
        one.pump()
        self.net.run(0.1)
        (left,) = (pair for pair in valid if pair is not selected)
        self.assertIs(left, one.checks.best_valid())
