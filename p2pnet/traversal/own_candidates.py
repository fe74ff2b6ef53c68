"""The candidates of this node: which addresses its peers may reach it at."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Protocol

from p2pnet.traversal.candidate import (
    Candidate,
    CandidatePolicy,
    CandidateType,
    gather_host_candidates,
    gather_reflexive_candidate,
    gather_relay_candidate,
    sanitize,
)
from p2pnet.wire.address import Address


class Server(Protocol):
    """The part of an Intermediate that contributes candidates.

    :ivar name: "host:port" as configured.
    :ivar address: where this node connects to it, None before the first try.
    :ivar observed: this node's address as the server sees it, None while unknown.
    :ivar is_ready: whether the control connection stands.
    """

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> Address | None: ...
    @property
    def observed(self) -> Address | None: ...
    @property
    def is_ready(self) -> bool: ...


class OwnCandidates:
    """Gathers the candidates of one node (RFC 8445 section 5.1.1).

    They come from the interfaces of the machine, from the operator, and from the Intermediates,
    which act as the STUN servers of that section.

    :param servers: the Intermediates of the node; read anew by each call.
    :param tell_observed: whether peers learn the addresses that Intermediates observe.
    """

    def __init__(self, servers: Sequence[Server], *, tell_observed: bool) -> None:
        self._servers = servers
        self._tell_observed = tell_observed
        self._hosts: list[str] = []
        self._port = 0
        self._external: list[Address] = []

    def set_addresses(
        self, hosts: Iterable[str], port: int, external: Iterable[Address] = ()
    ) -> bool:
        """Replace the addresses of this machine, the socket's port and the operator's addresses.

        Returns whether anything changed.
        """
        before = self._hosts, self._port, self._external
        self._hosts, self._port, self._external = list(hosts), port, list(external)
        return before != (self._hosts, self._port, self._external)

    @property
    def policy(self) -> CandidatePolicy:
        """The addresses that may be checked.

        Loopback only if an Intermediate is on loopback: the address that it observes is its own
        claim, and a false claim must not open the services of this host to checks.
        """
        addresses = (server.address for server in self._servers if server.address is not None)
        return CandidatePolicy(
            loopback=any(ipaddress.ip_address(host).is_loopback for host, _ in addresses)
        )

    def gather(self) -> list[Candidate]:
        """Return the candidates for a peer. The relayed ones name common Intermediates."""
        candidates = gather_host_candidates(self._hosts, self._port)
        given = [(f"external {i}", address) for i, address in enumerate(self._external)]
        seen = self._observed() if self._tell_observed else []
        for index, (server, address) in enumerate(given + seen):
            candidates.append(gather_reflexive_candidate(address, server, index))
        relays = [s.address for s in self._servers if s.is_ready and s.address is not None]
        candidates += [gather_relay_candidate(address) for address in relays]
        return sanitize(candidates, self.policy)

    def bases(self) -> list[Candidate]:
        """Return a local candidate for each address family of the node, known to peers or not."""
        bases: dict[bool, Candidate] = {}
        reflexive = [
            gather_reflexive_candidate(address, name) for name, address in self._observed()
        ]
        for candidate in (*self.gather(), *reflexive):
            if candidate.type is not CandidateType.RELAYED:
                bases.setdefault(candidate.is_ipv6, candidate)
        return list(bases.values())

    def _observed(self) -> list[tuple[str, Address]]:
        return [(s.name, s.observed) for s in self._servers if s.observed is not None]
