"""The Agent's core: streams to services, over one session for each connector."""

from __future__ import annotations

import collections
import datetime
import os
from collections.abc import Callable, Iterable, Mapping

from p2pnet import reports
from p2pnet.core.peer.ends import AgentSession
from p2pnet.core.peer.finder import Request, Requests
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.session import Introduction, Session
from p2pnet.core.peer.stream import Stream, StreamClosed, StreamState
from p2pnet.identity import Credentials, Role, check_name
from p2pnet.quic import events as quic_events
from p2pnet.quic.multiplexer import prepare
from p2pnet.quic.profile import FAST
from p2pnet.traversal.selection import SELECTORS, RelayOnly
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.stream import StreamKind

REQUEST_TIMEOUT = 10.0  # seconds for a service to be found, with a restart of an Intermediate in it
HANDSHAKE_TIMEOUT = 10.0  # seconds for the end-to-end handshake
KEEPALIVE = 15.0  # seconds; a session that is used is kept under its idle time-out
SESSION_LINGER = 300.0  # seconds that a session without streams is kept for the next one
FIRST_RESUME, LAST_RESUME = 0.25, 4.0  # seconds between tries to give a session a relay again
LAST_JOIN = 60.0  # and between tries to give it one more
MAX_WAITING = 1024  # streams that wait for one service
MAX_DECLINED = 64  # sessions; each was the answer to a request of a few seconds before


def trouble(link: ControlLink) -> str:
    """What is wrong with an Intermediate that cannot be asked."""
    if link.is_ready:
        return "shutting down"
    return f"unreachable: {link.last_error or 'no answer yet'}"


class AgentCore(PeerCore):
    """The sans-IO core of an Agent: PeerCore's verbs, and open_stream().

    :param policies: by service, the name of the path selector (p2pnet.traversal.selection).
    :param policy: that of the others.

    >>> core = AgentCore(credentials, ["192.0.2.1:4433"], utcnow=utcnow)
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
        *,
        utcnow: Callable[[], datetime.datetime],
        entropy: Callable[[int], bytes] = os.urandom,
        engine: str = FAST,
        policies: Mapping[str, str] | None = None,
        policy: str = RelayOnly.name,
    ) -> None:
        super().__init__(credentials, intermediates, utcnow=utcnow, entropy=entropy, engine=engine)
        self._policies = dict(policies or {})
        self._policy = policy
        self._routes: dict[str, AgentSession] = {}  # by service
        self._declined: collections.OrderedDict[tuple[ControlLink, bytes], None]
        self._declined = collections.OrderedDict()
        self._waiting: dict[str, list[Stream]] = {}  # by service, for a route
        self._requests = Requests(self, self._fail_waiting)
        self._flows: dict[str, Stream] = {}  # of connect_p2p()

    def open_stream(self, service: str, now: float, kind: StreamKind = StreamKind.BYTES) -> Stream:
        """A stream (or with StreamKind.FLOW a UDP flow) to `service`, to be written to at once.

        StreamAccepted or StreamClosed follows. Raises ValueError for a name that cannot be one.
        """
        check_name("service", service)
        self.now = now
        stream = Stream(service, kind, now, self.emit)
        session = self._routes.get(service)
        if session is not None and session.connection.is_established:
            self._open(session, stream)
            return stream
        waiting = self._waiting.setdefault(service, [])
        if len(waiting) >= MAX_WAITING:
            self._fail(stream, ErrorCode.OVER_LIMIT, f"{MAX_WAITING} streams wait for {service}")
            return stream
        waiting.append(stream)
        self.timers.call_at(now + REQUEST_TIMEOUT, lambda _: self._timed_out(stream))
        if session is None:
            self._requests.find(service)
        return stream

    def close(self, now: float, reason: str = "node stopped") -> None:
        """End everything, also what still waits for a session."""
        super().close(now, reason)
        while self._waiting:
            for stream in self._waiting.popitem()[1]:
                self._fail(stream, ErrorCode.SHUTDOWN, reason)

    # -- one peer, datagrams, directly if there is a way ---------------------------------------

    def connect_p2p(self, peer: str, now: float) -> Stream:
        """Open a flow of datagrams to the service `peer`; a direct path is sought at once.

        StreamAccepted or StreamClosed follows, FlowDatagram for each datagram that comes, and a
        PathSelected report whenever the way changes. Raises ValueError for a bad name.
        """
        flow = self._flows.get(peer)
        if flow is None or flow.is_closed:
            flow = self._flows[peer] = self.open_stream(peer, now, StreamKind.FLOW)
        return flow

    def is_p2p_connected(self, peer: str) -> bool:
        """Whether datagrams to `peer` go directly now."""
        flow = self._flows.get(peer)
        if flow is None or flow.is_closed or flow.session is None:
            return False
        return bool(flow.session.paths) and flow.session.paths[0].kind == "direct"

    def send_datagram_p2p(self, data: bytes, peer: str) -> bool:
        """Send a datagram to `peer`, best effort, by whatever way there is. False: dropped."""
        flow = self._flows.get(peer)
        return flow is not None and flow.send_datagram(data)

    # -- finding a connector ---------------------------------------------------------------------

    def policy_of(self, service: str) -> str:
        """The name of the path selector for sessions that are asked for with this service."""
        return self._policies.get(service, self._policy)

    def awaits(self, service: str) -> bool:
        """Whether streams wait for a session."""
        return bool(self._waiting.get(service)) and service not in self._routes

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits for, or uses, what this node is connected to."""
        return bool(self.sessions) or any(self._waiting.values())

    def _timed_out(self, stream: Stream) -> None:
        waiting = self._waiting.get(stream.service, [])
        if stream not in waiting:
            return
        waiting.remove(stream)
        last = not waiting
        troubles = [
            f"intermediate {link.name} is {trouble(link)}"
            for link in self.links
            if not link.is_usable
        ]
        code, refusals = self._requests.refusals(stream.service)
        if len(troubles) < len(self.links):
            none = f"no session for {stream.service} within {REQUEST_TIMEOUT:.0f} s"
            troubles.insert(0, refusals or none)
        if last:
            self._requests.forget(stream.service)
        self._fail(stream, code, "; ".join(troubles))

    def _fail_waiting(self, service: str, code: ErrorCode, reason: str) -> None:
        self.emit(reports.SessionRefused(service, code.name.lower(), reason))
        self._requests.forget(service)
        for stream in self._waiting.pop(service, []):
            self._fail(stream, code, reason)

    def _fail(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        if stream.is_closed:
            return
        stream.advance(StreamState.CLOSED)
        self.emit(reports.StreamRefused("", stream.service, code.name.lower(), reason))
        self.emit(StreamClosed(stream, code, reason))

    def link_ready(
        self, link: ControlLink, address: tuple[str, int], seconds: float, now: float
    ) -> None:
        """Ask for what is missing: another relay for each session, sessions for what waits."""
        super().link_ready(link, address, seconds, now)
        for session in self._agent_sessions():
            self._join(session, FIRST_RESUME, now)
        for service in [s for s in self._waiting if self.awaits(s)]:
            self._requests.find(service)

    def link_failed(self, link: ControlLink, now: float) -> None:
        """What was asked there is asked elsewhere; sessions look for other relays."""
        super().link_failed(link, now)
        self._requests.give_up(link)
        for session in self._agent_sessions():
            self._lost_relay(session, now)

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """Sessions that have no other relay need one."""
        super().link_draining(link, seconds, now)
        for session in self._agent_sessions():
            self._join(session, FIRST_RESUME, now)

    def _agent_sessions(self) -> list[AgentSession]:
        return [s for s in self.sessions.values() if isinstance(s, AgentSession)]

    # -- messages --------------------------------------------------------------------------------

    def take_message(self, link: ControlLink, message: messages.Message, now: float) -> None:
        """An answer about a session."""
        match message:
            case messages.SessionOpened():
                self._opened(link, message, now)
            case messages.SessionRefused(number, code, reason):
                self._refused(number, ErrorCode.of(code), reason, now)
            case messages.SessionClosed(session_id, code, reason):
                session = self.find_session(session_id)
                if session is not None and session.is_relayed_by(link.address):
                    assert isinstance(session, AgentSession)
                    self.lose_relay(session, link, code, reason, now)
                    self._lost_relay(session, now)
            case _:
                self.direct.exchange.take_message(link, message, now)

    def _refused(self, number: int, code: ErrorCode, reason: str, now: float) -> None:
        request = self._requests.refused(number, code, reason)
        # The connector gave the session up; other reasons pass.
        if request is not None and request.resumes is not None and code is ErrorCode.RESTARTED:
            self.end_session(request.resumes, code, reason, now)

    def _opened(self, link: ControlLink, message: messages.SessionOpened, now: float) -> None:
        request = self._requests.answered(message.request)
        session = self.find_session(message.session)
        if request is None or (session is None and request.resumes is not None):
            if session is None:  # it was given up, or ended meanwhile
                self._decline(link, message.session)
            return
        if session is None and (link, message.session) in self._declined:
            # This request was answered with the same session before the Intermediate was told.
            if self.awaits(request.service):
                self._requests.find(request.service)
            return
        if session is not None and session.instance != message.instance:
            reason = f"connector {session.peer_name} restarted"
            self.end_session(session, ErrorCode.RESTARTED, reason, now)
            if self.awaits(request.service):
                self._requests.find(request.service)
            return
        if session is None:
            session = self._start_session(request, message, now)
        assert isinstance(session, AgentSession)
        cost = link.rtt + message.peer_rtt
        self.relayed.add(session, link, message.send_channel, message.receive_channel, cost)
        self._join(session, FIRST_RESUME, now)
        if not session.has_connection:
            self._handshake(session, request, now)
        self._routes[request.service] = session
        if session.connection.is_established:
            self._open_waiting(session)

    def _decline(self, link: ControlLink, session_id: bytes) -> None:
        """An Intermediate opened a session that is of no use any more."""
        reason = "the agent has no use for it any more"
        link.send(messages.SessionClosed(session_id, ErrorCode.NO_ERROR, reason))
        self._declined[link, session_id] = None
        if len(self._declined) > MAX_DECLINED:
            self._declined.popitem(last=False)

    def _start_session(
        self, request: Request, message: messages.SessionOpened, now: float
    ) -> AgentSession:
        introduction = Introduction(message.session, message.connector, message.instance)
        session = AgentSession(introduction, now, self.emit, request.service)
        session.selector = SELECTORS[self.policy_of(request.service)]()
        self.add_session(session)
        self.emit(
            reports.SessionOpened(
                session.id.hex(), session.peer_name, request.service, request.link.name
            )
        )
        return session

    def _handshake(self, session: AgentSession, request: Request, now: float) -> None:
        engine = request.engine
        if engine is None or request.session_id != session.id:
            engine = prepare(self.peer_settings(), session.address, now)
        session.set_connection(self._mux.begin(engine, now))
        self.timers.call_at(now + HANDSHAKE_TIMEOUT, lambda t: self._check_handshake(session, t))
        self.timers.call_at(now + KEEPALIVE, lambda t: self._keep_alive(session, t))

    def _check_handshake(self, session: AgentSession, now: float) -> None:
        if not session.connection.is_established:
            reason = f"connector {session.peer_name} did not answer in {HANDSHAKE_TIMEOUT:.0f} s"
            self.end_session(session, ErrorCode.PEER_LOST, reason, now)

    def _keep_alive(self, session: AgentSession, now: float) -> None:
        if self.sessions.get(session.address) is not session:
            return
        if session.streams:
            session.used_at = now
        elif now - session.used_at > SESSION_LINGER:
            self.end_session(session, ErrorCode.NO_ERROR, "not used any more", now)
            return
        session.connection.ping()
        self.timers.call_at(now + KEEPALIVE, lambda t: self._keep_alive(session, t))

    # -- sessions --------------------------------------------------------------------------------

    def session_event(self, session: Session, event: quic_events.Event, now: float) -> None:
        """Check who answered, and let the waiting streams go."""
        super().session_event(session, event, now)
        if isinstance(event, quic_events.HandshakeCompleted) and isinstance(session, AgentSession):
            if event.peer.name != session.peer_name:
                reason = f"announced was connector {session.peer_name}, it is {event.peer.name}"
                self.end_session(session, ErrorCode.WRONG_PEER, reason, now)
            else:
                self._open_waiting(session)

    def _open_waiting(self, session: AgentSession) -> None:
        for service in [s for s, routed in self._routes.items() if routed is session]:
            for stream in self._waiting.pop(service, []):
                self._open(session, stream)

    def _open(self, session: AgentSession, stream: Stream) -> None:
        if stream.is_closed:
            return
        assert session.peer is not None
        if session.peer.grants(stream.service):
            session.open(stream)
            return
        # The Intermediate named this connector for the service: it lies or is misconfigured.
        reason = f"{session.peer} has no certificate for service {stream.service}"
        self._routes.pop(stream.service, None)
        self._fail(stream, ErrorCode.NOT_GRANTED, reason)

    def _lost_relay(self, session: AgentSession, now: float) -> None:
        """The session looks for another relay; new streams do not wait for it without a path."""
        if not session.paths or session.direct_is_doubtful:
            for service in [s for s, routed in self._routes.items() if routed is session]:
                del self._routes[service]
                if self.awaits(service):
                    self._requests.find(service)
        self._join(session, FIRST_RESUME, now)

    def path_lost(self, session: Session, now: float) -> None:
        """New streams look for another session."""
        assert isinstance(session, AgentSession)
        self._lost_relay(session, now)

    def _join(self, session: AgentSession, delay: float, now: float) -> None:
        """Have all Intermediates relay the session, and try again as long as one could."""
        # A later session with the same connector may have the same address.
        if self.sessions.get(session.address) is not session:
            return
        if session.join_timer is not None:
            session.join_timer.cancel()
        if self._requests.join(session) or not session.relays:
            later = min(2 * delay, LAST_JOIN if session.relays else LAST_RESUME)
            session.join_timer = self.timers.call_at(
                now + delay, lambda t: self._join(session, later, t)
            )

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Streams that waited for this session fail with it; later ones get a new one."""
        for service in [s for s, routed in self._routes.items() if routed is session]:
            del self._routes[service]
            if self._waiting.get(service):
                self._fail_waiting(service, code or ErrorCode.PEER_LOST, reason)
