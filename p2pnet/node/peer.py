"""The base of Agent and Connector: connections to the Intermediates, and streams."""

import dataclasses
from pathlib import Path
from typing import Any

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.stream import (
    Stream,
    StreamAccepted,
    StreamClosed,
    StreamRequested,
)
from p2pnet.interfaces import ICandidateSource, IDatagramTransport
from p2pnet.net.resolve import resolve
from p2pnet.net.watch import NetworkWatch
from p2pnet.node.base import Node
from p2pnet.sources.static import StaticSource
from p2pnet.wire.address import Address


@dataclasses.dataclass(frozen=True)
class Locality:
    """The place of a node in the network.

    :ivar source: the ICandidateSource of this machine's own addresses.
    :ivar external: addresses that lead to this node by the operator's configuration.
    :ivar watch: detects changes of the network; None if there are none.
    """

    source: ICandidateSource
    external: tuple[Address, ...]
    watch: NetworkWatch | None


NOWHERE = Locality(StaticSource([]), (), None)


class PeerNode(Node):
    """Base of Agent and Connector: connections to the Intermediates, and streams.

    :param reactor: as for Node; also provides IReactorPluggableNameResolver.
    :param locality: the node's place; the default offers peers no address of this machine.
    """

    core: PeerCore

    def __init__(
        self,
        reactor: Any,
        core: PeerCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        locality: Locality = NOWHERE,
    ) -> None:
        super().__init__(reactor, core, transport, event_log)
        self.locality = locality

    def startService(self) -> None:
        """Open the event log and the socket, and connect to the Intermediates.

        Raises the errors of Node.startService().
        """
        super().startService()
        self._find_addresses()
        self.core.connect(self.driver.now)
        self.driver.wake()
        if self.locality.watch is not None:
            self.locality.watch.start(self.network_changed)

    def stopService(self) -> Any:
        """End all connections and close the socket. Fires once the socket is closed."""
        if self.locality.watch is not None:
            self.locality.watch.stop()
        return super().stopService()

    def network_changed(self, reason: str) -> None:
        """Find the machine's addresses again, and let the core check its connections and paths.

        :param reason: of the report, such as "addresses" or "sleep".
        """
        self.report(reports.NetworkChanged(reason))
        self._find_addresses()
        self.core.network_changed(self.driver.now)
        self.driver.wake()

    def _find_addresses(self) -> None:
        port = self.transport.get_address()[1]
        hosts = self.locality.source.hosts()
        self.core.set_local_addresses(hosts, port, self.locality.external, self.driver.now)

    def handle(self, event: events.Event) -> None:
        """Handle one event of the core."""
        match event:
            case StreamAccepted(stream):
                self._accepted(stream)
            case StreamClosed(stream, code, reason):
                self._closed(stream, code, reason)
            case StreamRequested(stream):
                self._requested(stream)
            case events.OpenerNeeded(data, address, ttl):
                self.transport.send([(data, address)], ttl)
            case events.ResolutionNeeded(intermediate, host):
                self._resolve(intermediate, host)
            case _:
                super().handle(event)

    def _accepted(self, stream: Stream) -> None:
        """Handle that the connector accepted a stream; the Agent overrides this."""

    def _requested(self, stream: Stream) -> None:
        """Handle that an agent requested a stream; the Connector overrides this."""

    def _closed(self, stream: Stream, code: int, reason: str) -> None:
        if stream.owner is not None:
            stream.owner.closed(code, reason)

    def _resolve(self, intermediate: str, host: str) -> None:
        def resolved(hosts: list[str]) -> None:
            self.core.resolved(intermediate, hosts, self.driver.now)
            self.driver.wake()

        resolve(self.reactor, host).addCallback(resolved).addErrback(
            lambda failure: self.log.failure("while resolving {host}", failure, host=host)
        )
