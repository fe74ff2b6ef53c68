"""The service of ``twistd p2p-connector``: forwards the streams of services to their targets."""

import functools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from p2pnet.assembly import connector_node
from p2pnet.config.roles import ConnectorConfig, ServiceConfig
from p2pnet.core.ledger import Cap, Kind, Ledger
from p2pnet.core.peer.stream import Stream
from p2pnet.errors import code_for
from p2pnet.net.descriptors import for_targets
from p2pnet.net.driver import Pump
from p2pnet.net.flow import FlowTarget, longest_idle, parse_udp
from p2pnet.net.resolve import resolve
from p2pnet.net.splice import Splice
from p2pnet.net.stream import StreamTransport
from p2pnet.net.target import target_endpoint
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
        self._targets = Targets(for_targets(self.descriptors), config.max_flows)
        for service in config.services:
            node.serve(service.name, self._handler(service, node))

    def _handler(self, service: ServiceConfig, node: ConnectorNode) -> Handler:
        if service.target.startswith("udp:"):
            with endpoint_errors(service.where, service.target):
                host, port = parse_udp(service.target)
                if not host:
                    raise ValueError(f"{service.target!r} has no host; write udp:HOST:PORT")
            wake = node.driver.wake
            return FlowForwarder(self.reactor, host, port, self._targets, wake).forward
        with endpoint_errors(service.where, service.target):
            target = target_endpoint(self.reactor, service.target)
        keepalive = self.config.tcp_keepalive
        return StreamForwarder(target, node.driver, self._targets, keepalive).forward


class Targets:
    """Counts the connections to targets, each for the agent whose stream needs the connection.

    :param descriptors: how many there may be, because each has a file descriptor.
    :param flows: limit of the flows of one agent.
    """

    def __init__(self, descriptors: int, flows: int) -> None:
        self._ledger = Ledger({Kind.DESCRIPTOR: Cap(descriptors), Kind.FLOW: Cap(own=flows)})

    def admit(self, stream: Stream) -> bool:
        """Count a connection for the stream, or refuse the stream with OVER_LIMIT.

        The stream of another agent may end, if that agent holds more than its share. An agent with
        as many flows as it may have loses those that are idle for the longest time.
        """
        assert stream.session is not None
        agent = stream.session.peer_name
        is_flow = stream.kind is StreamKind.FLOW
        if is_flow and self._ledger.judge(Kind.FLOW, agent).refusal is not None:
            flows = [flow.owner for flow in self._ledger.things(Kind.FLOW, agent)]
            for idle in longest_idle(flows):
                self.release(idle.stream)
                idle.end()
        verdict = self._ledger.admit(Kind.DESCRIPTOR, agent, stream)
        if verdict.refusal is not None:
            stream.refuse(ErrorCode.OVER_LIMIT, verdict.refusal)
            return False
        if verdict.evicted is not None:
            self.release(verdict.evicted)
            verdict.evicted.reset(ErrorCode.OVER_LIMIT, "other agents want their share")
        if is_flow:
            self._ledger.enter(Kind.FLOW, agent, stream)
        return True

    def release(self, stream: Stream) -> None:
        """Note that the connection for the stream is closed."""
        for kind in (Kind.DESCRIPTOR, Kind.FLOW):
            self._ledger.release(kind, stream)


class StreamForwarder:
    """Forwards each stream over a connection of its own to the target.

    :param target: the endpoint of the target.
    :param pump: sends the packets of the node.
    :param targets: counts the connections.
    :param keepalive: seconds of silence after which a TCP connection is probed, 0 for never.
    """

    def __init__(
        self, target: IStreamClientEndpoint, pump: Pump, targets: Targets, keepalive: int
    ) -> None:
        self._target = target
        self._pump = pump
        self._targets = targets
        self._keepalive = keepalive

    def forward(self, stream: Stream) -> None:
        """Connect to the target and accept the requested stream, or refuse the stream.

        A UDP flow, an agent at its limit, or a target that does not connect, is refused.
        """
        if stream.kind is not StreamKind.BYTES:
            stream.refuse(ErrorCode.TARGET_REFUSED, f"{stream.service} is not a UDP service")
            return
        if not self._targets.admit(stream):
            return
        outer, inner = Splice.pair(self._keepalive)
        inner.finished = functools.partial(self._targets.release, stream)
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
            self._targets.release(stream)
            if failure.check(CancelledError) is None:
                stream.refuse(code_for(failure), failure.getErrorMessage())
            self._pump.wake()

        connecting.addCallbacks(connected, failed)


class FlowForwarder:
    """Forwards each flow over a UDP socket of its own to the target.

    :param host: the target's name or IP literal.
    :param port: the target's UDP port.
    :param targets: counts the flows.
    :param wake: lets the node send the written datagrams.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, host: str, port: int, targets: Targets, wake: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._targets = targets
        self._wake = wake

    def forward(self, stream: Stream) -> None:
        """Open a socket to the target and accept the requested flow, or refuse the flow.

        A byte stream, an agent at its limit, or a target without an address or socket is refused.
        """
        if stream.kind is not StreamKind.FLOW:
            stream.refuse(ErrorCode.TARGET_REFUSED, f"{stream.service} is a UDP service")
            return
        if not self._targets.admit(stream):
            return
        flow = FlowTarget(stream, self._port, self._reactor, self._wake)
        flow.finished = functools.partial(self._targets.release, stream)

        def resolved(hosts: list[str]) -> None:
            try:
                if hosts:
                    flow.connect(hosts[0])
                else:
                    stream.refuse(ErrorCode.TARGET_UNREACHABLE, f"{self._host} has no address")
            except CannotListenError as error:
                stream.refuse(code_for(Failure(error)), str(error))
            self._wake()

        resolve(self._reactor, self._host).addCallback(resolved).addErrback(
            lambda failure: self.log.failure("while opening a flow", failure)
        )
