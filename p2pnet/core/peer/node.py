"""What Agent and Connector have in common: one socket's worth of connections and their upkeep."""

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
from p2pnet.core.peer.direct import DirectPaths
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.relayed import RelayedPaths
from p2pnet.core.peer.session import Session
from p2pnet.core.timers import Timers
from p2pnet.identity import Credentials, Role
from p2pnet.quic import events as quic_events
from p2pnet.quic.congestion import DEFAULT_CONTROLLER
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress, format_address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.demux import Kind, classify

PEER_ALPN = "p2pnet-peer/1"
LINGER = 3.0  # seconds for which a closed session can still repeat its CONNECTION_CLOSE
PEER_IDLE_TIMEOUT = 30.0  # seconds; time enough for an Intermediate to restart under a session


class PeerCore:
    """The sans-IO core of a node, driven like an aioquic connection.

    Feed it with receive_datagram() and handle_timer(), then take next_event() until None and
    datagrams_to_send(), in that order and again until there are no more events; call it again at
    get_timer(). What is due is sent by one call of datagrams_to_send(). `now` is in seconds of any
    steady clock, the same for all calls.

    :param credentials: who this node is.
    :param intermediates: "host:port" of each Intermediate; a connection to each is kept up.
    :param utcnow: the calendar's clock, for certificate dates.
    :param entropy: the source of random bytes.
    :param engine: how QUIC packets are made (p2pnet.quic.profile.ENGINES).
    """

    role: Role
    peer_role: Role
    controlling: bool  # in connectivity checks (RFC 8445 section 6.1.1)
    max_peer_streams = 0  # streams that the peer may open on an end-to-end connection

    def __init__(
        self,
        credentials: Credentials,
        intermediates: Iterable[str],
        *,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
        engine: str = FAST,
    ) -> None:
        if credentials.identity.role is not self.role:
            raise ValueError(f"{credentials.identity} cannot be run as {self.role}")
        self.credentials = credentials
        self.congestion = DEFAULT_CONTROLLER  # of end-to-end connections to come
        self.timers = Timers()
        self.now = 0.0  # of the verb that was called last
        self.entropy = entropy
        self.instance = entropy(8)
        self.sessions: dict[PeerAddress, Session] = {}
        self._unwanted: collections.Counter[str] = collections.Counter()
        self.links = [
            ControlLink(name, self, self.timers, instance=self.instance, random=self.random)
            for name in intermediates
        ]
        self._utcnow = utcnow
        self._engine = engine
        self._mux = Multiplexer(accept_peer=self._accept_peer, entropy=entropy)
        self.direct = DirectPaths(self)
        self.relayed = RelayedPaths(self)
        self._ending: dict[PeerAddress, Session] = {}
        self._heard: dict[Session, Address] = {}  # directly, and where from, in this batch
        self._events: collections.deque[events.Event] = collections.deque()

    @property
    def dropped(self) -> dict[str, int]:
        """Datagrams that were dropped, by cause."""
        return {
            **self._unwanted,
            **self.relayed.dropped,
            "stun": self.direct.dropped,
            "quic": self._mux.dropped,
            "failures": self._mux.failures,
        }

    def random(self) -> float:
        """A random number from 0 to 1, for jitter."""
        return int.from_bytes(self.entropy(4), "big") / 2**32

    def emit(self, event: events.Event) -> None:
        """Queue an event for the host."""
        self._events.append(event)

    def settings(self, roles: Iterable[Role], **changes: Any) -> ConnectionProfile:
        """QUIC settings with this node's present certificate, for peers of `roles`."""
        return ConnectionProfile(
            credentials=self.credentials, roles=frozenset(roles), utcnow=self._utcnow,
            engine=self._engine, **changes,
        )  # fmt: skip

    def peer_settings(self) -> ConnectionProfile:
        """QUIC settings for an end-to-end connection. No host: the role decides, and no SNI."""
        return self.settings(
            {self.peer_role},
            alpn=PEER_ALPN,
            max_streams=self.max_peer_streams,
            idle_timeout=PEER_IDLE_TIMEOUT,
            datagrams=True,
            congestion=self.congestion,
        )

    # -- for the host ----------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Connect to the Intermediates, and keep connected from now on."""
        self.now = now
        for link in self.links:
            link.start(now)

    def resolved(self, intermediate: str, hosts: list[str], now: float) -> None:
        """Answer to ResolutionNeeded: the IP literals that the name stands for, [] for none."""
        self.now = now
        for link in self.links:
            if link.name == intermediate:
                link.resolved(hosts, now)

    def network_changed(self, now: float) -> None:
        """The network may be another one: see what still works, and look for what works now."""
        self.now = now
        for link in self.links:
            link.network_changed(now)
        self.direct.network_changed(now)

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
        self.now = now
        kind = classify(data)
        if kind is Kind.QUIC:
            connection = self._mux.receive_datagram(data, address, now)
            session = self.direct.session_at(address) if connection is None else None
            if session is not None:  # direct-only: its handshake comes directly too
                self.receive_packet(data, session, now)
            if connection and connection.was_news and isinstance(connection.owner, Session):
                self._heard_directly(connection.owner, address, now)
            return
        self._note_heard(now)
        if kind is Kind.RELAY:
            self.relayed.receive(data, address, now)
        elif kind is Kind.STUN:
            self.direct.receive(data, address, now)
        else:
            self._unwanted[kind.name.lower()] += 1

    def _heard_directly(self, session: Session, address: Address, now: float) -> None:
        """An authentic packet of the session came from there; many in a row count as one."""
        if self._heard.setdefault(session, address) != address:
            self._note_heard(now)
            self._heard[session] = address

    def _note_heard(self, now: float) -> None:
        while self._heard:
            session, address = self._heard.popitem()
            self.direct.heard(session, address, now)
            self.relayed.heard_directly(session, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The datagrams that are due, each with the address to send it to."""
        datagrams: list[tuple[bytes, Address]] = []
        while self._mux.may_send:
            made = self._mux.datagrams_to_send(now)
            for address, group in itertools.groupby(made, operator.itemgetter(1)):
                if isinstance(address, PeerAddress):
                    datagrams += self._along_paths(address, [data for data, _ in group], now)
                else:
                    datagrams += group
            self._handle_connections(now)  # which may give more to send
        datagrams += self.direct.datagrams_to_send()
        return datagrams

    def _along_paths(
        self, address: PeerAddress, packets: list[bytes], now: float
    ) -> list[tuple[bytes, Address]]:
        """The datagrams that carry a session's packets."""
        session = self.sessions.get(address) or self._ending.get(address)
        if session is None or not session.paths:
            self._unwanted["no_path"] += len(packets)
            return []
        if address in self.sessions:  # nobody waits for an answer to last words
            self.direct.sent(session, now)
            if session.paths[-1].kind == "relayed":
                self.relayed.sent(session, now)
        return [path.encapsulate(packet) for packet in packets for path in session.paths]

    def next_event(self) -> events.Event | None:
        """The next event, None when there is none."""
        if not self._events and (self._heard or self._mux.has_events):
            self._handle_connections(self.now)
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call handle_timer(), None for never."""
        self.direct.settle()
        self.relayed.settle()
        times = (self._mux.get_timer(), self.timers.get_timer())
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.now = now
        self.timers.handle_timer(now)
        self._mux.handle_timer(now)
        self._handle_connections(now)

    # -- for the links ---------------------------------------------------------------------------

    def connect_control(self, host: str, address: Address, now: float) -> Connection:
        """Open a control connection to an Intermediate whose certificate must name `host`."""
        settings = self.settings({Role.INTERMEDIATE}, alpn=messages.ALPN, host=host)
        return self._mux.connect(settings, address, now)

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
        for session in self.sessions.values():
            if session.is_relayed_by(link.address):
                session.path_renewed(now)  # until now it dropped what we sent from there
        self.direct.candidates_changed()

    def link_failed(self, link: ControlLink, now: float) -> None:
        """A try failed or the link went down: sessions that it carried have no path for now."""
        for session in list(self.sessions.values()):
            self.relayed.remove(session, link, f"lost {link.name}: {link.last_error}")

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """The Intermediate takes no new sessions, and ends the others within so many seconds."""
        self.emit(reports.IntermediateDraining(link.name, seconds))
        self.relayed.retire(link)

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits for, or uses, what this node is connected to."""
        raise NotImplementedError

    def take_message(self, link: ControlLink, message: messages.Message, now: float) -> None:
        """A message that is about sessions or services."""
        raise NotImplementedError

    # -- sessions --------------------------------------------------------------------------------

    def find_session(self, session_id: bytes) -> Session | None:
        """The live session of that id."""
        return self.sessions.get(PeerAddress.of_session(session_id))

    def add_session(self, session: Session) -> None:
        """The session begins."""
        self.sessions[session.address] = session

    def links_of(self, session: Session) -> list[ControlLink]:
        """The links to the Intermediates that relay the session, the one in use first."""
        links = [link for link in self.links if session.is_relayed_by(link.address)]
        links.sort(key=lambda link: link.address != session.relay_choice.current)
        return [link for link in links if link.is_ready]

    def relays_streams(self, link: ControlLink) -> bool:
        """Whether the streams of a session go through that Intermediate."""
        return any(
            session.streams and session.is_relayed and session.relay_choice.current == link.address
            for session in self.sessions.values()
        )

    def signal(self, session: Session, message: messages.Message) -> None:
        """Send a message about the session through an Intermediate; dropped if there is none."""
        for link in self.links_of(session)[:1]:
            link.send(message)

    def lose_relay(
        self, session: Session, link: ControlLink, code: int, reason: str, now: float
    ) -> None:
        """The Intermediate relays the session no more. Code PEER_LOST: it may yet resume; any
        other: the peer ended it, which is believed once no other path says otherwise."""
        self.relayed.remove(session, link, reason)
        if code == ErrorCode.PEER_LOST:
            return
        session.farewell = ErrorCode.of(code), reason
        if session.paths:
            self.direct.doubt(session, now)
        else:
            self.end_session(session, *session.farewell, now)

    def path_lost(self, session: Session, now: float) -> None:
        """No packet of the session can be sent for now; a hook for the roles."""

    def end_session(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Close the session's connection and forget it; only its last words still find the path."""
        if self.sessions.get(session.address) is not session:
            return
        if session.has_connection:
            session.connection.close(code, reason)
        for link in self.links_of(session):
            link.send(messages.SessionClosed(session.id, code, reason[:512]))
        session.abandon(code, reason)
        self.relayed.forget(session)
        self.direct.forget(session)
        del self.sessions[session.address]
        self._ending[session.address] = session
        self.timers.call_at(now + LINGER, lambda _: self._ending.pop(session.address, None))
        name = code.name.lower()
        self.emit(reports.SessionClosed(session.id.hex(), session.peer_name, name, reason))
        self.session_ended(session, code, reason, now)

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """The session is forgotten; a hook for the roles."""

    def _accept_peer(self, address: PeerAddress) -> ConnectionProfile | None:
        return None

    def receive_packet(self, packet: bytes, session: Session, now: float) -> bool:
        """Take a QUIC packet of the session's connection. Returns whether it was authentic, and
        no replay: whether it says anything about the way that it came."""
        connection = self._mux.receive_datagram(packet, session.address, now)
        if connection is not None and connection.owner is None:
            session.set_connection(connection)
        return connection is not None and connection.was_news

    def _handle_connections(self, now: float) -> None:
        self._note_heard(now)
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
        if isinstance(event, quic_events.ConnectionClosed):
            self.end_session(session, event.error_code, event.reason, now)
        elif isinstance(event, quic_events.BlackHoleDetected):
            self.direct.black_hole(session, now)
