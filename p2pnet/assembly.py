"""From a configuration to the node that it describes."""

import os
from typing import Any

from p2pnet.config.roles import (
    MAX_WORKERS,
    AgentConfig,
    ConnectorConfig,
    IntermediateConfig,
    PeerConfig,
    RoleConfig,
)
from p2pnet.config.setting import ConfigError
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import AllowList, ConnectorCore
from p2pnet.identity import Credentials, CredentialsError
from p2pnet.interfaces import IDatagramTransport
from p2pnet.net import batched
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.clock import utcnow
from p2pnet.net.udp import UDPTransport
from p2pnet.net.watch import NetworkWatch
from p2pnet.net.workers import pool as workers
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.node.peer import PeerNode
from p2pnet.quic.admission import Limits
from p2pnet.sources.interfaces import InterfaceSource
from p2pnet.sources.static import StaticSource
from p2pnet.wire.address import parse_host_port


def load_credentials(config: RoleConfig) -> Credentials:
    """The credentials that a role's configuration names. Raises CredentialsError."""
    credentials = Credentials.load(cert=config.cert, key=config.key, ca=config.ca)
    if credentials.identity.role.value != config.table:
        raise CredentialsError(
            f"{config.cert}: {credentials.identity} cannot be run as {config.table}"
        )
    return credentials


def _udp_transport(
    reactor: Any, udp: str, bind: str, *, processes: int = 1, rests: bool = False
) -> IDatagramTransport:
    host, port = parse_host_port(bind) if bind else ("", 0)
    is_batched = udp == "auto" and batched.is_available(reactor)
    if processes > 1:
        kind = "batched" if is_batched else "plain"
        return WorkerPool(reactor, host, port, processes - 1, kind)
    if is_batched:
        return BatchedUDPTransport(reactor, host, port, rests=rests)
    return UDPTransport(reactor, host, port)


def _count_processes(reactor: Any, configured: int | str) -> int:
    """How many processes an Intermediate is. Raises ConfigError."""
    if configured == 1:
        return 1
    available = workers.is_available(reactor)
    if isinstance(configured, str):
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS) if available else 1
    if not available:
        raise ConfigError(
            f"workers = {configured}: this system cannot share a UDP port among processes as that"
            ' needs (Linux, SO_REUSEPORT with a filter); write workers = 1, or "auto"'
        )
    return configured


def intermediate_node(reactor: Any, config: IntermediateConfig) -> IntermediateNode:
    """The Intermediate of a configuration. Raises CredentialsError or ConfigError."""
    core = IntermediateCore(
        load_credentials(config),
        MemoryDirectory(),
        utcnow=utcnow,
        engine=config.quic,
        limits=Limits(connections=config.max_connections, retry_above=config.retry_above),
        max_sessions=config.max_sessions,
        max_sessions_per_node=config.max_sessions_per_node,
        session_rate=config.session_rate,
    )
    processes = _count_processes(reactor, config.workers)
    transport = _udp_transport(reactor, config.udp, config.listen, processes=processes)
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
        engine=config.quic,
        max_streams=config.max_streams,
    )
    transport = _udp_transport(reactor, config.udp, config.bind, rests=True)
    node = ConnectorNode(reactor, core, transport, config.event_log)
    _configure(node, config)
    return node


def agent_node(reactor: Any, config: AgentConfig) -> AgentNode:
    """The Agent of a configuration, without its forwards. Raises CredentialsError."""
    core = AgentCore(
        load_credentials(config),
        config.intermediates,
        utcnow=utcnow,
        engine=config.quic,
        policies={forward.service: forward.path for forward in config.forwards if forward.path},
        policy=config.path,
    )
    transport = _udp_transport(reactor, config.udp, config.bind, rests=True)
    node = AgentNode(reactor, core, transport, config.event_log)
    _configure(node, config)
    return node


def _configure(node: PeerNode, config: PeerConfig) -> None:
    """What both ends of sessions have in common.

    Peers are told of the addresses that the configuration names, as they change.
    """
    node.core.congestion = config.congestion
    node.watch = NetworkWatch(node.reactor, node.network_changed)
    if "host" in config.candidates:
        host = parse_host_port(config.bind)[0] if config.bind else ""
        anywhere = host in ("", "0.0.0.0", "::")
        node.source = InterfaceSource() if anywhere else StaticSource([host])
    if "external" in config.candidates:
        node.external = tuple(parse_host_port(address) for address in config.external)
    node.core.direct.local.tell_observed = "srflx" in config.candidates
