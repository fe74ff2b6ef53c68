"""The ways that packets of a session can take, and their names."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.way import WayKind, direct_way, name_of, relayed_way
from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, relay_header

PEER: Address = ("198.51.100.1", 5000)
RELAY: Address = ("192.0.2.1", 4433)


class WayTests(SynchronousTestCase):
    """A header, and an address."""

    def test_the_direct_way_has_no_header(self) -> None:
        """Packets go as they are."""
        way = direct_way(PEER)
        self.assertEqual((WayKind.DIRECT, PEER, b""), (way.kind, way.address, way.header))

    def test_the_relayed_way_has_the_header_of_its_channel(self) -> None:
        """The datagram goes to the Intermediate."""
        way = relayed_way(RELAY, b"channel1")
        self.assertEqual((WayKind.RELAYED, RELAY), (way.kind, way.address))
        self.assertEqual(relay_header(b"channel1"), way.header)
        self.assertEqual(RELAY_OVERHEAD, len(way.header))

    def test_names_are_equal_if_and_only_if_the_addresses_are(self) -> None:
        """In their order; the channel does not matter."""
        one, again = relayed_way(RELAY, b"channel1"), relayed_way(RELAY, b"channel2")
        self.assertNotEqual(one, again)
        self.assertEqual(name_of((one,)), name_of((again,)))
        self.assertEqual(name_of((direct_way(PEER), one)), name_of((direct_way(PEER), again)))
        self.assertEqual(4, len({name_of(ways) for ways in (
            (), (one,), (direct_way(PEER),), (direct_way(PEER), one),
        )}))  # fmt: skip
