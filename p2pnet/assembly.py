"""From a configuration to the node that it describes."""

from typing import Any

from p2pnet.config import AgentConfig, ConnectorConfig, IntermediateConfig, RoleConfig
from p2pnet.core.agent import AgentCore
from p2pnet.core.connector import AllowList, ConnectorCore
from p2pnet.core.intermediate import IntermediateCore
from p2pnet.core.registry import MemoryDirectory
from p2pnet.identity import Credentials
from p2pnet.net.udp import UDPTransport
from p2pnet.node import AgentNode, ConnectorNode, IntermediateNode, utcnow
from p2pnet.quic.admission import Limits
from p2pnet.wire.address import parse_host_port


def load_credentials(config: RoleConfig) -> Credentials:
    """The credentials that a role's configuration names. Raises CredentialsError."""
    return Credentials.load(cert=config.cert, key=config.key, ca=config.ca)


def _udp_transport(reactor: Any, bind: str) -> UDPTransport:
    host, port = parse_host_port(bind) if bind else ("", 0)
    return UDPTransport(reactor, host, port)


def intermediate_node(reactor: Any, config: IntermediateConfig) -> IntermediateNode:
    """The Intermediate of a configuration. Raises CredentialsError."""
    core = IntermediateCore(
        load_credentials(config),
        MemoryDirectory(),
        utcnow=utcnow,
        limits=Limits(connections=config.max_connections, retry_above=config.retry_above),
        max_sessions=config.max_sessions,
        max_sessions_per_node=config.max_sessions_per_node,
        session_rate=config.session_rate,
    )
    transport = _udp_transport(reactor, config.listen)
    return IntermediateNode(reactor, core, transport, config.event_log, config.drain_seconds)


def connector_node(reactor: Any, config: ConnectorConfig) -> ConnectorNode:
    """The Connector of a configuration; its services are not handled yet.

    Raises CredentialsError.
    """
    core = ConnectorCore(
        load_credentials(config),
        config.intermediates,
        services=[service.name for service in config.services],
        authorizer=AllowList({service.name: service.allow for service in config.services}),
        utcnow=utcnow,
        max_streams=config.max_streams,
    )
    return ConnectorNode(reactor, core, _udp_transport(reactor, config.bind), config.event_log)


def agent_node(reactor: Any, config: AgentConfig) -> AgentNode:
    """The Agent of a configuration, without its forwards. Raises CredentialsError."""
    core = AgentCore(load_credentials(config), config.intermediates, utcnow=utcnow)
    return AgentNode(reactor, core, _udp_transport(reactor, config.bind), config.event_log)
