"""The plugin ``p2p-connector`` of `twistd` and `twist`."""

from twisted.application.service import IService
from twisted.python import usage

from p2pnet.config.options import RoleOptions, plain_errors
from p2pnet.config.roles import ConnectorConfig, ServiceConfig
from p2pnet.config.setting import declared_settings
from p2pnet.roles.imports import without_collections


class Options(RoleOptions):
    """The command-line options of ``twistd p2p-connector``."""

    kind = ConnectorConfig
    config: ConnectorConfig
    longdesc = "The Connector: runs beside private services and offers them to allowed agents."

    def opt_allow(self, value: str) -> None:
        name, equals, agents = value.partition("=")
        if not (name and equals):
            raise usage.UsageError(f"--allow: {value!r} is not SERVICE=AGENT[,AGENT...]")
        self.allowed.setdefault(name, []).extend(filter(None, agents.split(",")))

    opt_allow.__doc__ = f"SERVICE=AGENT[,AGENT]. {declared_settings(ServiceConfig)['allow'].help}"


def makeService(options: Options) -> IService:
    """Make the role's service for parsed options; its start opens the sockets.

    Raises SystemExit, with one line that says why, for unusable settings or certificates.
    """
    with without_collections():
        from twisted.internet import reactor

        from p2pnet.roles.connector import ConnectorService

    with plain_errors(options):
        return ConnectorService(reactor, options.config)
