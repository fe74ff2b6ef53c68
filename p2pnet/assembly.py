"""From a configuration to the node that it describes."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from p2pnet.config.cores import (
    agent_core,
    connector_core,
    intermediate_core,
    load_credentials,
)
from p2pnet.config.roles import (
    MAX_WORKERS,
    AgentConfig,
    ConnectorConfig,
    IntermediateConfig,
    PeerConfig,
)
from p2pnet.config.setting import ConfigError
from p2pnet.identity import Credentials
from p2pnet.interfaces import ICandidateSource, IDatagramTransport
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
from p2pnet.node.peer import NOWHERE, Locality
from p2pnet.sources.interfaces import InterfaceSource
from p2pnet.sources.static import StaticSource
from p2pnet.wire.address import parse_host_port


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


@dataclasses.dataclass(frozen=True)
class Platform:
    """What a node runs on besides its reactor.

    :ivar credentials: who the node is.
    :ivar transport: the IDatagramTransport that is its one socket.
    :ivar locality: where an Agent or a Connector is.
    :ivar entropy: the source of random bytes.
    """

    credentials: Credentials
    transport: IDatagramTransport
    locality: Locality = NOWHERE
    entropy: Callable[[int], bytes] = os.urandom


def intermediate_node(
    reactor: Any, config: IntermediateConfig, platform: Platform | None = None
) -> IntermediateNode:
    """The Intermediate of a configuration. Raises CredentialsError or ConfigError.

    :param platform: in place of the files and the UDP socket that the configuration names.
    """
    if platform is None:
        credentials = load_credentials(config)
        processes = _count_processes(reactor, config.workers)
        transport = _udp_transport(reactor, config.udp, config.listen, processes=processes)
        platform = Platform(credentials, transport)
    core = intermediate_core(config, platform.credentials, utcnow=utcnow, entropy=platform.entropy)
    return IntermediateNode(
        reactor, core, platform.transport, config.event_log, drain_seconds=config.drain_seconds
    )


def connector_node(
    reactor: Any, config: ConnectorConfig, platform: Platform | None = None
) -> ConnectorNode:
    """The Connector of a configuration; its services are not handled yet.

    Raises CredentialsError. `platform`: as of intermediate_node().
    """
    platform = platform or _peer_platform(reactor, config)
    core = connector_core(config, platform.credentials, utcnow=utcnow, entropy=platform.entropy)
    return ConnectorNode(reactor, core, platform.transport, config.event_log, platform.locality)


def agent_node(reactor: Any, config: AgentConfig, platform: Platform | None = None) -> AgentNode:
    """The Agent of a configuration, without its forwards.

    Raises CredentialsError. `platform`: as of intermediate_node().
    """
    platform = platform or _peer_platform(reactor, config)
    core = agent_core(config, platform.credentials, utcnow=utcnow, entropy=platform.entropy)
    return AgentNode(reactor, core, platform.transport, config.event_log, platform.locality)


def _peer_platform(reactor: Any, config: PeerConfig) -> Platform:
    """The platform that the configuration of an Agent or a Connector names."""
    credentials = load_credentials(config)
    transport = _udp_transport(reactor, config.udp, config.bind, rests=True)
    return Platform(credentials, transport, _locality(reactor, config))


def _locality(reactor: Any, config: PeerConfig) -> Locality:
    """Where the node offers peers to reach it, and how it notices that this changed."""
    source: ICandidateSource = StaticSource([])
    if "host" in config.candidates:
        host = parse_host_port(config.bind)[0] if config.bind else ""
        anywhere = host in ("", "0.0.0.0", "::")
        source = InterfaceSource() if anywhere else StaticSource([host])
    external = config.external if "external" in config.candidates else ()
    return Locality(
        source, tuple(parse_host_port(address) for address in external), NetworkWatch(reactor)
    )
