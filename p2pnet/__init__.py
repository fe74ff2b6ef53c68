"""p2pnet: reach a private service behind NAT from anywhere.

`__all__` names the public API, which docs/api.md describes. The first use of a name imports the
module that defines it, so that ``import p2pnet`` alone imports nothing else.
"""

# ruff: noqa: I001 (re-exports as type checkers want them: several "X as X" to an import)

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of _NAMES again, for type checkers
    from p2pnet import errors as errors, interfaces as interfaces, reports as reports
    from p2pnet.assembly import (
        agent_node as agent_node,
        connector_node as connector_node,
        intermediate_node as intermediate_node,
    )
    from p2pnet.config.cores import (
        agent_core as agent_core,
        connector_core as connector_core,
        load_credentials as load_credentials,
    )
    from p2pnet.config.loading import load_config as load_config
    from p2pnet.config.roles import (
        AgentConfig as AgentConfig,
        ConnectorConfig as ConnectorConfig,
        ForwardConfig as ForwardConfig,
        IntermediateConfig as IntermediateConfig,
        ServiceConfig as ServiceConfig,
    )
    from p2pnet.config.setting import ConfigError as ConfigError
    from p2pnet.core.events import ResolutionNeeded as ResolutionNeeded
    from p2pnet.core.peer.agent import AgentCore as AgentCore
    from p2pnet.core.peer.connector import ConnectorCore as ConnectorCore
    from p2pnet.core.peer.stream import (
        FlowDatagram as FlowDatagram,
        Stream as Stream,
        StreamAccepted as StreamAccepted,
        StreamClosed as StreamClosed,
        StreamData as StreamData,
        StreamRequested as StreamRequested,
        StreamWritable as StreamWritable,
    )
    from p2pnet.endpoints import (
        P2PClientEndpoint as P2PClientEndpoint,
        P2PServerEndpoint as P2PServerEndpoint,
    )
    from p2pnet.errors import (
        BadCertificate as BadCertificate,
        IntermediateUnreachable as IntermediateUnreachable,
        NodeCannotListen as NodeCannotListen,
        NotAuthorized as NotAuthorized,
        OverLimit as OverLimit,
        ServiceError as ServiceError,
        SessionLost as SessionLost,
        StreamBroken as StreamBroken,
        TargetRefused as TargetRefused,
        TargetUnreachable as TargetUnreachable,
        UnknownService as UnknownService,
    )
    from p2pnet.identity import Credentials as Credentials, CredentialsError as CredentialsError
    from p2pnet.node.agent import AgentNode as AgentNode
    from p2pnet.node.connector import ConnectorNode as ConnectorNode
    from p2pnet.node.intermediate import IntermediateNode as IntermediateNode
    from p2pnet.wire.codes import ErrorCode as ErrorCode
    from p2pnet.wire.stream import StreamKind as StreamKind

__version__ = "0.1.0"

_MODULES = ("errors", "interfaces", "reports")
_NAMES = {
    "assembly": "agent_node connector_node intermediate_node",
    "config.cores": "agent_core connector_core load_credentials",
    "config.loading": "load_config",
    "config.roles": "AgentConfig ConnectorConfig ForwardConfig IntermediateConfig ServiceConfig",
    "config.setting": "ConfigError",
    "core.events": "ResolutionNeeded",
    "core.peer.agent": "AgentCore",
    "core.peer.connector": "ConnectorCore",
    "core.peer.stream": "FlowDatagram Stream StreamAccepted StreamClosed"
    " StreamData StreamRequested StreamWritable",
    "endpoints": "P2PClientEndpoint P2PServerEndpoint",
    "errors": "BadCertificate IntermediateUnreachable NodeCannotListen NotAuthorized OverLimit"
    " ServiceError SessionLost StreamBroken TargetRefused TargetUnreachable UnknownService",
    "identity": "Credentials CredentialsError",
    "node.agent": "AgentNode",
    "node.connector": "ConnectorNode",
    "node.intermediate": "IntermediateNode",
    "wire.codes": "ErrorCode",
    "wire.stream": "StreamKind",
}
_HOMES = {name: f"p2pnet.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_MODULES, *_HOMES]


def __getattr__(name: str) -> Any:
    """Import and return a public name (PEP 562). Raises AttributeError for any other name."""
    if name in _MODULES:
        return importlib.import_module(f"p2pnet.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'p2pnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, whether imported already or not."""
    return sorted([*globals(), *__all__])
