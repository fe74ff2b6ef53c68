"""``p2p:`` endpoints, by which any Twisted program connects to a service or serves one."""

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
    """Do nothing: the program that made a node also starts the node."""


@implementer(IStreamClientEndpoint)
class P2PClientEndpoint:
    """An IStreamClientEndpoint that connects to a service through an AgentNode.

    :param service: the service's name.
    :param start: called before each connection, and starts the node if need be; may raise.
    :param path: the path policy, "" for that of the node's configuration.
    """

    def __init__(
        self,
        node: AgentNode,
        service: str,
        start: Callable[[], None] = _owner_starts,
        path: str = "",
    ) -> None:
        self._node = node
        self._service = service
        self._start = start
        self._path = path

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """Connect to the service. Fires with the connected protocol; may be cancelled.

        Fails with a ServiceError (a ConnectError), with ValueError for an invalid service name, or
        with the exception of `start`.
        """

        def connect() -> "defer.Deferred[StreamTransport]":
            self._start()
            return self._node.connect(self._service, self._path)

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
    """An IListeningPort: a service of a ConnectorNode and the factory that serves it."""

    def __init__(self, node: ConnectorNode, service: str, factory: IProtocolFactory) -> None:
        self._node = node
        self._service = service
        self._factory = factory
        self._is_listening = False

    def startListening(self) -> None:
        """Serve the service, also after stopListening().

        Raises CannotListenError while another port or handler serves the service.
        """
        try:
            self._node.serve_protocol(self._service, self._factory)
        except ValueError as error:
            raise CannotListenError(self.getHost().node, self._service, error) from None
        self._is_listening = True

    def stopListening(self) -> None:
        """Refuse new streams from now on; accepted ones go on. A second call does nothing."""
        if self._is_listening:
            self._is_listening = False
            self._node.unserve(self._service)

    def getHost(self) -> ServiceAddress:
        """The ServiceAddress: the service's name and this node's name."""
        return ServiceAddress(self._service, self._node.core.credentials.identity.name)


@implementer(IStreamServerEndpoint)
class P2PServerEndpoint:
    """An IStreamServerEndpoint that serves a service on a ConnectorNode.

    :param service: the service's name.
    :param start: called by each listen(), and starts the node if need be; may raise.
    """

    def __init__(
        self, node: ConnectorNode, service: str, start: Callable[[], None] = _owner_starts
    ) -> None:
        self._node = node
        self._service = service
        self._start = start

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":
        """Serve the service. Fires with an IListeningPort.

        Fails with CannotListenError while another port or handler serves the service, with
        ConfigError or CredentialsError if agents could never reach the service, or with the
        exception of `start`.
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


class _SharedNode(Generic[C, N]):
    """A node that endpoint strings share: the first use starts it, the reactor's end stops it."""

    def __init__(self, reactor: Any, config: C, node: N) -> None:
        self.config: C = config
        self.node: N = node
        self._is_over = False
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)

    def start(self, text: str) -> None:
        """Start the node unless it runs. After a failure the next call tries again.

        Raises NodeCannotListen, OSError for the event log, or SessionLost once the reactor stops.

        :param text: the endpoint string, for errors.
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


_nodes: "weakref.WeakKeyDictionary[Any, dict[tuple[type, str], _SharedNode[Any, Any]]]" = (
    weakref.WeakKeyDictionary()
)
"""The nodes of endpoint strings by reactor, then kind and configuration file."""


def _share(
    reactor: Any, path: str, kind: type[C], make: Callable[[Any, C], N]
) -> _SharedNode[C, N]:
    """The shared node of a configuration file; the first string with that file makes the node."""
    nodes = _nodes.setdefault(reactor, {})
    key = kind, os.path.realpath(path)  # one node for all spellings of a path
    if key not in nodes:
        config = load_config(kind, Path(path), {})
        nodes[key] = _SharedNode(reactor, config, make(reactor, config))
    return nodes[key]


def parse_client(
    reactor: Any, arguments: Sequence[str], options: Mapping[str, str]
) -> P2PClientEndpoint:
    """The endpoint of ``p2p:SERVICE:config=FILE`` for clientFromString().

    FILE is an Agent's configuration, whose forward of the service may have a path policy. Raises
    ConfigError or CredentialsError, which name the string.
    """
    text = _describe(arguments, options)
    with _named(text):
        service, file = _read(arguments, options)
        shared = _share(reactor, file, AgentConfig, agent_node)
        path = _path_of(service, shared.config)
    return P2PClientEndpoint(shared.node, service, lambda: shared.start(text), path)


def _path_of(service: str, config: AgentConfig) -> str:
    """The path policy of the forwards of a service, "" without any. Raises ValueError for two."""
    paths = {forward.path for forward in config.forwards if forward.service == service}
    if len(paths) > 1:
        raise ValueError(f"forwards of {service} have different paths; use a file with one of them")
    return "".join(paths)


def parse_server(
    reactor: Any, arguments: Sequence[str], options: Mapping[str, str]
) -> P2PServerEndpoint:
    """The endpoint of ``p2p:SERVICE:config=FILE`` for serverFromString().

    FILE is a Connector's configuration. Its table of the service names the agents that may use the
    service; the table's target is not used. Raises ConfigError or CredentialsError, which name the
    string.
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
    """Put the endpoint string in front of the text of a ValueError or CredentialsError."""
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
