"""An Intermediate: the Twisted service of the relay and its worker processes."""

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.interfaces import IDatagramTransport
from p2pnet.net.workers.pool import WorkerPool
from p2pnet.node.base import Node
from p2pnet.wire.worker_messages import WorkerMessage


class IntermediateNode(Node):
    """An Intermediate: introduces agents to connectors and relays their sessions.

    :param transport: an IDatagramTransport. The node is the WorkerOwner of a WorkerPool.
    :param drain_seconds: the longest time that a stop waits for relayed sessions.
    """

    def __init__(
        self,
        reactor: Any,
        core: IntermediateCore,
        transport: IDatagramTransport,
        event_log: Path | None = None,
        *,
        drain_seconds: float,
    ) -> None:
        super().__init__(reactor, core, transport, event_log, forward=core.forwarder.forward_joined)
        self._drain_seconds = drain_seconds
        self._workers = transport if isinstance(transport, WorkerPool) else None
        if self._workers is not None:
            self._workers.owner = self
        self._drained: Deferred[None] = Deferred()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Announce the stop to all nodes, wait for relayed sessions to end, then stop.

        Fires once the socket is closed.
        """
        self.core.drain(self._drain_seconds, self.driver.now)
        self.driver.wake()
        yield self._drained
        yield super().stopService()

    def handle(self, event: events.Event) -> None:
        """Handle one event of the core."""
        if isinstance(event, events.MessageNeeded):
            assert self._workers is not None
            self._workers.broadcast(event.message)
            return
        super().handle(event)
        if isinstance(event, reports.DrainFinished):
            self._drained.callback(None)

    # -- WorkerOwner -----------------------------------------------------------------------------

    def worker_added(self, worker: int) -> list[WorkerMessage]:
        """Count the worker in. Returns the messages that tell it all circuits."""
        circuits: list[WorkerMessage] = self.core.forwarder.add_worker(worker)
        return circuits

    def worker_started(self, worker: int, pid: int) -> None:
        """Report that the worker's process forwards frames now."""
        self.report(reports.WorkerStarted(worker, pid))

    def worker_message(self, worker: int, message: WorkerMessage) -> None:
        """Pass a worker's report of its traffic to the core."""
        self.core.forwarder.receive_message(worker, message, self.driver.now)
        self.driver.wake()

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """Report the end of the worker's process, and remove the worker from the core."""
        self.core.forwarder.remove_worker(worker)
        self.report(reports.WorkerLost(worker, reason, restart_in))
        self.driver.wake()
