"""Name resolution with the reactor's own resolver."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from p2pnet.wire.address import is_ip_literal


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.done: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", None)
        if host is not None and host not in self.hosts:
            self.hosts.append(host)

    def resolutionComplete(self) -> None:
        self.done.callback(self.hosts)


def resolve(reactor: Any, host: str, families: Sequence[Any] | None = None) -> Deferred[list[str]]:
    """Fire with the IP literals of `host`, an empty list for a name without any.

    :param host: a host name, or an IP literal, which is returned without a lookup.
    :param families: the IAddress classes to look for, None for IPv4 and IPv6.
    """
    receiver = _Receiver()
    if is_ip_literal(host):
        receiver.hosts.append(host)
        receiver.resolutionComplete()
    else:
        reactor.nameResolver.resolveHostName(receiver, host, 0, families)
    return receiver.done
