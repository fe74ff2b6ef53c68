"""A Connector: the Twisted service that passes each stream to the handler of its service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from p2pnet.core.peer.connector import ConnectorCore
from p2pnet.core.peer.stream import Stream
from p2pnet.interfaces import IDatagramTransport
from p2pnet.net.stream import StreamTransport
from p2pnet.node.peer import NOWHERE, Locality, PeerNode
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind

Handler = Callable[[Stream], Any]
"""Handles a requested stream: accepts or refuses it, at once or later."""


class ConnectorNode(PeerNode):
    """A Connector: passes the streams of each service to the service's handler.

    The parameters are those of PeerNode.
    """

    core: ConnectorCore

    def __init__(
        self,
        reactor: Any,
        core: ConnectorCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        locality: Locality = NOWHERE,
    ) -> None:
        super().__init__(reactor, core, transport, event_log, locality)
        self._handlers: dict[str, Handler] = {}

    def serve(self, service: str, handler: Handler) -> None:
        """Pass the streams of `service` to `handler` from now on.

        If `handler` raises, the stream ends with an error for the agent. Raises ValueError if the
        service has a handler.
        """
        if service in self._handlers:
            raise ValueError(f"service {service} is served already")
        self._handlers[service] = handler

    def unserve(self, service: str) -> None:
        """Remove the handler of `service`, if any: its streams are refused from now on."""
        self._handlers.pop(service, None)

    def serve_protocol(self, service: str, factory: IProtocolFactory) -> None:
        """Accept each stream of `service` with a protocol of `factory`; refuse UDP flows.

        A factory that builds None refuses the stream. Raises ValueError if the service has a
        handler.
        """

        def handler(stream: Stream) -> None:
            if stream.kind is not StreamKind.BYTES:
                stream.refuse(ErrorCode.TARGET_REFUSED, f"{service} takes no datagrams")
                return
            transport = StreamTransport(stream, self.driver)
            protocol = factory.buildProtocol(transport.getPeer())
            if protocol is None:
                stream.refuse(ErrorCode.TARGET_REFUSED, f"{service} takes no more connections")
                return
            stream.accept()
            transport.connect(protocol)

        self.serve(service, handler)

    def _requested(self, stream: Stream) -> None:
        handler = self._handlers.get(stream.service)
        if handler is None:
            stream.refuse(ErrorCode.UNKNOWN_SERVICE, f"{stream.service} is not served")
            return
        try:
            handler(stream)
        except Exception:
            # The agent waits for an answer, or for the end of the stream if it was accepted.
            stream.refuse(ErrorCode.TARGET_UNREACHABLE, f"{stream.service} failed")
            stream.reset(ErrorCode.CANCELLED, f"{stream.service} failed")
            raise
