"""``p2p:`` endpoints: a service as something any Twisted program connects to or listens on."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from p2pnet.assembly import agent_node, connector_node
from p2pnet.config.loading import load_config
from p2pnet.config.roles import AgentConfig, ConnectorConfig
from p2pnet.config.setting import ConfigError, check_service, right_spelling
from p2pnet.errors import NodeCannotListen, error_for
from p2pnet.identity import CredentialsError
from p2pnet.net.stream import ServiceAddress, StreamTransport
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.wire.codes import ErrorCode


def _owner_starts() -> None:
    """Do nothing: the owner of a node that no endpoint string made starts the node."""


@implementer(IStreamClientEndpoint)
class P2PClientEndpoint:
    """Connects to `service` through an AgentNode.

    :param start: called before each connection, to have the node run; may raise.
    """

    def __init__(
        self, node: AgentNode, service: str, start: Callable[[], None] = _owner_starts
    ) -> None:
        self._node = node
        self._service = service
        self._start = start

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """Fires with the connected protocol.

        Fails with a ServiceError (a ConnectError), with ValueError for a name that cannot be a
        service's, or with what `start` raised.
        """

        def connect() -> "defer.Deferred[StreamTransport]":
            self._start()
            return self._node.connect(self._service)

        def connected(transport: StreamTransport) -> IProtocol:
            try:
                protocol = protocolFactory.buildProtocol(transport.getPeer())
                if protocol is None:
                    raise defer.CancelledError()
                transport.connect(protocol)
            except Exception:
                transport.abortConnection()
                raise
            return protocol

        return defer.maybeDeferred(connect).addCallback(connected)


@implementer(IListeningPort)
class _ServicePort:
    """A service of a ConnectorNode as the port of its protocols."""

    def __init__(self, node: ConnectorNode, service: str, factory: IProtocolFactory) -> None:
        self._node = node
        self._service = service
        self._factory = factory
        self._is_listening = False

    def startListening(self) -> None:
        """Serve, also again. Raises CannotListenError while another port serves the service."""
        try:
            self._node.serve_protocol(self._service, self._factory)
        except ValueError as error:
            raise CannotListenError(self.getHost().node, self._service, error) from None
        self._is_listening = True

    def stopListening(self) -> None:
        """Refuse streams from now on. May be called again."""
        if self._is_listening:
            self._is_listening = False
            self._node.unserve(self._service)

    def getHost(self) -> ServiceAddress:
        """The service and the name of this node."""
        return ServiceAddress(self._service, self._node.core.credentials.identity.name)


@implementer(IStreamServerEndpoint)
class P2PServerEndpoint:
    """Serves `service` on a ConnectorNode.

    :param start: called before each listening, to have the node run; may raise.
    """

    def __init__(
        self, node: ConnectorNode, service: str, start: Callable[[], None] = _owner_starts
    ) -> None:
        self._node = node
        self._service = service
        self._start = start

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":
        """Fires with the port, whose stopListening() ends the serving.

        Fails with CannotListenError while the service is served already, with ConfigError or
        CredentialsError if agents could never reach the service, or with what `start` raised.
        """

        def listen() -> _ServicePort:
            _require_offered(self._node, self._service)
            self._start()
            port = _ServicePort(self._node, self._service, protocolFactory)
            port.startListening()
            return port

        return defer.maybeDeferred(listen)


def _require_offered(node: ConnectorNode, service: str) -> None:
    """Raise ConfigError or CredentialsError unless the node registers `service`."""
    identity = node.core.credentials.identity
    if service not in node.core.services:
        offered = ", ".join(node.core.services) or "none"
        raise ConfigError(
            f"{service!r} is not a service of {identity}; add a [[service]] table for it"
            f" (configured: {offered})"
        )
    if not identity.grants(service):
        raise CredentialsError(
            f"the certificate of {identity} does not grant {service}; issue another one with"
            f" `p2pnet pki issue connector {identity.name} --service {service}`"
        )


# -- endpoint strings ----------------------------------------------------------------------------

ARGUMENTS = ("service", "config")

C = TypeVar("C", AgentConfig, ConnectorConfig)
N = TypeVar("N", AgentNode, ConnectorNode)


class _SharedNode(Generic[N]):
    """A node that endpoint strings share: its first use starts it, the reactor's end stops it."""

    def __init__(self, reactor: Any, node: N) -> None:
        self.node: N = node
        self._is_over = False
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)

    def start(self, text: str) -> None:
        """Start the node unless it runs, also again after a start that failed.

        Raises NodeCannotListen for the endpoint `text`, OSError for the event log, or SessionLost
        once the reactor stops.
        """
        if self._is_over:
            raise error_for(ErrorCode.SHUTDOWN, f"{text}: the reactor stops")
        if not self.node.running:
            try:
                self.node.startService()
            except CannotListenError as error:
                raise NodeCannotListen(text, error) from error

    def _stop(self) -> Any:
        self._is_over = True
        return self.node.stopService() if self.node.running else None


_nodes: "weakref.WeakKeyDictionary[Any, dict[tuple[type, str], _SharedNode[Any]]]" = (
    weakref.WeakKeyDictionary()
)
"""The nodes of endpoint strings by reactor, then kind and configuration file."""


def _share(reactor: Any, path: str, kind: type[C], make: Callable[[Any, C], N]) -> _SharedNode[N]:
    """The node of a configuration file; the first string that names the file makes the node."""
    nodes = _nodes.setdefault(reactor, {})
    key = kind, os.path.realpath(path)  # whichever way the path is written
    if key not in nodes:
        nodes[key] = _SharedNode(reactor, make(reactor, load_config(kind, Path(path), {})))
    return nodes[key]


def parse_client(
    reactor: Any, arguments: Sequence[str], options: Mapping[str, str]
) -> P2PClientEndpoint:
    """``p2p:SERVICE:config=FILE`` for clientFromString: FILE is an Agent's configuration.

    Raises ConfigError or CredentialsError, which name the string.
    """
    text = _describe(arguments, options)
    with _named(text):
        service, file = _read(arguments, options)
        shared = _share(reactor, file, AgentConfig, agent_node)
    return P2PClientEndpoint(shared.node, service, lambda: shared.start(text))


def parse_server(
    reactor: Any, arguments: Sequence[str], options: Mapping[str, str]
) -> P2PServerEndpoint:
    """``p2p:SERVICE:config=FILE`` for serverFromString: FILE is a Connector's configuration.

    The service is in FILE with the agents that may use it; its target is not used. Raises
    ConfigError or CredentialsError, which name the string.
    """
    text = _describe(arguments, options)
    with _named(text):
        service, file = _read(arguments, options)
        shared = _share(reactor, file, ConnectorConfig, connector_node)
        _require_offered(shared.node, service)
    return P2PServerEndpoint(shared.node, service, lambda: shared.start(text))


def _describe(arguments: Sequence[str], options: Mapping[str, str]) -> str:
    """The endpoint string, as errors name it."""
    return ":".join(("p2p", *arguments, *(f"{name}={value}" for name, value in options.items())))


@contextmanager
def _named(text: str) -> Iterator[None]:
    """Put the endpoint string in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{text}: {error}") from None
    except CredentialsError as error:
        raise CredentialsError(f"{text}: {error}") from None


def _read(arguments: Sequence[str], options: Mapping[str, str]) -> tuple[str, str]:
    """The service and the file that an endpoint string names. Raises ValueError."""
    for name in options:
        if name not in ARGUMENTS:
            raise ValueError(f"unknown option {name}; {right_spelling(name, ARGUMENTS)}")
    services = [*arguments, *(options[name] for name in options if name == "service")]
    if len(services) != 1:
        found = ", ".join(services) or "none"
        raise ValueError(f"needs one service, got {found}; write p2p:SERVICE:config=FILE")
    check_service(services[0])
    if not options.get("config"):
        raise ValueError(f"config is missing; write p2p:{services[0]}:config=FILE")
    return services[0], options["config"]
