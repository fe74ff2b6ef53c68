"""Twisted services around the cores: what a program runs to be an Agent or a Connector."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import ConnectorCore
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
from p2pnet.errors import error_for
from p2pnet.identity import Credentials
from p2pnet.interfaces import ICandidateSource, IDatagramTransport
from p2pnet.net.driver import Driver, Forwarder
from p2pnet.net.resolve import resolve
from p2pnet.net.stream import StreamTransport
from p2pnet.net.watch import NetworkWatch
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.observe.eventlog import EventLog
from p2pnet.sources.static import StaticSource
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind
from p2pnet.wire.worker_messages import WorkerMessage


def utcnow() -> datetime.datetime:
    """The calendar's time, aware."""
    return datetime.datetime.now(datetime.UTC)


class CoreService(Service):
    """A core with its driver and event log, as a service. Base of the roles.

    :param reactor: provides IReactorTime, and what the transport needs.
    :param transport: the IDatagramTransport that is the node's one socket.
    :param forward: of the core, for what comes joined: see IDatagramTransport.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        core: PeerCore | IntermediateCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        forward: Forwarder | None = None,
    ) -> None:
        self.reactor = reactor
        self.core: Any = core
        self.transport = transport
        self.driver = Driver(core, transport, reactor, self.handle, forward)
        self.event_log = EventLog(event_log, utcnow, reactor)
        self.observers: list[Callable[[reports.Report], Any]] = []

    def startService(self) -> None:
        """Open the socket. Raises CannotListenError, or OSError for the event log."""
        if self.running:
            raise RuntimeError("this node runs already")
        self.event_log.open()
        try:
            self.driver.start()
        except Exception:
            self.event_log.close()
            raise
        super().startService()
        self.report(reports.Listening(format_address(self.transport.get_address()), "p2pnet"))

    @inlineCallbacks
    def stopService(self) -> Any:
        """End all connections and close the socket."""
        super().stopService()
        self.core.close(self.driver.now)
        yield self.driver.stop()
        self.report(reports.Stopped({**self.core.dropped, **self.driver.errors}))
        self.event_log.close()

    def handle(self, event: events.Event) -> None:
        """Take one event of the core."""
        if isinstance(event, reports.Report):
            self.report(event)

    def report(self, report: reports.Report) -> None:
        """Log a report and pass it to the observers."""
        self.event_log.write(report)
        for observer in list(self.observers):
            observer(report)

    def use_credentials(self, credentials: Credentials) -> None:
        """Use another certificate for connections from now on."""
        self.core.credentials = credentials


class IntermediateNode(CoreService):
    """An Intermediate.

    :param transport: as of any node, or a WorkerPool, whose WorkerOwner this is then.
    :param drain_seconds: how long a stop may take while sessions are relayed.
    """

    def __init__(
        self,
        reactor: Any,
        core: IntermediateCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        drain_seconds: float = 10.0,
    ) -> None:
        super().__init__(reactor, core, transport, event_log, forward=core.relay.forward_joined)
        self._drain_seconds = drain_seconds
        self._workers = transport if isinstance(transport, WorkerPool) else None
        if self._workers is not None:
            self._workers.owner = self
        self._drained: Deferred[None] = Deferred()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Let the nodes move on, wait until nothing is relayed, then stop."""
        self.core.drain(self._drain_seconds, self.driver.now)
        self.driver.wake()
        yield self._drained
        yield super().stopService()

    def handle(self, event: events.Event) -> None:
        """Take one event of the core."""
        if isinstance(event, events.MessageNeeded):
            assert self._workers is not None
            self._workers.tell(event.message)
            return
        super().handle(event)
        if isinstance(event, reports.DrainFinished):
            self._drained.callback(None)

    # -- WorkerOwner -----------------------------------------------------------------------------

    def worker_added(self, worker: int) -> list[WorkerMessage]:
        """There will be a worker. Returns what it must know."""
        known: list[WorkerMessage] = self.core.relay.add_worker(worker)
        return known

    def worker_began(self, worker: int, pid: int) -> None:
        """It relays."""
        self.report(reports.WorkerStarted(worker, pid))

    def worker_said(self, worker: int, message: WorkerMessage) -> None:
        """It tells what it forwarded."""
        self.core.relay.take(worker, message, self.driver.now)
        self.driver.wake()

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """It is no more."""
        self.core.relay.remove_worker(worker)
        self.report(reports.WorkerLost(worker, reason, restart_in))
        self.driver.wake()


class Node(CoreService):
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


class AgentNode(Node):
    """An Agent: opens streams and flows to services by name."""

    core: AgentCore

    def __init__(
        self,
        reactor: Any,
        core: AgentCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
    ) -> None:
        super().__init__(reactor, core, transport, event_log)
        self._connecting: dict[Stream, Deferred[StreamTransport]] = {}

    def open(self, service: str) -> StreamTransport:
        """A transport to `service`, to be joined to a protocol with connect() and written to at
        once; if the service refuses, the protocol's connectionLost() gets the ServiceError."""
        stream = self.core.open_stream(service, self.driver.now)
        self.driver.wake()
        return StreamTransport(stream, self.driver)

    def open_flow(self, service: str) -> Stream:
        """A UDP flow to `service`."""
        stream = self.core.open_stream(service, self.driver.now, StreamKind.FLOW)
        self.driver.wake()
        return stream

    def connect(self, service: str) -> Deferred[StreamTransport]:
        """A transport to `service`, once it accepted. Fails with ServiceError."""
        if not self.running:  # its core's timers stand still, so nothing would ever come of it
            return fail(error_for(ErrorCode.SHUTDOWN, "this agent is not running"))

        def cancel(_: Any) -> None:
            del self._connecting[transport.stream]
            transport.abortConnection()
            done.errback(CancelledError())

        transport = self.open(service)
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


Handler = Callable[[Stream], Any]
"""Takes a requested stream, and accepts or refuses it sooner or later."""


class ConnectorNode(Node):
    """A Connector: hands the streams of each service to its handler."""

    core: ConnectorCore

    def __init__(
        self,
        reactor: Any,
        core: ConnectorCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
    ) -> None:
        super().__init__(reactor, core, transport, event_log)
        self._handlers: dict[str, Handler] = {}

    def serve(self, service: str, handler: Handler) -> None:
        """Let `handler` take the streams of `service`. Raises ValueError if it has one."""
        if service in self._handlers:
            raise ValueError(f"service {service} is served already")
        self._handlers[service] = handler

    def unserve(self, service: str) -> None:
        """Refuse streams of `service` from now on."""
        self._handlers.pop(service, None)

    def serve_protocol(self, service: str, factory: IProtocolFactory) -> None:
        """Let protocols of `factory` speak on the streams of `service`."""

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
            # The agent waits for an answer, or for the end of what was accepted.
            stream.refuse(ErrorCode.TARGET_UNREACHABLE, f"{stream.service} failed")
            stream.reset(ErrorCode.CANCELLED, f"{stream.service} failed")
            raise
