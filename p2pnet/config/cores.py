"""From a configuration to the sans-IO core that it describes: for `assembly` and for host loops.

Every value of a setting goes into a core here, by its constructor. The defaults are those of the
structs in `p2pnet.config.roles`; the cores have none of their own.
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

Utcnow = Callable[[], datetime.datetime]
Entropy = Callable[[int], bytes]


def load_credentials(config: RoleConfig) -> Credentials:
    """The credentials that a role's configuration names. Raises CredentialsError."""
    credentials = Credentials.load(cert=config.cert, key=config.key, ca=config.ca)
    if credentials.identity.role.value != config.table:
        raise CredentialsError(
            f"{config.cert}: {credentials.identity} cannot be run as {config.table}"
        )
    return credentials


def intermediate_options(config: IntermediateConfig) -> IntermediateOptions:
    """What the configuration decides for the core of an Intermediate."""
    return IntermediateOptions(
        engine=config.quic,
        limits=Limits(connections=config.max_connections, retry_above=config.retry_above),
        max_sessions=config.max_sessions,
        max_sessions_per_node=config.max_sessions_per_node,
        session_rate=config.session_rate,
    )


def peer_options(config: PeerConfig) -> PeerOptions:
    """What the configuration decides for the cores of Agent and Connector."""
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

    :param utcnow: the calendar's clock, for certificate dates.
    :param entropy: the source of random bytes.
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
    """The core of a Connector, with parameters and errors of intermediate_core()."""
    return ConnectorCore(
        credentials,
        config.intermediates,
        peer_options(config),
        services=[service.name for service in config.services],
        authorizer=AllowList({service.name: service.allow for service in config.services}),
        max_streams=config.max_streams,
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
    """The core of an Agent, with parameters and errors of intermediate_core().

    Its forwards matter only for the policies that they name.
    """
    return AgentCore(
        credentials,
        config.intermediates,
        peer_options(config),
        policy=config.path,
        policies={forward.service: forward.path for forward in config.forwards if forward.path},
        utcnow=utcnow,
        entropy=entropy,
    )
