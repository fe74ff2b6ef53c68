"""A public segment, and sites connected to it behind named NAT behaviors.

::

    relay -- core -- router (one, two, or none) -- host
              |
              +----- router ... -- host

Addresses look like public ones (11/8 and 12/8, 2a00::/16), because programs treat the ranges for
documentation as private. None of them leaves the namespaces.
"""

import dataclasses

from lab.namespaces import MTU, Host, Lab, Wire
from lab.nat import OPEN, Behavior, Edge
from lab.wire import Conditions
from p2pnet.testing.nat import Mapping
from p2pnet.testing.processes import ProcessError

# Taken in turns. Below the ports of hosts: Linux keeps a port that is in the range already.
REBOUND_PORTS = ("10000-14999", "15000-19999")
_FORWARDING = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}


class Router:
    """A NAT or firewall that can be restarted and rebound.

    :ivar address6: its IPv6 address towards the public.
    """

    def __init__(self, host: Host, behavior: Behavior, edge: Edge, address6: str) -> None:
        self.host = host
        self.address6 = address6
        self._behavior = behavior
        self._edge = edge
        self._rebound = 0
        host.sysctl(_FORWARDING)
        self.restart()

    @property
    def address(self) -> str:
        """Its IPv4 address towards the public."""
        return self._edge.address

    def restart(self) -> None:
        """Forget all mappings and connections. A NAT that preserves ports will give them again."""
        assert self._behavior.rules is not None
        self.host.nft("flush ruleset\n" + self._behavior.rules(self._edge))
        self.host.forget_connections()

    def rebind(self) -> None:
        """Forget all mappings, and give others from now on."""
        ports = REBOUND_PORTS[self._rebound % len(REBOUND_PORTS)]
        self._rebound += 1
        self._edge = dataclasses.replace(self._edge, ports=ports)
        self.restart()


@dataclasses.dataclass(frozen=True)
class Site:
    """A host of the laboratory with what is between it and the public segment.

    :ivar address: IPv4 address of the host; `address6`: its IPv6 address, "" if it has none.
    :ivar routers: from the public segment inwards.
    :ivar wire: the link to the public segment if that has conditions.
    """

    behavior: Behavior
    host: Host
    address: str
    address6: str
    routers: tuple[Router, ...] = ()
    wire: Wire | None = None

    @property
    def external(self) -> str:
        """The IPv4 address that the public sees."""
        if self.behavior.mapping is Mapping.NONE:
            return self.address
        return self.routers[0].address

    def restart(self) -> None:
        """Restart all routers."""
        for router in self.routers:
            router.restart()


@dataclasses.dataclass(frozen=True)
class Uplink:
    """One of several ways that a host has to the public segment, over IPv4.

    :ivar interface: name of the host's interface; `gateway`: the router's address there.
    """

    host: Host
    interface: str
    gateway: str

    def take_down(self) -> None:
        """Take the interface down, and its routes with it. Raises ProcessError."""
        self.host.ip(f"link set {self.interface} down")

    def bring_up(self, metric: int) -> None:
        """Bring the interface up, with a default route that yields to those of lower metrics."""
        self.host.ip(
            f"link set {self.interface} up",
            f"route add default via {self.gateway} dev {self.interface} metric {metric}",
        )


class Topology:
    """The public segment of a laboratory.

    :param conditions: of each link to the segment; None is better than no delay, where nothing is
        to be changed later: the kernel carries the packets.
    :param ipv6: whether there is IPv6 too, behind a stateful firewall where there is a router.
    :param mtu: of all links, in bytes.
    """

    def __init__(
        self, lab: Lab, *, conditions: Conditions | None = None, ipv6: bool = False, mtu: int = MTU
    ) -> None:
        self.core = lab.host("core")
        self.core.sysctl(_FORWARDING)
        self._lab = lab
        self._conditions = conditions
        self._ipv6 = ipv6
        self._mtu = mtu
        self._number = 0

    def site(
        self, name: str, behavior: Behavior = OPEN, *,
        hairpin: bool = False, conditions: Conditions | None = None,
    ) -> Site:  # fmt: skip
        """Add a host behind that behavior, connected to the segment. Raises ProcessError.

        `conditions`: of its link to the segment, if not those of all.
        """
        if hairpin and not behavior.can_hairpin:
            raise ProcessError(f"no hairpinning with {behavior.name}")
        if behavior.rules is None:
            host = self._lab.host(name)
            address, address6, wire = self._uplink(host, self.core, conditions)
            return Site(behavior, host, address, address6, wire=wire)
        routers, wire = self._routers(name, behavior, hairpin, conditions)
        host = self._lab.host(name)
        address, address6 = self._inside(host, "lan", routers, behavior.mapping is Mapping.NONE)
        return Site(behavior, host, address, address6, tuple(routers), wire)

    def second_uplink(self, site: Site, behavior: Behavior) -> tuple[Uplink, Uplink]:
        """Give the host of a site another way out, behind a router of its own.

        Returns the one that it had, in use, and the new one, which is down.
        """
        routers, _ = self._routers(f"{site.host.name}-second", behavior, False)
        public = behavior.mapping is Mapping.NONE
        address, _ = self._inside(site.host, "wwan", routers, public, metric=1)
        ways = (("lan", site.address), ("wwan", address))
        first, second = (Uplink(site.host, name, f"{ip.rpartition('.')[0]}.1") for name, ip in ways)
        second.take_down()
        return first, second

    def _routers(
        self, name: str, behavior: Behavior, hairpin: bool, conditions: Conditions | None = None
    ) -> tuple[list[Router], Wire | None]:
        """The routers of a behavior, from the public segment inwards, and the link to it."""
        chain = [behavior]
        if behavior.carrier is not None:
            chain.insert(0, dataclasses.replace(behavior, rules=behavior.carrier))
        parent, routers, first = self.core, [], None
        for depth, part in enumerate(chain):
            host = self._lab.host(f"{name}-router{depth}")
            address, address6, wire = self._uplink(host, parent, conditions)
            first = first or wire
            edge = Edge("wan", address, hairpin=hairpin)
            routers.append(Router(host, part, edge, address6))
            parent = host
        return routers, first

    def _uplink(
        self, host: Host, parent: Host, conditions: Conditions | None
    ) -> tuple[str, str, Wire | None]:
        """Connect a host's "wan" to the segment, or to a carrier's router; returns addresses."""
        self._number += 1
        number = self._number
        at_core = parent is self.core
        wire = self._lab.link(
            parent, f"down{number}", host, "wan",
            mtu=self._mtu, conditions=(conditions or self._conditions) if at_core else None,
        )  # fmt: skip
        net = f"11.{number}.0" if at_core else f"100.64.{number}"
        net6 = f"2a00:{number:x}:" if self._ipv6 else ""
        return *_connect(parent, f"down{number}", host, "wan", net, net6), wire

    def _inside(
        self, host: Host, interface: str, routers: list[Router], public: bool, metric: int = 0
    ) -> tuple[str, str]:
        """Connect a host to the last of these routers; returns its addresses."""
        router = routers[-1].host
        number = self._number
        net = f"{12 if public else 10}.{number}.1"
        net6 = f"2a00:{0x1000 + number:x}:" if self._ipv6 else ""
        self._lab.link(router, "lan", host, interface, mtu=self._mtu)
        address, address6 = _connect(router, "lan", host, interface, net, net6, metric)
        outer = [self.core, *(r.host for r in routers)]
        for hop, behind in zip(outer, routers, strict=False):
            if public:
                hop.ip(f"route add {net}.0/24 via {behind.address}")
            if net6:
                hop.ip(f"route add {net6}:/64 via {behind.address6}")
        return address, address6

    def cut(self, one: Site, other: Site) -> None:
        """Lose all packets between two sites, other than by way of a third, until `mend()`."""
        pairs = [("ip", one.external, other.external), ("ip6", one.address6, other.address6)]
        rules = "\n".join(
            f"  {family} saddr {source} {family} daddr {destination} drop"
            for family, a, b in pairs if a and b
            for source, destination in ((a, b), (b, a))
        )  # fmt: skip
        self.core.nft(
            f"table inet cut {{\n chain forward {{\n  type filter hook forward priority filter;\n"
            f"{rules}\n }}\n}}\n"
        )

    def mend(self) -> None:
        """Undo every `cut()`."""
        self.core.nft("table inet cut\ndelete table inet cut\n")


def _connect(
    outer: Host, outer_name: str, inner: Host, inner_name: str, net: str, net6: str,
    metric: int = 0,
) -> tuple[str, str]:  # fmt: skip
    """Give addresses to a link, and the inner host its default route.

    Returns the inner host's IPv4 and IPv6 addresses; without `net6` there is no IPv6.
    """
    for host, name, number in ((outer, outer_name, 1), (inner, inner_name, 2)):
        commands = [f"address add {net}.{number}/24 dev {name}"]
        if net6:
            commands.append(f"address add {net6}:{number}/64 dev {name} nodad")
        host.ip(*commands, f"link set {name} up")
    inner.ip(f"route add default via {net}.1 metric {metric}")
    if net6:
        inner.ip(f"route add default via {net6}:1 metric {metric}")
    return f"{net}.2", f"{net6}:2" if net6 else ""
