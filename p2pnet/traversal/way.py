"""The ways that packets of a session can take."""

import dataclasses
import enum
from collections.abc import Hashable

from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import relay_header


class WayKind(enum.StrEnum):
    """Whether an Intermediate stands between the two ends."""

    DIRECT = "direct"
    RELAYED = "relayed"


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A way: `header` precedes each packet, and the datagram goes to `address`.

    :ivar address: the peer's own address, which answered a check; or an Intermediate's.
    :ivar header: of the relay frame, empty on the direct way.
    """

    kind: WayKind
    address: Address
    header: bytes = b""


def name_of(ways: tuple[Way, ...]) -> Hashable:
    """Return a name that the same ways always have, also when a relay grants another channel."""
    return tuple(way.address for way in ways)


def direct_way(address: Address) -> Way:
    """Return the way straight to the peer at `address`."""
    return Way(WayKind.DIRECT, address)


def relayed_way(intermediate: Address, channel: bytes) -> Way:
    """Return the way through an Intermediate, in frames for `channel` (8 bytes)."""
    return Way(WayKind.RELAYED, intermediate, relay_header(channel))
