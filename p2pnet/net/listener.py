"""The local listeners of forwards, as people write them."""

import re

BACKLOG = 1024  # connections that wait to be accepted; Twisted has 50
LOOPBACK = {"tcp": "127.0.0.1", "tcp4": "127.0.0.1", "tcp6": "::1", "ssl": "127.0.0.1"}
QUEUED = {*LOOPBACK, "unix"}  # Twisted's own kinds that know the option
_HOST_FIRST = re.compile(r"(tcp[46]?|udp):(?:\[([^\[\]]+)\]|([^:=\[\]\\]+)):([0-9]+)")
_UNESCAPED_COLON = re.compile(r"(?<!\\):")


def server_description(listen: str) -> str:
    """The endpoint string of a listener for Twisted: on loopback, unless an interface is given, and
    with BACKLOG.

    Everybody writes ``tcp:127.0.0.1:8080`` and ``tcp:[::1]:8080`` first; Twisted has the port first
    and ``interface=``, with a backslash before each colon of an IPv6 address.
    """
    found = _HOST_FIRST.fullmatch(listen)
    if found is not None:
        kind, ipv6, host, port = found.groups()
        listen = f"{kind}:{port}{_interface(ipv6 or host)}"
    kind, *fields = _UNESCAPED_COLON.split(listen)
    has_interface = any("=" not in field for field in fields[1:]) or "interface=" in listen
    if kind in LOOPBACK and not has_interface:
        listen += _interface(LOOPBACK[kind])
    if kind in QUEUED and "backlog=" not in listen:
        listen += f":backlog={BACKLOG}"
    return listen


def _interface(host: str) -> str:
    return ":interface=" + host.replace(":", "\\:")
