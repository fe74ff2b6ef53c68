"""``p2p:`` endpoints: a service as something any Twisted program connects to or listens on."""

from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from p2pnet.net.stream import ServiceAddress, StreamTransport
from p2pnet.node import AgentNode, ConnectorNode


@implementer(IStreamClientEndpoint)
class P2PClientEndpoint:
    """Connects to `service` through a running AgentNode."""

    def __init__(self, node: AgentNode, service: str) -> None:
        self._node = node
        self._service = service

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """Fires with the connected protocol; fails with a ServiceError (a ConnectError)."""

        def connected(transport: StreamTransport) -> IProtocol:
            protocol = protocolFactory.buildProtocol(transport.getPeer())
            if protocol is None:
                transport.abortConnection()
                raise defer.CancelledError()
            transport.connect(protocol)
            return protocol

        return self._node.connect(self._service).addCallback(connected)


class _ServicePort:
    def __init__(self, node: ConnectorNode, service: str) -> None:
        self._node = node
        self._service = service

    def startListening(self) -> None:
        pass

    def stopListening(self) -> None:
        self._node.unserve(self._service)

    def getHost(self) -> ServiceAddress:
        return ServiceAddress(self._service, self._node.core.credentials.identity.name)


@implementer(IStreamServerEndpoint)
class P2PServerEndpoint:
    """Serves `service` on a running ConnectorNode."""

    def __init__(self, node: ConnectorNode, service: str) -> None:
        self._node = node
        self._service = service

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[Any]":
        """Fires with the port, whose stopListening() ends the serving."""

        def listen() -> _ServicePort:
            self._node.serve_protocol(self._service, protocolFactory)
            return _ServicePort(self._node, self._service)

        return defer.maybeDeferred(listen)
