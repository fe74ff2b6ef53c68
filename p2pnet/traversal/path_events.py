"""What the `Paths` of a session ask for, and what they say of themselves."""

import dataclasses

from p2pnet.reports import CandidatesExchanged, ChecksFailed, ChecksStarted, PacketSizeFound
from p2pnet.reports import PathSelected as PathSelectedReport
from p2pnet.traversal.direct import DirectStatus
from p2pnet.traversal.relay_choice import RelayStatus
from p2pnet.traversal.way import Way
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.path_messages import PathMessage


@dataclasses.dataclass(frozen=True, slots=True)
class WaysChanged:
    """Packets take these ways from now on, () for none.

    :ivar lost: whether packets already sent got lost. With the same ways as before, some were.
    :ivar planned: whether packets already sent still arrive: then the ways change, and nothing
        that was learnt of the connection's state becomes void.
    :ivar carry_data: whether the ways may carry data of services, not only messages about paths.
    """

    ways: tuple[Way, ...]
    lost: bool
    planned: bool = False
    carry_data: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class PacketSizeChanged:
    """Packets may have up to `size` bytes from now on; before any packet takes another way."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """A message for the peer's Paths."""

    message: PathMessage


@dataclasses.dataclass(frozen=True, slots=True)
class AskRelay:
    """The Intermediate at `address` may be gone, or may not know where this node is now."""

    address: Address


@dataclasses.dataclass(frozen=True, slots=True)
class PeerGone:
    """The peer ended the session, as an Intermediate said; no way contradicts."""

    code: ErrorCode
    reason: str


Report = PathSelectedReport | PacketSizeFound | CandidatesExchanged | ChecksStarted | ChecksFailed
Event = WaysChanged | PacketSizeChanged | Signal | AskRelay | PeerGone | Report


@dataclasses.dataclass(frozen=True, slots=True)
class PathsStatus:
    """Every way of one session.

    :ivar session: its id, hexadecimal.
    :ivar policy: the name of the path selector.
    :ivar using: where packets go now.
    :ivar packet_size: bytes of a packet that `using` carries.
    :ivar relay_rtt: round-trip time through the relay in seconds, None if unknown.
    """

    session: str
    policy: str
    using: tuple[Way, ...]
    packet_size: int
    relays: tuple[RelayStatus, ...]
    relay_rtt: float | None
    direct: DirectStatus
