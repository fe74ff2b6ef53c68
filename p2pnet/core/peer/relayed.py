"""Relayed paths of a node's sessions: the channels at each Intermediate, and their use."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from p2pnet import reports
from p2pnet.core.timers import Deadlines
from p2pnet.traversal.relay_choice import ASK_AFTER
from p2pnet.traversal.way import RelayedPath
from p2pnet.wire.address import Address
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.relay_frame import decode_relay_frame

if TYPE_CHECKING:
    from p2pnet.core.peer.link import ControlLink
    from p2pnet.core.peer.node import PeerCore
    from p2pnet.core.peer.session import Session


class RelayedPaths:
    """The relayed side of a node.

    :ivar dropped: relay frames that were dropped, by cause.
    """

    def __init__(self, node: PeerCore) -> None:
        self.dropped: collections.Counter[str] = collections.Counter()
        self._node = node
        self._channels: dict[bytes, tuple[Session, Address]] = {}
        self._deadlines = Deadlines(node.timers, self._get_timer, self._handle)

    # -- what there is ---------------------------------------------------------------------------

    def add(
        self,
        session: Session,
        link: ControlLink,
        send_channel: bytes,
        receive_channel: bytes,
        cost: float,
    ) -> None:
        """Frames of `session` go and come through these channels of the link's Intermediate.

        :param cost: the round-trip time of that way in seconds, as far as this node is to judge.
        """
        assert link.address is not None
        self._unmap(session, link.address)
        self._channels[receive_channel] = session, link.address
        session.now = self._node.now
        is_known, is_first = session.is_relayed_by(link.address), not session.relays
        session.add_relay(RelayedPath(link.address, send_channel), cost, f"through {link.name}")
        if not is_known:
            self._node.emit(reports.RelayReady(session.id.hex(), link.name))
        if is_first:
            self._node.direct.exchange.begin(session)

    def remove(self, session: Session, link: ControlLink, reason: str) -> None:
        """The Intermediate relays the session no more."""
        if link.address is None or not session.is_relayed_by(link.address):
            return
        self._unmap(session, link.address)
        session.now = self._node.now
        session.remove_relay(link.address, reason)
        self._node.emit(reports.RelayLost(session.id.hex(), link.name, reason))

    def retire(self, link: ControlLink) -> None:
        """The Intermediate is about to stop: use others, where there are others."""
        for session in self._node.sessions.values():
            if link.address is not None and session.is_relayed_by(link.address):
                session.now = self._node.now
                session.relay_choice.retire(link.address, self._node.now)
                session.choose_path(f"{link.name} is draining", planned=True)

    def forget(self, session: Session) -> None:
        """The session is over."""
        for address in session.relays:
            self._unmap(session, address)
        self._deadlines.forget(session)

    def _unmap(self, session: Session, address: Address) -> None:
        for channel in [c for c, ends in self._channels.items() if ends == (session, address)]:
            del self._channels[channel]

    # -- packets ---------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """Take a relay frame that came from `source`."""
        try:
            channel, packet = decode_relay_frame(data)
        except DecodeError:
            self.dropped["relay_malformed"] += 1
            return
        session, intermediate = self._channels.get(channel, (None, None))
        if session is None or intermediate != source:
            self.dropped["relay_unknown"] += 1
            return
        if classify(packet) is not Kind.QUIC:
            self.dropped["relay_payload"] += 1
            return
        if self._node.receive_packet(packet, session, now):
            self._heard(session, source, now)
            self._node.direct.heard_relayed(session, now)

    def _heard(self, session: Session, source: Address, now: float) -> None:
        for link in self._node.links:
            if link.address == source:
                link.traffic_arrived(now)
        choice, rtt = session.relay_choice, session.relay_rtt or 0.0
        before, was_overdue = tuple(choice), choice.is_overdue(rtt, now)
        choice.heard(source, rtt, now)
        if tuple(choice) != before:
            session.now = now
            session.choose_path("the peer was heard there")
        elif was_overdue and session.is_relayed:  # it is back; QUIC's next probe may be far off
            session.path_renewed(now)

    def heard_directly(self, session: Session, now: float) -> None:
        """A packet of the session came without a relay."""
        session.relay_choice.heard(None, 0.0, now)

    def sent(self, session: Session, now: float) -> None:
        """A packet of the session went out by a relay."""
        if session.relay_choice.sent(now, unanswered=session.connection.is_answer_due):
            self._deadlines.touch(session, now + ASK_AFTER)

    # -- time ------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Set the timers of what changed."""
        self._deadlines.settle()

    @staticmethod
    def _get_timer(session: Session) -> float | None:
        return session.relay_choice.get_timer(session.relay_rtt or 0.0)

    def _handle(self, session: Session, now: float) -> None:
        """It is silent: ask its Intermediates, and use the other ones too."""
        asks = session.relay_choice.look(session.relay_rtt or 0.0, now)
        session.now = now
        if asks:
            for link in self._node.links_of(session):
                link.probe(now)
        if session.relay_choice.is_doubtful:
            session.choose_path("the relay is silent")
