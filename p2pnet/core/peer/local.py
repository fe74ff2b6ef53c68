"""What a node tells its peers of where it may be reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from p2pnet.core.peer.node import PeerCore


class LocalCandidates:
    """The addresses of a node: its interfaces', those that the operator gives, those observed.

    :param tell_observed: whether peers are told of the addresses that Intermediates see.
    """

    def __init__(self, node: PeerCore, *, tell_observed: bool) -> None:
        self._tell_observed = tell_observed
        self._node = node
        self._hosts: list[str] = []
        self._port = 0
        self._external: list[Address] = []

    def set_addresses(
        self, hosts: Iterable[str], port: int, external: Iterable[Address] = ()
    ) -> bool:
        """The addresses of this machine, the socket's port, and addresses the operator gives.

        Returns whether that is news.
        """
        before = self._hosts, self._port, self._external
        self._hosts, self._port, self._external = list(hosts), port, list(external)
        return before != (self._hosts, self._port, self._external)

    @property
    def policy(self) -> CandidatePolicy:
        """What may be sent to. Loopback only if that is where an Intermediate is: where it sees us
        is its word alone, which must not open the services of this host to checks."""
        addresses = (link.address for link in self._node.links if link.address is not None)
        return CandidatePolicy(
            loopback=any(ipaddress.ip_address(host).is_loopback for host, _ in addresses)
        )

    def gather(self) -> list[Candidate]:
        """What to tell a peer, the relays included: they say where this node can be met."""
        candidates = gather_host_candidates(self._hosts, self._port)
        given = [(f"external {i}", address) for i, address in enumerate(self._external)]
        seen = list(self._node.observed_addresses.items()) if self._tell_observed else []
        for index, (server, address) in enumerate(given + seen):
            candidates.append(gather_reflexive_candidate(address, server, index))
        ready = [link.address for link in self._node.links if link.is_ready and link.address]
        candidates += [gather_relay_candidate(address) for address in ready]
        return sanitize(candidates, self.policy)

    def bases(self) -> list[Candidate]:
        """A local candidate for each address family that the node has, told or not."""
        bases: dict[bool, Candidate] = {}
        observed = self._node.observed_addresses.items()
        reflexive = [gather_reflexive_candidate(address, server) for server, address in observed]
        for candidate in (*self.gather(), *reflexive):
            if candidate.type is not CandidateType.RELAYED:
                bases.setdefault(candidate.is_ipv6, candidate)
        return list(bases.values())
