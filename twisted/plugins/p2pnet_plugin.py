"""The plugins of p2pnet for Twisted: three `twistd` services and the ``p2p:`` endpoints.

Every `twistd` command on the machine imports this module, so it imports nothing of p2pnet itself.
"""

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IReactorCore,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(
    IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
)
class P2PEndpointParser:
    """Parser of ``p2p:SERVICE:...`` for `clientFromString` and `serverFromString`."""

    prefix = "p2p"

    # An endpoint string may have an option "reactor", so the parameter is positional only.

    def parseStreamClient(  # type: ignore[override]
        self, reactor: IReactorCore, /, *args: Any, **kwargs: Any
    ) -> IStreamClientEndpoint:
        """The endpoint that connects to a service; see p2pnet.endpoints.parse_client()."""
        from p2pnet.endpoints import parse_client

        return parse_client(reactor, args, kwargs)

    def parseStreamServer(  # type: ignore[override]
        self, reactor: IReactorCore, /, *args: Any, **kwargs: Any
    ) -> IStreamServerEndpoint:
        """The endpoint that serves a service; see p2pnet.endpoints.parse_server()."""
        from p2pnet.endpoints import parse_server

        return parse_server(reactor, args, kwargs)


p2p_intermediate = ServiceMaker(
    "p2pnet Intermediate",
    "p2pnet.roles.intermediate_tap",
    "p2pnet: the public meeting point and relay of nodes",
    "p2p-intermediate",
)
p2p_connector = ServiceMaker(
    "p2pnet Connector",
    "p2pnet.roles.connector_tap",
    "p2pnet: offers private services to agents",
    "p2p-connector",
)
p2p_agent = ServiceMaker(
    "p2pnet Agent",
    "p2pnet.roles.agent_tap",
    "p2pnet: leads to the services of connectors",
    "p2p-agent",
)
p2p_endpoints = P2PEndpointParser()
