"""The base of all nodes: a core with a driver and an event log, as a Twisted service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.peer.node import PeerCore
from p2pnet.identity import Credentials
from p2pnet.interfaces import IDatagramTransport
from p2pnet.net.clock import utcnow
from p2pnet.net.driver import Driver, Forwarder
from p2pnet.observe.eventlog import EventLog
from p2pnet.wire.address import format_address


class Node(Service):
    """A core with its driver and event log, as a service. Base of the nodes of each role.

    :param reactor: provides IReactorTime, and the interfaces that the transport needs.
    :param transport: the IDatagramTransport of the node's one socket.
    :param event_log: path of the event log, None for no file.
    :param forward: the core's hook for IDatagramTransport.forward.
    :ivar observers: called with each Report.
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
        """Open the event log and the socket.

        Raises CannotListenError, OSError for the event log, or RuntimeError while the node runs.
        """
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
        """End all connections and close the socket. Fires once the socket is closed."""
        super().stopService()
        self.core.close(self.driver.now)
        yield self.driver.stop()
        self.report(reports.Stopped({**self.core.dropped, **self.driver.errors}))
        self.event_log.close()

    def handle(self, event: events.Event) -> None:
        """Handle one event of the core."""
        if isinstance(event, reports.Report):
            self.report(event)

    def report(self, report: reports.Report) -> None:
        """Log a report and pass it to the observers."""
        self.event_log.write(report)
        for observer in list(self.observers):
            observer(report)

    def use_credentials(self, credentials: Credentials) -> None:
        """Use another certificate for new connections; existing ones keep theirs."""
        self.core.credentials = credentials
