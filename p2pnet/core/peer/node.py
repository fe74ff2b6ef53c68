"""The core of a peer, Agent or Connector: all that arrives on its one socket, and where it goes."""

from __future__ import annotations

import collections
import datetime
import itertools
import operator
import os
from collections.abc import Callable, Iterable
from typing import Any

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.options import PeerOptions
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.table import SessionTable
from p2pnet.core.timers import Deadlines, Timers
from p2pnet.identity import Credentials, Role
from p2pnet.interfaces import IPathSelector
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.traversal import paths as ways
from p2pnet.traversal.exchange import CandidateExchange
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.paths import Paths
from p2pnet.traversal.way import name_of
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress, format_address
from p2pnet.wire.check import decode_check
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.demux import Kind, classify, is_quic
from p2pnet.wire.relay_frame import RELAY_OVERHEAD

PEER_ALPN = "p2pnet-peer/1"
LINGER = 3.0  # seconds for which a closed session can still repeat its CONNECTION_CLOSE
PEER_IDLE_TIMEOUT = 30.0  # seconds; time enough for an Intermediate to restart under a session


class PeerCore:
    """The sans-IO core of a peer, driven like an aioquic connection.

    Feed it with receive_datagram() and handle_timer(), then take next_event() until None and
    datagrams_to_send(), in that order and again until there are no more events; call it again at
    get_timer(). What is due is sent by one call of datagrams_to_send(). `now` is in seconds of any
    steady clock, the same for all calls.

    A datagram belongs to a control connection, to a session's connection or to a session's paths;
    `_follow` does what the paths of a session say.

    :param credentials: who this node is.
    :param intermediates: "host:port" of each Intermediate; a connection to each is kept up.
    :param options: what the configuration decides.
    :param utcnow: the calendar's clock, for certificate dates.
    :param entropy: the source of random bytes.
    """

    role: Role
    peer_role: Role
    controlling: bool  # in connectivity checks (RFC 8445 section 6.1.1)
    max_peer_streams = 0  # streams that the peer may open on an end-to-end connection

    def __init__(
        self,
        credentials: Credentials,
        intermediates: Iterable[str],
        options: PeerOptions,
        *,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if credentials.identity.role is not self.role:
            raise ValueError(f"{credentials.identity} cannot be run as {self.role}")
        self.credentials = credentials
        self.timers = Timers()
        self._now = 0.0  # of the verb that was called last
        self.entropy = entropy
        self.instance = entropy(8)
        self.table = SessionTable()
        self.links = [
            ControlLink(name, self, self.timers, instance=self.instance, random=self.random)
            for name in intermediates
        ]
        self.own = OwnCandidates(self.links, tell_observed=options.tell_observed)
        self._utcnow = utcnow
        self._options = options
        self._mux = Multiplexer(accept_peer=self._accept_peer, entropy=entropy)
        self._deadlines = Deadlines(self.timers, self._session_due)
        self._heard: tuple[Connection, Address, float] | None = None  # directly, most recently
        self._checks_out: list[tuple[bytes, Address]] = []
        self._events: collections.deque[events.Event] = collections.deque()

    @property
    def sessions(self) -> dict[PeerAddress, Session]:
        """The living sessions."""
        return self.table.sessions

    @property
    def dropped(self) -> dict[str, int]:
        """Datagrams that were dropped, by cause."""
        return {
            **self.table.dropped,
            "stun": self.table.dropped["stun"],
            "quic": self._mux.dropped,
            "failures": self._mux.failures,
        }

    def random(self) -> float:
        """A random number from 0 to 1, for jitter."""
        return int.from_bytes(self.entropy(4), "big") / 2**32

    def emit(self, event: events.Event) -> None:
        """Queue an event for the host."""
        self._events.append(event)

    def profile_for(self, roles: Iterable[Role], **changes: Any) -> ConnectionProfile:
        """QUIC settings with this node's present certificate, for peers of `roles`."""
        return ConnectionProfile(
            credentials=self.credentials, roles=frozenset(roles), utcnow=self._utcnow,
            engine=self._options.engine, **changes,
        )  # fmt: skip

    def peer_profile(self) -> ConnectionProfile:
        """QUIC settings for an end-to-end connection. No host: the role decides, and no SNI."""
        return self.profile_for(
            {self.peer_role},
            alpn=PEER_ALPN,
            max_streams=self.max_peer_streams,
            idle_timeout=PEER_IDLE_TIMEOUT,
            datagrams=True,
            congestion=self._options.congestion,
        )

    # -- for the host ----------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Connect to the Intermediates, and keep connected from now on."""
        self._now = now
        for link in self.links:
            link.start(now)

    def resolved(self, intermediate: str, hosts: list[str], now: float) -> None:
        """Answer to ResolutionNeeded: the IP literals that the name stands for, [] for none."""
        self._now = now
        for link in self.links:
            if link.name == intermediate:
                link.resolved(hosts, now)

    def set_local_addresses(
        self, hosts: Iterable[str], port: int, external: Iterable[Address], now: float
    ) -> None:
        """The addresses of this machine, the socket's port, and addresses the operator gives."""
        if self.own.set_addresses(hosts, port, external):
            self._candidates_changed(now)

    def network_changed(self, now: float) -> None:
        """The network may be another one: see what still works, and look for what works now."""
        self._now = now
        for link in self.links:
            link.network_changed(now)
        for session in list(self.sessions.values()):
            self.paths_of(session).network_changed(now)
            self._follow(session, now)

    @property
    def observed_addresses(self) -> dict[str, Address]:
        """This node's address as each Intermediate sees it now."""
        return {link.name: link.observed for link in self.links if link.observed is not None}

    def close(self, now: float, reason: str = "node stopped") -> None:
        """End everything; what is to be said about it comes with datagrams_to_send()."""
        for session in list(self.sessions.values()):
            self.end_session(session, ErrorCode.SHUTDOWN, reason, now)
        for link in self.links:
            link.stop(reason)

    # -- the five verbs --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Take a datagram that arrived from `address` (canonical form)."""
        self._now = now
        kind = classify(data)
        if kind is Kind.QUIC:
            self._receive_quic(data, address, now)
        elif kind is Kind.RELAY:
            self._receive_frame(data, address, now)
        elif kind is Kind.STUN:
            self._receive_check(data, address, now)
        else:
            self.table.dropped["unknown"] += 1

    def _receive_quic(self, data: bytes, address: Address, now: float) -> None:
        connection = self._mux.receive_datagram(data, address, now)
        if connection is None:  # direct-only: the handshake comes directly too
            session = self.table.session_at(address)
            if session is not None:
                self._receive_packet(data, session, now)
        elif connection.was_news and (connection, address, now) != self._heard:
            self._heard = connection, address, now  # the packets of one batch count once
            if isinstance(connection.owner, Session):
                self.paths_of(connection.owner).heard(address, now)

    def _receive_frame(self, frame: bytes, source: Address, now: float) -> None:
        session = self.table.session_of_frame(frame, source)
        if session is None:
            return
        packet = frame[RELAY_OVERHEAD:]
        if not is_quic(packet):
            self.table.dropped["relay_payload"] += 1
        elif self._receive_packet(packet, session, now):
            self._link_at(source).traffic_arrived(now)
            paths = self.paths_of(session)
            paths.heard_relayed(source, now)
            if paths.has_news:
                self._follow(session, now)

    def _receive_packet(self, packet: bytes, session: Session, now: float) -> bool:
        """Take a QUIC packet of the session's connection. Returns whether it was authentic, and
        no replay: whether it says anything about the way that it came."""
        connection = self._mux.receive_datagram(packet, session.address, now)
        if connection is not None and connection.owner is None:
            session.set_connection(connection)
        return connection is not None and connection.was_news

    def _receive_check(self, data: bytes, source: Address, now: float) -> None:
        try:
            check = decode_check(data)
        except DecodeError:
            self.table.dropped["stun"] += 1
            return
        session = self.table.session_of_check(check)
        if session is not None and self.paths_of(session).receive_check(check, source, now):
            self._follow(session, now)
        else:
            self.table.dropped["stun"] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The datagrams that are due, each with the address to send it to."""
        datagrams: list[tuple[bytes, Address]] = []
        while self._mux.may_send:
            made = self._mux.datagrams_to_send(now)
            for address, group in itertools.groupby(made, operator.itemgetter(1)):
                if isinstance(address, PeerAddress):
                    datagrams += self._along_ways(address, [data for data, _ in group], now)
                else:
                    datagrams += group
            self._handle_connections(now)  # which may give more to send
        if self._checks_out:
            datagrams += self._checks_out
            self._checks_out = []
        return datagrams

    def _along_ways(
        self, address: PeerAddress, packets: list[bytes], now: float
    ) -> list[tuple[bytes, Address]]:
        """The datagrams that carry a session's packets."""
        paths = self.table.paths.get(address)
        if paths is None or not paths.using:
            self.table.dropped["no_path"] += len(packets)
            return []
        session = self.sessions.get(address)
        if session is not None:  # nobody waits for an answer to last words
            connection = session.connection
            rtt = connection.smoothed_rtt
            paths.sent(now, answer_due=connection.is_answer_due, rtt=rtt)
            if paths.has_news:
                self._follow(session, now)
        return [(way.header + packet, way.address) for packet in packets for way in paths.using]

    def next_event(self) -> events.Event | None:
        """The next event, None when there is none."""
        if not self._events and self._mux.has_events:
            self._handle_connections(self._now)
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call handle_timer(), None for never."""
        times = (self._mux.get_timer(), self.timers.get_timer())
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        self.timers.handle_timer(now)
        self._mux.handle_timer(now)
        self._handle_connections(now)

    # -- for the links ---------------------------------------------------------------------------

    def connect_control(self, host: str, address: Address, now: float) -> Connection:
        """Open a control connection to an Intermediate whose certificate must name `host`."""
        profile = self.profile_for({Role.INTERMEDIATE}, alpn=messages.ALPN, host=host)
        return self._mux.connect(profile, address, now)

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """The link came up."""
        self.emit(
            reports.ControlConnected(
                link.name, str(self.credentials.identity), format_address(address), seconds
            )
        )

    def address_observed(self, link: ControlLink, address: Address, now: float) -> None:
        """The Intermediate told this node's address, or a new one."""
        self.emit(reports.AddressObserved(link.name, format_address(address)))
        for session in self._relayed_by(link):
            self.paths_of(session).renew()  # until now it dropped what we sent from there
            self._follow(session, now)
        self._candidates_changed(now)

    def link_failed(self, link: ControlLink, now: float) -> None:
        """A try failed or the link went down: sessions that it carried have no path for now."""
        for session in self._relayed_by(link):
            self._remove_relay(session, link, f"lost {link.name}: {link.last_error}", now)

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """The Intermediate takes no new sessions, and ends the others within so many seconds."""
        self.emit(reports.IntermediateDraining(link.name, seconds))
        for session in self._relayed_by(link):
            assert link.address is not None
            reason = f"{link.name} is draining"
            self.paths_of(session).retire_relay(link.address, reason, now)
            self._follow(session, now)

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits for, or uses, what this node is connected to."""
        raise NotImplementedError

    def take_message(self, link: ControlLink, message: messages.Message, now: float) -> None:
        """A message that is about sessions or services."""
        raise NotImplementedError

    def relays_streams(self, link: ControlLink) -> bool:
        """Whether the streams of a session go through that Intermediate."""
        for session in self.sessions.values():
            paths = self.paths_of(session)
            if session.streams and paths.is_relayed and paths.relay == link.address:
                return True
        return False

    def _link_at(self, address: Address) -> ControlLink:
        return next(link for link in self.links if link.address == address)

    def _relayed_by(self, link: ControlLink) -> list[Session]:
        return [s for s in self.sessions.values() if link.address in self.paths_of(s).relays]

    # -- sessions --------------------------------------------------------------------------------

    def find_session(self, session_id: bytes) -> Session | None:
        """The live session of that id."""
        return self.table.find(session_id)

    def paths_of(self, session: Session) -> Paths:
        """The paths of a session."""
        return self.table.paths[session.address]

    def add_session(self, session: Session, selector: IPathSelector) -> None:
        """The session begins; `selector` is its policy."""
        exchange = CandidateExchange(
            session.id, controlling=self.controlling, own=self.own, entropy=self.entropy
        )
        self.table.add(session, Paths(exchange, selector))

    def add_relay(
        self,
        session: Session,
        link: ControlLink,
        offer: messages.SessionOffer | messages.SessionOpened,
        cost: float,
        now: float,
    ) -> None:
        """The link's Intermediate relays the session, in the channels that it names.

        :param cost: the round-trip time of that way in seconds, as far as this node is to judge.
        """
        assert link.address is not None
        paths = self.paths_of(session)
        is_news = link.address not in paths.relays
        self.table.add_channel(session, link.address, offer.receive_channel)
        paths.add_relay(link.address, offer.send_channel, cost, f"through {link.name}", now)
        self._follow(session, now)
        if is_news:
            self.emit(reports.RelayReady(session.id.hex(), link.name))

    def _remove_relay(self, session: Session, link: ControlLink, reason: str, now: float) -> None:
        assert link.address is not None
        self.table.remove_channel(session, link.address)
        self.paths_of(session).remove_relay(link.address, reason, now)
        self._follow(session, now)
        self.emit(reports.RelayLost(session.id.hex(), link.name, reason))

    def session_closed(self, link: ControlLink, closed: messages.SessionClosed, now: float) -> None:
        """The Intermediate relays the session no more. Code PEER_LOST: it may yet resume; any
        other: the peer ended it, which is believed once no other path says otherwise."""
        session = self.find_session(closed.session)
        if session is None or link.address not in self.paths_of(session).relays:
            return
        self._remove_relay(session, link, closed.reason, now)
        if closed.code != ErrorCode.PEER_LOST:
            self.paths_of(session).farewell(ErrorCode.of(closed.code), closed.reason, now)
            self._follow(session, now)

    def take_signal(self, message: messages.SignalMessage, now: float) -> None:
        """A message about candidates or checks. One for no session of ours is ignored."""
        session = self.find_session(message.session)
        if session is not None:
            self.paths_of(session).take_signal(message, now)
            self._follow(session, now)

    def _candidates_changed(self, now: float) -> None:
        for session in list(self.sessions.values()):
            self.paths_of(session).candidates_changed(now)
            self._follow(session, now)

    def _session_due(self, session: Session, now: float) -> None:
        self.paths_of(session).handle_timer(now)
        self._follow(session, now)

    def _follow(self, session: Session, now: float) -> None:
        """Do what the paths of a session ask for."""
        paths = self.paths_of(session)
        while (event := paths.next_event()) is not None:
            self._do(session, event, now)
        if self.sessions.get(session.address) is not session:
            return
        for out in paths.datagrams_to_send():
            if out.ttl is None:
                self._checks_out.append((out.data, out.address))
            else:
                self.emit(events.OpenerNeeded(out.data, out.address, out.ttl))
        self._deadlines.bring_forward(session, paths.get_timer())

    def _do(self, session: Session, event: ways.Event, now: float) -> None:
        match event:
            case ways.WaysChanged():
                self._ways_changed(session, event, now)
            case ways.PacketSizeChanged(size):
                if session.is_established:
                    session.connection.set_max_datagram_size(size)
            case ways.Signal(message):
                for link in self._relaying_links(session)[:1]:
                    link.send(message)
            case ways.AskRelay(address):
                for link in self._relaying_links(session):
                    if link.address == address:
                        link.probe(now)
            case ways.PeerGone(code, reason):
                self.end_session(session, code, reason, now)
            case _:
                self.emit(event)

    def _ways_changed(self, session: Session, event: ways.WaysChanged, now: float) -> None:
        if session.is_established and event.ways and not event.planned:
            name = name_of(event.ways)
            session.connection.path_changed(now, path=name, lost=event.lost)
        if not event.ways:
            self.ways_lost(session, now)

    def ways_lost(self, session: Session, now: float) -> None:
        """No packet of the session can be sent for now; a hook for the roles."""

    def _relaying_links(self, session: Session) -> list[ControlLink]:
        """The links to the Intermediates that relay the session, the one in use first."""
        paths = self.paths_of(session)
        links = [link for link in self.links if link.address in paths.relays and link.is_ready]
        return sorted(links, key=lambda link: link.address != paths.relay)

    def end_session(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Close the session's connection and forget it; only its last words still find the path."""
        if self.sessions.get(session.address) is not session:
            return
        if session.has_connection:
            session.connection.close(code, reason)
        closed = messages.SessionClosed(session.id, code, reason[:512])
        for link in self._relaying_links(session):
            link.send(closed)
        session.abandon(code, reason)
        paths = self.paths_of(session)
        self.table.remove(session)
        self._deadlines.forget(session)
        self.timers.call_at(now + LINGER, lambda _: self.table.forget(session.address, paths))
        name = code.name.lower()
        self.emit(reports.SessionClosed(session.id.hex(), session.peer_name, name, reason))
        self.session_ended(session, code, reason, now)

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """The session is forgotten; a hook for the roles."""

    # -- connections -----------------------------------------------------------------------------

    def _accept_peer(self, address: PeerAddress) -> ConnectionProfile | None:
        return None

    def _handle_connections(self, now: float) -> None:
        while (item := self._mux.next_event()) is not None:
            connection, event = item
            owner = connection.owner
            if isinstance(owner, ControlLink):
                owner.handle(connection, event, now)
            elif isinstance(owner, Session) and self.sessions.get(owner.address) is owner:
                owner.handle(event, now)
                self.session_event(owner, event, now)

    def session_event(self, session: Session, event: quic_events.Event, now: float) -> None:
        """An event of an end-to-end connection, after the session itself took it."""
        match event:
            case quic_events.HandshakeCompleted():
                paths = self.paths_of(session)
                session.connection.name_path(name_of(paths.using))
                session.connection.set_max_datagram_size(paths.packet_size)
            case quic_events.ConnectionClosed():
                self.end_session(session, event.error_code, event.reason, now)
            case quic_events.BlackHoleDetected():
                self.paths_of(session).black_hole(now)
                self._follow(session, now)
