"""Tests of the allow list of a Connector: whoever is not listed may not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.core.peer.connector import AllowList
from p2pnet.interfaces import IAuthorizer
from p2pnet.wire.codes import ErrorCode

NAMES = st.sampled_from(["alice", "bob", "carol", "*"])
SERVICES = st.sampled_from(["web", "dns", "ssh"])


class AllowListTests(SynchronousTestCase):
    """Who may use what."""

    def test_it_is_an_authorizer(self) -> None:
        """As the interface has it."""
        self.assertTrue(verifyObject(IAuthorizer, AllowList({})))

    def test_a_service_with_nobody_listed_is_for_nobody(self) -> None:
        """The default is no."""
        allow_list = AllowList({"web": []})
        self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize("alice", "web"))

    def test_a_service_that_is_not_listed_is_unknown(self) -> None:
        """Also to an agent that may use others."""
        allow_list = AllowList({"web": ["*"]})
        self.assertEqual(ErrorCode.UNKNOWN_SERVICE, allow_list.authorize("alice", "dns"))

    def test_names_are_compared_as_a_whole(self) -> None:
        """No prefixes, no other case, no patterns, and not the characters of a string."""
        allow_list = AllowList({"web": ["alice"], "dns": ["al*", "A", "l"]})
        for agent in ("alic", "alice2", "Alice", "", "al*ce"):
            self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize(agent, "web"))
        self.assertEqual(ErrorCode.NOT_AUTHORIZED, allow_list.authorize("alice", "dns"))

    @given(st.dictionaries(SERVICES, st.lists(NAMES)), NAMES.filter(lambda n: n != "*"), SERVICES)
    def test_only_the_listed_and_everybody_under_a_star_are_allowed(
        self, allowed: dict[str, list[str]], agent: str, service: str
    ) -> None:
        """For any list."""
        may = service in allowed and (agent in allowed[service] or "*" in allowed[service])
        self.assertEqual(may, AllowList(allowed).authorize(agent, service) is None)
