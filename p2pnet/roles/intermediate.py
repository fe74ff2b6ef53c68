"""The service of ``twistd p2p-intermediate``: introductions and relay."""

from typing import Any

from p2pnet.assembly import intermediate_node
from p2pnet.config.roles import IntermediateConfig
from p2pnet.roles.service import RoleService


class IntermediateService(RoleService):
    """The Intermediate of a configuration. Raises CredentialsError or ConfigError."""

    def __init__(self, reactor: Any, config: IntermediateConfig) -> None:
        super().__init__(reactor, config, intermediate_node(reactor, config))
