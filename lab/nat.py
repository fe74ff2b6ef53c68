"""NAT and firewall behaviors by name, as nftables rules for Linux's own NAT.

The terms are those of RFC 4787, see p2pnet.testing.nat.
"""

import dataclasses
from collections.abc import Callable

from p2pnet.testing.nat import Filtering, Mapping

TIMEOUT = "30s"  # of a mapping that `_cone` keeps; what Linux gives an unreplied one
SEQUENCE_START, SEQUENCE_LENGTH = 40000, 4096
CARRIER_PORTS = "20000-29999"  # below those of hosts, which would be kept


@dataclasses.dataclass(frozen=True)
class Edge:
    """Where a router meets the outside.

    :ivar interface: name of the interface.
    :ivar address: its IPv4 address.
    :ivar ports: "low-high", the range of external ports; "" keeps the host's own (section 4.2.1),
        as Linux also does with one that is within the range.
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
    """EIM that remembers mappings in a map of its own, so that others than the peer may come in.

    `restricted` says by what: "" (EIF), "address" (ADF) or "port" (APDF); then hairpinning needs
    preserved ports.
    """
    key, remote, own = {
        "": ("", "", ""),
        "address": (" . ipv4_addr", "ip saddr", "ip daddr"),
        "port": (" . ipv4_addr . inet_service", "ip saddr . udp sport", "ip daddr . udp sport"),
    }[restricted]
    # Who is known: a packet from outside, and one from inside to an external address.
    known = f"udp dport . {remote} @peers" if restricted else ""
    known_inside = f"udp dport . {own} @peers" if restricted else ""
    timing = f"flags dynamic,timeout\n  timeout {TIMEOUT}\n  size 65535"
    return (
        f"""
table ip nat {{
 map mappings {{
  type inet_service : ipv4_addr . inet_service
  {timing}
 }}
 set peers {{
  type inet_service{key}
  {timing}
 }}
}}
"""
        + _cone_translation(edge, known, known_inside)
        + _cone_learning(edge, restricted)
    )


def _cone_translation(edge: Edge, known: str, known_inside: str) -> str:
    """The part of `_cone` that translates; `known` are conditions for what comes in."""
    outside, inside = f'iifname "{edge.interface}"', f'iifname != "{edge.interface}"'
    to_us = f"ip daddr {edge.address} meta l4proto udp"
    to_host = "dnat to udp dport map @mappings"
    source = f"snat to {edge.address}" + (f":{edge.ports}" if edge.ports else "")
    hairpin = f"{inside} {to_us} {known_inside} {to_host}" if edge.hairpin else ""
    # What is sent to an external address without a mapping must not reach the router itself.
    return f"""
table ip nat {{
 chain pre {{
  type nat hook prerouting priority dstnat;
  {outside} {to_us} {known} {to_host}
  {hairpin}
 }}
 chain post {{
  type nat hook postrouting priority srcnat;
  oifname "{edge.interface}" meta l4proto udp {source}
  oifname "{edge.interface}" masquerade
  {inside} ct original {to_us} {source}
 }}
}}
table ip unmapped {{
 chain input {{
  type filter hook input priority filter - 1;
  {inside} {to_us} drop
 }}
}}
"""


def _cone_learning(edge: Edge, restricted: str) -> str:
    """The part of `_cone` that remembers: after srcnat, when the real external port is known."""
    out = f'oifname "{edge.interface}" meta l4proto udp'
    mapping = "ct reply proto-dst", "ct original ip saddr . ct original proto-src"
    returned = "ct original proto-dst", "ct reply ip saddr . ct reply proto-src"
    first, again = (f"{port} timeout {TIMEOUT} : {host}" for port, host in (mapping, returned))
    peer = hairpin_peer = ""
    if restricted:
        by_port = restricted == "port"
        remote = "ct reply ip saddr" + (" . ct reply proto-src" if by_port else "")
        peer = f"{out} ct direction original update @peers "
        peer += f"{{ ct reply proto-dst . {remote} timeout {TIMEOUT} }}"
        own = "udp sport . ip daddr" + (" . udp dport" if by_port else "")
        hairpin_peer = f'iifname != "{edge.interface}" ip daddr {edge.address} meta l4proto udp'
        hairpin_peer += f" update @peers {{ {own} }}"
    return f"""
table ip nat {{
 chain learn_hairpin {{
  type filter hook prerouting priority dstnat - 10;
  {hairpin_peer}
 }}
 chain learn {{
  type filter hook postrouting priority srcnat + 10;
  {out} ct direction original update @mappings {{ {first} }}
  {out} ct direction reply ct status dnat update @mappings {{ {again} }}
  {peer}
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
