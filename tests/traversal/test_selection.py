"""Path selection: four policies by name, each decision with a reason for people."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.interfaces import IPathSelector
from p2pnet.traversal.selection import (
    DIRECT,
    NONE,
    RELAYED,
    SELECTORS,
    Choices,
    DirectOnly,
    LowestRtt,
    PreferDirect,
    RelayOnly,
)

figures = st.one_of(st.none(), st.floats(0.0001, 10.0))
choices = st.builds(Choices, st.booleans(), st.booleans(), figures, figures)
BOTH = Choices(True, True, 0.02, 0.08)
ONLY_DIRECT = Choices(True, False, 0.02, None)
ONLY_RELAY = Choices(False, True, None, 0.08)
NOTHING = Choices(False, False)


class SelectorTests(SynchronousTestCase):
    """What all of them have in common."""

    def test_there_are_four_by_name(self) -> None:
        """The names of the configuration."""
        expected = {"prefer-direct", "lowest-rtt", "relay-only", "direct-only"}
        self.assertEqual(expected, set(SELECTORS))
        for name, kind in SELECTORS.items():
            self.assertEqual(name, kind.name)

    def test_each_is_an_ipathselector(self) -> None:
        """By zope's verification."""
        for kind in SELECTORS.values():
            self.assertTrue(verifyObject(IPathSelector, kind()))

    @given(st.sampled_from([*SELECTORS]), choices)
    def test_only_a_path_that_exists_is_selected(self, name: str, given: Choices) -> None:
        """And none only where the policy allows none of those."""
        decision = SELECTORS[name]().select(given)
        if decision.path == DIRECT:
            self.assertTrue(given.has_direct)
        elif decision.path == RELAYED:
            self.assertTrue(given.has_relay)
        else:
            self.assertEqual(NONE, decision.path)

    @given(st.sampled_from([*SELECTORS]), choices)
    def test_the_reason_is_in_words(self, name: str, given: Choices) -> None:
        """Several of them, and no Python."""
        reason = SELECTORS[name]().select(given).reason
        self.assertGreaterEqual(len(reason.split()), 3)
        self.assertNotIn("None", reason)
        self.assertEqual(reason, reason.strip())

    @given(choices, st.sampled_from([*SELECTORS]))
    def test_the_same_choices_give_the_same_decision(self, given: Choices, name: str) -> None:
        """A selector has no state."""
        selector = SELECTORS[name]()
        first = selector.select(given)
        for other in (BOTH, NOTHING):
            selector.select(other)
        self.assertEqual(first, selector.select(given))


class PolicyTests(SynchronousTestCase):
    """What each does."""

    def paths(self, selector: IPathSelector) -> list[str]:
        """Its decisions for both paths, only direct, only relayed, and none."""
        offers = (BOTH, ONLY_DIRECT, ONLY_RELAY, NOTHING)
        return [selector.select(offer).path for offer in offers]

    def test_prefer_direct(self) -> None:
        """Direct if there is, else relayed; also where direct is slower."""
        self.assertEqual([DIRECT, DIRECT, RELAYED, NONE], self.paths(PreferDirect()))
        self.assertEqual(DIRECT, PreferDirect().select(Choices(True, True, 0.3, 0.01)).path)

    def test_relay_only(self) -> None:
        """Never direct."""
        self.assertEqual([RELAYED, NONE, RELAYED, NONE], self.paths(RelayOnly()))

    def test_direct_only(self) -> None:
        """Relays only find the direct path."""
        self.assertFalse(DirectOnly.relays)
        self.assertEqual([DIRECT, DIRECT, RELAYED, NONE], self.paths(DirectOnly()))

    def test_lowest_rtt_has_no_choice_where_there_is_one_path(self) -> None:
        """However slow it is."""
        self.assertEqual([DIRECT, DIRECT, RELAYED, NONE], self.paths(LowestRtt()))

    def test_lowest_rtt_is_direct_only_where_that_is_30_percent_faster(self) -> None:
        """Up to 70 % of the relay's round-trip time."""
        for milliseconds, path in ((10, DIRECT), (69, DIRECT), (71, RELAYED), (200, RELAYED)):
            decision = LowestRtt().select(Choices(True, True, milliseconds / 1000, 0.1))
            self.assertEqual(path, decision.path, milliseconds)

    @given(st.floats(0.0001, 10.0), st.floats(0.0001, 10.0))
    def test_lowest_rtt_by_any_figures(self, direct: float, relay: float) -> None:
        """The rule, and the figures in the reason."""
        decision = LowestRtt().select(Choices(True, True, direct, relay))
        self.assertEqual(DIRECT if direct <= 0.7 * relay else RELAYED, decision.path)
        for figure in (direct, relay):
            self.assertIn(f"{figure * 1000:.1f} ms", decision.reason)

    def test_regression_lowest_rtt_claims_nothing_about_figures_it_does_not_have(self) -> None:
        """It said that direct was 30 % faster than an unknown."""
        for direct, relay in itertools.product((None, 0.02), repeat=2):
            decision = LowestRtt().select(Choices(True, True, direct, relay))
            if direct is None or relay is None:
                self.assertEqual(DIRECT, decision.path)
                self.assertNotIn("faster", decision.reason)
                self.assertIn("unknown", decision.reason)
