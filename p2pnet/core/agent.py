"""The Agent's core: streams to services, over one session for each connector."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Iterable, Mapping

from p2pnet import events
from p2pnet.core.link import Link
from p2pnet.core.node import NodeCore
from p2pnet.core.session import AgentSession, Session
from p2pnet.core.stream import Stream, StreamState
from p2pnet.identity import Credentials, Role, check_name
from p2pnet.quic import events as quic_events
from p2pnet.traversal.selection import SELECTORS, RelayOnly
from p2pnet.wire import messages
from p2pnet.wire.errors import ErrorCode
from p2pnet.wire.stream import StreamKind

REQUEST_TIMEOUT = 10.0  # seconds for a service to be found, with a restart of an Intermediate in it
HANDSHAKE_TIMEOUT = 10.0  # seconds for the end-to-end handshake
KEEPALIVE = 15.0  # seconds; a session that is used is kept under its idle time-out
SESSION_LINGER = 300.0  # seconds that a session without streams is kept for the next one
FIRST_RESUME, LAST_RESUME = 0.5, 8.0  # seconds between tries to give a session a path again
MAX_WAITING = 1024  # streams that wait for one service


@dataclasses.dataclass(slots=True)
class Request:
    """A SessionRequest that is not answered yet."""

    service: str
    link: Link
    resumes: AgentSession | None


def trouble(link: Link) -> str:
    """What is wrong with an Intermediate that cannot be asked."""
    if link.is_ready:
        return "shutting down"
    return f"unreachable: {link.last_error or 'no answer yet'}"


class AgentCore(NodeCore):
    """The sans-IO core of an Agent: NodeCore's verbs, and open_stream().

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
        policies: Mapping[str, str] | None = None,
        policy: str = RelayOnly.name,
    ) -> None:
        super().__init__(credentials, intermediates, utcnow=utcnow, entropy=entropy)
        self._policies = dict(policies or {})
        self._policy = policy
        self._routes: dict[str, AgentSession] = {}  # by service
        self._waiting: dict[str, list[Stream]] = {}  # by service, for a route
        self._requests: dict[int, Request] = {}
        self._flows: dict[str, Stream] = {}  # of connect_p2p()
        self._last_request = 0

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
            self._request(service)
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

    def _request(self, service: str, resumes: AgentSession | None = None) -> None:
        """Ask for a session, unless that is asked already or there is nobody to ask."""
        link = next((link for link in self.links if link.is_ready and not link.draining), None)
        if link is None or any(
            r.service == service and r.resumes is resumes for r in self._requests.values()
        ):
            return
        self._last_request += 1
        self._requests[self._last_request] = Request(service, link, resumes)
        session = resumes.id if resumes is not None else self.entropy(16)
        connector = resumes.peer_name if resumes is not None else None
        policy = self._policies.get(service, self._policy)
        link.send(messages.SessionRequest(self._last_request, session, service, connector, policy))

    def _timed_out(self, stream: Stream) -> None:
        waiting = self._waiting.get(stream.service, [])
        if stream not in waiting:
            return
        waiting.remove(stream)
        if any(link.is_ready and not link.draining for link in self.links):
            reason = f"no session for {stream.service} within {REQUEST_TIMEOUT:.0f} s"
        else:
            troubles = (f"intermediate {link.name} is {trouble(link)}" for link in self.links)
            reason = "; ".join(troubles)
        self._fail(stream, ErrorCode.UNREACHABLE, reason)

    def _fail_waiting(self, service: str, code: ErrorCode, reason: str) -> None:
        self.emit(events.SessionRefused(service, code.name.lower(), reason))
        for stream in self._waiting.pop(service, []):
            self._fail(stream, code, reason)

    def _fail(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        if stream.is_closed:
            return
        stream.advance(StreamState.CLOSED)
        self.emit(events.StreamRefused("", stream.service, code.name.lower(), reason))
        self.emit(events.StreamClosed(stream, code, reason))

    def link_ready(self, link: Link, address: tuple[str, int], seconds: float, now: float) -> None:
        """Ask again for what is still missing."""
        super().link_ready(link, address, seconds, now)
        for session in self.sessions.values():
            if session.relay is None and isinstance(session, AgentSession):
                self._request(session.service, session)
        for service, streams in self._waiting.items():
            if streams and service not in self._routes:
                self._request(service)

    def link_failed(self, link: Link, was_ready: bool, now: float) -> None:
        """What was asked there is asked elsewhere, if there is an elsewhere."""
        super().link_failed(link, was_ready, now)
        lost = [number for number, r in self._requests.items() if r.link is link]
        requests = [self._requests.pop(number) for number in lost]
        for request in requests:
            self._request(request.service, request.resumes)
        for session in self.sessions.values():
            if session.relay is None and isinstance(session, AgentSession):
                self._lost_path(session, now)

    # -- messages --------------------------------------------------------------------------------

    def take_message(self, link: Link, message: messages.Message, now: float) -> None:
        """An answer about a session."""
        match message:
            case messages.SessionOpened(request=number):
                request = self._requests.pop(number, None)
                if request is not None:
                    self._opened(request, message, now)
            case messages.SessionRefused(number, code, reason):
                request = self._requests.pop(number, None)
                if request is not None:
                    self._refused(request, ErrorCode.of(code), reason, now)
            case messages.SessionClosed(session_id, code, reason):
                session = self.find_session(session_id)
                if session is not None and session.is_relayed_by(link.address):
                    assert isinstance(session, AgentSession)
                    self.lose_relay(session, code, reason, now)
                    self._lost_path(session, now)
            case _:
                self.direct.take_message(link, message, now)

    def _refused(self, request: Request, code: ErrorCode, reason: str, now: float) -> None:
        if request.resumes is None:
            self._fail_waiting(request.service, code, reason)
        elif code is ErrorCode.RESTARTED:  # the connector gave the session up; other reasons pass
            self.end_session(request.resumes, code, reason, now)

    def _opened(self, request: Request, message: messages.SessionOpened, now: float) -> None:
        session = next((s for s in self.sessions.values() if s.id == message.session), None)
        if session is None and request.resumes is not None:  # it ended meanwhile
            reason = "the agent has ended it"
            code = ErrorCode.NO_ERROR
            request.link.send(messages.SessionClosed(message.session, code, reason))
            return
        if session is not None and session.instance != message.instance:
            reason = f"connector {session.peer_name} restarted"
            self.end_session(session, ErrorCode.RESTARTED, reason, now)
            self._request(request.service)
            return
        if session is None:
            session = self._start_session(request, message, now)
        assert isinstance(session, AgentSession)
        self.relay_session(
            session, request.link, message.send_channel, message.receive_channel,
            f"through {request.link.name}",
        )  # fmt: skip
        if not session.has_connection:
            self._handshake(session, now)
        self._routes[request.service] = session
        if session.connection.is_established:
            self._open_waiting(session)

    def _start_session(
        self, request: Request, message: messages.SessionOpened, now: float
    ) -> AgentSession:
        session = AgentSession(
            message.session, message.connector, message.instance, now, self.emit, request.service
        )
        session.selector = SELECTORS[self._policies.get(request.service, self._policy)]()
        self.add_session(session)
        self.emit(
            events.SessionOpened(
                session.id.hex(), session.peer_name, request.service, request.link.name
            )
        )
        return session

    def _handshake(self, session: AgentSession, now: float) -> None:
        session.set_connection(self._mux.connect(self.peer_settings(), session.address, now))
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

    def _lost_path(self, session: AgentSession, now: float) -> None:
        """New streams look for another way; the session itself is given time to resume."""
        for service in [s for s, routed in self._routes.items() if routed is session]:
            del self._routes[service]
            if self._waiting.get(service):
                self._request(service)
        self._resume(session, FIRST_RESUME, now)

    def _resume(self, session: AgentSession, delay: float, now: float) -> None:
        # A later session with the same connector may have the same address.
        if session.relay is not None or self.sessions.get(session.address) is not session:
            return
        self._request(session.service, session)
        later = min(LAST_RESUME, 2 * delay)
        if session.resume_timer is not None:
            session.resume_timer.cancel()
        session.resume_timer = self.timers.call_at(
            now + delay, lambda t: self._resume(session, later, t)
        )

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Streams that waited for this session fail with it; later ones get a new one."""
        for service in [s for s, routed in self._routes.items() if routed is session]:
            del self._routes[service]
            if self._waiting.get(service):
                self._fail_waiting(service, code or ErrorCode.PEER_LOST, reason)
