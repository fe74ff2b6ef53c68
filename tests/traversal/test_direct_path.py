"""The direct path in use: what packets and checks say of it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.direct_path import GRACE, MAX_DOUBLINGS, DirectPath
from p2pnet.traversal.health import ASK_AFTER, CONSENT, Health, Keepalive
from p2pnet.traversal.mtu import Phase
from p2pnet.traversal.pair import CandidatePair, PairState
from p2pnet.traversal.way import direct_way
from p2pnet.wire.address import Address
from p2pnet.wire.packet_size import BASE
from tests.traversal.support import host

PEER: Address = ("203.0.113.1", 5000)
RTT = 0.04
NOW = 100.0
MOMENT = 0.001


class DirectPathTests(SynchronousTestCase):
    """A path that is used from NOW on."""

    def setUp(self) -> None:
        self.pair = CandidatePair(
            host(("198.51.100.1", 5000)), host(PEER), 1, PairState.SUCCEEDED, rtt=RTT
        )
        self.pair.answered_at = NOW - 20.0
        self.path = DirectPath(self.pair, Keepalive(), NOW)

    def test_it_leads_to_the_peer_with_packets_of_base(self) -> None:
        """The search for larger ones begins at once."""
        self.assertEqual(direct_way(PEER), self.path.way)
        self.assertEqual((BASE, Phase.BASE), (self.pair.mtu.size, self.pair.mtu.phase))
        self.assertEqual(NOW, self.path.get_timer())

    def test_consent_is_as_old_as_the_last_answer(self) -> None:
        """The pair may have waited for its turn."""
        self.assertEqual(RTT, self.path.health.rtt)
        self.assertIs(Health.GOOD, self.path.health.look(NOW - 20.0 + CONSENT - MOMENT))
        self.assertIs(Health.DEAD, self.path.health.look(NOW - 20.0 + CONSENT))
        self.pair.answered_at = None
        self.assertEqual(NOW, DirectPath(self.pair, Keepalive(), NOW).health.answered_at)

    def test_a_peer_that_never_sent_directly_did_not_leave(self) -> None:
        """It may not know of the path yet."""
        self.assertFalse(self.path.is_left(NOW + 1000.0, RTT))

    def test_relayed_packets_are_stragglers_for_the_grace_period(self) -> None:
        """Of one second and a round trip after the peer's first direct packet."""
        self.path.heard(NOW)
        self.path.heard(NOW + 0.5)
        self.assertFalse(self.path.is_left(NOW + GRACE + RTT - MOMENT, RTT))
        self.assertTrue(self.path.is_left(NOW + GRACE + RTT + MOMENT, RTT))

    def test_each_refuted_doubt_doubles_the_grace_period(self) -> None:
        """So many times at most; a direct packet ends that."""
        for count in range(1, MAX_DOUBLINGS + 3):
            self.path.refuted(NOW)
            grace = GRACE * 2.0 ** min(count, MAX_DOUBLINGS)
            self.assertFalse(self.path.is_left(NOW + grace - MOMENT, 0.0))
            self.assertTrue(self.path.is_left(NOW + grace + MOMENT, 0.0))
        self.path.heard(NOW)
        self.assertTrue(self.path.is_left(NOW + GRACE + MOMENT, 0.0))

    def test_a_refuted_doubt_restarts_the_search_for_the_size(self) -> None:
        """The path may be another one now."""
        self.pair.mtu.next_probe(NOW)
        self.pair.mtu.answered(BASE, NOW)
        self.assertIs(Phase.SEARCHING, self.pair.mtu.phase)
        self.path.refuted(NOW)
        self.assertIs(Phase.BASE, self.pair.mtu.phase)

    def test_no_size_is_probed_on_a_path_in_doubt(self) -> None:
        """A lost probe would say nothing of its size."""
        self.pair.mtu.next_probe(NOW)
        probe = self.pair.mtu.next_at
        self.assertEqual(probe, self.path.get_timer())
        self.path.health.doubt(NOW)
        self.assertLess(self.path.get_timer(), probe)
        self.path.health.asked(NOW + ASK_AFTER)
        self.assertNotEqual(probe, self.path.get_timer())
