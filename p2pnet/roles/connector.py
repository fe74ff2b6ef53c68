"""The service of ``twistd p2p-connector``: forwards the streams of services to their targets."""

import collections
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from p2pnet.assembly import connector_node
from p2pnet.config.roles import ConnectorConfig, ServiceConfig
from p2pnet.core.peer.stream import Stream
from p2pnet.errors import code_for
from p2pnet.net.driver import Pump
from p2pnet.net.flow import FlowTarget, parse_udp
from p2pnet.net.resolve import resolve
from p2pnet.net.splice import Splice
from p2pnet.net.stream import StreamTransport
from p2pnet.node.connector import ConnectorNode, Handler
from p2pnet.roles.service import RoleService, endpoint_errors
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind

ANSWERED_WITHIN = 0.001  # seconds that an acceptance waits, to share a packet with the answer


class ConnectorService(RoleService):
    """The Connector of a configuration with its targets.

    Raises CredentialsError, or ConfigError for a target.
    """

    def __init__(self, reactor: Any, config: ConnectorConfig) -> None:
        node = connector_node(reactor, config)
        super().__init__(reactor, config, node)
        self.config: ConnectorConfig = config
        for service in config.services:
            node.serve(service.name, self._handler(service, node))

    def _handler(self, service: ServiceConfig, node: ConnectorNode) -> Handler:
        if service.target.startswith("udp:"):
            with endpoint_errors(service.where, service.target):
                host, port = parse_udp(service.target)
                if not host:
                    raise ValueError(f"{service.target!r} has no host; write udp:HOST:PORT")
            limit = self.config.max_flows
            return FlowForwarder(self.reactor, host, port, limit, node.driver.wake).forward
        with endpoint_errors(service.where, service.target):
            target = clientFromString(self.reactor, service.target)
        return StreamForwarder(target, node.driver).forward


class StreamForwarder:
    """Forwards each stream over a connection of its own to the target.

    :param target: the endpoint of the target.
    :param pump: sends the packets of the node.
    """

    def __init__(self, target: IStreamClientEndpoint, pump: Pump) -> None:
        self._target = target
        self._pump = pump

    def forward(self, stream: Stream) -> None:
        """Connect to the target and accept the requested stream, or refuse the stream.

        A UDP flow, or a target that does not connect, is refused.
        """
        if stream.kind is not StreamKind.BYTES:
            stream.refuse(ErrorCode.TARGET_REFUSED, f"{stream.service} is not a UDP service")
            return
        outer, inner = Splice.pair()
        transport = StreamTransport(stream, self._pump)
        factory = Factory.forProtocol(lambda: inner)
        factory.noisy = False
        connecting = self._target.connect(factory)
        transport.given_up = connecting.cancel

        def connected(_: Any) -> None:
            transport.given_up = None
            stream.accept()
            is_asked = transport.has_input
            transport.connect(outer)
            if is_asked:  # the agent waits for the answer, not for the acceptance
                self._pump.wake(ANSWERED_WITHIN)
            else:
                self._pump.flush()

        def failed(failure: Failure) -> None:
            transport.given_up = None
            if failure.check(CancelledError) is None:
                stream.refuse(code_for(failure), failure.getErrorMessage())
            self._pump.wake()

        connecting.addCallbacks(connected, failed)


class FlowForwarder:
    """Forwards each flow over a UDP socket of its own to the target.

    :param host: the target's name or IP literal.
    :param port: the target's UDP port.
    :param limit: limit of the flows of one agent.
    :param wake: lets the node send the written datagrams.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, host: str, port: int, limit: int, wake: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._limit = limit
        self._flows: collections.Counter[str] = collections.Counter()
        self._wake = wake

    def forward(self, stream: Stream) -> None:
        """Open a socket to the target and accept the requested flow, or refuse the flow.

        A byte stream, an agent at its limit, or a target without an address is refused.
        """
        if stream.kind is not StreamKind.FLOW:
            stream.refuse(ErrorCode.TARGET_REFUSED, f"{stream.service} is a UDP service")
            return
        assert stream.session is not None
        agent = stream.session.peer_name
        if self._flows[agent] >= self._limit:
            stream.refuse(ErrorCode.OVER_LIMIT, f"agent {agent} has {self._limit} flows")
            return
        self._flows[agent] += 1
        flow = FlowTarget(stream, self._port, self._reactor, self._wake)
        flow.finished = lambda: self._release(agent)

        def resolved(hosts: list[str]) -> None:
            if hosts:
                flow.connect(hosts[0])
            else:
                stream.refuse(ErrorCode.TARGET_UNREACHABLE, f"{self._host} has no address")
            self._wake()

        resolve(self._reactor, self._host).addCallback(resolved).addErrback(
            lambda failure: self.log.failure("while opening a flow", failure)
        )

    def _release(self, agent: str) -> None:
        self._flows[agent] -= 1
        if not self._flows[agent]:
            del self._flows[agent]
