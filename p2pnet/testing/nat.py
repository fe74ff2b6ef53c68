"""NAT boxes for the simulated network, on its virtual clock.

::

    box = NATBox(network, "198.51.100.1", Mapping.EIM, Filtering.ADF)
    network.behind("10.0.1.2", box)

The terms are those of RFC 4787. Mapping (section 4.1) says which external port a host's packets
come from: endpoint-independent (EIM), address-dependent (ADM), address- and port-dependent (APDM).
Filtering (section 5) says whose packets come back in: anyone's (EIF), those of addresses the host
has sent to (ADF), those of address and port it has sent to (APDF).

A box sits beside its hosts: it translates at the moment of sending, and what comes from outside at
the moment of its arrival.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable

from p2pnet.testing.network import SimulatedNetwork
from p2pnet.wire.address import Address

LIFETIME = 30.0  # seconds without an outbound packet; Linux's for UDP that nobody answered
PORTS = range(1024, 65536)


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


# How much of a remote address counts: nothing, its host, or host and port.
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
    """One external port. `remotes`: where packets went from it, and when they last did."""

    inside: Address
    port: int
    used_at: float
    remotes: dict[Address, float] = dataclasses.field(default_factory=dict)


class NATBox:
    """A NAT with one external address.

    :param lifetime: seconds after the last outbound packet (RFC 4787 REQ-6 asks for no more) for
        which a mapping holds, and likewise the permission of a remote address.
    :param hairpin: whether hosts inside reach each other by their external addresses.
    :param preserves: whether a host's own port is taken if it is free; else one is drawn.
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
        """The address that a packet of the inside host's leaves with."""
        now = float(self._network.clock.seconds())
        key = source, destination[: _DISTINGUISHES[self._mapping]]
        binding = self._bindings.get(key)
        if binding is None or self._is_over(binding.used_at):
            binding = _Binding(source, self._free_port(source[1]), now)
            self._bindings[key] = self._by_port[binding.port] = binding
        binding.used_at = binding.remotes[destination] = now
        return self.address, binding.port

    def inbound(self, source: Address, port: int) -> Address | None:
        """The inside host's address that a packet to the external `port` is for, if any's."""
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
        """Forget every mapping, as after a restart."""
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
