"""An Agent: the service through which a program opens streams and flows by name."""

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.stream import Stream
from p2pnet.errors import error_for
from p2pnet.interfaces import IDatagramTransport
from p2pnet.net.stream import StreamTransport
from p2pnet.node.peer import NOWHERE, Locality, PeerNode
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind


class AgentNode(PeerNode):
    """An Agent: opens streams and flows to services by name.

    The parameters are those of PeerNode.
    """

    core: AgentCore

    def __init__(
        self,
        reactor: Any,
        core: AgentCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        locality: Locality = NOWHERE,
    ) -> None:
        super().__init__(reactor, core, transport, event_log, locality)
        self._connecting: dict[Stream, Deferred[StreamTransport]] = {}

    def open(self, service: str, path: str = "") -> StreamTransport:
        """Open a stream to `service` and return its transport, which accepts writes at once.

        The caller joins a protocol to the transport with StreamTransport.connect(). If the service
        refuses, the protocol's connectionLost() gets the ServiceError. Raises ValueError for an
        impossible service name.

        :param path: the path policy, "" for that of the configuration.
        """
        stream = self.core.open_stream(service, self.driver.now, policy=path)
        self.driver.wake()
        return StreamTransport(stream, self.driver)

    def open_flow(self, service: str, path: str = "") -> Stream:
        """Open a UDP flow to `service`; parameters and errors are those of open()."""
        stream = self.core.open_stream(service, self.driver.now, StreamKind.FLOW, path)
        self.driver.wake()
        return stream

    def connect(self, service: str, path: str = "") -> Deferred[StreamTransport]:
        """Fire with a transport to `service` once the service accepted. May be cancelled.

        Fails with ServiceError. The parameters and other errors are those of open().
        """
        if not self.running:  # its core has no timers, so that the connection would never end
            return fail(error_for(ErrorCode.SHUTDOWN, "this agent is not running"))

        def cancel(_: Any) -> None:
            del self._connecting[transport.stream]
            transport.abortConnection()
            done.errback(CancelledError())

        transport = self.open(service, path)
        done: Deferred[StreamTransport] = Deferred(cancel)
        self._connecting[transport.stream] = done
        return done

    def _accepted(self, stream: Stream) -> None:
        done = self._connecting.pop(stream, None)
        if done is not None:
            done.callback(stream.owner)

    def _closed(self, stream: Stream, code: int, reason: str) -> None:
        super()._closed(stream, code, reason)
        done = self._connecting.pop(stream, None)
        if done is not None:
            done.errback(error_for(code, reason))
