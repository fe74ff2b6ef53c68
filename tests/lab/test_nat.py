"""The NATs of the laboratory do what their names say, by measurement."""

import functools
from typing import Any

from lab.nat import BEHAVIORS, Behavior, Edge
from lab.probe import Character, Finding
from p2pnet.testing.nat import Filtering, Mapping
from tests.lab import LabTestCase, lab


@functools.cache
def findings() -> dict[str, dict[str, Any]]:
    """What ``python -m lab check`` measured, by name; all behaviors take 7 s."""
    return {row["name"]: row for row in lab("check")}


class NATTests(LabTestCase):
    """Against the terms of RFC 4787, not against what `Behavior` says."""

    def assert_measured(
        self, name: str, mapping: str, filtering: str, **others: bool | None
    ) -> None:  # fmt: skip
        """That behavior was measured as this, and found to be as it should."""
        finding = findings()[name]
        measured = finding["measured"]
        self.assertEqual((mapping, filtering), (measured["mapping"], measured["filtering"]))
        self.assertEqual(others, {key: measured[key] for key in others})
        self.assertTrue(finding["ok"], finding)

    def test_open(self) -> None:
        """Nothing is between the host and the public."""
        self.assert_measured("open", "none", "EIF", preserves=True)

    def test_firewall(self) -> None:
        """Answers alone come in, over IPv4 and IPv6; there is no translation."""
        for name in ("firewall", "firewall, IPv6"):
            self.assert_measured(name, "none", "APDF", preserves=True)

    def test_endpoint_independent_mappings(self) -> None:
        """The three classic kinds differ in who may come in."""
        for name, filtering in (
            ("full-cone", "EIF"), ("address-restricted", "ADF"), ("port-restricted", "APDF"),
        ):  # fmt: skip
            self.assert_measured(
                name, "EIM", filtering, preserves=True, fragile=False, hairpin=False
            )

    def test_hairpin(self) -> None:
        """Two hosts inside reach each other by external addresses if they are to."""
        for name, filtering in (
            ("full-cone", "EIF"), ("address-restricted", "ADF"), ("port-restricted", "APDF"),
        ):  # fmt: skip
            self.assert_measured(f"{name} with hairpin", "EIM", filtering, hairpin=True)

    def test_fragile(self) -> None:
        """A packet that comes early takes the port away."""
        self.assert_measured("port-restricted-fragile", "EIM", "APDF", fragile=True)

    def test_two_in_a_row(self) -> None:
        """The carrier's NAT does not keep ports."""
        self.assert_measured("cgnat", "EIM", "APDF", preserves=False, fragile=False)

    def test_destination_dependent_mappings(self) -> None:
        """A new port for each destination: any, or the next one."""
        self.assert_measured("symmetric", "APDM", "APDF", sequential=False)
        self.assert_measured("symmetric-sequential", "APDM", "APDF", sequential=True)

    def test_blocked(self) -> None:
        """No UDP gets out."""
        self.assert_measured("udp-blocked", "blocked", "blocked")

    def test_every_behavior_was_measured(self) -> None:
        """None is missing above, or in the check."""
        self.assertEqual(set(), BEHAVIORS.keys() - findings().keys())

    def test_a_wrong_rule_is_noticed(self) -> None:
        """A measurement beside another expectation is not right."""
        behavior = Behavior("cone", Mapping.EIM, Filtering.EIF, None)
        measured = Character.expected(BEHAVIORS["symmetric"])
        self.assertFalse(Finding("cone", measured, Character.expected(behavior)).is_right)

    def test_ports_can_be_chosen(self) -> None:
        """A rebound NAT takes its ports from the range it is told."""
        edge = Edge("wan", "11.0.0.2", ports="10000-10999")
        for name in ("full-cone", "address-restricted", "port-restricted", "cgnat"):
            rules = BEHAVIORS[name].carrier or BEHAVIORS[name].rules
            assert rules is not None
            self.assertIn(":10000-10999", rules(edge))
