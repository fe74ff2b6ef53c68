"""Measures what a NAT does with plain UDP sockets, in the order of RFC 5780 section 4.

Two reflectors on the public segment have two sockets each. All sockets, inside and outside, are
of this process: an external address is what `recvfrom` says at the other end.
"""

import contextlib
import dataclasses
import itertools
import os
import socket
import time
from collections.abc import Iterator
from typing import Self

from lab.namespaces import Host, Lab
from lab.nat import BEHAVIORS, Behavior
from lab.topology import Site, Topology
from p2pnet.testing.nat import Filtering, Mapping

# Seconds. Packets within one kernel take microseconds; but a machine may be so busy that a
# measurement has to be made again, with more patience.
PATIENCE = (0.1, 1.0)
Address = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Character:
    """What a NAT does, measured or as it should be; see Behavior. None: not to be told."""

    mapping: Mapping
    filtering: Filtering
    preserves: bool | None = None
    sequential: bool | None = None
    fragile: bool | None = None
    hairpin: bool | None = None

    @classmethod
    def expected(cls, behavior: Behavior, hairpin: bool = False) -> Self:
        """What that behavior should measure as."""
        blocked, dependent = behavior.is_blocked, behavior.mapping is Mapping.APDM
        return cls(
            behavior.mapping,
            behavior.filtering,
            None if blocked else behavior.preserves,
            behavior.sequential if dependent else None,
            None if blocked or dependent else behavior.fragile,
            None if behavior.mapping in (Mapping.NONE, Mapping.BLOCKED) else hairpin,
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """One measurement beside what was to be found."""

    name: str
    measured: Character
    expected: Character

    @property
    def is_right(self) -> bool:
        """Whether the behavior does what its name says."""
        return self.measured == self.expected


def _open(host: Host, address: str) -> socket.socket:
    with host.enter():
        opened = socket.socket(
            socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
        )
        opened.bind((address, 0))
    return opened


def _address(opened: socket.socket) -> Address:
    name: Address = opened.getsockname()[:2]
    return name


class Probe:
    """Measures sites by means of two hosts on the public segment."""

    def __init__(self, one: Site, other: Site, ipv6: bool = False) -> None:
        self._ipv6 = ipv6
        self._patience = PATIENCE[0]
        # One address and two ports each: the four destinations of RFC 5780 section 4.3.
        self._first, self._first_port2, self._second, self._second_port2 = (
            _open(site.host, site.address6 if ipv6 else site.address)
            for site in (one, one, other, other)
        )

    def close(self) -> None:
        """Close the reflectors."""
        for reflector in (self._first, self._first_port2, self._second, self._second_port2):
            reflector.close()

    def find(self, name: str, site: Site, expected: Character) -> Finding:
        """Measure a site, and once more if what is found is not as expected."""
        for self._patience in PATIENCE:
            finding = Finding(name, self.measure(site), expected)
            if finding.is_right:
                break
        return finding

    def measure(self, site: Site) -> Character:
        """Find out what is between that site and the public."""
        local = site.address6 if self._ipv6 else site.address
        with contextlib.ExitStack() as stack:
            inside = [
                stack.enter_context(contextlib.closing(_open(site.host, local))) for _ in range(5)
            ]
            seen = self._mapping(inside[0])
            if seen is None:
                return Character(Mapping.BLOCKED, Filtering.BLOCKED)
            mapping = _classify(_address(inside[0]), seen)
            ports = [port for _, port in seen]
            steps = {b - a for a, b in itertools.pairwise(ports)}
            dependent = mapping in (Mapping.ADM, Mapping.APDM)
            return Character(
                mapping,
                self._filtering(inside[1]),
                ports[0] == _address(inside[0])[1],
                steps == {1} if dependent else None,
                None if dependent else self._fragile(inside[2]),
                None if mapping is Mapping.NONE else self._hairpin(*inside[3:]),
            )

    def _pass(
        self, source: socket.socket, destination: Address, at: socket.socket
    ) -> Address | None:  # fmt: skip
        """Send a datagram; where it came from as `at` sees it, None if it does not arrive there."""
        token = os.urandom(8)
        source.sendto(token, destination)
        deadline = time.monotonic() + self._patience
        while (left := deadline - time.monotonic()) > 0:
            at.settimeout(left)
            with contextlib.suppress(OSError):
                data, seen = at.recvfrom(100)
                if data == token:  # and not one that was late
                    return seen[0], seen[1]
        return None

    def _mapping(self, inside: socket.socket) -> list[Address] | None:
        """The external addresses towards both reflectors' first, then second ports."""
        reflectors = (self._first, self._second, self._second_port2, self._first_port2)
        seen = [self._pass(inside, _address(r), r) for r in reflectors]
        return None if None in seen else [address for address in seen if address]

    def _filtering(self, inside: socket.socket) -> Filtering:
        """RFC 5780 section 4.4: who may answer a packet to the first reflector."""
        external = self._pass(inside, _address(self._first), self._first)
        if external is None:
            return Filtering.BLOCKED
        if self._pass(self._second_port2, external, inside):
            return Filtering.EIF
        return Filtering.ADF if self._pass(self._first_port2, external, inside) else Filtering.APDF

    def _fragile(self, inside: socket.socket) -> bool:
        """Whether a packet that comes too early changes the mapping towards its sender."""
        external = self._pass(inside, _address(self._first), self._first)
        if external is not None:
            self._second.sendto(b"early", external)
        return self._pass(inside, _address(self._second), self._second) != external

    def _hairpin(self, one: socket.socket, other: socket.socket) -> bool:
        """RFC 4787 section 6: whether two sockets inside reach each other by external addresses.

        Both have sent before, as filtering may demand.
        """
        externals = [self._pass(s, _address(self._first), self._first) for s in (one, other)]
        if externals[0] is None or externals[1] is None:
            return False
        self._pass(one, externals[1], other)
        return self._pass(other, externals[0], one) == externals[1]


def _classify(local: Address, seen: list[Address]) -> Mapping:
    """RFC 5780 section 4.3, of the external addresses that `Probe` saw."""
    first, second, second_port2, first_port2 = seen
    if len(set(seen)) == 1:
        return Mapping.NONE if first[0] == local[0] else Mapping.EIM
    if first == first_port2 and second == second_port2:
        return Mapping.ADM
    return Mapping.APDM


def check(names: tuple[str, ...] = tuple(BEHAVIORS)) -> Iterator[Finding]:
    """Build each of these behaviors and measure it: also hairpinning, and the IPv6 firewall.

    Raises ProcessError.
    """
    with Lab() as lab:
        topology = Topology(lab, ipv6=True)
        reflectors = topology.site("reflector1"), topology.site("reflector2")
        with contextlib.closing(Probe(*reflectors)) as probe:
            for behavior in (BEHAVIORS[name] for name in names):
                for hairpin in (False, True) if behavior.can_hairpin else (False,):
                    name = behavior.name + (" with hairpin" if hairpin else "")
                    site = topology.site(name.replace(" ", "-"), behavior, hairpin=hairpin)
                    yield probe.find(name, site, Character.expected(behavior, hairpin))
        if "firewall" in names:
            with contextlib.closing(Probe(*reflectors, ipv6=True)) as probe:
                behavior = BEHAVIORS["firewall"]
                site = topology.site("firewall6", behavior)
                yield probe.find("firewall, IPv6", site, Character.expected(behavior))
