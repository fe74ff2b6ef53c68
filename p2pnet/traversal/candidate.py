"""Transport addresses that a node may be reached at (RFC 8445 section 5.1)."""

import collections
import dataclasses
import enum
import hashlib
import ipaddress
from collections.abc import Iterable

from p2pnet.traversal.budget import MAX_PORTS, host_of
from p2pnet.wire.address import Address, canonical_address

COMPONENT = 1  # there is one socket
MAX_CANDIDATES = 16  # of one node in one session, sent or taken
LOWEST_PORT = 1024  # a peer has no business on a well-known port of somebody


class CandidateType(enum.StrEnum):
    """How a node learnt a candidate (RFC 8445 section 5.1.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


# RFC 8445 section 5.1.2.2
TYPE_PREFERENCE = {
    CandidateType.HOST: 126,
    CandidateType.PEER_REFLEXIVE: 110,
    CandidateType.SERVER_REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate. `related` is the base of a reflexive candidate, for people."""

    type: CandidateType
    address: Address
    priority: int
    foundation: str
    related: Address | None = None

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 address."""
        return ":" in self.address[0]


def calculate_priority(kind: CandidateType, local_preference: int) -> int:
    """Return the priority of a candidate (RFC 8445 section 5.1.2.1), 1 to 2**31 - 1.

    :param local_preference: 0 to 65535; higher for the address to prefer among those of a type.
    """
    return (TYPE_PREFERENCE[kind] << 24) + (local_preference << 8) + (256 - COMPONENT)


def _foundation(kind: CandidateType, base: str, server: str) -> str:
    """Return the foundation of a type, a base and a server (RFC 8445 section 5.1.1.3)."""
    return hashlib.blake2s(f"{kind}|{base}|{server}".encode(), digest_size=4).hexdigest()


def _preference(address: Address, index: int) -> int:
    """IPv6 before IPv4 (RFC 8421), then in the order given."""
    return (65535 if ":" in address[0] else 32767) - min(index, 1000)


def gather_host_candidates(hosts: Iterable[str], port: int) -> list[Candidate]:
    """Return a candidate for each own address of the node; its socket is bound to all of them."""
    candidates = []
    for index, host in enumerate(hosts):
        address = (host, port)
        priority = calculate_priority(CandidateType.HOST, _preference(address, index))
        foundation = _foundation(CandidateType.HOST, host, "")
        candidates.append(Candidate(CandidateType.HOST, address, priority, foundation))
    return candidates


def gather_reflexive_candidate(
    observed: Address, server: str, index: int = 0, base: Address | None = None
) -> Candidate:
    """Return the candidate for the address that the Intermediate `server` observes."""
    kind = CandidateType.SERVER_REFLEXIVE
    priority = calculate_priority(kind, _preference(observed, index))
    foundation = _foundation(kind, base[0] if base else "", server)
    return Candidate(kind, observed, priority, foundation, base)


def gather_relay_candidate(server: Address) -> Candidate:
    """Return the candidate of the relay at `server`, which peers never check."""
    kind = CandidateType.RELAYED
    return Candidate(kind, server, calculate_priority(kind, 0), _foundation(kind, "", server[0]))


def peer_reflexive_candidate(address: Address, priority: int) -> Candidate:
    """Return the candidate for the source address of an authentic check."""
    foundation = _foundation(CandidateType.PEER_REFLEXIVE, f"{address[0]}:{address[1]}", "")
    return Candidate(CandidateType.PEER_REFLEXIVE, address, priority, foundation)


@dataclasses.dataclass(frozen=True, slots=True)
class CandidatePolicy:
    """The addresses that checks may go to, and that a peer may learn.

    :ivar private: addresses of private networks (RFC 1918, RFC 4193, RFC 6598).
    :ivar loopback: addresses of this host.
    """

    private: bool = True
    loopback: bool = False

    def allows(self, address: Address) -> bool:
        """Whether a check may go to `address`, and a peer may learn it."""
        host, port = address
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        # Only in canonical form: no zone of an interface, and nothing hidden in a mapped address.
        if canonical_address(host, port) != address or not LOWEST_PORT <= port <= 65535:
            return False
        if ip.is_loopback:
            return self.loopback
        if ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.is_reserved:
            return False
        return self.private or ip.is_global


def sanitize(candidates: Iterable[Candidate], policy: CandidatePolicy) -> list[Candidate]:
    """Return the allowed candidates, each address once, the best MAX_CANDIDATES of them.

    A host has MAX_PORTS of them at most.
    """
    by_address: dict[Address, Candidate] = {}
    for candidate in candidates:
        if not policy.allows(candidate.address):
            continue
        known = by_address.get(candidate.address)
        if known is None or candidate.priority > known.priority:
            by_address[candidate.address] = candidate
    best = []
    ports: collections.Counter[str] = collections.Counter()
    for candidate in sorted(by_address.values(), key=lambda c: -c.priority):
        host = host_of(candidate.address)
        ports[host] += 1
        if ports[host] <= MAX_PORTS:
            best.append(candidate)
    return best[:MAX_CANDIDATES]
