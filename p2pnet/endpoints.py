"""``p2p:`` endpoints: a service as something any Twisted program connects to or listens on."""

import weakref
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from p2pnet.assembly import agent_node, connector_node
from p2pnet.config.loading import load_config
from p2pnet.config.roles import AgentConfig, ConnectorConfig
from p2pnet.net.stream import ServiceAddress, StreamTransport
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode


@implementer(IStreamClientEndpoint)
class P2PClientEndpoint:
    """Connects to `service` through a running AgentNode."""

    def __init__(self, node: AgentNode, service: str) -> None:
        self._node = node
        self._service = service

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """Fires with the connected protocol; fails with a ServiceError (a ConnectError), or with
        ValueError for a name that cannot be a service's."""

        def connected(transport: StreamTransport) -> IProtocol:
            try:
                protocol = protocolFactory.buildProtocol(transport.getPeer())
                if protocol is None:
                    raise defer.CancelledError()
            except Exception:
                transport.abortConnection()
                raise
            transport.connect(protocol)
            return protocol

        return defer.maybeDeferred(self._node.connect, self._service).addCallback(connected)


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


_nodes: "weakref.WeakKeyDictionary[Any, dict[tuple[str, str], AgentNode | ConnectorNode]]" = (
    weakref.WeakKeyDictionary()
)
"""The nodes that endpoint strings started, by reactor, then role and configuration file."""


def _node(reactor: Any, role: str, path: str) -> AgentNode | ConnectorNode:
    """The running node of a configuration file; the first to ask starts it.

    It stops with the reactor. Raises ConfigError or CredentialsError.
    """
    nodes = _nodes.setdefault(reactor, {})
    file = Path(path).absolute()
    node = nodes.get((role, str(file)))
    if node is None:
        if role == "agent":
            node = agent_node(reactor, load_config(AgentConfig, file, {}))
        else:
            node = connector_node(reactor, load_config(ConnectorConfig, file, {}))
        nodes[role, str(file)] = node
        reactor.callWhenRunning(node.startService)
        reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    return node


def parse_client(reactor: Any, service: str, config: str = "agent.toml") -> P2PClientEndpoint:
    """``p2p:SERVICE[:config=FILE]`` for clientFromString: FILE is an Agent's configuration.

    Raises ConfigError or CredentialsError.
    """
    node = _node(reactor, "agent", config)
    assert isinstance(node, AgentNode)
    return P2PClientEndpoint(node, service)


def parse_server(reactor: Any, service: str, config: str = "connector.toml") -> P2PServerEndpoint:
    """``p2p:SERVICE[:config=FILE]`` for serverFromString: FILE is a Connector's configuration.

    The service is in it with who may use it; its target is not used. Raises ConfigError or
    CredentialsError.
    """
    node = _node(reactor, "connector", config)
    assert isinstance(node, ConnectorNode)
    return P2PServerEndpoint(node, service)
