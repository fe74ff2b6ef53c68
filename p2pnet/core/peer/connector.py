"""The Connector's core: registers services, takes sessions, hands on authorized streams."""

from __future__ import annotations

import collections
import datetime
import os
from collections.abc import Callable, Iterable, Mapping

from zope.interface import implementer

from p2pnet import reports
from p2pnet.core.ledger import Cap, Kind, Ledger, Rate, Verdict
from p2pnet.core.peer.ends import ConnectorSession
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.options import PeerOptions
from p2pnet.core.peer.session import Announcement, Session
from p2pnet.identity import Credentials, Role
from p2pnet.interfaces import IAuthorizer
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.traversal.selection import PreferDirect
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message

MAX_SESSIONS = 1024  # of all agents together; and as many without a handshake
MAX_AGENT_SESSIONS = 64  # of one agent
MAX_UNPROVEN = 8  # sessions without handshake that one Intermediate announces for one agent
SPARE_STREAMS = 256  # of a session beyond max_streams and max_flows, to be refused
OFFER_RATE = 100.0  # new sessions a second that one Intermediate may offer
HANDSHAKE_TIMEOUT = 15.0  # seconds from the offer of a session to its end-to-end connection
ANY_AGENT = "*"


@implementer(IAuthorizer)
class AllowList:
    """Services with the names of the agents that may use them; ANY_AGENT stands for all."""

    def __init__(self, allowed: Mapping[str, Iterable[str]]) -> None:
        self._allowed = {service: frozenset(names) for service, names in allowed.items()}

    def authorize(self, agent: str, service: str) -> ErrorCode | None:
        """Return None to allow, else the code to refuse the stream or session with."""
        names = self._allowed.get(service)
        if names is None:
            return ErrorCode.UNKNOWN_SERVICE
        if agent in names or ANY_AGENT in names:
            return None
        return ErrorCode.NOT_AUTHORIZED


class ConnectorCore(PeerCore):
    """The sans-IO core of a Connector: PeerCore's verbs; StreamRequested events want an answer.

    :param services: what to register, as far as the certificate grants it.
    :param authorizer: the IAuthorizer of each session and each stream.
    :param max_streams: byte streams that one agent may have open, over all of its sessions.
    :param max_flows: UDP flows that one agent may have open in a session; the host counts those of
        all sessions, each of which needs a socket.
    """

    role = Role.CONNECTOR
    peer_role = Role.AGENT
    controlling = False

    def __init__(
        self,
        credentials: Credentials,
        intermediates: Iterable[str],
        options: PeerOptions,
        *,
        services: Iterable[str],
        authorizer: IAuthorizer,
        max_streams: int,
        max_flows: int,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(
            credentials, intermediates, options,
            utcnow=utcnow, entropy=entropy,
            max_peer_streams=max_streams + max_flows + SPARE_STREAMS,
            ledger=Ledger(
                {
                    Kind.SESSION: Cap(MAX_SESSIONS, own=MAX_AGENT_SESSIONS),
                    Kind.OFFER: Cap(MAX_SESSIONS),
                    Kind.UNPROVEN: Cap(own=MAX_UNPROVEN),
                    Kind.UNNAMED: Cap(own=max_streams),
                    Kind.STREAM: Cap(max_streams),
                },
                {Kind.OFFER: Rate(OFFER_RATE, burst=MAX_SESSIONS)},
            ),
        )  # fmt: skip
        self.services = tuple(services)
        self._authorizer = authorizer
        self._ended: collections.OrderedDict[bytes, None] = collections.OrderedDict()

    @property
    def is_needed(self) -> bool:
        """Whether a session lives, which may need an Intermediate."""
        return len(self.sessions) > 0

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """Register the services, again after each reconnect."""
        super().link_ready(link, address, seconds, now)
        link.send(messages.Register(self.services))

    def take_message(self, link: ControlLink, message: Message, now: float) -> None:
        """Take an answer to the registration, or a message about a session."""
        match message:
            case messages.Registered(services):
                self.emit(reports.Registered(link.name, services))
            case messages.RegistrationRefused(service, code, reason):
                name = ErrorCode.of(code).name.lower()
                self.emit(reports.RegistrationRefused(link.name, service, name, reason))
            case messages.SessionOffer():
                code, reason = self._consider(link, message, now)
                link.send(messages.SessionAnswer(message.session, code, reason))
            case messages.SessionClosed():
                self.sessions.take_closed(link, message, now)

    def _consider(
        self, link: ControlLink, offer: messages.SessionOffer, now: float
    ) -> tuple[ErrorCode, str]:
        """Take the session, or return why not.

        The agent's name is not proven yet, only announced: reason enough to refuse early. Each
        stream is checked against the certificate.
        """
        refusal: ErrorCode | None = self._authorizer.authorize(offer.agent, offer.service)
        if refusal is not None:
            text = f"connector {self.credentials.identity.name} refuses {offer.service}"
            self.emit(reports.SessionRefused(offer.service, refusal.name.lower(), offer.agent))
            return refusal, f"{text} to agent {offer.agent}"
        session = self.sessions.find(offer.session)
        if session is None:
            if offer.session in self._ended:
                return ErrorCode.RESTARTED, "that session is over"
            over = self._admit(link, offer, now)
            if over is not None:
                return ErrorCode.OVER_LIMIT, over
            session = self._start_session(link, offer, now)
        elif (session.peer_name, session.instance) != (offer.agent, offer.instance):
            return ErrorCode.PROTOCOL_ERROR, "that session belongs to another agent"
        # The agent knows the whole way and chooses; this end follows.
        self.sessions.add_relay(session, link, offer, 0.0, now)
        return ErrorCode.NO_ERROR, ""

    def _admit(self, link: ControlLink, offer: messages.SessionOffer, now: float) -> str | None:
        """Make room for a session without handshake, or return why there is none.

        Nobody proved the agent's name yet. So an Intermediate can use up what is free, and its own
        agents' share, but not what another Intermediate announces.
        """
        if not self.ledger.charge(Kind.OFFER, link.name, now):
            return f"{link.name} offers more than {OFFER_RATE:.0f} sessions a second"
        agent = f"{offer.agent} through {link.name}"
        for kind, name in ((Kind.UNPROVEN, agent), (Kind.SESSION, offer.agent)):
            refusal = self.ledger.judge(kind, name).refusal
            if refusal is not None:
                return refusal
        verdict = self.ledger.admit(Kind.OFFER, link.name, offer.session)
        if verdict.refusal is not None:
            return verdict.refusal
        self._evict(verdict, now)
        self.ledger.enter(Kind.UNPROVEN, agent, offer.session)
        return None

    def _evict(self, verdict: Verdict, now: float) -> None:
        """End the session that has to go for an admitted one, if there is one."""
        session = None if verdict.evicted is None else self.sessions.find(verdict.evicted)
        if session is not None:
            reason = "other names want their share of the connector's sessions"
            self.sessions.end(session, ErrorCode.OVER_LIMIT, reason, now)

    def session_established(self, session: Session, now: float) -> None:
        """Count the session for the agent, whose name is proven now, or end it."""
        assert session.peer is not None
        # Two round trips: our answer and the ClientHello, our flight and the Finished.
        session.handshake_rtt = (now - session.created) / 2
        self._release(session)
        verdict = self.ledger.admit(Kind.SESSION, session.peer.name, session.id)
        self._evict(verdict, now)
        if verdict.refusal is not None:
            self.sessions.end(session, ErrorCode.OVER_LIMIT, verdict.refusal, now)

    def _release(self, session: Session) -> None:
        for kind in (Kind.OFFER, Kind.UNPROVEN, Kind.SESSION):
            self.ledger.release(kind, session.id)

    def _start_session(
        self, link: ControlLink, offer: messages.SessionOffer, now: float
    ) -> ConnectorSession:
        announced = Announcement(offer.session, offer.agent, offer.instance)
        session = ConnectorSession(
            announced, now, self.emit, self._authorizer.authorize, self.ledger, self.timers
        )
        self.sessions.add(session, PreferDirect())  # until the agent says another policy
        self.emit(reports.SessionOpened(session.id.hex(), offer.agent, offer.service, link.name))
        self.timers.call_at(now + HANDSHAKE_TIMEOUT, lambda t: self._check_handshake(session, t))
        return session

    def _check_handshake(self, session: Session, now: float) -> None:
        if not session.is_established:
            reason = f"agent {session.peer_name} did not finish its handshake"
            self.sessions.end(session, ErrorCode.PEER_LOST, reason, now)

    def _accept_peer(self, address: PeerAddress) -> ConnectionProfile | None:
        session = self.sessions.table.living.get(address)
        if session is None or session.has_connection:
            return None
        return self.profiles.peer()

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Remember the session, so that its agent cannot resume it."""
        super().session_ended(session, code, reason, now)
        self._release(session)
        self._ended[session.id] = None
        if len(self._ended) > MAX_SESSIONS:
            self._ended.popitem(last=False)
