"""The core of a peer, Agent or Connector: a demultiplexer of all that arrives on its one socket.

The way in: `receive_datagram` tells QUIC packets, relay frames and checks apart by the first byte
(RFC 9443). A packet goes to its connection, whose events reach the ControlLink or Session that owns
it; a frame is first taken off its packet, and a check goes to the Paths of its session. The way
out: a Stream writes to its connection, and `datagrams_to_send` sends the packets of a session along
the ways that its Paths use.
"""

from __future__ import annotations

import collections
import datetime
import itertools
import operator
import os
from collections.abc import Callable, Iterable

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.ledger import Ledger
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.options import PeerOptions
from p2pnet.core.peer.profiles import Profiles
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.sessions import Sessions
from p2pnet.core.timers import Timers
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.quic import events as quic_events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.paths import Paths
from p2pnet.wire.address import Address, PeerAddress, format_address
from p2pnet.wire.check import decode_check
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.demux import FIRST_BYTE, Kind
from p2pnet.wire.encoding import Message
from p2pnet.wire.path_messages import PATHS_STREAM
from p2pnet.wire.relay_frame import RELAY_OVERHEAD


class PeerCore:
    """The sans-IO core of a peer, driven like an aioquic connection.

    Feed it with receive_datagram() and handle_timer(), then take next_event() until None and
    datagrams_to_send(), in that order and again until there are no more events; call it again at
    get_timer(). What is due is sent by one call of datagrams_to_send(). `now` is in seconds of any
    steady clock, the same for all calls.

    A datagram belongs to a control connection (ControlLink), to the connection of a session
    (Session), or to the paths of a session (Sessions).

    :param credentials: who this node is.
    :param intermediates: "host:port" of each Intermediate; a connection to each is kept up.
    :param options: what the configuration decides.
    :param utcnow: the calendar's clock, for certificate dates.
    :param entropy: the source of random bytes.
    :param max_peer_streams: streams that the other end of a session may open at a time.
    :param ledger: what the peers hold of this node.

    Raises ValueError for credentials of another role, and for an Intermediate without a port.
    """

    role: Role
    peer_role: Role
    controlling: bool  # in connectivity checks (RFC 8445 section 6.1.1)

    def __init__(
        self,
        credentials: Credentials,
        intermediates: Iterable[str],
        options: PeerOptions,
        *,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
        max_peer_streams: int = 0,
        ledger: Ledger,
    ) -> None:
        if credentials.identity.role is not self.role:
            raise ValueError(f"{credentials.identity} cannot be run as {self.role}")
        self.profiles = Profiles(
            credentials, self.peer_role, options, utcnow, max_peer_streams, entropy
        )
        self.timers = Timers()
        self.ledger = ledger
        self.entropy = entropy
        instance = entropy(8)
        self.links = [
            ControlLink(name, self, self.timers, instance=instance, random=self._random)
            for name in intermediates
        ]
        self.own = OwnCandidates(self.links, tell_observed=options.tell_observed)
        self.sessions = Sessions(
            self, self.links, self.timers,
            controlling=self.controlling, own=self.own, entropy=entropy,
        )  # fmt: skip
        self._mux = Multiplexer(accept_peer=self._accept_peer, entropy=entropy)
        self._relayed_at: dict[Address, float] = {}  # when the last frame came, by Intermediate
        self._heard: tuple[PeerAddress, Address, float] | None = None  # directly, most recently
        self._now = 0.0  # of the verb that was called last
        self._events: collections.deque[events.Event] = collections.deque()

    @property
    def credentials(self) -> Credentials:
        """Certificate and key of this node; replaced ones are for connections to come."""
        return self.profiles.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self.profiles.credentials = credentials

    @property
    def dropped(self) -> dict[str, int]:
        """The number of datagrams that were dropped, by cause."""
        return {
            "stun": 0,
            **self.sessions.dropped,
            "quic": self._mux.dropped,
            "failures": self._mux.failures,
        }

    def _random(self) -> float:
        """A random number from 0 to 1, for jitter."""
        return int.from_bytes(self.entropy(4), "big") / 2**32

    def emit(self, event: events.Event) -> None:
        """Queue an event for the host."""
        self._events.append(event)

    # -- for the host ----------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Connect to the Intermediates, and keep connected from now on."""
        for link in self.links:
            link.start(now)

    def resolved(self, intermediate: str, hosts: list[str], now: float) -> None:
        """Answer ResolutionNeeded with the IP literals that the name stands for, [] for none."""
        for link in self.links:
            if link.name == intermediate:
                link.resolved(hosts, now)

    def set_local_addresses(
        self, hosts: Iterable[str], port: int, external: Iterable[Address], now: float
    ) -> None:
        """Replace the addresses of this machine, the socket's port and the operator's addresses.

        If any of them changed, peers learn the candidates that follow from them.
        """
        if self.own.set_addresses(hosts, port, external):
            self.sessions.candidates_changed(now)

    def network_changed(self, now: float) -> None:
        """Probe every link and check every path: this machine may be in another network."""
        for link in self.links:
            link.network_changed(now)
        self.sessions.network_changed(now)

    def paths_of(self, session: Session) -> Paths:
        """The ways of a session that lives, or ended less than sessions.LINGER seconds ago."""
        return self.sessions.paths_of(session)

    def close(self, now: float, reason: str = "node stopped") -> None:
        """End everything; the last packets come with datagrams_to_send()."""
        for session in self.sessions:
            self.sessions.end(session, ErrorCode.SHUTDOWN, reason, now)
        for link in self.links:
            link.stop(reason)

    # -- the five verbs --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Take a datagram that arrived from `address` (canonical form)."""
        self._now = now
        kind = FIRST_BYTE[data[0]] if data else Kind.UNKNOWN
        if kind is Kind.QUIC:
            connection = self._mux.receive_datagram(data, address, now)
            if connection is None or not connection.was_news:
                return
            if isinstance(session := connection.owner, Session):
                heard = session.address, address, now
                if heard != self._heard:  # the packets of one batch count once
                    self._heard = heard
                    self.sessions.heard(session, address, now)
        elif kind is Kind.RELAY:
            self._receive_frame(data, address, now)
        elif kind is Kind.STUN:
            self._receive_check(data, address, now)
        else:
            self.sessions.dropped["unknown"] += 1

    def _receive_frame(self, frame: bytes, source: Address, now: float) -> None:
        session = self.sessions.table.of_frame(frame, source)
        packet = frame[RELAY_OVERHEAD:]
        if session is None:
            self.sessions.dropped["relay_unknown"] += 1
        elif not packet or FIRST_BYTE[packet[0]] is not Kind.QUIC:
            self.sessions.dropped["relay_payload"] += 1
        elif self._receive_packet(packet, session, now):
            self._relayed_at[source] = now
            self.sessions.heard_relayed(session, source, now)

    def _receive_packet(self, packet: bytes, session: Session, now: float) -> bool:
        """Take a QUIC packet of the session's connection. Returns whether it was authentic and no
        replay: only such a packet proves anything about the way that it took."""
        connection = self._mux.receive_datagram(packet, session.address, now)
        if connection is None:
            return False
        if connection.owner is None:
            session.set_connection(connection)
        return connection.was_news

    def _receive_check(self, data: bytes, source: Address, now: float) -> None:
        try:
            is_ours = self.sessions.receive_check(decode_check(data), source, now)
        except DecodeError:
            is_ours = False
        if not is_ours:
            self.sessions.dropped["stun"] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The datagrams that are due, each with its destination."""
        datagrams: list[tuple[bytes, Address]] = []
        while not self._mux.is_idle and self._mux.may_send:
            made = self._mux.datagrams_to_send(now)
            for address, group in itertools.groupby(made, operator.itemgetter(1)):
                if isinstance(address, PeerAddress):
                    packets = [data for data, _ in group]
                    datagrams += self.sessions.along_ways(address, packets, now)
                else:
                    datagrams += group
            self._handle_connections(now)  # which may give more to send
        if self.sessions.checks_out:
            datagrams += self.sessions.take_checks()
        return datagrams

    def next_event(self) -> events.Event | None:
        """The next event for the host, None when there is none."""
        if not (self._events or self._mux.is_idle) and self._mux.has_events:
            self._handle_connections(self._now)
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When to call handle_timer(), None for never."""
        quic, ours = self._mux.get_timer(), self.timers.get_timer()
        return quic if ours is None else ours if quic is None else min(quic, ours)

    def handle_timer(self, now: float) -> None:
        """Do everything that is due at `now`; packets to send come with datagrams_to_send()."""
        self._now = now
        self.timers.handle_timer(now)
        self._mux.handle_timer(now)
        self._handle_connections(now)

    # -- for the links ---------------------------------------------------------------------------

    def connect_control(self, host: str, address: Address, now: float) -> Connection:
        """Open a control connection to an Intermediate whose certificate must name `host`."""
        return self._mux.connect(self.profiles.control(host), address, now)

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """The Intermediate of `link` takes requests from now on."""
        identity = str(self.credentials.identity)
        seen = format_address(address)
        self.emit(reports.ControlConnected(link.name, identity, seen, seconds))

    def address_observed(self, link: ControlLink, address: Address, now: float) -> None:
        """The Intermediate sees this node at another address than before."""
        observations = link.observations
        if observations.call(lambda at: self._moved(link, address, at), now):
            self.timers.call_at(observations.get_timer(), observations.handle_timer)

    def _moved(self, link: ControlLink, address: Address, now: float) -> None:
        self.emit(reports.AddressObserved(link.name, format_address(address)))
        self.sessions.renew(link, now)
        self.sessions.candidates_changed(now)

    def link_failed(self, link: ControlLink, now: float) -> None:
        """A try failed or the connection was lost: the Intermediate relays nothing for now."""
        for session in self.sessions.relayed_by(link):
            reason = f"lost {link.name}: {link.last_error}"
            self.sessions.remove_relay(session, link, reason, now)
        self._forget_relays()

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """The Intermediate takes no new sessions, and ends the others within `seconds`."""
        self.emit(reports.IntermediateDraining(link.name, seconds))
        self.sessions.retire_relay(link, now)

    @property
    def is_needed(self) -> bool:
        """Whether a session or a stream waits for an Intermediate."""
        raise NotImplementedError

    def take_message(self, link: ControlLink, message: Message, now: float) -> None:
        """A message about sessions or services came."""
        raise NotImplementedError

    def relayed_at(self, link: ControlLink) -> float | None:
        """When the Intermediate of `link` last relayed a packet to this node, None for never."""
        return self._relayed_at.get(link.address) if link.address is not None else None

    def relays_streams(self, link: ControlLink) -> bool:
        """Whether the Intermediate of `link` relays a session that has streams."""
        for session in self.sessions:
            paths = self.paths_of(session)
            if session.streams and paths.is_relayed and paths.relay == link.address:
                return True
        return False

    # -- for the sessions ------------------------------------------------------------------------

    def ways_changed(self, session: Session, now: float) -> None:
        """Packets of the session go other ways, or none; a hook for the roles."""

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """The session is over, and its streams are broken off. The roles do more."""
        if session.has_connection:
            session.connection.share_credit(None)
        self._forget_relays()

    def _forget_relays(self) -> None:
        """Keep no time of an Intermediate that relays no session any more."""
        relays = {address for session in self.sessions for address in self.paths_of(session).relays}
        self._relayed_at = {at: when for at, when in self._relayed_at.items() if at in relays}

    # -- connections -----------------------------------------------------------------------------

    def _accept_peer(self, address: PeerAddress) -> ConnectionProfile | None:
        return None

    def _handle_connections(self, now: float) -> None:
        while (item := self._mux.next_event()) is not None:
            connection, event = item
            owner = connection.owner
            if isinstance(owner, ControlLink):
                owner.handle(connection, event, now)
            elif isinstance(owner, Session) and self.sessions.is_living(owner):
                if not isinstance(event, quic_events.StreamEvent):
                    self._handle_session(owner, event, now)
                elif quic_events.stream_of(event) == PATHS_STREAM:
                    self.sessions.receive_signals(owner, event, now)
                else:
                    owner.handle(event, now)

    def _handle_session(self, session: Session, event: quic_events.Event, now: float) -> None:
        """Take an event of an end-to-end connection that concerns none of its streams."""
        match event:
            case quic_events.HandshakeCompleted(peer):
                self._prove(session, peer, now)
            case quic_events.ConnectionClosed():
                self.sessions.end(session, event.error_code, event.reason, now)
            case quic_events.BlackHoleDetected():
                self.paths_of(session).black_hole(now)
                self.sessions.follow(session, now)

    def _prove(self, session: Session, peer: Identity, now: float) -> None:
        """The other end proved to be `peer`; end the session if another peer was announced."""
        seconds = now - session.created
        self.emit(reports.HandshakeCompleted(session.id.hex(), str(peer), seconds))
        if peer.name != session.peer_name:
            announced = f"announced was {self.peer_role} {session.peer_name}"
            reason = f"{announced}, it is {peer.name}"
            self.sessions.end(session, ErrorCode.WRONG_PEER, reason, now)
            return
        session.connection.share_credit(self.ledger.credit(peer.name))
        self.sessions.established(session, now)
        self.session_established(session, now)

    def session_established(self, session: Session, now: float) -> None:
        """The other end proved to be the announced peer; a hook for the roles."""
