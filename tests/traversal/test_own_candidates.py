"""The candidates of one node: from its interfaces, its operator and its Intermediates."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.candidate import CandidateType
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.wire.address import Address
from tests.traversal.ends import Server

RELAY: Address = ("192.0.2.1", 4433)
OBSERVED: Address = ("198.51.100.7", 61000)
EXTERNAL: Address = ("198.51.100.8", 5000)
LOCAL: Address = ("10.0.0.2", 5000)


class OwnCandidatesTests(SynchronousTestCase):
    """What peers learn, and what they do not."""

    def make(self, *servers: Server, tell_observed: bool = True) -> OwnCandidates:
        """The candidates of a node at LOCAL with these Intermediates."""
        own = OwnCandidates(servers, tell_observed=tell_observed)
        own.set_addresses([LOCAL[0]], LOCAL[1])
        return own

    def found(self, own: OwnCandidates) -> dict[CandidateType, list[Address]]:
        """The gathered addresses, by type."""
        found: dict[CandidateType, list[Address]] = {}
        for candidate in own.gather():
            found.setdefault(candidate.type, []).append(candidate.address)
        return found

    def test_every_source_contributes(self) -> None:
        """Interfaces, the operator, and the Intermediates."""
        own = self.make(Server(RELAY, OBSERVED))
        own.set_addresses([LOCAL[0]], LOCAL[1], [EXTERNAL])
        self.assertEqual(
            {
                CandidateType.HOST: [LOCAL],
                CandidateType.SERVER_REFLEXIVE: [EXTERNAL, OBSERVED],
                CandidateType.RELAYED: [RELAY],
            },
            self.found(own),
        )

    def test_only_a_standing_control_connection_makes_a_relay(self) -> None:
        """A server without an address was never tried."""
        own = self.make(Server(RELAY, is_ready=False), Server(None))
        self.assertEqual({CandidateType.HOST: [LOCAL]}, self.found(own))

    def test_observed_addresses_are_kept_from_peers_on_request(self) -> None:
        """They still are the base of pairs where the node has no other address."""
        own = self.make(Server(RELAY, OBSERVED), tell_observed=False)
        self.assertNotIn(CandidateType.SERVER_REFLEXIVE, self.found(own))
        own.set_addresses([], 0)
        self.assertEqual([OBSERVED], [base.address for base in own.bases()])

    def test_each_address_family_has_one_base(self) -> None:
        """The first candidate of the family; relayed ones stand for none."""
        own = self.make(Server(RELAY, OBSERVED))
        own.set_addresses([LOCAL[0], "10.0.0.3", "2a00::1"], LOCAL[1])
        bases = [base.address for base in own.bases()]
        self.assertCountEqual([LOCAL, ("2a00::1", LOCAL[1])], bases)

    def test_a_change_of_the_addresses_is_noticed(self) -> None:
        """The same addresses are no change."""
        own = self.make()
        self.assertFalse(own.set_addresses([LOCAL[0]], LOCAL[1]))
        self.assertTrue(own.set_addresses([LOCAL[0]], LOCAL[1], [EXTERNAL]))
        self.assertTrue(own.set_addresses([LOCAL[0]], 5001, [EXTERNAL]))

    def test_loopback_is_checked_only_beside_an_intermediate_on_loopback(self) -> None:
        """Where it is, not what it observes: that is its own claim."""
        self.assertFalse(self.make(Server(RELAY, ("127.0.0.1", 5000))).policy.loopback)
        self.assertFalse(self.make(Server(None)).policy.loopback)
        self.assertTrue(self.make(Server(("127.0.0.1", 4433))).policy.loopback)
