"""The plugin ``p2p-agent`` of `twistd` and `twist`."""

from twisted.application.service import IService

from p2pnet.config.options import RoleOptions, plain_errors
from p2pnet.config.roles import AgentConfig
from p2pnet.roles.imports import without_collections


class Options(RoleOptions):
    """The command-line options of ``twistd p2p-agent``."""

    kind = AgentConfig
    config: AgentConfig
    longdesc = "The Agent: listens on this machine and leads to the services of connectors."


def makeService(options: Options) -> IService:
    """Make the role's service for parsed options; its start opens the sockets.

    Raises SystemExit, with one line that says why, for unusable settings or certificates.
    """
    with without_collections():
        from twisted.internet import reactor

        from p2pnet.roles.agent import AgentService

    with plain_errors(options):
        return AgentService(reactor, options.config)
