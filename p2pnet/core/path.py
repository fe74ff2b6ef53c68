"""The ways a session's packets can take. For now there is one: through an Intermediate."""

import dataclasses
from typing import ClassVar

from p2pnet.wire.address import Address
from p2pnet.wire.relay import encode_relay_frame


@dataclasses.dataclass(frozen=True, slots=True)
class RelayedPath:
    """Through the Intermediate at `intermediate`, in frames for `channel`."""

    intermediate: Address
    channel: bytes

    kind: ClassVar[str] = "relayed"

    def encapsulate(self, packet: bytes) -> tuple[bytes, Address]:
        """The datagram that carries `packet` along this path, and where to send it."""
        return encode_relay_frame(self.channel, packet), self.intermediate
