"""The Connector's core: registers services, takes sessions, hands on authorized streams."""

from __future__ import annotations

import collections
import datetime
import os
from collections.abc import Callable, Iterable, Mapping

from zope.interface import implementer

from p2pnet import reports
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

MAX_SESSIONS = 1024
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
    :param max_streams: streams that one agent may have open; further streams wait at the agent.
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
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(
            credentials, intermediates, options,
            utcnow=utcnow, entropy=entropy, max_peer_streams=max_streams,
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
            if len(self.sessions) >= MAX_SESSIONS:
                return ErrorCode.OVER_LIMIT, f"{MAX_SESSIONS} sessions are open"
            if offer.session in self._ended:
                return ErrorCode.RESTARTED, "that session is over"
            session = self._start_session(link, offer, now)
        elif (session.peer_name, session.instance) != (offer.agent, offer.instance):
            return ErrorCode.PROTOCOL_ERROR, "that session belongs to another agent"
        # The agent knows the whole way and chooses; this end follows.
        self.sessions.add_relay(session, link, offer, 0.0, now)
        return ErrorCode.NO_ERROR, ""

    def _start_session(
        self, link: ControlLink, offer: messages.SessionOffer, now: float
    ) -> ConnectorSession:
        announced = Announcement(offer.session, offer.agent, offer.instance)
        session = ConnectorSession(announced, now, self.emit, self._authorizer.authorize)
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
        self._ended[session.id] = None
        if len(self._ended) > MAX_SESSIONS:
            self._ended.popitem(last=False)
