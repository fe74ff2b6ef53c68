"""``twistd p2p-agent``: listens locally and forwards to services."""

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory

from p2pnet import reports
from p2pnet.assembly import agent_node
from p2pnet.config.roles import AgentConfig, ForwardConfig
from p2pnet.config.setting import ConfigError
from p2pnet.net.flow import FlowListener, parse_udp
from p2pnet.net.splice import Splice
from p2pnet.node.agent import AgentNode
from p2pnet.roles.service import RoleService
from p2pnet.wire.address import format_address


class AgentService(RoleService):
    """The Agent of a configuration."""

    def __init__(self, reactor: Any, config: AgentConfig) -> None:
        node = agent_node(reactor, config)
        super().__init__(reactor, config, node)
        for forward in config.forwards:
            kind = FlowForward if forward.listen.startswith("udp:") else StreamForward
            kind(reactor, node, forward).setServiceParent(self)


class StreamForward(Service):
    """Forwards each connection to a local listener to a stream of its own."""

    def __init__(self, reactor: Any, node: AgentNode, forward: ForwardConfig) -> None:
        self._forward = forward
        self._node = node
        try:
            self._endpoint = serverFromString(reactor, forward.listen)
        except (TypeError, ValueError) as error:
            problem = f"forward of {forward.service}: listen {forward.listen!r}: {error}"
            raise ConfigError(problem) from None
        self._port: IListeningPort | None = None
        self._listening: Deferred[Any] | None = None

    def startService(self) -> None:
        """Listen. Raises CannotListenError."""
        super().startService()
        failure: list[BaseException] = []
        factory = ForwardFactory(self._node, self._forward.service)
        self._listening = self._endpoint.listen(factory)
        self._listening.addCallbacks(self._listens, lambda f: failure.append(f.value))
        if failure:
            raise failure[0]

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        host: Any = port.getHost()
        address = (
            f"{host.host}" if not hasattr(host, "port") else format_address((host.host, host.port))
        )
        self._node.report(reports.Listening(address, self._forward.service))

    def stopService(self) -> Any:
        """Stop listening."""
        super().stopService()
        return None if self._port is None else self._port.stopListening()


class ForwardFactory(Factory):
    """Opens a stream for each connection and joins the two."""

    noisy = False

    def __init__(self, node: AgentNode, service: str) -> None:
        self._node = node
        self._service = service

    def buildProtocol(self, addr: IAddress | None) -> Splice:
        """The protocol for a new local connection."""
        local, remote = Splice.pair()
        self._node.open(self._service).connect(remote)
        return local


class FlowForward(Service):
    """Forwards datagrams to a local UDP port, a flow for each sender."""

    def __init__(self, reactor: Any, node: AgentNode, forward: ForwardConfig) -> None:
        self._reactor = reactor
        self._node = node
        self._service = forward.service
        try:
            self._host, self._port_number = parse_udp(forward.listen)
        except ValueError as error:
            raise ConfigError(f"forward of {forward.service}: listen {error}") from None
        self._listener = FlowListener(
            lambda: node.open_flow(forward.service), node.driver.wake, reactor
        )
        self._port: Any = None

    def startService(self) -> None:
        """Listen. Raises CannotListenError."""
        super().startService()
        self._port = self._reactor.listenUDP(
            self._port_number, self._listener, interface=self._host
        )
        host = self._port.getHost()
        self._node.report(reports.Listening(format_address((host.host, host.port)), self._service))

    def stopService(self) -> Any:
        """End the flows and stop listening."""
        super().stopService()
        self._listener.close()
        return None if self._port is None else self._port.stopListening()
