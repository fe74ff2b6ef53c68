"""Events of a core besides reports: those of streams, and requests to the core's host."""

from __future__ import annotations

import dataclasses

from p2pnet.reports import Report
from p2pnet.wire.address import Address
from p2pnet.wire.worker_messages import WorkerMessage


class StreamEvent:
    """Base of the events of one stream or flow (core/peer/stream.py)."""

    __slots__ = ()


class OwnerEvent(StreamEvent):
    """Base of the events for whoever reads and writes a stream, in which its node has no part."""

    __slots__ = ()

    def deliver(self) -> None:
        """Give the event to the owner of the stream; without an owner it is dropped."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class ResolutionNeeded:
    """A request to resolve the name `host` and to call resolved() with its IP literals.

    :ivar intermediate: the HOST:PORT of the configuration, which resolved() gets too.
    """

    intermediate: str
    host: str


@dataclasses.dataclass(frozen=True, slots=True)
class OpenerNeeded:
    """A request to send a datagram with a small TTL, which opens the NATs on this side of the path.

    A host that cannot set the TTL drops the datagram.

    :ivar ttl: the TTL (IPv4) or hop limit (IPv6).
    """

    data: bytes
    address: Address
    ttl: int


@dataclasses.dataclass(frozen=True, slots=True)
class MessageNeeded:
    """A request to send a message from an Intermediate to all its relay workers, or back.

    The Intermediate's host sends the message before any datagram of datagrams_to_send().
    """

    message: WorkerMessage


Event = Report | StreamEvent | ResolutionNeeded | OpenerNeeded | MessageNeeded
