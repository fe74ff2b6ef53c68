"""Host candidates: the addresses of this machine's network interfaces."""

import ipaddress

import ifaddr
from zope.interface import implementer

from p2pnet.interfaces import ICandidateSource


@implementer(ICandidateSource)
class InterfaceSource:
    """The addresses of all interfaces, as far as a peer could use them.

    Left out are loopback and link-local addresses, and IPv6 addresses that are about to go:
    temporary (RFC 8981) and deprecated ones, where the system tells.
    """

    name = "host"

    def hosts(self) -> list[str]:
        """The IP literals, IPv4 first, in the system's order."""
        found: list[str] = []
        passing = _passing_addresses()
        for adapter in _adapters():
            for entry in adapter.ips:
                host = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
                ip = ipaddress.ip_address(host.partition("%")[0])
                if ip.is_loopback or ip.is_link_local or str(ip) in passing or str(ip) in found:
                    continue
                found.append(str(ip))
        return sorted(found, key=lambda host: ":" in host)


def _adapters() -> list[ifaddr.Adapter]:
    """All interfaces; none where the system does not let programs look."""
    try:
        return list(ifaddr.get_adapters())
    except OSError:
        return []


# IFA_F_* of Linux' if_addr.h
TEMPORARY, OPTIMISTIC, FAILED, DEPRECATED, TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40


def _passing_addresses() -> set[str]:
    """IPv6 addresses that Linux marks as temporary, deprecated, or not usable (yet); none on other
    systems."""
    passing = set()
    try:
        with open("/proc/self/net/if_inet6") as table:
            for line in table:
                digits, _index, _prefix, _scope, flags, *_name = line.split()
                bits = int(flags, 16)
                unusable = bits & TENTATIVE and not bits & OPTIMISTIC
                if bits & (TEMPORARY | DEPRECATED | FAILED) or unusable:
                    passing.add(str(ipaddress.IPv6Address(int(digits, 16))))
    except (OSError, ValueError):
        pass
    return passing
