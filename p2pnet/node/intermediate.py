"""An Intermediate: the service that relays, with the worker processes that forward for it."""

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
        known: list[WorkerMessage] = self.core.forwarder.add_worker(worker)
        return known

    def worker_began(self, worker: int, pid: int) -> None:
        """It relays."""
        self.report(reports.WorkerStarted(worker, pid))

    def worker_said(self, worker: int, message: WorkerMessage) -> None:
        """It tells what it forwarded."""
        self.core.forwarder.receive_message(worker, message, self.driver.now)
        self.driver.wake()

    def worker_lost(self, worker: int, reason: str, restart_in: float) -> None:
        """It is no more."""
        self.core.forwarder.remove_worker(worker)
        self.report(reports.WorkerLost(worker, reason, restart_in))
        self.driver.wake()
