"""The ways a session's packets can take."""

import dataclasses
from typing import ClassVar

from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import encode_relay_frame


@dataclasses.dataclass(frozen=True, slots=True)
class RelayedPath:
    """Through the Intermediate at `intermediate`, in frames for `channel`."""

    intermediate: Address
    channel: bytes

    kind: ClassVar[str] = "relayed"

    @property
    def address(self) -> Address:
        """Where datagrams go."""
        return self.intermediate

    def encapsulate(self, packet: bytes) -> tuple[bytes, Address]:
        """The datagram that carries `packet` along this path, and where to send it."""
        return encode_relay_frame(self.channel, packet), self.intermediate


@dataclasses.dataclass(frozen=True, slots=True)
class DirectPath:
    """Straight to the peer at `address`, which answered a check of ours."""

    address: Address

    kind: ClassVar[str] = "direct"

    def encapsulate(self, packet: bytes) -> tuple[bytes, Address]:
        """The datagram that carries `packet` along this path, and where to send it."""
        return packet, self.address


Path = RelayedPath | DirectPath
