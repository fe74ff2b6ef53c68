"""The plugin ``p2p-connector`` of `twistd` and `twist`."""

from twisted.application.service import IService

from p2pnet.config.options import ConnectorOptions, plain_errors

Options = ConnectorOptions


def makeService(options: ConnectorOptions) -> IService:
    """The service for these options. Nothing is opened before it starts."""
    from twisted.internet import reactor

    from p2pnet.roles.connector import ConnectorService

    with plain_errors(options):
        return ConnectorService(reactor, options.config)
