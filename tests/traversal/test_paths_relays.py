"""Intermediates come and go: which relays the packets of a session take, and by which names."""

from __future__ import annotations

import math
from typing import Any

from p2pnet.reports import PathSelected
from p2pnet.traversal.health import DEAD_AFTER
from p2pnet.traversal.path_events import AskRelay, WaysChanged
from p2pnet.traversal.selection import SELECTORS
from p2pnet.traversal.way import WayKind, name_of
from tests.traversal.ends import CONNECTOR, OTHER_RELAY, RELAY
from tests.traversal.path_ends import PathsCase


class RelayTests(PathsCase):
    """Intermediates come and go."""

    def test_without_a_relay_there_is_no_way_and_no_round(self) -> None:
        """Nothing is sent, and nothing is due."""
        self.meet()
        self.world.run(10.0)
        self.assert_ways("none")
        self.assertEqual([], self.agent.sent)
        self.assertIsNone(self.agent.machine.relay)
        self.assertEqual(math.inf, self.agent.machine.get_timer())

    def test_a_relay_that_retires_is_left_for_another_and_nothing_is_lost(self) -> None:
        """Its packets still arrive. Without another it is used to the end."""
        self.begin(SELECTORS["relay-only"]())
        self.agent.do(self.agent.machine.retire_relay, RELAY, "draining")
        self.assertEqual(RELAY, self.agent.machine.relay)
        self.add_relay(OTHER_RELAY)
        self.assertEqual(OTHER_RELAY, self.agent.machine.relay)
        self.begin(SELECTORS["relay-only"]())
        self.add_relay(OTHER_RELAY, 0.06)
        self.agent.do(self.agent.machine.retire_relay, RELAY, "draining")
        self.assertEqual(OTHER_RELAY, self.agent.machine.using[0].address)
        change = self.agent.said(WaysChanged)[-1]
        self.assertEqual((False, True), (change.lost, change.planned))
        self.assertIn("draining", self.agent.said(PathSelected)[-1].reason)

    def test_regression_patience_does_not_grow_with_the_queue_of_the_session(self) -> None:
        """The connection measures ten seconds through its own queue; the relay is asked in one."""
        self.begin(SELECTORS["relay-only"]())
        paths, now = self.agent.machine, self.world.now
        paths.sent(now, answer_due=True, rtt=10.0)
        paths.handle_timer(now + 1.0)
        asked = []
        while (event := paths.next_event()) is not None:
            asked += [event] if isinstance(event, AskRelay) else []
        self.assertEqual([AskRelay(RELAY)], asked)

    def test_an_unknown_relay_neither_retires_nor_goes(self) -> None:
        """Nothing is said."""
        self.begin()
        before = len(self.agent.events)
        self.agent.do(self.agent.machine.retire_relay, OTHER_RELAY, "draining")
        self.agent.do(self.agent.machine.remove_relay, OTHER_RELAY, "gone")
        self.assertEqual(before, len(self.agent.events))

    def test_when_the_last_relay_goes_there_is_none(self) -> None:
        """Unless the session is direct."""
        self.begin(SELECTORS["relay-only"]())
        self.agent.do(self.agent.machine.remove_relay, RELAY, "it vanished")
        self.assertEqual((), self.agent.machine.using)
        self.assertEqual("none", self.agent.said(PathSelected)[-1].path)
        self.assertIn("it vanished", self.agent.said(PathSelected)[-1].reason)
        self.connect()
        self.agent.do(self.agent.machine.remove_relay, RELAY, "it vanished")
        self.assertTrue(self.agent.is_direct)

    def test_a_direct_way_that_dies_without_a_relay_stays_in_use(self) -> None:
        """There is no other, until it is given up."""
        self.connect()
        self.agent.talk()
        self.agent.do(self.agent.machine.remove_relay, RELAY, "it vanished")
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run(DEAD_AFTER - 1.0)
        self.assertTrue(self.agent.is_direct)
        self.world.run(2.0)
        self.assertEqual(["none"], self.agent.ways(cut))

    def test_a_relay_that_dies_costs_less_than_half_a_second(self) -> None:
        """All relays carry what stays unanswered; the peer's answer shows the one that works."""
        self.begin(SELECTORS["relay-only"]())
        self.add_relay(OTHER_RELAY, 0.06)
        self.agent.talk()
        self.world.run(2.0)
        self.world.relays[RELAY].is_cut = True
        cut = self.world.now
        self.world.run(3.0)
        for end in self.both:
            self.assertEqual(OTHER_RELAY, end.machine.relay)
            self.assertEqual(["relayed"], end.kinds)
        self.assertIn("relays", self.agent.ways(cut))
        self.assertLess(self.agent.when("relays", cut) - cut, 0.5)
        self.assertTrue(self.agent.said(WaysChanged, cut)[0].lost)
        self.assertIn(AskRelay(RELAY), self.agent.said(AskRelay, cut))

    def test_regression_a_relay_that_comes_amid_silence_is_used_in_time(self) -> None:
        """The timer was forgotten: the new relay waited for the next question, two seconds."""
        self.begin(SELECTORS["relay-only"]())
        self.world.relays[RELAY].is_cut = True
        self.agent.send()
        self.world.run(0.5)
        self.add_relay(OTHER_RELAY, 0.06)
        added = self.world.now
        self.world.run(0.2)
        self.assertEqual(["relays"], self.agent.ways(added))

    def test_a_silent_relay_is_asked_about_again_and_again(self) -> None:
        """The Intermediate may die after the first question; there is no other relay."""
        self.begin(SELECTORS["relay-only"]())
        self.agent.talk()
        self.world.run(2.0)
        self.world.relays[RELAY].is_cut = True
        cut = self.world.now
        self.world.run(10.0)
        self.assertGreater(len(self.agent.said(AskRelay, cut)), 3)
        self.assertEqual(["relayed"], self.agent.kinds)
        self.world.relays[RELAY].is_cut = False
        back = self.world.now
        self.world.run(1.0)
        (renewal,) = self.agent.said(WaysChanged, back)
        self.assertEqual(self.agent.machine.using, renewal.ways)
        self.assertFalse(renewal.lost)

    def test_what_was_lost_is_lost_only_amid_doubt(self) -> None:
        """Otherwise most of it may have arrived."""
        self.connect()
        self.agent.do(lambda now: self.agent.machine.renew())
        self.assertFalse(self.agent.said(WaysChanged)[-1].lost)
        self.agent.talk()
        self.world.direct.is_cut = True
        self.world.run(0.5)
        self.agent.do(lambda now: self.agent.machine.renew())
        self.assertTrue(self.agent.said(WaysChanged)[-1].lost)

    def test_the_other_end_is_followed_to_its_relay(self) -> None:
        """It knows why it sends there; for a moment both are used."""
        self.begin(SELECTORS["relay-only"]())
        self.add_relay(OTHER_RELAY, 0.06)
        self.world.run(1.0)
        self.connector.machine.using = (self.connector.machine.relays[OTHER_RELAY],)
        self.connector.send()
        self.world.run(0.1)
        self.assertIn("relays", self.agent.ways())


class NameTests(PathsCase):
    """QUIC knows ways by name: names are equal if and only if the ways are."""

    def names(self, since: int = 0) -> list[Any]:
        """The names of the ways that were used, in order."""
        return [name_of(change.ways) for change in self.agent.said(WaysChanged)][since:]

    def test_the_first_way_has_a_name(self) -> None:
        """Known before the handshake is complete, or coming back to it would be new."""
        self.begin()
        self.assertEqual([(RELAY,)], self.names())
        self.assertEqual((RELAY,), name_of(self.agent.machine.using))

    def test_direct_and_back(self) -> None:
        """The relay's name is the same as before."""
        self.connect()
        self.agent.talk()
        self.world.direct.is_cut = True
        self.world.run(3.0)
        self.assertEqual((CONNECTOR,), self.names()[1])
        self.assertEqual((RELAY,), self.names()[-1])

    def test_a_doubtful_way_has_another_name(self) -> None:
        """Packets go both ways then, and the faster answer counts."""
        self.connect()
        self.agent.talk()
        self.world.direct.is_cut = True
        self.world.run(0.5)
        self.world.direct.is_cut = False
        self.world.run(0.5)
        self.assertEqual([(CONNECTOR,), (CONNECTOR, RELAY), (CONNECTOR,)], self.names(1))

    def test_a_relay_that_is_granted_anew_keeps_its_name(self) -> None:
        """Its channel is another, the way is not; another relay has another name."""
        self.begin(SELECTORS["relay-only"]())
        first = self.agent.machine.using
        for relay in (RELAY, OTHER_RELAY):
            present = self.agent.machine.relay
            self.agent.do(self.agent.machine.remove_relay, present, "closed")
            self.agent.add_relay(relay)
            last = self.agent.said(WaysChanged)[-1]
            self.assertTrue(last.lost)
            self.assertEqual((relay,), name_of(last.ways))
            self.assertNotEqual(first, last.ways)
        self.agent.add_relay(OTHER_RELAY)
        self.assertEqual((OTHER_RELAY,), self.names()[-1])
        self.assertIs(WayKind.RELAYED, self.agent.machine.using[0].kind)
