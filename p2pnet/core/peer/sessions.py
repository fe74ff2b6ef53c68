"""The sessions of a peer: the session that a datagram belongs to, and the requests of its paths."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.session import Session
from p2pnet.core.timers import Deadlines, Timers
from p2pnet.interfaces import IPathSelector
from p2pnet.quic.events import StreamDataReceived, StreamEvent, StreamWritable
from p2pnet.traversal import path_events
from p2pnet.traversal.budget import SendBudget
from p2pnet.traversal.exchange import TAG_LENGTH, CandidateExchange, tag_of
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.paths import Paths
from p2pnet.traversal.way import name_of
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.encoding import encode_message
from p2pnet.wire.path_messages import PATHS_STREAM, PathsBuffer
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, relay_header

Channel = tuple[Address, bytes]
"""The Intermediate that relays in a channel, and the header of the channel's frames."""

Introduced = messages.SessionOffer | messages.SessionOpened

LINGER = 3.0  # seconds for which a closed session can still repeat its CONNECTION_CLOSE


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


class SessionsOwner(Protocol):
    """What Sessions needs of its node."""

    def emit(self, event: events.Event) -> None:
        """Queue an event for the host."""

    def ways_changed(self, session: Session, now: float) -> None:
        """Packets of the session go other ways, or none."""

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """The session is over, and its streams are broken off."""


class Sessions:
    """The sessions of a node, each with its paths.

    After every call that may change the paths of a session comes follow(): the one loop that does
    what the paths ask for.

    :param links: to the Intermediates, which relay and carry signals.
    :ivar table: finds the session of a datagram.
    :ivar checks_out: checks and answers to checks that are due, each with its destination.
    :ivar dropped: relay frames, checks and packets without a session, by cause.
    """

    def __init__(
        self,
        owner: SessionsOwner,
        links: Sequence[ControlLink],
        timers: Timers,
        *,
        controlling: bool,
        own: OwnCandidates,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.table = SessionTable()
        self.checks_out: list[tuple[bytes, Address]] = []
        self.dropped: collections.Counter[str] = collections.Counter()
        self._owner = owner
        self._links = links
        self._timers = timers
        self._controlling = controlling
        self._own = own
        self._entropy = entropy
        self._budget = SendBudget()
        self._deadlines = Deadlines(timers, self._due)
        self._incoming: dict[Session, PathsBuffer] = {}

    def __iter__(self) -> Iterator[Session]:
        """The living sessions; they may change meanwhile."""
        return iter(list(self.table.living.values()))

    def __len__(self) -> int:
        return len(self.table.living)

    def find(self, session_id: bytes) -> Session | None:
        """The living session of that id (16 bytes)."""
        return self.table.living.get(PeerAddress.of_session(session_id))

    def is_living(self, session: Session) -> bool:
        """Whether this very session lives; a later session may have its address."""
        return self.table.living.get(session.address) is session

    def paths_of(self, session: Session) -> Paths:
        """The paths of a session that lives, or ended less than LINGER seconds ago."""
        return self.table.paths[session.address]

    def relayed_by(self, link: ControlLink) -> list[Session]:
        """The sessions that the Intermediate of `link` relays."""
        return [session for session in self if link.address in self.paths_of(session).relays]

    # -- beginning and end -----------------------------------------------------------------------

    def add(self, session: Session, selector: IPathSelector) -> None:
        """Begin the session with paths of its own, among which `selector` chooses."""
        exchange = CandidateExchange(
            session.id, controlling=self._controlling, own=self._own,
            policy=selector.name, budget=self._budget, entropy=self._entropy,
        )  # fmt: skip
        self.table.add(session, Paths(exchange, selector))
        self._incoming[session] = PathsBuffer()

    def established(self, session: Session, now: float) -> None:
        """The other end proved who it is: the ends may exchange candidates from now on."""
        paths, connection = self.paths_of(session), session.connection
        session.is_proven = True
        connection.name_path(name_of(paths.using))
        connection.set_max_datagram_size(paths.packet_size)
        connection.send_only(None if paths.carry_data else PATHS_STREAM)
        if self._controlling:
            connection.send(PATHS_STREAM, b"")  # opens it, so that services have later streams
            paths.begin(now)
            self.follow(session, now)

    def end(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Close the session's connection and forget the session, unless it ended before; only its
        last packets still find the way."""
        if not self.is_living(session):
            return
        if session.has_connection:
            session.connection.close(code, reason)
        for link in self._relaying(session):
            link.send(messages.SessionClosed(session.id, code, reason))
        session.abandon(code, reason, now)
        paths = self.paths_of(session)
        self.table.remove(session)
        self._deadlines.forget(session)
        self._budget.leave(session.id)
        del self._incoming[session]
        self._timers.call_at(now + LINGER, lambda _: self.table.forget(session.address, paths))
        name = code.name.lower()
        self._owner.emit(reports.SessionClosed(session.id.hex(), session.peer_name, name, reason))
        self._owner.session_ended(session, code, reason, now)

    # -- relays ----------------------------------------------------------------------------------

    def add_relay(
        self, session: Session, link: ControlLink, offer: Introduced, cost: float, now: float
    ) -> None:
        """The Intermediate of `link` relays the session, in the channels that it names.

        :param cost: the round-trip time of that way in seconds, as far as this node judges.
        """
        assert link.address is not None
        paths = self.paths_of(session)
        is_news = link.address not in paths.relays
        self.table.add_channel(session, link.address, offer.receive_channel)
        paths.add_relay(link.address, offer.send_channel, cost, f"through {link.name}", now)
        self.follow(session, now)
        if is_news:
            self._owner.emit(reports.RelayReady(session.id.hex(), link.name))

    def remove_relay(self, session: Session, link: ControlLink, reason: str, now: float) -> None:
        """The Intermediate of `link` relays the session no more."""
        assert link.address is not None
        self.table.remove_channel(session, link.address)
        self.paths_of(session).remove_relay(link.address, reason, now)
        self.follow(session, now)
        self._owner.emit(reports.RelayLost(session.id.hex(), link.name, reason))

    def retire_relay(self, link: ControlLink, now: float) -> None:
        """The Intermediate of `link` is about to stop."""
        assert link.address is not None
        for session in self.relayed_by(link):
            self.paths_of(session).retire_relay(link.address, f"{link.name} is draining", now)
            self.follow(session, now)

    def renew(self, link: ControlLink, now: float) -> None:
        """The Intermediate of `link` dropped frames of this node until now."""
        for session in self.relayed_by(link):
            self.paths_of(session).renew()
            self.follow(session, now)

    # -- signals and candidates ------------------------------------------------------------------

    def take_closed(self, link: ControlLink, closed: messages.SessionClosed, now: float) -> None:
        """The Intermediate of `link` relays a session no more.

        With code PEER_LOST the peer may still return. Any other code says that the peer ended the
        session, which is believed once no other way contradicts.
        """
        session = self.find(closed.session)
        if session is None or link.address not in self.paths_of(session).relays:
            return
        self.remove_relay(session, link, closed.reason, now)
        if closed.code != ErrorCode.PEER_LOST and self.is_living(session):
            self.paths_of(session).farewell(ErrorCode.of(closed.code), closed.reason, now)
            self.follow(session, now)

    def receive_signals(self, session: Session, event: StreamEvent, now: float) -> None:
        """Take what came on the stream of messages about paths; it ends with the session alone."""
        if isinstance(event, StreamDataReceived) and not event.end:
            session.connection.consume(PATHS_STREAM, len(event.data))
            rtt = session.connection.smoothed_rtt or session.handshake_rtt
            try:
                for message in self._incoming[session].feed(event.data):
                    self.paths_of(session).take_signal(message, rtt, now)
            except DecodeError as error:
                self.end(session, ErrorCode.PROTOCOL_ERROR, str(error), now)
            self.follow(session, now)
        elif not isinstance(event, StreamWritable):
            reason = "the stream of messages about paths ended"
            self.end(session, ErrorCode.PROTOCOL_ERROR, reason, now)

    def candidates_changed(self, now: float) -> None:
        """Offer the candidates of this node, which changed, to the peers of all sessions."""
        for session in self:
            self.paths_of(session).candidates_changed(now)
            self.follow(session, now)

    def network_changed(self, now: float) -> None:
        """Check all paths: this node may be in another network."""
        for session in self:
            self.paths_of(session).network_changed(now)
            self.follow(session, now)

    def receive_check(self, check: Check, source: Address, now: float) -> bool:
        """Take a check from the network. Returns False unless it is authentic."""
        session = self.table.of_check(check)
        if session is None:
            return False
        paths = self.table.paths[session.address]
        if not paths.receive_check(check, source, now):
            return False
        if paths.has_news:
            self.follow(session, now)
        return True

    # -- packets ---------------------------------------------------------------------------------

    def along_ways(
        self, address: PeerAddress, packets: list[bytes], now: float
    ) -> list[tuple[bytes, Address]]:
        """The datagrams that carry packets of a session's connection."""
        paths = self.table.paths.get(address)
        # Packets go the ways for which they were made, whatever follow() finds below.
        using = paths.using if paths is not None else ()
        if paths is None or not using:
            self.dropped["no_path"] += len(packets)
            return []
        session = self.table.living.get(address)
        # Last packets, of a session that is over, get no answer. A later session with the same
        # address may not have a connection yet.
        if session is not None and session.has_connection:
            connection = session.connection
            due, rtt = connection.is_answer_due, connection.smoothed_rtt
            if due:
                session.unanswered_since = min(session.unanswered_since, now)
            paths.sent(now, answer_due=due, rtt=rtt)
            if paths.has_news:
                self.follow(session, now)
        return [(way.header + packet, way.address) for packet in packets for way in using]

    def heard(self, session: Session, source: Address, now: float) -> None:
        """An authentic packet of the session came directly from `source`."""
        session.unanswered_since = math.inf
        self.table.paths[session.address].heard(source, now)

    def heard_relayed(self, session: Session, relay: Address, now: float) -> None:
        """An authentic packet of the session came through the relay at that address."""
        session.unanswered_since = math.inf
        paths = self.table.paths[session.address]
        paths.heard_relayed(relay, now)
        if paths.has_news:
            self.follow(session, now)

    def take_checks(self) -> list[tuple[bytes, Address]]:
        """The checks and answers in `checks_out`, which the caller sends."""
        checks, self.checks_out = self.checks_out, []
        return checks

    # -- what paths ask for ----------------------------------------------------------------------

    def _due(self, session: Session, now: float) -> None:
        self.paths_of(session).handle_timer(now)
        self.follow(session, now)

    def follow(self, session: Session, now: float) -> None:
        """Do what the paths of a session ask for, until an event ends the session."""
        paths = self.paths_of(session)
        while self.is_living(session) and (event := paths.next_event()) is not None:
            self._do(session, event, now)
        if not self.is_living(session):
            return
        for out in paths.datagrams_to_send():
            if out.ttl is None:
                self.checks_out.append((out.data, out.address))
            else:
                self._owner.emit(events.OpenerNeeded(out.data, out.address, out.ttl))
        self._deadlines.bring_forward(session, paths.get_timer())

    def _do(self, session: Session, event: path_events.Event, now: float) -> None:
        match event:
            case path_events.WaysChanged(ways, lost, planned, carry_data):
                if session.is_established:
                    session.connection.send_only(None if carry_data else PATHS_STREAM)
                    if ways and not planned:
                        session.connection.path_changed(now, path=name_of(ways), lost=lost)
                self._owner.ways_changed(session, now)
            case path_events.PacketSizeChanged(size):
                if session.is_established:
                    session.connection.set_max_datagram_size(size)
            case path_events.Signal(message):
                if not session.connection.send(PATHS_STREAM, encode_message(message)):
                    reason = "the peer does not read messages about paths"
                    self.end(session, ErrorCode.PROTOCOL_ERROR, reason, now)
            case path_events.AskRelay(address):
                for link in self._relaying(session):
                    if link.address == address:
                        link.probe(now)
            case path_events.PeerGone(code, reason):
                self.end(session, code, reason, now)
            case _:
                self._owner.emit(event)

    def _relaying(self, session: Session) -> list[ControlLink]:
        """The links to the Intermediates that relay the session, the one in use first."""
        paths = self.paths_of(session)
        links = [link for link in self._links if link.address in paths.relays and link.is_ready]
        return sorted(links, key=lambda link: link.address != paths.relay)
