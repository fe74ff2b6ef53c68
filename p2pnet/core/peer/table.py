"""Which session a datagram belongs to: every index of a node's sessions in one object."""

from __future__ import annotations

import collections

from p2pnet.core.peer.session import Session
from p2pnet.traversal.exchange import TAG_LENGTH, tag_of
from p2pnet.traversal.paths import Paths
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, relay_header


class SessionTable:
    """The sessions of a node, by the address that QUIC knows, by relay channel and by check tag.

    :ivar sessions: the living ones, by PeerAddress.
    :ivar paths: their paths, and those of sessions that ended a moment ago: their last packets
        still find the way.
    :ivar dropped: relay frames and packets without a session, by cause.
    """

    def __init__(self) -> None:
        self.sessions: dict[PeerAddress, Session] = {}
        self.paths: dict[PeerAddress, Paths] = {}
        self.dropped: collections.Counter[str] = collections.Counter()
        self._channels: dict[bytes, tuple[Session, Address]] = {}  # by header of their frames
        self._tags: dict[bytes, Session] = {}

    def add(self, session: Session, paths: Paths) -> None:
        """A session begins."""
        self.sessions[session.address] = session
        self.paths[session.address] = paths
        self._tags[paths.tag] = session

    def remove(self, session: Session) -> None:
        """The session is over; forget() drops its paths later."""
        paths = self.paths[session.address]
        del self.sessions[session.address]
        del self._tags[paths.tag]
        for intermediate in paths.relays:
            self.remove_channel(session, intermediate)

    def forget(self, address: PeerAddress, paths: Paths) -> None:
        """Drop the paths of a session that is over, unless a later session has the address."""
        if self.paths.get(address) is paths and address not in self.sessions:
            del self.paths[address]

    def find(self, session_id: bytes) -> Session | None:
        """The living session of that id (16 bytes)."""
        return self.sessions.get(PeerAddress.of_session(session_id))

    def paths_of(self, session: Session) -> Paths:
        """The paths of a session, living or just over."""
        return self.paths[session.address]

    def add_channel(self, session: Session, intermediate: Address, channel: bytes) -> None:
        """Frames of the session arrive in this channel (8 bytes) from that Intermediate."""
        self.remove_channel(session, intermediate)
        self._channels[relay_header(channel)] = session, intermediate

    def remove_channel(self, session: Session, intermediate: Address) -> None:
        """The Intermediate relays the session no more."""
        ends = session, intermediate
        for header in [header for header, known in self._channels.items() if known == ends]:
            del self._channels[header]

    # -- datagrams -------------------------------------------------------------------------------

    def session_of_frame(self, frame: bytes, source: Address) -> Session | None:
        """The session of a relay frame; None, counted as dropped, if it has none."""
        session, intermediate = self._channels.get(frame[:RELAY_OVERHEAD], (None, None))
        if session is None or intermediate != source:
            self.dropped["relay_unknown"] += 1
            return None
        return session

    def session_of_check(self, check: Check) -> Session | None:
        """The session of a STUN message; whether it is authentic is not known yet."""
        if check.kind is not CheckKind.REQUEST:
            return self._tags.get(check.transaction_id[:TAG_LENGTH])
        try:
            return self._tags.get(tag_of(check.username.partition(":")[0]))
        except ValueError:
            return None

    def session_at(self, source: Address) -> Session | None:
        """The session without a connection yet whose proven direct way leads to `source`."""
        for address, session in self.sessions.items():
            if not session.has_connection and self.paths[address].leads_to(source):
                return session
        return None
