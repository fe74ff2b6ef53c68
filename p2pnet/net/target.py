"""The TCP targets of services: a host that may have several addresses, of both families."""

import re
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    clientFromString,
)
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from p2pnet.net.resolve import resolve

TIMEOUT = 30.0  # seconds for the last address
SOON = 2.0  # seconds for an address after which there is another one
_TCP = re.compile(r"tcp:(?:\[([^\[\]]+)\]|([^:=\[\]\\]+)):([0-9]+)")


def target_endpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """The client endpoint of a target: an endpoint string of Twisted, or ``tcp:[IPv6]:PORT``.

    Raises ValueError or TypeError for any other description.
    """
    plain = _TCP.fullmatch(description)
    if plain is None:
        parsed: IStreamClientEndpoint = clientFromString(reactor, description)
        return parsed
    return HostEndpoint(reactor, plain[1] or plain[2], int(plain[3]))


@implementer(IStreamClientEndpoint)
class HostEndpoint:
    """Connects to the first address of a host that answers, and asks that address first from then
    on.

    Twisted's HostnameEndpoint waits 0.3 s after a refusal, for each connection: a service that
    listens only on 127.0.0.1 would pay them under the name of localhost.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._answered = ""

    @inlineCallbacks
    def connect(
        self, protocolFactory: IProtocolFactory
    ) -> Generator[Deferred[Any], Any, IProtocol]:
        """Fire with the connected protocol. Fails with the error of the last address tried."""
        hosts: list[str] = yield resolve(self._reactor, self._host)
        if not hosts:
            raise DNSLookupError(f"{self._host} has no address")
        hosts.sort(key=lambda host: host != self._answered)
        for number, host in enumerate(hosts, 1):
            kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
            is_last = number == len(hosts)
            endpoint = kind(self._reactor, host, self._port, TIMEOUT if is_last else SOON)
            try:
                protocol: IProtocol = yield endpoint.connect(protocolFactory)
            except (CancelledError, ConnectingCancelledError):
                raise
            except Exception:
                if is_last:
                    raise
                continue
            self._answered = host
            return protocol
        raise AssertionError("the loop ends with its last host")
