"""The plugin ``p2p-intermediate`` of `twistd` and `twist`."""

from twisted.application.service import IService

from p2pnet.config.options import IntermediateOptions, plain_errors

Options = IntermediateOptions


def makeService(options: IntermediateOptions) -> IService:
    """The service for these options. Nothing is opened before it starts."""
    from twisted.internet import reactor

    from p2pnet.roles.intermediate import IntermediateService

    with plain_errors(options):
        return IntermediateService(reactor, options.config)
