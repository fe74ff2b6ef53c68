"""The sans-IO cores of configurations, for `p2pnet.assembly` and for other event loops.

These functions alone pass the values of settings to the constructors of cores. The defaults are
those of the structs in `p2pnet.config.roles`; the cores have none.
"""

import datetime
import os
from collections.abc import Callable

from p2pnet.config.roles import (
    AgentConfig,
    ConnectorConfig,
    IntermediateConfig,
    PeerConfig,
    RoleConfig,
)
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.options import IntermediateOptions
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import AllowList, ConnectorCore
from p2pnet.core.peer.options import PeerOptions
from p2pnet.identity import Credentials, CredentialsError
from p2pnet.quic.admission import Limits

# Connections beyond max_connections: only a complete handshake says whose share a connection takes.
HANDSHAKES = 1024

Utcnow = Callable[[], datetime.datetime]
Entropy = Callable[[int], bytes]


def load_credentials(config: RoleConfig) -> Credentials:
    """Load the certificate, key and CA that a configuration names.

    Raises CredentialsError for unusable files, or for a certificate of another role.
    """
    credentials = Credentials.load(cert=config.cert, key=config.key, ca=config.ca)
    if credentials.identity.role.value != config.table:
        raise CredentialsError(
            f"{config.cert}: {credentials.identity} cannot be run as {config.table}"
        )
    return credentials


def intermediate_options(config: IntermediateConfig) -> IntermediateOptions:
    """The options of an Intermediate's core in a configuration."""
    return IntermediateOptions(
        engine=config.quic,
        limits=Limits(
            connections=config.max_connections + HANDSHAKES, retry_above=config.retry_above
        ),
        max_connections=config.max_connections,
        max_sessions=config.max_sessions,
        max_sessions_per_node=config.max_sessions_per_node,
        session_rate=config.session_rate,
    )


def peer_options(config: PeerConfig) -> PeerOptions:
    """The options of an Agent's or Connector's core in a configuration."""
    return PeerOptions(
        engine=config.quic,
        congestion=config.congestion,
        tell_observed="srflx" in config.candidates,
    )


def intermediate_core(
    config: IntermediateConfig,
    credentials: Credentials,
    *,
    utcnow: Utcnow,
    entropy: Entropy = os.urandom,
) -> IntermediateCore:
    """The core of an Intermediate. Raises ValueError for credentials of another role.

    :param utcnow: the wall clock (aware), for the dates of certificates.
    :param entropy: returns that many random bytes.
    """
    return IntermediateCore(
        credentials, MemoryDirectory(), intermediate_options(config), utcnow=utcnow, entropy=entropy
    )


def connector_core(
    config: ConnectorConfig,
    credentials: Credentials,
    *,
    utcnow: Utcnow,
    entropy: Entropy = os.urandom,
) -> ConnectorCore:
    """The core of a Connector; parameters and errors are those of intermediate_core()."""
    return ConnectorCore(
        credentials,
        config.intermediates,
        peer_options(config),
        services=[service.name for service in config.services],
        authorizer=AllowList({service.name: service.allow for service in config.services}),
        max_streams=config.max_streams,
        max_flows=config.max_flows,
        utcnow=utcnow,
        entropy=entropy,
    )


def agent_core(
    config: AgentConfig,
    credentials: Credentials,
    *,
    utcnow: Utcnow,
    entropy: Entropy = os.urandom,
) -> AgentCore:
    """The core of an Agent; parameters and errors are those of intermediate_core()."""
    return AgentCore(
        credentials,
        config.intermediates,
        peer_options(config),
        policy=config.path,
        utcnow=utcnow,
        entropy=entropy,
    )
