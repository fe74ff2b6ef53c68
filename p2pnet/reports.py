"""What a node reports of itself: frozen plain values, for the event log, metrics and status.

Addresses are text, ids hexadecimal, durations seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any


@functools.cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Base of the reports."""

    @property
    def name(self) -> str:
        """The report's name in the event log: ``ControlConnected`` is ``control_connected``."""
        return _snake_case(type(self).__name__)

    def fields(self) -> dict[str, Any]:
        """The fields for the event log."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


# -- every role ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Listening(Report):
    """The node's UDP socket, or one of its local listeners, is open."""

    address: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateReloaded(Report):
    """New connections use the certificate on disk now."""

    identity: str
    not_valid_after: str


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateReloadFailed(Report):
    """The files on disk are bad; the old certificate stays in use."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped(Report):
    """The node stopped; how many datagrams it had dropped, by cause."""

    dropped: dict[str, int]


# -- nodes (Agent and Connector) -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ControlConnected(Report):
    """The Intermediate took this node in."""

    intermediate: str
    identity: str
    address: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class ControlLost(Report):
    """There is no connection to that Intermediate; the next try comes in `retry_in` seconds."""

    intermediate: str
    reason: str
    retry_in: float


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkChanged(Report):
    """The machine has other addresses or routes now, or woke up."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class AddressObserved(Report):
    """The Intermediate sees this node's packets come from `address`."""

    intermediate: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class IntermediateDraining(Report):
    """The Intermediate shuts down within `seconds` and takes no new sessions."""

    intermediate: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Registered(Report):
    """The Intermediate sends agents that ask for these services to this Connector."""

    intermediate: str
    services: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RegistrationRefused(Report):
    """The Intermediate does not register this service."""

    intermediate: str
    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionOpened(Report):
    """A session with `peer` stands on the Intermediate; the end-to-end handshake follows."""

    session: str
    peer: str
    service: str
    intermediate: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionRefused(Report):
    """No session for that service."""

    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class HandshakeCompleted(Report):
    """The end-to-end connection of the session stands and the peer proved who it is."""

    session: str
    peer: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class RelayReady(Report):
    """The session can go through this Intermediate; it need not."""

    session: str
    intermediate: str


@dataclasses.dataclass(frozen=True, slots=True)
class RelayLost(Report):
    """The session can go through this Intermediate no more."""

    session: str
    intermediate: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class PathSelected(Report):
    """Packets of the session take this path from now on, and why.

    `path` is direct, relayed or none (packets wait); `address` is where they go, two while a
    direct path is silent and both are used; the figures are seconds, null where unknown.
    """

    session: str
    path: str
    reason: str
    address: str
    direct_rtt: float | None
    relay_rtt: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class PacketSizeFound(Report):
    """Packets of the session that go directly to `address` have up to `size` bytes from now on."""

    session: str
    address: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class CandidatesExchanged(Report):
    """Both ends know each other's candidates: "type address" each."""

    session: str
    local: tuple[str, ...]
    remote: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksStarted(Report):
    """Connectivity checks begin in `delay` seconds on so many pairs."""

    session: str
    delay: float
    pairs: int


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksFailed(Report):
    """No direct path was found; the next round comes in `retry_in` seconds (null: not by us)."""

    session: str
    reason: str
    retry_in: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class SessionClosed(Report):
    """The session is over."""

    session: str
    peer: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class StreamOpened(Report):
    """A stream or flow was accepted."""

    session: str
    peer: str
    service: str
    kind: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class StreamRefused(Report):
    """A stream or flow was not accepted."""

    peer: str
    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class StreamFinished(Report):
    """A stream or flow is over: bytes each way, and how long it lasted."""

    session: str
    service: str
    sent: int
    received: int
    seconds: float
    code: str


# -- the Intermediate ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class NodeConnected(Report):
    """A node authenticated and greeted."""

    node: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeMoved(Report):
    """A node's packets come from another address now."""

    node: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeLost(Report):
    """A node's control connection is over."""

    node: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeRefused(Report):
    """A connection failed before it was a node."""

    address: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class ServicesRegistered(Report):
    """A Connector serves these now."""

    node: str
    services: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RelayOpened(Report):
    """A session between two nodes is relayed."""

    session: str
    agent: str
    connector: str
    service: str


@dataclasses.dataclass(frozen=True, slots=True)
class RelayClosed(Report):
    """A session is no longer relayed; what was forwarded and dropped, in frames and bytes."""

    session: str
    reason: str
    frames: int
    bytes: int
    dropped: int


@dataclasses.dataclass(frozen=True, slots=True)
class DrainStarted(Report):
    """No new sessions; the Intermediate ends within `seconds`."""

    seconds: float
    sessions: int


@dataclasses.dataclass(frozen=True, slots=True)
class DrainFinished(Report):
    """Nothing is relayed any more, or the time is up."""

    sessions: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerStarted(Report):
    """A process relays beside the Intermediate."""

    worker: int
    pid: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerLost(Report):
    """It does so no more; another one starts in `restart_in` seconds, and until it relays the
    Intermediate does its work."""

    worker: int
    reason: str
    restart_in: float
