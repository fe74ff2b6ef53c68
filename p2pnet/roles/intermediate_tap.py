"""The plugin ``p2p-intermediate`` of `twistd` and `twist`."""

from twisted.application.service import IService

from p2pnet.config.options import RoleOptions, plain_errors
from p2pnet.config.roles import IntermediateConfig
from p2pnet.roles.imports import without_collections


class Options(RoleOptions):
    """The command-line options of ``twistd p2p-intermediate``."""

    kind = IntermediateConfig
    config: IntermediateConfig
    longdesc = "The Intermediate: where nodes meet, and the relay until they have a direct path."


def makeService(options: Options) -> IService:
    """Make the role's service for parsed options; its start opens the sockets.

    Raises SystemExit, with one line that says why, for unusable settings or certificates.
    """
    with without_collections():
        from twisted.internet import reactor

        from p2pnet.roles.intermediate import IntermediateService

    with plain_errors(options):
        return IntermediateService(reactor, options.config)
