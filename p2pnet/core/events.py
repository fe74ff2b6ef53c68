"""What a core emits besides reports: events of streams, and what it asks of its host."""

from __future__ import annotations

import dataclasses

from p2pnet.reports import Report
from p2pnet.wire.address import Address
from p2pnet.wire.worker_messages import WorkerMessage


class StreamEvent:
    """Base of the events of one stream or flow (core/peer/stream.py)."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ResolutionNeeded:
    """The host is to look `host` up and to call resolved() with what it found."""

    intermediate: str
    host: str


@dataclasses.dataclass(frozen=True, slots=True)
class OpenerNeeded:
    """The host is to send this datagram so that it crosses no more than `hops` routers.

    It opens the NATs on this side of the way. A host that cannot limit hops leaves it.
    """

    data: bytes
    address: Address
    hops: int


@dataclasses.dataclass(frozen=True, slots=True)
class MessageNeeded:
    """The host is to pass this on: that of an Intermediate to its relay workers, before it sends
    packets; that of a worker to its Intermediate."""

    message: WorkerMessage


Event = Report | StreamEvent | ResolutionNeeded | OpenerNeeded | MessageNeeded
