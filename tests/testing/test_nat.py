"""The NAT boxes of the simulated network do what RFC 4787 calls their behavior."""

import itertools
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.testing.nat import PORTS, Filtering, Mapping, NATBox
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.wire.address import Address

OUTSIDE = "198.51.100.1"
HERE, NEXT_DOOR = ("203.0.113.1", 4433), ("203.0.113.1", 4434)
ELSEWHERE = ("203.0.113.2", 4433)
MAPPINGS = (Mapping.EIM, Mapping.ADM, Mapping.APDM)
FILTERINGS = (Filtering.EIF, Filtering.ADF, Filtering.APDF)


class Host:
    """A socket and what arrived at it: (data, source)."""

    def __init__(self, network: SimulatedNetwork, name: str, port: int = 5000) -> None:
        self.network = network
        self.heard: list[tuple[bytes, Address]] = []
        self.transport = network.transport(name, port)
        self.transport.start(self.heard.extend)

    def send(self, address: Address, data: bytes = b"?") -> None:
        """Send and let it arrive."""
        self.transport.send([(data, address)])
        self.network.run(0.1)

    def seen_by(self, other: "Host") -> Address:
        """The address that a packet of ours has when it reaches `other`."""
        self.send(other.transport.get_address(), b"who am I?")
        return other.heard[-1][1]

    def hears(self, other: "Host", at: Address) -> bool:
        """Whether a packet that `other` sends to `at` arrives here."""
        before = len(self.heard)
        other.send(at)
        return len(self.heard) > before


class NATCase(SynchronousTestCase):
    """One host behind a box, and three addresses of two hosts outside."""

    def network(self, *behavior: Any, seed: int = 1, **options: Any) -> NATBox:
        """A network with a box, `self.inside` behind it and `self.outside`."""
        self.net = SimulatedNetwork(seed, Link(delay=0.01))
        box = NATBox(self.net, OUTSIDE, *behavior, **options)
        self.net.behind("10.0.0.2", box)
        self.inside = Host(self.net, "10.0.0.2")
        self.outside = [Host(self.net, *address) for address in (HERE, NEXT_DOOR, ELSEWHERE)]
        return box


class BehaviorTests(NATCase):
    """RFC 4787 sections 4 and 5."""

    def test_mappings_are_shared_as_their_name_says(self) -> None:
        """How many external ports packets to two ports of one host and to another host have."""
        for (mapping, ports), filtering in itertools.product(
            zip(MAPPINGS, (1, 2, 3), strict=True), FILTERINGS
        ):
            self.network(mapping, filtering)
            seen = [self.inside.seen_by(host) for host in self.outside]
            self.assertEqual({OUTSIDE}, {address for address, _ in seen})
            self.assertEqual(ports, len(set(seen)), mapping)
            again = [self.inside.seen_by(host) for host in self.outside]
            self.assertEqual(seen, again)

    def test_filters_let_in_whom_their_name_says(self) -> None:
        """Whom the host has sent to, another port there, and another host."""
        expected = ((True, True, True), (True, True, False), (True, False, False))
        for (filtering, allowed), mapping in itertools.product(
            zip(FILTERINGS, expected, strict=True), MAPPINGS
        ):
            self.network(mapping, filtering)
            at = self.inside.seen_by(self.outside[0])
            heard = tuple(self.inside.hears(host, at) for host in self.outside)
            self.assertEqual(allowed, heard, f"{mapping} {filtering}")

    def test_a_port_that_is_not_mapped_leads_nowhere(self) -> None:
        """Also with the most open filter."""
        self.network(Mapping.EIM, Filtering.EIF, preserves=True)
        self.assertFalse(self.inside.hears(self.outside[0], (OUTSIDE, 5000)))
        self.assertEqual((OUTSIDE, 5000), self.inside.seen_by(self.outside[0]))
        self.assertFalse(self.inside.hears(self.outside[0], (OUTSIDE, 5001)))

    def test_a_mapping_ends_after_its_lifetime_without_outbound_packets(self) -> None:
        """What comes in does not prolong it (RFC 4787 REQ-6)."""
        self.network(Mapping.EIM, Filtering.EIF, lifetime=10.0)
        at = self.inside.seen_by(self.outside[0])
        self.net.run(9.0)
        self.assertTrue(self.inside.hears(self.outside[2], at))
        self.inside.send(HERE)
        self.net.run(9.0)
        self.assertTrue(self.inside.hears(self.outside[2], at))
        self.net.run(2.0)
        self.assertFalse(self.inside.hears(self.outside[2], at))
        self.assertNotEqual(at, self.inside.seen_by(self.outside[0]))

    def test_a_permission_ends_although_the_mapping_lives(self) -> None:
        """Each remote address has its own time."""
        self.network(Mapping.EIM, Filtering.ADF, lifetime=10.0)
        at = self.inside.seen_by(self.outside[0])
        self.net.run(6.0)
        self.inside.send(ELSEWHERE)
        self.net.run(6.0)
        heard = [self.inside.hears(host, at) for host in self.outside]
        self.assertEqual([False, False, True], heard)

    def test_rebinding_takes_the_mapping_away(self) -> None:
        """The next packet comes from another port, and the old one is closed."""
        box = self.network(Mapping.EIM, Filtering.EIF)
        at = self.inside.seen_by(self.outside[0])
        box.rebind()
        self.assertFalse(self.inside.hears(self.outside[0], at))
        self.assertNotEqual(at, self.inside.seen_by(self.outside[0]))


class PortTests(NATCase):
    """RFC 4787 section 4.2.1."""

    def test_a_preserved_port_is_the_host_s_own_as_long_as_it_is_free(self) -> None:
        """The second host with the same port gets another one."""
        box = self.network(preserves=True)
        self.net.behind("10.0.0.3", box)
        second = Host(self.net, "10.0.0.3")
        self.assertEqual((OUTSIDE, 5000), self.inside.seen_by(self.outside[0]))
        self.assertNotEqual((OUTSIDE, 5000), second.seen_by(self.outside[0]))

    def test_other_ports_are_drawn_from_the_seed_of_the_network(self) -> None:
        """Never a privileged one, the same each time for one seed."""
        drawn = []
        for seed in (1, 1, 2):
            self.network(Mapping.APDM, seed=seed)
            seen = [self.inside.seen_by(host)[1] for host in self.outside]
            self.assertTrue(all(port in PORTS for port in seen))
            drawn.append(seen)
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])


class TopologyTests(NATCase):
    """Who reaches whom."""

    def test_nobody_outside_reaches_an_inside_address(self) -> None:
        """Private addresses are private."""
        self.network(Mapping.EIM, Filtering.EIF)
        self.inside.send(HERE)
        self.assertFalse(self.inside.hears(self.outside[0], ("10.0.0.2", 5000)))

    def test_neighbors_behind_one_box_reach_each_other_by_inside_address(self) -> None:
        """As on any local network; and no others do."""
        box = self.network()
        self.net.behind("10.0.0.3", box)
        self.net.behind("10.0.9.2", NATBox(self.net, "198.51.100.9"))
        neighbor, stranger = Host(self.net, "10.0.0.3"), Host(self.net, "10.0.9.2")
        self.assertEqual(("10.0.0.3", 5000), neighbor.seen_by(self.inside))
        self.assertFalse(self.inside.hears(stranger, ("10.0.0.2", 5000)))

    def test_neighbors_reach_each_other_by_outside_address_only_with_hairpin(self) -> None:
        """And see the outside address of the other then (RFC 4787 REQ-9)."""
        for hairpin in (False, True):
            box = self.network(Mapping.EIM, Filtering.EIF, hairpin=hairpin)
            self.net.behind("10.0.0.3", box)
            neighbor = Host(self.net, "10.0.0.3")
            at, theirs = (host.seen_by(self.outside[0]) for host in (self.inside, neighbor))
            self.assertEqual(hairpin, self.inside.hears(neighbor, at))
            if hairpin:
                self.assertEqual(theirs, self.inside.heard[-1][1])

    def test_boxes_in_a_row_translate_one_after_the_other(self) -> None:
        """A home behind a carrier's NAT: the stricter filter counts."""
        home = self.network(Mapping.EIM, Filtering.EIF)
        carrier = NATBox(self.net, "192.0.2.9", Mapping.EIM, Filtering.ADF)
        self.net.behind(home.address, carrier)
        at = self.inside.seen_by(self.outside[0])
        self.assertEqual("192.0.2.9", at[0])
        heard = [self.inside.hears(host, at) for host in self.outside]
        self.assertEqual([True, True, False], heard)
