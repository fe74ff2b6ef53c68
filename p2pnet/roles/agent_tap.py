"""The plugin ``p2p-agent`` of `twistd` and `twist`."""

from twisted.application.service import IService

from p2pnet.config.options import AgentOptions, plain_errors

Options = AgentOptions


def makeService(options: AgentOptions) -> IService:
    """The service for these options. Nothing is opened before it starts."""
    from twisted.internet import reactor

    from p2pnet.roles.agent import AgentService

    with plain_errors(options):
        return AgentService(reactor, options.config)
