"""The service of ``twistd p2p-agent``: local listeners that forward to services."""

from collections.abc import Callable
from typing import Any

from twisted.application import strports
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pnet import reports
from p2pnet.assembly import agent_node
from p2pnet.config.roles import AgentConfig, ForwardConfig
from p2pnet.net.flow import LOOPBACK, FlowListener, open_port, parse_udp
from p2pnet.net.listener import server_description
from p2pnet.net.splice import Splice
from p2pnet.node.agent import AgentNode
from p2pnet.roles.service import RoleService, endpoint_errors, endpoint_problem
from p2pnet.wire.address import format_address

Fail = Callable[[str], None]
"""Called with the reason if a forward has no listener, at the start of its service or later."""


class AgentService(RoleService):
    """The Agent of a configuration with its forwards.

    Raises CredentialsError, or ConfigError for a listener.
    """

    def __init__(self, reactor: Any, config: AgentConfig) -> None:
        node = agent_node(reactor, config)
        super().__init__(reactor, config, node)
        for forward in config.forwards:
            if forward.listen.startswith("udp:"):
                service: Service = FlowForward(reactor, node, forward, self.fail)
            else:
                service = stream_forward(reactor, node, forward, self.fail, config.tcp_keepalive)
            service.setServiceParent(self)


def stream_forward(
    reactor: Any, node: AgentNode, forward: ForwardConfig, fail: Fail, keepalive: int
) -> StreamServerEndpointService:
    """A service that forwards each connection to a local listener on a stream of its own.

    Raises ConfigError for the listener's endpoint.

    :param fail: called with the reason if the listener does not open.
    :param keepalive: seconds of silence after which a TCP connection is probed, 0 for never.
    """
    factory = ForwardFactory(node, forward, keepalive)
    with endpoint_errors(forward.where, forward.listen):
        service = strports.service(server_description(forward.listen), factory, reactor)
    service.endpoint = WatchedEndpoint(service.endpoint, node.report, forward, fail)
    return service


@implementer(IStreamServerEndpoint)
class WatchedEndpoint:
    """The endpoint of a forward, which reports the open listener or calls `fail`.

    StreamServerEndpointService would only log an endpoint's asynchronous failure.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        report: Callable[[reports.Report], None],
        forward: ForwardConfig,
        fail: Fail,
    ) -> None:
        self._endpoint = endpoint
        self._report = report
        self._forward = forward
        self._fail = fail

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Listen. Fires with the port, or with None after `fail` returned."""
        listening = maybeDeferred(self._endpoint.listen, protocolFactory)
        return listening.addCallbacks(self._listens, self._failed)

    def _listens(self, port: IListeningPort) -> IListeningPort:
        host: Any = port.getHost()
        has_port = hasattr(host, "port")  # the addresses of unix: and p2p: have no port
        address = format_address((host.host, host.port)) if has_port else str(host)
        self._report(reports.Listening(address, self._forward.service))
        return port

    def _failed(self, failure: Failure) -> Failure | None:
        if failure.check(CancelledError) is not None:
            return failure  # the service stops
        forward = self._forward
        self._fail(endpoint_problem(forward.where, forward.listen, failure.value))
        return None


class ForwardFactory(Factory):
    """Opens a stream to the service for each local connection and joins the two."""

    noisy = False

    def __init__(self, node: AgentNode, forward: ForwardConfig, keepalive: int) -> None:
        self._node = node
        self._forward = forward
        self._keepalive = keepalive

    def buildProtocol(self, addr: IAddress | None) -> Splice:
        """The Splice of a new local connection, joined to a new stream."""
        local, remote = Splice.pair(self._keepalive)
        self._node.open(self._forward.service, self._forward.path).connect(remote)
        return local


class FlowForward(Service):
    """Forwards the datagrams of a local UDP port to a service, a flow for each local sender.

    Raises ConfigError for the listener's endpoint.

    :param fail: called by startService() with the reason if the port does not open.
    """

    def __init__(self, reactor: Any, node: AgentNode, forward: ForwardConfig, fail: Fail) -> None:
        self._reactor = reactor
        self._node = node
        self._forward = forward
        self._fail = fail
        with endpoint_errors(forward.where, forward.listen):
            host, self._port_number = parse_udp(forward.listen)
        self._host = host or LOOPBACK
        self._listener = FlowListener(
            lambda: node.open_flow(forward.service, forward.path), node.driver.wake, reactor
        )
        self._port: Any = None

    def startService(self) -> None:
        """Open the local UDP port and report it, or call `fail`."""
        super().startService()
        try:
            self._port = open_port(self._reactor, self._port_number, self._listener, self._host)
        except CannotListenError as error:
            self._fail(endpoint_problem(self._forward.where, self._forward.listen, error))
            return
        host = self._port.getHost()
        address = format_address((host.host, host.port))
        self._node.report(reports.Listening(address, self._forward.service))

    def stopService(self) -> Any:
        """End the flows and close the port. Returns None, or a Deferred that fires when closed."""
        super().stopService()
        self._listener.close()
        return None if self._port is None else self._port.stopListening()
