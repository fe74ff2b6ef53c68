"""NAT and firewall behaviors by name, as nftables rules for Linux's own NAT.

The terms are those of RFC 4787. Mapping (section 4.1) says which external port a host's packets
come from: endpoint-independent (EIM), address-dependent (ADM), address- and port-dependent (APDM).
Filtering (section 5) says whose packets come back in: anyone's (EIF), those of addresses the host
has sent to (ADF), those of address and port it has sent to (APDF).
"""

import dataclasses
import enum
from collections.abc import Callable

TIMEOUT = "30s"  # of a mapping that `_cone` keeps; what Linux gives an unreplied one
SEQUENCE_START, SEQUENCE_LENGTH = 40000, 4096
CARRIER_PORTS = "20000-29999"


class Mapping(enum.StrEnum):
    """How external ports are given out, RFC 4787 section 4.1."""

    NONE = "none"  # no translation
    EIM = "EIM"
    ADM = "ADM"
    APDM = "APDM"
    BLOCKED = "blocked"  # no UDP gets out


class Filtering(enum.StrEnum):
    """Whose packets may come in, RFC 4787 section 5."""

    EIF = "EIF"
    ADF = "ADF"
    APDF = "APDF"
    BLOCKED = "blocked"


@dataclasses.dataclass(frozen=True)
class Edge:
    """Where a router meets the outside.

    :ivar interface: name of the interface.
    :ivar address: its IPv4 address.
    :ivar ports: "low-high", the range of external ports; "" keeps the host's own (section 4.2.1).
    :ivar hairpin: whether hosts inside reach each other by external addresses (section 6).
    """

    interface: str
    address: str
    ports: str = ""
    hairpin: bool = False


@dataclasses.dataclass(frozen=True)
class Behavior:
    """One named behavior.

    :ivar rules: makes the rules of the router; None: there is no router.
    :ivar preserves: whether external ports are the host's own (section 4.2.1).
    :ivar can_hairpin: whether `rules` heed Edge.hairpin.
    :ivar sequential: whether a new mapping takes the next port.
    :ivar fragile: whether an early packet from outside takes the port away from the host.
    :ivar carrier: the rules of a second router between the first one and the public.
    """

    name: str
    mapping: Mapping
    filtering: Filtering
    rules: Callable[[Edge], str] | None
    preserves: bool = False
    can_hairpin: bool = False
    sequential: bool = False
    fragile: bool = False
    carrier: Callable[[Edge], str] | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether no UDP gets out at all."""
        return self.mapping is Mapping.BLOCKED


def firewall(edge: Edge) -> str:
    """Rules of a stateful firewall without NAT: APDF."""
    return _filter(edge)


def full_cone(edge: Edge) -> str:
    """Rules of EIM with EIF."""
    return _cone(edge, "") + _filter(edge)


def address_restricted(edge: Edge) -> str:
    """Rules of EIM with ADF."""
    return _cone(edge, "address") + _filter(edge)


def port_restricted(edge: Edge) -> str:
    """Rules of EIM with APDF: what Linux's masquerade does as long as it finds the port free."""
    return (_cone(edge, "port") if edge.hairpin else _masquerade(edge)) + _filter(edge)


def port_restricted_fragile(edge: Edge) -> str:
    """Rules of a router that accepts unsolicited packets itself.

    Connection tracking then holds the external port for that remote address, and the host's own
    packets to it come from another port: the sender of the early packet punched in vain.
    """
    return _masquerade(edge) + _filter(edge, unsolicited="accept")


def symmetric(edge: Edge) -> str:
    """Rules of APDM with random ports, and APDF."""
    return _masquerade(edge, "random,fully-random") + _filter(edge)


def symmetric_sequential(edge: Edge) -> str:
    """Rules of APDM with each mapping's port one above the last, and APDF."""
    # Without the map, numgen's number would become a port with its two bytes swapped.
    elements = ", ".join(f"{i} : {SEQUENCE_START + i}" for i in range(SEQUENCE_LENGTH))
    number = f"numgen inc mod {SEQUENCE_LENGTH}"
    return f"""
table ip nat {{
 map sequence {{
  typeof {number} : udp dport
  elements = {{ {elements} }}
 }}
 chain post {{
  type nat hook postrouting priority srcnat;
  oifname "{edge.interface}" meta l4proto udp snat to {edge.address} : {number} map @sequence
  oifname "{edge.interface}" masquerade
 }}
}}
""" + _filter(edge)


def carrier(edge: Edge) -> str:
    """Rules of a carrier's NAT: EIM from a range of ports, and APDF."""
    return port_restricted(dataclasses.replace(edge, ports=edge.ports or CARRIER_PORTS))


def udp_blocked(edge: Edge) -> str:
    """Rules of a NAT that lets no UDP through."""
    return _masquerade(edge) + _filter(edge, first="meta l4proto udp drop")


def _filter(edge: Edge, unsolicited: str = "drop", first: str = "") -> str:
    """The stateful filter, for IPv4 and IPv6.

    Unsolicited packets to the router itself are dropped, or they would hold ports: see
    `port_restricted_fragile`.
    """
    outside = f'iifname "{edge.interface}"'
    return f"""
table inet filter {{
 chain input {{
  type filter hook input priority filter;
  {outside} ct state established,related accept
  {outside} icmp type echo-request accept
  meta l4proto icmpv6 accept
  {outside} {unsolicited}
 }}
 chain forward {{
  type filter hook forward priority filter;
  {first}
  ct state established,related accept
  {outside} ct status dnat accept
  meta l4proto icmpv6 accept
  {outside} drop
 }}
}}
"""


def _masquerade(edge: Edge, flags: str = "") -> str:
    """Linux's NAT: EIM with APDF unless `flags` ask for random ports, which makes it APDM."""
    to = f"to :{edge.ports}" if edge.ports else ""
    return f"""
table ip nat {{
 chain post {{
  type nat hook postrouting priority srcnat;
  oifname "{edge.interface}" meta l4proto {{ tcp, udp }} masquerade {to} {flags}
  oifname "{edge.interface}" masquerade
 }}
}}
"""


def _cone(edge: Edge, restricted: str) -> str:
    """EIM that remembers mappings in a set of its own, so that others than the peer may come in.

    `restricted` says by what: "" (EIF), "address" (ADF) or "port" (APDF); then hairpinning needs
    preserved ports. The chains at srcnat + 10 run when the real external port is known.
    """
    outside, inside = f'iifname "{edge.interface}"', f'iifname != "{edge.interface}"'
    out, ours = f'oifname "{edge.interface}" meta l4proto udp', f"ip daddr {edge.address}"
    source = f"snat to {edge.address}" + (f":{edge.ports}" if edge.ports else "")
    key, seen, back, learnt = {
        "": ("", "", "", ""),
        "address": (" . ipv4_addr", "ip saddr", "ip daddr", "ct reply ip saddr"),
        "port": (
            " . ipv4_addr . inet_service", "ip saddr . udp sport", "ip daddr . udp sport",
            "ct reply ip saddr . ct reply proto-src",
        ),
    }[restricted]  # fmt: skip
    sent = f"udp sport . ip daddr{' . udp dport' if restricted == 'port' else ''}"
    hairpin = learn_peer = learn_hairpin = ""
    if restricted:
        seen, back = f"udp dport . {seen} @peers", f"udp dport . {back} @peers"
        peer = f"{{ ct reply proto-dst . {learnt} timeout {TIMEOUT} }}"
        learn_peer = f"{out} ct direction original update @peers {peer}"
        learn_hairpin = f"{inside} {ours} meta l4proto udp update @peers {{ {sent} }}"
    if edge.hairpin:
        hairpin = f"{inside} {ours} meta l4proto udp {back} dnat to udp dport map @mappings"
    return f"""
table ip nat {{
 map mappings {{
  type inet_service : ipv4_addr . inet_service
  flags dynamic,timeout
  timeout {TIMEOUT}
  size 65535
 }}
 set peers {{
  type inet_service{key}
  flags dynamic,timeout
  timeout {TIMEOUT}
  size 65535
 }}
 chain pre {{
  type nat hook prerouting priority dstnat;
  {outside} {ours} meta l4proto udp {seen} dnat to udp dport map @mappings
  {hairpin}
 }}
 chain post {{
  type nat hook postrouting priority srcnat;
  {out} {source}
  oifname "{edge.interface}" masquerade
  oifname != "{edge.interface}" {inside} ct original {ours} meta l4proto udp {source}
 }}
 chain learn_hairpin {{
  type filter hook prerouting priority dstnat - 10;
  {learn_hairpin}
 }}
 chain learn {{
  type filter hook postrouting priority srcnat + 10;
  {out} ct direction original update @mappings {{ ct reply proto-dst timeout {TIMEOUT} \
: ct original ip saddr . ct original proto-src }}
  {out} ct direction reply ct status dnat update @mappings {{ ct original proto-dst \
timeout {TIMEOUT} : ct reply ip saddr . ct reply proto-src }}
  {learn_peer}
 }}
}}
table ip unmapped {{
 chain input {{
  type filter hook input priority filter - 1;
  {inside} {ours} meta l4proto udp drop
 }}
}}
"""


OPEN = Behavior("open", Mapping.NONE, Filtering.EIF, None, preserves=True)
BEHAVIORS = {
    behavior.name: behavior
    for behavior in (
        OPEN,
        Behavior("firewall", Mapping.NONE, Filtering.APDF, firewall, preserves=True),
        Behavior(
            "full-cone", Mapping.EIM, Filtering.EIF, full_cone, preserves=True, can_hairpin=True
        ),
        Behavior(
            "address-restricted", Mapping.EIM, Filtering.ADF, address_restricted,
            preserves=True, can_hairpin=True,
        ),
        Behavior(
            "port-restricted", Mapping.EIM, Filtering.APDF, port_restricted,
            preserves=True, can_hairpin=True,
        ),
        Behavior(
            "port-restricted-fragile", Mapping.EIM, Filtering.APDF, port_restricted_fragile,
            preserves=True, fragile=True,
        ),
        Behavior("cgnat", Mapping.EIM, Filtering.APDF, port_restricted, carrier=carrier),
        Behavior("symmetric", Mapping.APDM, Filtering.APDF, symmetric),
        Behavior(
            "symmetric-sequential", Mapping.APDM, Filtering.APDF, symmetric_sequential,
            sequential=True,
        ),
        Behavior("udp-blocked", Mapping.BLOCKED, Filtering.BLOCKED, udp_blocked),
    )
}  # fmt: skip
"""Every behavior by its name."""
