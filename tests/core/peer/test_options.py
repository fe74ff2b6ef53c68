"""Tests of p2pnet.core.peer.options: the choices of an operator, and where they end up."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.options import PeerOptions
from tests.core.support import make_agent, make_connector


class OptionTests(SynchronousTestCase):
    """The same for Agent and Connector."""

    def test_options_have_no_defaults_here(self) -> None:
        """The settings of p2pnet.config have them."""
        for field in dataclasses.fields(PeerOptions):
            self.assertIs(dataclasses.MISSING, field.default)
            self.assertIs(dataclasses.MISSING, field.default_factory)

    def test_options_cannot_be_changed(self) -> None:
        """A core has read them by then."""
        options = PeerOptions(engine="fast", congestion="bbr", tell_observed=True)
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, options, "engine", "stock")

    def test_a_core_takes_its_options(self) -> None:
        """The profiles of its connections have them."""
        for make in (make_agent, make_connector):
            core = make(["192.0.2.1:4433"], quic="stock", congestion="reno")
            profile = core.profiles.peer()
            self.assertEqual(("stock", "reno"), (profile.engine, profile.congestion))
            self.assertEqual("stock", core.profiles.control("192.0.2.1").engine)
