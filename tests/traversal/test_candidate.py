"""Candidates: priorities, foundations, gathering, and which addresses are let through."""

import dataclasses
import ipaddress
from collections.abc import Iterable

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.budget import MAX_PORTS, host_of
from p2pnet.traversal.candidate import (
    MAX_CANDIDATES,
    Candidate,
    CandidatePolicy,
    CandidateType,
    calculate_priority,
    gather_host_candidates,
    gather_reflexive_candidate,
    gather_relay_candidate,
    peer_reflexive_candidate,
    sanitize,
)
from p2pnet.wire.address import Address
from tests.traversal.support import addresses, host

HOST, SRFLX, PRFLX, RELAY = (
    CandidateType.HOST,
    CandidateType.SERVER_REFLEXIVE,
    CandidateType.PEER_REFLEXIVE,
    CandidateType.RELAYED,
)
NEVER_4 = ("0.0.0.0", "255.255.255.255", "224.0.0.0/4", "169.254.0.0/16", "240.0.0.0/4")
NEVER = (*NEVER_4, "::", "ff00::/8", "fe80::/10", "::ffff:0:0/96")
LOOPBACK = ("127.0.0.0/8", "::1")
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
PUBLIC = ("198.50.0.0/16", "8.8.0.0/16", "2a00::/16")


def within(networks: Iterable[str], address: str) -> bool:
    """Whether an address lies in one of the networks."""
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(network) for network in networks)


def hosts(*networks: str) -> st.SearchStrategy[str]:
    """Addresses of these networks."""
    return st.one_of([st.ip_addresses(network=network) for network in networks]).map(str)


anywhere = hosts(*NEVER, *LOOPBACK, *PRIVATE, *PUBLIC, "0.0.0.0/0", "::/0")
ports = st.one_of(st.sampled_from([0, 22, 53, 1023, 1024, 65535]), st.integers(0, 65535))
policies = st.builds(CandidatePolicy, private=st.booleans(), loopback=st.booleans())
candidates = st.builds(
    Candidate,
    st.sampled_from(CandidateType),
    st.tuples(st.one_of(anywhere, st.text(max_size=12)), ports),
    st.integers(0, 2**31 - 1),
    st.just("1"),
)


class PriorityTests(SynchronousTestCase):
    """RFC 8445 section 5.1.2.1."""

    def test_the_recommended_formula_gives_the_well_known_figures(self) -> None:
        """What every ICE implementation gives a single candidate of each type."""
        figures = {HOST: 2130706431, PRFLX: 1862270975, SRFLX: 1694498815, RELAY: 16777215}
        for kind, figure in figures.items():
            self.assertEqual(figure, calculate_priority(kind, 65535))

    @given(st.sampled_from(CandidateType), st.integers(0, 65535))
    def test_a_priority_is_from_1_to_2_to_the_31_minus_1(
        self, kind: CandidateType, preference: int
    ) -> None:
        """As the RFC demands."""
        self.assertTrue(1 <= calculate_priority(kind, preference) <= 2**31 - 1)

    @given(st.integers(0, 65535), st.integers(0, 65535))
    def test_the_type_outweighs_the_local_preference(self, one: int, other: int) -> None:
        """Host, peer-reflexive, server-reflexive, relayed, in this order."""
        figures = [calculate_priority(kind, one) for kind in (HOST, PRFLX, SRFLX, RELAY)]
        self.assertEqual(sorted(figures, reverse=True), figures)
        self.assertGreater(calculate_priority(PRFLX, one), calculate_priority(SRFLX, other))

    def test_no_two_host_candidates_have_the_same_priority(self) -> None:
        """IPv6 comes before IPv4 (RFC 8421), and then the order given counts."""
        found = gather_host_candidates(["10.0.0.1", "10.0.0.2", "2a00::1", "2a00::2"], 5000)
        best = sorted(found, key=lambda candidate: -candidate.priority)
        ordered = [address for address, _ in addresses(best)]
        self.assertEqual(["2a00::1", "2a00::2", "10.0.0.1", "10.0.0.2"], ordered)
        self.assertEqual(4, len({candidate.priority for candidate in found}))


class FoundationTests(SynchronousTestCase):
    """RFC 8445 section 5.1.1.3: the same for the same type, base and server."""

    def test_same_type_base_and_server_give_the_same_foundation(self) -> None:
        """Whatever the port is, and whatever address was observed."""
        one = gather_reflexive_candidate(("198.51.100.1", 1), "a:1", base=("10.0.0.1", 5000))
        other = gather_reflexive_candidate(("198.51.100.9", 2), "a:1", 3, ("10.0.0.1", 6000))
        self.assertEqual(one.foundation, other.foundation)
        self.assertEqual(host(("10.0.0.1", 1)).foundation, host(("10.0.0.1", 2)).foundation)

    def test_another_type_base_or_server_gives_another_foundation(self) -> None:
        """Each of the three on its own."""
        base, server = ("10.0.0.1", 5000), ("192.0.2.1", 4433)
        found = [
            host(base),
            host(("10.0.0.2", 5000)),
            gather_reflexive_candidate(server, "a:1", base=base),
            gather_reflexive_candidate(server, "b:1", base=base),
            gather_reflexive_candidate(server, "a:1", base=("10.0.0.2", 5000)),
            peer_reflexive_candidate(base, 1),
            gather_relay_candidate(server),
        ]
        self.assertEqual(len(found), len({candidate.foundation for candidate in found}))

    def test_a_foundation_fits_the_signaling(self) -> None:
        """1 to 32 characters of those that RFC 8839 section 5.1 allows."""
        self.assertRegex(host(("10.0.0.1", 5000)).foundation, r"^[A-Za-z0-9+/]{1,32}$")


class GatherTests(SynchronousTestCase):
    """What the gather functions make."""

    def test_there_is_a_host_candidate_for_each_address_with_the_port_of_the_socket(self) -> None:
        """In the order given."""
        found = gather_host_candidates(["192.168.1.2", "2a00::1"], 5000)
        self.assertEqual([("192.168.1.2", 5000), ("2a00::1", 5000)], addresses(found))
        self.assertEqual([HOST, HOST], [candidate.type for candidate in found])
        self.assertEqual([False, True], [candidate.is_ipv6 for candidate in found])
        self.assertEqual([], gather_host_candidates([], 5000))

    def test_a_reflexive_candidate_is_what_was_observed_and_names_its_base(self) -> None:
        """So that people see what belongs together."""
        found = gather_reflexive_candidate(("198.51.100.1", 61000), "a:1", base=("10.0.0.1", 5))
        self.assertEqual((SRFLX, ("198.51.100.1", 61000)), (found.type, found.address))
        self.assertEqual(("10.0.0.1", 5), found.related)

    def test_the_relay_stands_last(self) -> None:
        """It is there when nothing else is."""
        relay = gather_relay_candidate(("192.0.2.1", 4433))
        self.assertEqual((RELAY, ("192.0.2.1", 4433)), (relay.type, relay.address))
        reflexive = gather_reflexive_candidate(("198.51.100.1", 1), "a:1", index=2000)
        self.assertLess(relay.priority, reflexive.priority)


class PolicyTests(SynchronousTestCase):
    """Which addresses may be sent to, or told."""

    @given(policies, anywhere, ports)
    @example(CandidatePolicy(loopback=True), "::1", 5000)
    def test_an_address_is_allowed_exactly_by_these_rules(
        self, policy: CandidatePolicy, address: str, port: int
    ) -> None:
        """Loopback and private ranges as the policy says, some never, and no well-known port."""
        allowed = policy.allows((address, port))
        if port < 1024 or within(NEVER, address):
            self.assertFalse(allowed)
        elif within(LOOPBACK, address):
            self.assertEqual(policy.loopback, allowed)
        elif within(PRIVATE, address):
            self.assertEqual(policy.private, allowed)
        elif within(PUBLIC, address):
            self.assertTrue(allowed)

    @given(policies, st.text(max_size=20), st.integers())
    def test_what_is_no_address_is_not_allowed(
        self, policy: CandidatePolicy, text: str, port: int
    ) -> None:
        """Names, nonsense and impossible ports."""
        if not text.replace(".", "").replace(":", "").isalnum():
            self.assertFalse(policy.allows((text, port)))
        if not 1024 <= port <= 65535:
            self.assertFalse(policy.allows(("8.8.8.8", port)))

    def test_only_the_canonical_form_of_an_address_is_allowed(self) -> None:
        """Zones and IPv6-mapped IPv4 could get around the rules; no answer would match them."""
        everything = CandidatePolicy(private=True, loopback=True)
        for address in ("2a00::1%1", "::1%lo", "2A00::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1"):
            self.assertFalse(everything.allows((address, 5000)), address)

    def test_regression_loopback_of_ipv6_follows_the_policy(self) -> None:
        """It lies in a reserved range, and was refused for that."""
        self.assertTrue(CandidatePolicy(loopback=True).allows(("::1", 5000)))
        self.assertFalse(CandidatePolicy(loopback=False).allows(("::1", 5000)))


class SanitizeTests(SynchronousTestCase):
    """The list of candidates that is told, or taken."""

    @given(st.lists(candidates, max_size=60), policies)
    def test_never_too_many_never_a_disallowed_one_never_an_address_twice(
        self, offered: list[Candidate], policy: CandidatePolicy
    ) -> None:
        """Whatever is offered; and nothing is invented."""
        kept = sanitize(offered, policy)
        self.assertLessEqual(len(kept), MAX_CANDIDATES)
        self.assertTrue(all(policy.allows(address) for address in addresses(kept)))
        self.assertEqual(len(kept), len(set(addresses(kept))))
        self.assertLessEqual(set(kept), set(offered))

    @given(st.lists(candidates, max_size=60), policies)
    def test_the_best_are_kept_and_come_first(
        self, offered: list[Candidate], policy: CandidatePolicy
    ) -> None:
        """By priority, also where an address is offered twice."""
        kept = sanitize(offered, policy)
        priorities = [candidate.priority for candidate in kept]
        self.assertEqual(sorted(priorities, reverse=True), priorities)
        best: dict[Address, int] = {}
        for candidate in offered:
            if policy.allows(candidate.address):
                known = best.get(candidate.address, 0)
                best[candidate.address] = max(known, candidate.priority)
        for address in best.keys() - set(addresses(kept)):
            better = [each for each in kept if each.priority >= best[address]]
            of_host = [each for each in better if host_of(each.address) == host_of(address)]
            self.assertTrue(len(better) == MAX_CANDIDATES or len(of_host) == MAX_PORTS)
        for each in kept:
            self.assertEqual(best[each.address], each.priority)

    def test_a_hundred_candidates_become_sixteen(self) -> None:
        """The number that a session may cost."""
        offered = [
            dataclasses.replace(host((f"198.51.100.{number}", 2000)), priority=number)
            for number in range(100)
        ]
        kept = sanitize(offered, CandidatePolicy())
        self.assertEqual(16, MAX_CANDIDATES)
        self.assertEqual([*range(99, 83, -1)], [candidate.priority for candidate in kept])

    def test_a_host_has_four_of_them(self) -> None:
        """A /64 is one host: nobody has a node look for open ports."""
        for name in ("198.51.100.1", "2a00::1", "2a00::2"):
            offered = [
                dataclasses.replace(host((name, 2000 + number)), priority=number)
                for number in range(8)
            ]
            offered.append(dataclasses.replace(host(("2a00::9", 5000)), priority=9))
            kept = [candidate.priority for candidate in sanitize(offered, CandidatePolicy())]
            self.assertEqual([9, 7, 6, 5] if ":" in name else [9, 7, 6, 5, 4], kept)
