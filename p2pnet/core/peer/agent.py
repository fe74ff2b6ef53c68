"""The Agent's core: streams to services, over one session for each connector."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable, Iterable

from p2pnet import reports
from p2pnet.core.ledger import Ledger
from p2pnet.core.peer.ends import AgentSession, Need
from p2pnet.core.peer.finder import MAX_WAITING, Request, ServiceFinder
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.options import PeerOptions
from p2pnet.core.peer.session import Announcement, Session
from p2pnet.core.peer.stream import Stream
from p2pnet.core.timers import Deadlines
from p2pnet.identity import Credentials, Role, check_name
from p2pnet.quic.engine import Engine
from p2pnet.quic.multiplexer import prepare
from p2pnet.timing import TOLERANCE
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import Message
from p2pnet.wire.stream import StreamKind

HANDSHAKE_TIMEOUT = 10.0  # seconds for the end-to-end handshake
RACE_AFTER = 1.0  # seconds of it until another connector is requested as well
SILENCE = 5.0  # seconds without an answer of a session until new streams get another one
KEEPALIVE = 15.0  # seconds between pings, well below the idle time-out of the connection
SESSION_LINGER = 300.0  # seconds that a session without streams is kept for the next one
FIRST_RESUME, LAST_RESUME = 0.25, 4.0  # seconds between tries to give a session a relay again
LAST_JOIN = 60.0  # and between tries to give it one more
# Seconds for a session under direct-only to become direct (again): as long as QUIC waits in
# silence. Its streams break then, and a new stream searches anew.
DIRECT_TIMEOUT = 30.0


class AgentCore(PeerCore):
    """The sans-IO core of an Agent: PeerCore's verbs, and open_stream().

    :param policy: the name of the path selector (p2pnet.traversal.selection) of a service.

    >>> core = agent_core(config, credentials, utcnow=utcnow)  # of p2pnet.config.cores
    >>> core.connect(now)
    >>> stream = core.open_stream("web", now)
    >>> stream.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    """

    role = Role.AGENT
    peer_role = Role.CONNECTOR
    controlling = True

    def __init__(
        self,
        credentials: Credentials,
        intermediates: Iterable[str],
        options: PeerOptions,
        *,
        policy: str,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(
            credentials, intermediates, options, utcnow=utcnow, entropy=entropy, ledger=Ledger({})
        )
        self._policy = policy
        self._finder = ServiceFinder(self.links, self.timers, self)
        self._flows: dict[str, Stream] = {}  # of connect_p2p()
        self._withheld = Deadlines(self.timers, self._end_withheld)

    def open_stream(
        self, service: str, now: float, kind: StreamKind = StreamKind.BYTES, policy: str = ""
    ) -> Stream:
        """A stream (or with StreamKind.FLOW a UDP flow) to `service`, to be written to at once.

        StreamAccepted or StreamClosed follows. Raises ValueError for a name that cannot be one.

        :param policy: the name of the path selector, "" for that of the Agent. Streams of different
            policies share no session.
        """
        check_name("service", service)
        stream = Stream(service, kind, now, self.emit)
        need = Need(service, policy or self._policy)
        session = self._finder.route(need)
        if session is not None and self._is_silent(session, now):
            self._finder.reroute(session, now)
            session = None
        if session is not None and self._takes_streams(session):
            self._open(session, stream, now)
        elif not self._finder.wait(stream, need, now):
            stream.fail(ErrorCode.OVER_LIMIT, f"{MAX_WAITING} streams wait for {service}")
        return stream

    def close(self, now: float, reason: str = "node stopped") -> None:
        """End everything, also the streams that wait for a session."""
        super().close(now, reason)
        for stream in self._finder.take_all_waiting():
            stream.fail(ErrorCode.SHUTDOWN, reason)

    # -- one peer, datagrams, directly if there is a way ---------------------------------------

    def connect_p2p(self, peer: str, now: float) -> Stream:
        """Open a flow of datagrams to the service `peer`; the search for a direct path begins.

        StreamAccepted or StreamClosed follows, FlowDatagram for each datagram that comes, and a
        PathSelected report whenever the way changes. Raises ValueError for a bad name.
        """
        self._flows = {name: flow for name, flow in self._flows.items() if not flow.is_closed}
        if peer not in self._flows:
            self._flows[peer] = self.open_stream(peer, now, StreamKind.FLOW)
        return self._flows[peer]

    def is_p2p_connected(self, peer: str) -> bool:
        """Whether datagrams on the flow to `peer` take a direct path now."""
        flow = self._flows.get(peer)
        if flow is None or flow.is_closed or flow.session is None:
            return False
        session = self.sessions.find(flow.session.id)
        return session is not None and self.paths_of(session).is_direct

    def send_datagram_p2p(self, data: bytes, peer: str) -> bool:
        """Send a datagram on the flow to `peer`, best effort. Returns False if it was dropped."""
        flow = self._flows.get(peer)
        return flow is not None and flow.send_datagram(data)

    # -- for the finder --------------------------------------------------------------------------

    def new_session_id(self) -> bytes:
        """16 random bytes, which name a session at both ends and at Intermediates."""
        return self.entropy(16)

    def tried(self, now: float) -> tuple[str, ...]:
        """The connectors whose handshake is late or whose session is silent, the newest first."""
        late = [s.peer_name for s in self._agent_sessions() if self._is_late(s, now)]
        return tuple(dict.fromkeys(reversed(late)))[: messages.MAX_TRIED]

    def prepare(self, session_id: bytes, now: float) -> Engine:
        """A connection for a session of that id, ready to begin."""
        return prepare(self.profiles.peer(), PeerAddress.of_session(session_id), now)

    # -- links -----------------------------------------------------------------------------------

    @property
    def is_needed(self) -> bool:
        """Whether a session lives or a stream waits, which may need an Intermediate."""
        return len(self.sessions) > 0 or self._finder.is_awaited

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """Request another relay for each session, and sessions for the streams that wait."""
        super().link_ready(link, address, seconds, now)
        for session in self._agent_sessions():
            self._join(session, FIRST_RESUME, now)
        self._finder.find_all(now)

    def link_failed(self, link: ControlLink, now: float) -> None:
        """Make the link's requests at other Intermediates, and find other relays for sessions."""
        super().link_failed(link, now)
        self._finder.give_up(link, now)
        for session in self._agent_sessions():
            self._lost_relay(session, now)

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """Request another relay for each session."""
        super().link_draining(link, seconds, now)
        for session in self._agent_sessions():
            self._join(session, FIRST_RESUME, now)

    def _agent_sessions(self) -> list[AgentSession]:
        return [session for session in self.sessions if isinstance(session, AgentSession)]

    # -- messages --------------------------------------------------------------------------------

    def take_message(self, link: ControlLink, message: Message, now: float) -> None:
        """Take an answer to a request, or a message about a session."""
        match message:
            case messages.SessionOpened():
                self._opened(link, message, now)
            case messages.SessionRefused(number, code, reason):
                self._refused(number, ErrorCode.of(code), reason, now)
            case messages.SessionClosed():
                self.sessions.take_closed(link, message, now)
                session = self.sessions.find(message.session)
                if isinstance(session, AgentSession):
                    self._lost_relay(session, now)

    def _refused(self, number: int, code: ErrorCode, reason: str, now: float) -> None:
        request = self._finder.refused(number, code, reason, now)
        # The connector gave the session up; other reasons pass.
        if request is not None and request.resumes is not None and code is ErrorCode.RESTARTED:
            self.sessions.end(request.resumes, code, reason, now)

    def _opened(self, link: ControlLink, message: messages.SessionOpened, now: float) -> None:
        request = self._finder.answered(message.request)
        session = self.sessions.find(message.session)
        if request is None or (session is None and request.resumes is not None):
            if session is None:  # it was given up, or ended meanwhile
                self._finder.decline(link, message.session)
            return
        if session is None and self._finder.has_declined(link, message.session):
            self._find_again(request, now)
            return
        route = self._finder.route(request.need)
        is_ready = route is not None and route.is_established
        if session is None and is_ready:  # another connector won the race
            self._finder.decline(link, message.session)
            return
        if session is not None and session.instance != message.instance:
            reason = f"connector {session.peer_name} restarted"
            self.sessions.end(session, ErrorCode.RESTARTED, reason, now)
            self._find_again(request, now)
            return
        policy = request.need.policy
        if session is None:
            session = self._start_session(request, message, now)
        elif self.paths_of(session).policy != policy:  # its data may go where this one's may not
            reason = f"{link.name} offers a session whose policy is not {policy}"
            self._finder.fail(request.need, ErrorCode.PROTOCOL_ERROR, reason)
            return
        assert isinstance(session, AgentSession)
        self.sessions.add_relay(session, link, message, link.rtt + message.peer_rtt, now)
        self._join(session, FIRST_RESUME, now)
        if not session.has_connection:
            self._handshake(session, request, now)
        if not is_ready:
            self._finder.add_route(request.need, session)
        if session.is_established:
            if request.resumes is None:  # a silent one: only its connector serves the service now
                session.unanswered_since = max(session.unanswered_since, now)
            self.session_established(session, now)

    def _find_again(self, request: Request, now: float) -> None:
        if self._finder.awaits(request.need):
            self._finder.find(request.need, now)

    def _start_session(
        self, request: Request, message: messages.SessionOpened, now: float
    ) -> AgentSession:
        announced = Announcement(message.session, message.connector, message.instance)
        session = AgentSession(announced, now, self.emit, request.need)
        self.sessions.add(session, SELECTORS[request.need.policy]())
        name, via = session.id.hex(), request.link.name
        self.emit(reports.SessionOpened(name, session.peer_name, request.need.service, via))
        return session

    def _handshake(self, session: AgentSession, request: Request, now: float) -> None:
        engine = request.engine
        if engine is None or request.session_id != session.id:
            engine = self.prepare(session.id, now)
        session.set_connection(self._mux.begin(engine))
        self.timers.call_at(now + RACE_AFTER, lambda t: self._race(session, t))
        self.timers.call_at(now + HANDSHAKE_TIMEOUT, lambda t: self._check_handshake(session, t))
        self.timers.call_at(now + KEEPALIVE, lambda t: self._keep_alive(session, t))

    def _race(self, session: AgentSession, now: float) -> None:
        """Request another connector too, unless the handshake completed: the first one wins."""
        if not session.is_established:
            for need in self._finder.needs_of(session):
                self._finder.find(need, now)

    def _check_handshake(self, session: AgentSession, now: float) -> None:
        if not session.is_established:
            reason = f"connector {session.peer_name} did not answer in {HANDSHAKE_TIMEOUT:.0f} s"
            self.sessions.end(session, ErrorCode.PEER_LOST, reason, now)

    def _keep_alive(self, session: AgentSession, now: float) -> None:
        if not self.sessions.is_living(session):
            return
        if session.streams:
            session.used_at = now
        elif now - session.used_at > SESSION_LINGER:
            self.sessions.end(session, ErrorCode.NO_ERROR, "not used any more", now)
            return
        session.connection.ping()
        self.timers.call_at(now + KEEPALIVE, lambda t: self._keep_alive(session, t))

    # -- sessions --------------------------------------------------------------------------------

    def _is_silent(self, session: AgentSession, now: float) -> bool:
        """Whether the session does not answer, but an Intermediate does.

        A silent session has its relays asked, so that a link that is usable was answered lately.
        """
        is_silent = now - session.unanswered_since >= SILENCE - TOLERANCE
        return is_silent and any(link.is_usable for link in self.links)

    def _is_late(self, session: AgentSession, now: float) -> bool:
        if session.is_established:
            return self._is_silent(session, now)
        return now - session.created >= RACE_AFTER - TOLERANCE

    def _takes_streams(self, session: AgentSession) -> bool:
        """Whether a stream that is opened now is sent: not while only messages about paths are."""
        return session.is_established and self.paths_of(session).carry_data

    def session_established(self, session: Session, now: float) -> None:
        """End the sessions that raced with this one, and open the streams that wait for it."""
        assert isinstance(session, AgentSession)
        for loser in self._finder.keep_route(session):
            reason = f"connector {session.peer_name} was faster"
            self.sessions.end(loser, ErrorCode.NO_ERROR, reason, now)
        self.ways_changed(session, now)

    def _open_waiting(self, session: AgentSession, now: float) -> None:
        for need in self._finder.needs_of(session):
            for stream in self._finder.take_waiting(need):
                self._open(session, stream, now)

    def _open(self, session: AgentSession, stream: Stream, now: float) -> None:
        if stream.is_closed:
            return
        assert session.peer is not None
        if session.peer.grants(stream.service):
            session.open(stream, now)
            return
        # The Intermediate named this connector for the service: it lies or is misconfigured.
        reason = f"{session.peer} has no certificate for service {stream.service}"
        self._finder.drop_route(Need(stream.service, self.paths_of(session).policy), session)
        stream.fail(ErrorCode.NOT_GRANTED, reason)

    def _lost_relay(self, session: AgentSession, now: float) -> None:
        """Find another relay; new streams do not wait for a session without a working way."""
        paths = self.paths_of(session)
        if not paths.using or paths.is_direct_doubtful:
            self._finder.reroute(session, now)
        self._join(session, FIRST_RESUME, now)

    def ways_changed(self, session: Session, now: float) -> None:
        """Open the streams that wait, if the ways carry them. Without any way find another session
        for new streams, and another relay for this one."""
        assert isinstance(session, AgentSession)
        paths = self.paths_of(session)
        if not paths.using:
            session.unanswered_since = math.inf  # nothing leaves that the peer could answer
            self._lost_relay(session, now)
        elif paths.carry_data:
            self._withheld.forget(session)
        else:
            self._withheld.bring_forward(session, now + DIRECT_TIMEOUT)
        if self._takes_streams(session):
            self._open_waiting(session, now)

    def _end_withheld(self, session: Session, now: float) -> None:
        limit = f"{DIRECT_TIMEOUT:.0f} s"
        reason = f"no direct path to connector {session.peer_name} for {limit}, only relays"
        self.sessions.end(session, ErrorCode.UNREACHABLE, reason, now)

    def _join(self, session: AgentSession, delay: float, now: float) -> None:
        """Request all missing relays of the session, and again as long as one could relay it."""
        # A later session with the same connector may have the same address.
        if not self.sessions.is_living(session):
            return
        if session.join_timer is not None:
            session.join_timer.cancel()
        relays = self.paths_of(session).relays
        if self._finder.join(session, relays, now) or not relays:
            later = min(2 * delay, LAST_JOIN if relays else LAST_RESUME)
            session.join_timer = self.timers.call_at(
                now + delay, lambda t: self._join(session, later, t)
            )

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Fail the streams that waited for this session; later ones get a new session."""
        super().session_ended(session, code, reason, now)
        assert isinstance(session, AgentSession)
        self._withheld.forget(session)
        if session.join_timer is not None:
            session.join_timer.cancel()
        for need in self._finder.needs_of(session):
            self._finder.drop_route(need, session)
            if self._finder.awaits(need):
                self._finder.fail(need, code or ErrorCode.PEER_LOST, reason)
