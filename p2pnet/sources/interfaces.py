"""Host candidates: the addresses of this machine's network interfaces."""

import ipaddress

import ifaddr
from zope.interface import implementer

from p2pnet.interfaces import ICandidateSource


@implementer(ICandidateSource)
class InterfaceSource:
    """An ICandidateSource of the addresses of all network interfaces.

    It leaves out loopback and link-local addresses (RFC 8445 section 5.1.1.1) and, on Linux, IPv6
    addresses that are temporary (RFC 8981), deprecated or not usable yet.
    """

    def hosts(self) -> list[str]:
        """The IP literals, IPv4 before IPv6, in the order of the system."""
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
    """All interfaces; none where the system forbids programs to list them."""
    try:
        return list(ifaddr.get_adapters())
    except OSError:
        return []


# IFA_F_* of Linux' if_addr.h
TEMPORARY, OPTIMISTIC, FAILED, DEPRECATED, TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40


def _passing_addresses() -> set[str]:
    """IPv6 addresses that Linux marks as temporary, deprecated, failed or tentative.

    On other systems there are none.
    """
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
