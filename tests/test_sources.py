"""Tests for the sources of host candidates."""

import ipaddress

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.interfaces import ICandidateSource
from p2pnet.sources.interfaces import InterfaceSource
from p2pnet.sources.static import StaticSource


class SourceTests(SynchronousTestCase):
    """The two sources."""

    def test_each_source_is_a_candidate_source(self) -> None:
        """The interface is kept."""
        for source in (InterfaceSource(), StaticSource([])):
            verifyObject(ICandidateSource, source)

    def test_interface_addresses_are_usable_by_a_peer(self) -> None:
        """No loopback, no link-local, canonical form, each once, IPv4 first."""
        hosts = InterfaceSource().hosts()
        addresses = [ipaddress.ip_address(host) for host in hosts]
        self.assertEqual(hosts, [str(address) for address in addresses])
        self.assertEqual(len(hosts), len(set(hosts)))
        self.assertEqual(addresses, sorted(addresses, key=lambda address: address.version))
        for address in addresses:
            self.assertFalse(address.is_loopback or address.is_link_local, address)

    def test_given_addresses_stay_as_given(self) -> None:
        """What the caller does to a result does not change the next."""
        source = StaticSource(["192.0.2.1", "2001:db8::1"])
        source.hosts().clear()
        self.assertEqual(["192.0.2.1", "2001:db8::1"], source.hosts())
