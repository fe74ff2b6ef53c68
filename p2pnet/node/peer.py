"""What Agent and Connector share: the connections to the Intermediates, and streams."""

from typing import Any

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.stream import (
    FlowDatagram,
    Stream,
    StreamAccepted,
    StreamClosed,
    StreamData,
    StreamRequested,
    StreamWritable,
)
from p2pnet.interfaces import ICandidateSource
from p2pnet.net.resolve import resolve
from p2pnet.net.watch import NetworkWatch
from p2pnet.node.base import Node
from p2pnet.sources.static import StaticSource
from p2pnet.wire.address import Address


class PeerNode(Node):
    """What Agent and Connector share: the connections to the Intermediates, and streams.

    :ivar source: the ICandidateSource of this machine's own addresses.
    :ivar external: addresses that the operator says lead here.
    :ivar watch: calls network_changed(); None where the network stays the same.
    """

    core: PeerCore
    source: ICandidateSource = StaticSource([])
    external: tuple[Address, ...] = ()
    watch: NetworkWatch | None = None

    def startService(self) -> None:
        """Open the socket and connect to the Intermediates."""
        super().startService()
        self._find_addresses()
        self.core.connect(self.driver.now)
        self.driver.wake()
        if self.watch is not None:
            self.watch.start()

    def stopService(self) -> Any:
        """End all connections and close the socket."""
        if self.watch is not None:
            self.watch.stop()
        return super().stopService()

    def network_changed(self, reason: str) -> None:
        """The network of this machine changed, or it slept: see how things are now."""
        self.report(reports.NetworkChanged(reason))
        self._find_addresses()
        self.core.network_changed(self.driver.now)
        self.driver.wake()

    def _find_addresses(self) -> None:
        port = self.transport.get_address()[1]
        self.core.direct.set_local_addresses(self.source.hosts(), port, self.external)

    def handle(self, event: events.Event) -> None:
        """Take one event of the core."""
        match event:
            # A stream that was refused has no owner: what came with its header is dropped.
            case StreamData(stream, data, end) if stream.owner is not None:
                stream.owner.received(data, end)
            case StreamWritable(stream) if stream.owner is not None:
                stream.owner.writable()
            case FlowDatagram(stream, payload) if stream.owner is not None:
                stream.owner.datagram(payload)
            case StreamAccepted(stream):
                self._accepted(stream)
            case StreamClosed(stream, code, reason):
                self._closed(stream, code, reason)
            case StreamRequested(stream):
                self._requested(stream)
            case events.OpenerNeeded(data, address, hops):
                self.transport.send([(data, address)], hops)
            case events.ResolutionNeeded(intermediate, host):
                self._resolve(intermediate, host)
            case _:
                super().handle(event)

    def _accepted(self, stream: Stream) -> None:
        """A hook for the Agent."""

    def _requested(self, stream: Stream) -> None:
        """A hook for the Connector."""

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
