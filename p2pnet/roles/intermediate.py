"""``twistd p2p-intermediate``."""

from typing import Any

from p2pnet.config import IntermediateConfig
from p2pnet.core.intermediate import IntermediateCore
from p2pnet.core.registry import MemoryDirectory
from p2pnet.node import IntermediateNode, utcnow
from p2pnet.quic.admission import Limits
from p2pnet.roles.service import RoleService, load_credentials, udp_transport


class IntermediateService(RoleService):
    """The Intermediate of a configuration."""

    def __init__(self, reactor: Any, config: IntermediateConfig) -> None:
        super().__init__(reactor, config)
        core = IntermediateCore(
            load_credentials(config),
            MemoryDirectory(),
            utcnow=utcnow,
            limits=Limits(connections=config.max_connections, retry_above=config.retry_above),
            max_sessions=config.max_sessions,
            max_sessions_per_node=config.max_sessions_per_node,
            session_rate=config.session_rate,
        )
        self.node = IntermediateNode(
            reactor,
            core,
            udp_transport(reactor, config.listen),
            config.event_log,
            config.drain_seconds,
        )
        self.node.setServiceParent(self)
