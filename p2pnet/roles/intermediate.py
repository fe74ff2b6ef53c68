"""``twistd p2p-intermediate``."""

from typing import Any

from p2pnet.assembly import intermediate_node
from p2pnet.config.roles import IntermediateConfig
from p2pnet.roles.service import RoleService


class IntermediateService(RoleService):
    """The Intermediate of a configuration."""

    def __init__(self, reactor: Any, config: IntermediateConfig) -> None:
        super().__init__(reactor, config, intermediate_node(reactor, config))
