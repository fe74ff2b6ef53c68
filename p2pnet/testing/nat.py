"""NAT boxes for the simulated network, on its virtual clock.

::

    box = NATBox(network, "198.51.100.1", Mapping.EIM, Filtering.ADF)
    network.behind("10.0.1.2", box)

The terms are those of RFC 4787. The mapping (section 4.1) chooses the external port of a host's
packets: endpoint-independent (EIM), address-dependent (ADM), or address- and port-dependent (APDM).
The filtering (section 5) admits packets from outside: from anywhere (EIF), from addresses to which
the host has sent (ADF), or from addresses and ports to which the host has sent (APDF).

A box has no delay of its own: it translates outbound packets at the time of sending, and inbound
packets at the time of arrival.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable

from p2pnet.testing.network import SimulatedNetwork
from p2pnet.wire.address import MAX_PORT, Address

LIFETIME = 30.0  # seconds without an outbound packet, as in Linux for unanswered UDP
PORTS = range(1024, MAX_PORT + 1)  # external ports


class Mapping(enum.StrEnum):
    """The mapping of external ports (RFC 4787 section 4.1)."""

    NONE = "none"  # no translation
    EIM = "EIM"
    ADM = "ADM"
    APDM = "APDM"
    BLOCKED = "blocked"  # no UDP gets out


class Filtering(enum.StrEnum):
    """The filtering of inbound packets (RFC 4787 section 5)."""

    EIF = "EIF"
    ADF = "ADF"
    APDF = "APDF"
    BLOCKED = "blocked"


# The number of elements of a remote address that count: 0, 1 (host) or 2 (host and port).
_DISTINGUISHES: dict[enum.StrEnum, int] = {
    Mapping.EIM: 0,
    Mapping.ADM: 1,
    Mapping.APDM: 2,
    Filtering.EIF: 0,
    Filtering.ADF: 1,
    Filtering.APDF: 2,
}


@dataclasses.dataclass(slots=True)
class _Binding:
    """The binding of one external port.

    :ivar used_at: the time of the last outbound packet, in seconds of virtual time.
    :ivar remotes: the time of the last outbound packet to each destination.
    """

    inside: Address
    port: int
    used_at: float
    remotes: dict[Address, float] = dataclasses.field(default_factory=dict)


class NATBox:
    """A NAT with one external address.

    :param address: the external IP literal.
    :param lifetime: seconds after the last outbound packet for which a mapping, or the permission
        of a remote address, holds. Only outbound packets refresh (RFC 4787 REQ-6).
    :param hairpin: whether inside hosts reach each other by their external addresses.
    :param preserves: whether a mapping has the host's own port if that is free (port preservation,
        RFC 4787 section 4.2.1). All other mappings have random ports.
    :ivar address: the external IP literal.
    :ivar hairpin: whether inside hosts reach each other by their external addresses.
    """

    def __init__(
        self,
        network: SimulatedNetwork,
        address: str,
        mapping: Mapping = Mapping.EIM,
        filtering: Filtering = Filtering.APDF,
        *,
        lifetime: float = LIFETIME,
        hairpin: bool = False,
        preserves: bool = False,
    ) -> None:
        self.address = address
        self.hairpin = hairpin
        self._network = network
        self._mapping = mapping
        self._filtering = filtering
        self._lifetime = lifetime
        self._preserves = preserves
        self._bindings: dict[Hashable, _Binding] = {}
        self._by_port: dict[int, _Binding] = {}

    def outbound(self, source: Address, destination: Address) -> Address:
        """The external address of an inside host's packet, whose mapping is made or refreshed."""
        now = float(self._network.clock.seconds())
        key = source, destination[: _DISTINGUISHES[self._mapping]]
        binding = self._bindings.get(key)
        if binding is None or self._is_over(binding.used_at):
            binding = _Binding(source, self._free_port(source[1]), now)
            self._bindings[key] = self._by_port[binding.port] = binding
        binding.used_at = binding.remotes[destination] = now
        return self.address, binding.port

    def inbound(self, source: Address, port: int) -> Address | None:
        """The inside address for a packet to the external `port`, None if the packet is dropped."""
        binding = self._by_port.get(port)
        if binding is None or self._is_over(binding.used_at):
            return None
        common = _DISTINGUISHES[self._filtering]
        allowed = any(
            remote[:common] == source[:common] and not self._is_over(at)
            for remote, at in binding.remotes.items()
        )
        return binding.inside if allowed else None

    def rebind(self) -> None:
        """Drop every mapping, as a restart of the box does."""
        self._bindings.clear()
        self._by_port.clear()

    def _is_over(self, used_at: float) -> bool:
        return bool(self._network.clock.seconds() - used_at > self._lifetime)

    def _free_port(self, wanted: int) -> int:
        taken = {port for port, one in self._by_port.items() if not self._is_over(one.used_at)}
        if self._preserves and wanted not in taken:
            return wanted
        while (port := self._network.random.choice(PORTS)) in taken:
            pass
        return port
