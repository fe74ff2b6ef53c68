"""Transport addresses as text: parsing, formatting, and their canonical form."""

import ipaddress
from typing import NamedTuple

Address = tuple[str, int]
"""An IP literal in canonical form and a UDP port. IPv4 is never IPv6-mapped."""

MAX_PORT = 65535


def is_ip_literal(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 literal rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def canonical_address(host: str, port: int) -> Address:
    """The canonical form of an IP literal and a port, without a zone id (RFC 4007 section 11).

    An IPv6-mapped address, as a dual-stack socket reports IPv4, becomes plain IPv4, so that equal
    addresses of different sockets compare equal. Raises ValueError for a host name.
    """
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped), port
    return str(ip), port


def parse_host_port(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[IPv6]:port``; the result has an IP literal in canonical form.

    Raises ValueError, with the reason, for any other text.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; write host:port, for example 192.0.2.1:4433")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_ip_literal(host):
            raise ValueError(f"{text!r}: {host!r} in brackets is not an IPv6 address")
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:4433")
    if not host:
        raise ValueError(f"{text!r} has no host")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= MAX_PORT):
        raise ValueError(f"{text!r}: {port_text!r} is not a port (0 to {MAX_PORT})")
    if is_ip_literal(host):
        host = canonical_address(host, 0)[0]
    return host, int(port_text)


def format_address(address: tuple[str, int]) -> str:
    """``host:port``, with brackets around an IPv6 literal."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class PeerAddress(NamedTuple):
    """The opaque address that stands for the other end of a session in QUIC.

    The address stays the same when the path below changes. It is no IP address, so no message of
    the peer can direct QUIC's packets to another destination.
    """

    name: str
    port: int = 0

    @classmethod
    def of_session(cls, session: bytes) -> "PeerAddress":
        """The address that stands for the other end of `session` (16 bytes)."""
        return cls(f"peer:{session.hex()}")
