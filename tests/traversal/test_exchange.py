"""Rounds of candidates: signals, openers, and what happens when a round fails."""

from __future__ import annotations

from p2pnet.reports import ChecksFailed
from p2pnet.traversal.exchange import (
    FIRST_TTL,
    HEAD_START,
    PUNCHING_DELAY,
    RETRIES,
    SECOND_TTL,
)
from p2pnet.wire import path_messages as messages
from p2pnet.wire.address import Address
from tests.traversal.ends import AGENT, CONNECTOR
from tests.traversal.path_ends import PathsCase

MOVED: Address = ("198.51.100.1", 6000)


class CandidateTests(PathsCase):
    """Signals, rounds and the addresses of both ends."""

    def test_rounds_that_fail_come_ever_less_often(self) -> None:
        """After 5, 15, 45 and 120 seconds; the agent plans, the connector reports."""
        self.begin()
        self.world.direct.is_cut = True
        self.world.run(350.0)
        failures = self.agent.said(ChecksFailed)
        ours = [failed for failed in failures if failed.retry_in is not None]
        self.assertEqual([5.0, 15.0, 45.0, 120.0, 120.0], [f.retry_in for f in ours])
        self.assertEqual({"no check was answered"}, {f.reason for f in ours})
        self.assertEqual({None}, {f.retry_in for f in self.connector.said(ChecksFailed)})
        self.assertIn("peer: ", self.connector.said(ChecksFailed)[-1].reason)
        offers = len(self.agent.signalled(messages.CandidateOffer))
        self.assertEqual(len(ours) + 1, offers)
        self.world.direct.is_cut = False
        self.world.run(125.0)
        self.assert_ways("direct")

    def test_lost_signals_end_in_another_round(self) -> None:
        """The answer is awaited for five seconds, then it is retried after five more."""
        self.begin()
        self.world.signals.is_cut = True
        self.meet()
        self.world.signals.is_cut = True
        self.add_relay()
        self.world.run(6.0)
        (failed,) = self.agent.said(ChecksFailed)
        self.assertIn("no answer to the candidates within 5 s", failed.reason)
        plan = self.agent.machine.snapshot().direct
        self.assertEqual((1, 10.0), (plan.failures, plan.next_round))
        self.world.signals.is_cut = False
        self.world.run(5.0)
        self.assert_ways("direct")

    def test_a_peer_without_candidates_is_a_failed_round(self) -> None:
        """There is nothing to check."""
        self.meet()
        self.connector.own.set_addresses([], 0)
        self.add_relay()
        self.world.run(1.0)
        self.assertIn("no candidate", self.agent.said(ChecksFailed)[0].reason)

    def test_openers_go_out_with_few_hops_before_the_checks(self) -> None:
        """TTL 2 with the candidates, TTL 4 a moment before the first check; none to IPv6."""
        self.begin()
        self.world.run(0.2)
        openers = [(at, out) for at, out in self.agent.sent if out.ttl is not None]
        self.assertEqual([2, 4], [out.ttl for _, out in openers])
        self.assertEqual({CONNECTOR}, {out.address for _, out in openers})
        self.assertApproximates(0.02, openers[1][0] - openers[0][0], 1e-3)
        self.meet()
        for end, host in zip(self.both, ("2a00::1", "2a00::2"), strict=True):
            end.own.set_addresses([host], 5000)
            end.address = host, 5000
        self.add_relay()
        self.world.run(1.0)
        self.assert_ways("direct")
        self.assertEqual([], [out for _, out in self.agent.sent if out.ttl is not None])

    def test_new_candidates_are_sent_to_the_peer(self) -> None:
        """Without a direct way they also begin a round."""
        self.connect()
        self.agent.own.set_addresses(["203.0.113.1", "203.0.113.9"], 5000)
        self.agent.do(self.agent.machine.candidates_changed)
        self.assertEqual(1, len(self.agent.signalled(messages.CandidateUpdate)))
        self.assertEqual(1, len(self.agent.signalled(messages.CandidateOffer)))
        self.world.run(1.0)
        pairs = self.connector.machine.snapshot().direct.pairs
        self.assertEqual({"203.0.113.1", "203.0.113.9"}, {pair.address[0] for pair in pairs})
        self.begin()
        self.world.direct.is_cut = True
        self.world.run(20.0)
        before = len(self.agent.signalled(messages.CandidateOffer))
        self.connector.do(self.connector.machine.candidates_changed)
        self.world.run(1.0)
        self.assertEqual(before + 1, len(self.agent.signalled(messages.CandidateOffer)))

    def test_before_the_first_exchange_new_candidates_are_no_news(self) -> None:
        """The offer will contain them."""
        self.meet()
        self.agent.do(self.agent.machine.candidates_changed)
        self.agent.do(self.agent.machine.network_changed)
        self.assertEqual([], self.agent.signals)

    def test_another_network_has_the_way_checked_at_once(self) -> None:
        """Or begins a round if there is no way."""
        self.connect()
        now, before = self.world.now, len(self.agent.checks)
        self.agent.do(self.agent.machine.network_changed)
        self.assertEqual([now], [at for at, _ in self.agent.checks[before:]])
        self.begin()
        self.world.direct.is_cut = True
        self.world.run(20.0)
        offers = len(self.agent.signalled(messages.CandidateOffer))
        self.agent.do(self.agent.machine.network_changed)
        self.assertEqual(offers + 1, len(self.agent.signalled(messages.CandidateOffer)))

    def test_a_peer_that_moved_is_found_at_its_new_address(self) -> None:
        """Its checks come from there; the old pair is left, not waited for."""
        self.connect()
        for end in self.both:
            end.talk()
        self.connector.move(MOVED)
        moved = self.world.now
        self.world.run(3.0)
        self.assert_ways("direct")
        self.assertTrue(self.agent.machine.leads_to(MOVED))
        self.assertNotIn("none", self.agent.ways(moved))

    def test_both_ends_begin_at_once_however_long_messages_take(self) -> None:
        """The connector waits for its message to arrive; openers leave the agent's NAT before."""
        for delay in (0.001, 0.02, 0.2, 0.5):
            self.meet()
            self.world.signals.delay = delay
            self.add_relay()
            self.world.run(4 * delay + 0.5)
            begun = [end.checks[0][0] for end in self.both]
            self.assertApproximates(begun[0], begun[1], 1e-3)
            opened = [at for at, out in self.agent.sent if out.ttl == FIRST_TTL]
            self.assertGreaterEqual(begun[0] - opened[0], HEAD_START - 1e-3)
            self.assertGreaterEqual(begun[0] - delay, PUNCHING_DELAY - 1e-3)

    def test_messages_that_are_not_for_this_end_are_ignored(self) -> None:
        """An answer before the offer, an offer to the end that offers, a start before both."""
        self.meet()
        ours = self.agent.machine
        for message in (
            messages.CandidateAnswer("AAAAAAAA", "A" * 24, ()),
            messages.CandidateOffer("AAAAAAAA", "A" * 24, (), "prefer-direct"),
            messages.StartPunching(50),
            messages.CandidateUpdate(()),
            messages.PunchingResult(True, ""),
        ):
            self.agent.do(ours.take_signal, message, 0.0)
        self.assertEqual(([], [], []), (self.agent.events, self.agent.signals, self.agent.sent))

    def test_regression_a_way_that_is_found_ends_the_round(self) -> None:
        """The dead way was revived while an answer was awaited, or before the next offer. Rounds
        went on and were reported as failures, though the session was direct."""
        for revived_after in (RETRIES[0] + 1.0, 1.0):
            self.connect()
            self.agent.talk(seconds=1.0)
            self.world.direct.is_cut = self.world.signals.is_cut = True
            self.world.run_until(lambda: self.agent.said(ChecksFailed))
            self.world.run(revived_after)
            self.world.direct.is_cut = False
            self.world.run(5.0)
            self.assert_ways("direct")
            back, offers = self.world.now, len(self.agent.signalled(messages.CandidateOffer))
            self.world.run(60.0)
            self.assertEqual([], self.agent.said(ChecksFailed, back))
            self.assertEqual(offers, len(self.agent.signalled(messages.CandidateOffer)))
            status = self.agent.machine.snapshot().direct
            self.assertEqual((0, None), (status.failures, status.next_round))


class RateTests(PathsCase):
    """Offers and updates: three at once, then one a second, and the newest is never lost."""

    def updates(self, number: int) -> messages.CandidateUpdate:
        """An update with one address of its own."""
        info = messages.CandidateInfo("host", f"198.18.0.{number}", 5000, 1, f"f{number}")
        return messages.CandidateUpdate((info,))

    def test_the_newest_update_of_the_peer_is_taken_in_time(self) -> None:
        """Those between are replaced by it."""
        self.connect()
        for number in range(10):
            self.agent.do(self.agent.machine.take_signal, self.updates(number), 0.0)
        self.world.run(3.0)
        pairs = {p.address[0] for p in self.agent.machine.snapshot().direct.pairs}
        named = [number for number in range(10) if f"198.18.0.{number}" in pairs]
        self.assertEqual([0, 1, 2, 9], named)

    def test_own_updates_are_three_and_then_one_a_second(self) -> None:
        """Whatever the Intermediates say; the last one has the present candidates."""
        self.connect()
        for number in range(10):
            self.agent.own.set_addresses([AGENT[0], f"203.0.113.{100 + number}"], 5000)
            self.agent.do(self.agent.machine.candidates_changed)
        self.world.run(3.0)
        sent = self.agent.signalled(messages.CandidateUpdate)
        self.assertEqual(4, len(sent))
        self.assertIn("203.0.113.109", [info.host for info in sent[-1].candidates])

    def test_every_offer_of_an_honest_peer_leads_to_an_answer(self) -> None:
        """It makes no more of them than are taken."""
        self.begin()
        self.world.direct.is_cut = True
        for _ in range(20):
            self.agent.do(self.agent.machine.candidates_changed)
            self.world.run(0.1)
        self.world.run(2.0)
        offers = len(self.agent.signalled(messages.CandidateOffer))
        self.assertLessEqual(offers, 3 + 4)
        self.assertEqual(offers, len(self.connector.signalled(messages.CandidateAnswer)))

    def test_offers_beyond_the_rate_are_answered_once(self) -> None:
        """The newest of them."""
        self.begin()
        self.world.run(10.0)
        before = len(self.connector.signalled(messages.CandidateAnswer))
        for number in range(10):
            offer = messages.CandidateOffer(f"fragment{number}", "p" * 24, (), "prefer-direct")
            self.connector.do(self.connector.machine.take_signal, offer, 0.0)
        self.world.run(5.0)
        answers = len(self.connector.signalled(messages.CandidateAnswer))
        self.assertEqual(before + 4, answers)
        checks = self.connector.rounds.checks
        assert checks is not None
        self.assertEqual("fragment9", checks.remote.username_fragment)

    def test_a_way_that_is_found_cancels_the_offer_that_waits(self) -> None:
        """With a path no round begins."""
        self.begin()
        for _ in range(5):
            self.agent.do(self.agent.machine.begin)
        self.world.run(5.0)
        self.assert_ways("direct")
        self.assertEqual(3, len(self.agent.signalled(messages.CandidateOffer)))

    def test_what_the_peer_does_not_owe_is_ignored(self) -> None:
        """One answer for an offer, and one beginning for an answer."""
        self.connect()
        before = len(self.agent.events), len(self.agent.sent)
        stray = messages.CandidateAnswer("mallory+", "m" * 24, self.updates(66).candidates)
        for message in (stray, messages.StartPunching(0)):
            self.agent.do(self.agent.machine.take_signal, message, 0.0)
        self.assertEqual(before, (len(self.agent.events), len(self.agent.sent)))

    def test_regression_updates_repeat_no_openers(self) -> None:
        """An empty update had them sent to every pair again; a new round does."""
        self.begin()
        self.world.direct.is_cut = True
        self.world.run(1.0)

        def opened() -> list[int | None]:
            return [out.ttl for _, out in self.agent.sent if out.ttl is not None]

        self.assertEqual([FIRST_TTL, SECOND_TTL], opened())
        for _ in range(3):
            self.agent.do(self.agent.machine.take_signal, messages.CandidateUpdate(()), 0.0)
        self.assertEqual([FIRST_TTL, SECOND_TTL], opened())
        self.world.run(15.0)
        self.assertGreater(len(opened()), 2)
        self.assertEqual([FIRST_TTL, SECOND_TTL], opened()[-2:])
