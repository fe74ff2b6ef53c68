"""Tests of p2pnet.core.peer.profiles: how connections of each kind are set up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.profiles import PEER_ALPN, PEER_IDLE_TIMEOUT, Profiles
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.quic.congestion import CONTROL_CONTROLLER
from p2pnet.wire import messages
from tests.core.peer.pair import OPTIONS
from tests.core.support import credentials


class ProfileTests(SynchronousTestCase):
    """The profiles of a connector."""

    def setUp(self) -> None:
        """One that lets agents open seven streams."""
        office = credentials(Role.CONNECTOR, "office")
        self.profiles = Profiles(office, Role.AGENT, OPTIONS, utcnow, max_peer_streams=7)

    def test_a_control_connection_leads_to_an_intermediate_of_that_name(self) -> None:
        """Which opens no stream and gets no datagram."""
        profile = self.profiles.control("relay.example")
        self.assertEqual(
            (frozenset({Role.INTERMEDIATE}), "relay.example", messages.ALPN),
            (profile.roles, profile.host, profile.alpn),
        )
        self.assertEqual((0, False), (profile.max_streams, profile.datagrams))
        self.assertEqual((OPTIONS.engine, CONTROL_CONTROLLER), (profile.engine, profile.congestion))

    def test_a_connection_between_the_ends_is_for_the_other_role(self) -> None:
        """As the operator chose, without a host, and it survives a restart of an Intermediate."""
        profile = self.profiles.peer()
        self.assertEqual(
            (frozenset({Role.AGENT}), None, PEER_ALPN),
            (profile.roles, profile.host, profile.alpn),
        )
        self.assertEqual((8, True), (profile.max_streams, profile.datagrams))
        self.assertEqual(PEER_IDLE_TIMEOUT, profile.idle_timeout)
        self.assertEqual((OPTIONS.engine, OPTIONS.congestion), (profile.engine, profile.congestion))

    def test_new_credentials_are_for_connections_to_come(self) -> None:
        """Each profile keeps those that it was made with."""
        before = self.profiles.peer()
        other = self.profiles.credentials = credentials(Role.CONNECTOR, "annex")
        self.assertIs(credentials(Role.CONNECTOR, "office"), before.credentials)
        for profile in (self.profiles.peer(), self.profiles.control("relay.example")):
            self.assertIs(other, profile.credentials)
