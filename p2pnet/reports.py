"""The reports of a node about itself: frozen plain values for event log, metrics and status.

Addresses are text (HOST:PORT), session ids hexadecimal, durations seconds. `code` is the name of an
ErrorCode, and `reason` a text for people.
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
    """Base of all reports, frozen values with the fields of a line of the event log."""

    @property
    def name(self) -> str:
        """The report's name in the event log: ``ControlConnected`` is ``control_connected``."""
        return _snake_case(type(self).__name__)

    def fields(self) -> dict[str, Any]:
        """The fields of the report by name, as the event log has them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


# -- every role ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Listening(Report):
    """The node's UDP socket, or one of its local listeners, is open.

    :ivar what: "p2pnet" for the socket, else the service of the listener.
    """

    address: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateReloaded(Report):
    """The node loaded its certificate again and uses it for new connections."""

    identity: str
    not_valid_after: str


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateReloadFailed(Report):
    """The node could not load its certificate again and keeps the old one."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class MoreReports(Report):
    """The event log left out so many lines of a `kind` about one `peer`, or "" for several."""

    count: int
    kind: str
    peer: str


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped(Report):
    """The node stopped; `dropped` counts, by cause, the datagrams that it dropped."""

    dropped: dict[str, int]


# -- nodes (Agent and Connector) -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ControlConnected(Report):
    """The Intermediate answered this node's Hello.

    :ivar intermediate: the Intermediate's HOST:PORT in the configuration.
    :ivar identity: this node's role, name and realm.
    :ivar address: this node's address as the Intermediate observed it.
    :ivar seconds: duration of the attempt to connect.
    """

    intermediate: str
    identity: str
    address: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class ControlLost(Report):
    """The control connection failed or ended; the node tries again in `retry_in` seconds."""

    intermediate: str
    reason: str
    retry_in: float


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkChanged(Report):
    """The machine's addresses or routes changed, or the machine slept."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class AddressObserved(Report):
    """The Intermediate observed `address` as the source of this node's packets."""

    intermediate: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class IntermediateDraining(Report):
    """The Intermediate shuts down within `seconds` and refuses new sessions."""

    intermediate: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Registered(Report):
    """The Intermediate introduces agents that request these services to this Connector."""

    intermediate: str
    services: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RegistrationRefused(Report):
    """The Intermediate refused to register this service."""

    intermediate: str
    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionOpened(Report):
    """The Intermediate relays a session with `peer`; the end-to-end handshake follows."""

    session: str
    peer: str
    service: str
    intermediate: str


@dataclasses.dataclass(frozen=True, slots=True)
class SessionRefused(Report):
    """The Intermediate or the Connector refused a session for the service."""

    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class HandshakeCompleted(Report):
    """The end-to-end handshake of the session is complete, and the peer proved its identity."""

    session: str
    peer: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class RelayReady(Report):
    """The Intermediate can relay the session; the session need not use this relay."""

    session: str
    intermediate: str


@dataclasses.dataclass(frozen=True, slots=True)
class RelayLost(Report):
    """The Intermediate no longer relays the session."""

    session: str
    intermediate: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class PathSelected(Report):
    """Packets of the session take another path from now on.

    :ivar path: direct, relayed or none (packets wait).
    :ivar reason: why the path was selected.
    :ivar address: the destination of the packets; two, with " and ", while a direct path is silent
        and packets take both paths.
    :ivar direct_rtt: round-trip time of the direct path in seconds, null if unknown.
    :ivar relay_rtt: round-trip time of the relayed path in seconds, null if unknown.
    """

    session: str
    path: str
    reason: str
    address: str
    direct_rtt: float | None
    relay_rtt: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class PacketSizeFound(Report):
    """Path MTU discovery found that packets of `size` bytes reach `address` (RFC 8899)."""

    session: str
    address: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class CandidatesExchanged(Report):
    """Both ends of the session know each other's candidates, each as "TYPE ADDRESS"."""

    session: str
    local: tuple[str, ...]
    remote: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksStarted(Report):
    """Connectivity checks on a number of candidate `pairs` begin in `delay` seconds."""

    session: str
    delay: float
    pairs: int


@dataclasses.dataclass(frozen=True, slots=True)
class ChecksFailed(Report):
    """The connectivity checks found no direct path.

    :ivar retry_in: seconds until this node starts the next round, null if the peer starts it.
    """

    session: str
    reason: str
    retry_in: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class SessionClosed(Report):
    """The end-to-end connection of the session ended."""

    session: str
    peer: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class StreamOpened(Report):
    """A stream or flow was accepted, so many `seconds` after the request.

    :ivar kind: the name of its StreamKind in lower case.
    """

    session: str
    peer: str
    service: str
    kind: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class StreamRefused(Report):
    """A stream or flow was refused, by the Connector or on the way to it."""

    peer: str
    service: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class StreamFinished(Report):
    """A stream or flow ended.

    :ivar sent: bytes of content that this node sent.
    :ivar received: bytes of content that this node received.
    """

    session: str
    peer: str
    service: str
    sent: int
    received: int
    seconds: float
    code: str


# -- the Intermediate ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class NodeConnected(Report):
    """A node completed the handshake and sent Hello."""

    node: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeMoved(Report):
    """The source address of a node's packets changed."""

    node: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeLost(Report):
    """The control connection of a node ended."""

    node: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class NodeRefused(Report):
    """A connection ended before its Hello."""

    address: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class ServicesRegistered(Report):
    """A Connector registered its services; the list replaces the earlier one."""

    node: str
    services: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RelayOpened(Report):
    """The Intermediate relays a session between two nodes from now on."""

    session: str
    agent: str
    connector: str
    service: str


@dataclasses.dataclass(frozen=True, slots=True)
class RelayClosed(Report):
    """The Intermediate no longer relays a session.

    :ivar dropped: frames dropped because they were over the quota; the others were forwarded.
    """

    session: str
    agent: str
    reason: str
    frames: int
    bytes: int
    dropped: int


@dataclasses.dataclass(frozen=True, slots=True)
class DrainStarted(Report):
    """The Intermediate refuses new sessions, and ends a number of `sessions` within `seconds`."""

    seconds: float
    sessions: int


@dataclasses.dataclass(frozen=True, slots=True)
class DrainFinished(Report):
    """All but so many `sessions` are quiet, or the time of the drain is over."""

    sessions: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerStarted(Report):
    """The process of a relay worker forwards frames from now on."""

    worker: int
    pid: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerLost(Report):
    """The process of a relay worker ended; the next one starts in `restart_in` seconds."""

    worker: int
    reason: str
    restart_in: float
