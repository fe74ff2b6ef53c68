"""Addresses as text, and their one canonical form."""

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.address import (
    PeerAddress,
    canonical_address,
    format_address,
    is_ip_literal,
    parse_host_port,
)

CANONICAL = {
    "192.0.2.1": "192.0.2.1",
    "::ffff:192.0.2.1": "192.0.2.1",  # what a dual-stack socket reports
    "::FFFF:c000:201": "192.0.2.1",
    "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
    "fe80::1%eth0": "fe80::1",
    "::ffff:192.0.2.1%2": "192.0.2.1",
    "::1": "::1",
}
PARSED = {
    "192.0.2.1:4433": ("192.0.2.1", 4433),
    "relay.example:0": ("relay.example", 0),
    "[2001:DB8::1]:65535": ("2001:db8::1", 65535),
    "[::ffff:192.0.2.1]:1": ("192.0.2.1", 1),
    "[fe80::1%eth0]:1": ("fe80::1", 1),
}
REFUSED = {
    "": "no port",
    "relay.example": "no port",
    ":4433": "no host",
    "[]:4433": "in brackets",
    "::1:4433": "in brackets",
    "2001:db8::1": "in brackets",
    "[relay.example]:4433": "in brackets",
    "relay.example:": "not a port",
    "relay.example:-1": "not a port",
    "relay.example:65536": "not a port",
    "relay.example:\u0664\u0664": "not a port",  # digits to str.isdigit(), but not ASCII
    "relay.example:4_4": "not a port",
    "relay.example: 4": "not a port",
}
ports = st.integers(0, 65535)


class CanonicalTests(SynchronousTestCase):
    """One form for each address, whichever socket saw it."""

    def test_forms_that_differ_become_one(self) -> None:
        """Case, zeros, zone and the IPv4-mapped form."""
        for host, expected in CANONICAL.items():
            self.assertEqual((expected, 4433), canonical_address(host, 4433))

    def test_a_host_name_has_none(self) -> None:
        """It has to be resolved first."""
        for host in ("relay.example", "", "%eth0", "1.2.3"):
            self.assertFalse(is_ip_literal(host))
            self.assertRaises(ValueError, canonical_address, host, 1)

    @given(st.ip_addresses(), ports)
    def test_the_canonical_form_is_stable(
        self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
    ) -> None:
        """Made canonical twice it is the same, and it survives print and parse."""
        address = canonical_address(str(ip), port)
        self.assertEqual(address, canonical_address(*address))
        self.assertEqual(address, parse_host_port(format_address(address)))

    @given(st.ip_addresses(v=4), ports)
    def test_a_mapped_address_equals_the_plain_one(
        self, ip: ipaddress.IPv4Address, port: int
    ) -> None:
        """For every IPv4 address."""
        plain = canonical_address(str(ip), port)
        self.assertEqual(plain, canonical_address(f"::ffff:{ip}", port))


class HostPortTests(SynchronousTestCase):
    """Addresses that people write."""

    def test_good_ones(self) -> None:
        """Names stay as they are, literals become canonical."""
        for text, expected in PARSED.items():
            self.assertEqual(expected, parse_host_port(text))

    def test_bad_ones_are_refused_with_the_reason(self) -> None:
        """The text is in the message."""
        for text, reason in REFUSED.items():
            error = self.assertRaises(ValueError, parse_host_port, text)
            self.assertIn(reason, str(error))
            self.assertIn(repr(text), str(error))

    @given(st.text(max_size=40) | st.from_regex(r"\[?[0-9a-f:.%]*\]?:[0-9]*", fullmatch=True))
    @example("host:" + "9" * 5000)
    def test_any_text_parses_or_is_refused(self, text: str) -> None:
        """By ValueError alone; what parses can be printed and parsed again."""
        try:
            address = parse_host_port(text)
        except ValueError:
            return
        self.assertTrue(address[0] and 0 <= address[1] <= 65535)
        self.assertEqual(address, parse_host_port(format_address(address)))

    def test_an_ipv6_literal_is_printed_in_brackets(self) -> None:
        """And nothing else is."""
        self.assertEqual("[::1]:80", format_address(("::1", 80)))
        self.assertEqual("192.0.2.1:80", format_address(("192.0.2.1", 80)))
        self.assertEqual("relay.example:80", format_address(("relay.example", 80)))


class PeerAddressTests(SynchronousTestCase):
    """The opaque address of the other end of a session."""

    def test_it_can_be_no_ip_address(self) -> None:
        """Or QUIC could be steered to a preferred address by a peer."""
        address = PeerAddress.of_session(bytes(range(16)))
        self.assertEqual(("peer:000102030405060708090a0b0c0d0e0f", 0), address)
        self.assertFalse(is_ip_literal(address.name))

    @given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
    def test_it_is_the_same_for_the_same_session_only(self, one: bytes, other: bytes) -> None:
        """Compared by value."""
        same = PeerAddress.of_session(one) == PeerAddress.of_session(other)
        self.assertEqual(one == other, same)
