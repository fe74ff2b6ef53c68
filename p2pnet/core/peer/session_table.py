"""The session that a datagram belongs to."""

from __future__ import annotations

from p2pnet.core.peer.session import Session
from p2pnet.traversal.exchange import TAG_LENGTH, tag_of
from p2pnet.traversal.paths import Paths
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, relay_header

Channel = tuple[Address, bytes]
"""The Intermediate that relays in a channel, and the header of the channel's frames."""


class SessionTable:
    """The living sessions, by the address that QUIC knows, by relay channel and by check tag.

    :ivar living: the sessions, by PeerAddress.
    :ivar paths: their paths, and those of sessions that ended a moment ago: their last packets
        still find the way.
    """

    def __init__(self) -> None:
        self.living: dict[PeerAddress, Session] = {}
        self.paths: dict[PeerAddress, Paths] = {}
        self._channels: dict[Channel, Session] = {}
        self._headers: dict[tuple[Session, Address], bytes] = {}  # of the frames from there
        self._tags: dict[bytes, Session] = {}

    def add(self, session: Session, paths: Paths) -> None:
        """Find the session, which begins, by its address and by the tag of its checks."""
        self.living[session.address] = session
        self.paths[session.address] = paths
        self._tags[paths.tag] = session

    def remove(self, session: Session) -> None:
        """Find the session, which is over, no more; forget() drops its paths later."""
        paths = self.paths[session.address]
        del self.living[session.address]
        if self._tags.get(paths.tag) is session:  # tags are short: another may have the same
            del self._tags[paths.tag]
        for intermediate in paths.relays:
            self.remove_channel(session, intermediate)

    def forget(self, address: PeerAddress, paths: Paths) -> None:
        """Drop the paths of a session that is over, unless a later session has its address."""
        if self.paths.get(address) is paths and address not in self.living:
            del self.paths[address]

    def add_channel(self, session: Session, intermediate: Address, channel: bytes) -> None:
        """Frames of the session arrive in this channel (8 bytes) from that Intermediate."""
        self.remove_channel(session, intermediate)
        header = self._headers[session, intermediate] = relay_header(channel)
        self._channels[intermediate, header] = session

    def remove_channel(self, session: Session, intermediate: Address) -> None:
        """The Intermediate relays the session no more."""
        header = self._headers.pop((session, intermediate), b"")
        if self._channels.get((intermediate, header)) is session:
            del self._channels[intermediate, header]

    def of_frame(self, frame: bytes, source: Address) -> Session | None:
        """The session of a relay frame that came from `source`, None if it has none."""
        return self._channels.get((source, frame[:RELAY_OVERHEAD]))

    def of_check(self, check: Check) -> Session | None:
        """The session that a STUN message names, None if it names none. It may be forged."""
        if check.kind is not CheckKind.REQUEST:
            return self._tags.get(check.transaction_id[:TAG_LENGTH])
        try:
            return self._tags.get(tag_of(check.username.partition(":")[0]))
        except ValueError:
            return None
