"""The sessions that an Intermediate relays: request, offer, answer, and their end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.intermediate.client import ConnectedNode
from p2pnet.core.intermediate.forwarding import Circuit, Traffic
from p2pnet.core.intermediate.workers import SharedRelay
from p2pnet.core.timers import Timers
from p2pnet.interfaces import IServiceDirectory
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.relay_frame import CHANNEL_LENGTH

MAX_REQUESTS = 256  # of an agent that wait for one connector to answer
OFFER_TIMEOUT = 2.0  # seconds, at least, for a connector's answer
ROUND_TRIPS = 6  # that it may take on a slow path
PUNCHING_DELAY = 0.05  # seconds at least from the word to the first check


@dataclasses.dataclass(slots=True, eq=False)
class RelayedSession:
    """A session between an agent and a connector; `answered` once the connector took it."""

    id: bytes
    service: str
    agent: ConnectedNode
    connector: ConnectedNode
    circuit: Circuit
    policy: str = ""
    requests: list[messages.SessionRequest] = dataclasses.field(default_factory=list)
    answered: bool = False


class SessionTable:
    """All sessions of an Intermediate. A session belongs to the two connections it was made by.

    :ivar accepting: whether new sessions are taken.
    """

    def __init__(
        self,
        relay: SharedRelay,
        directory: IServiceDirectory,
        connectors: Mapping[str, ConnectedNode],
        emit: Callable[[events.Event], None],
        entropy: Callable[[int], bytes],
        timers: Timers,
        *,
        max_sessions: int,
        max_per_node: int,
        rate: int,
    ) -> None:
        self.accepting = True
        self._relay = relay
        self._directory = directory
        self._connectors = connectors
        self._emit = emit
        self._entropy = entropy
        self._timers = timers
        self._max_sessions = max_sessions
        self._max_per_node = max_per_node
        self._rate = rate
        self._sessions: dict[bytes, RelayedSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def count_busy(self, since: float) -> int:
        """Sessions that relayed something since that time."""
        return sum(session.circuit.used_at > since for session in self._sessions.values())

    def moved(self, client: ConnectedNode) -> None:
        """A node's packets come from another address now."""
        for session_id in client.sessions:
            session = self._sessions[session_id]
            ends = session.agent.address, session.connector.address
            self._relay.move(session.circuit, *ends)

    # -- opening ---------------------------------------------------------------------------------

    def request(
        self,
        agent: ConnectedNode,
        request: messages.SessionRequest,
        now: float,
        silent: ConnectedNode | None = None,
    ) -> None:
        """An agent asks for a session with a connector of a service, but not with `silent`."""
        connector = self._choose(agent, request)
        if connector is None or connector is silent:
            code, reason = ErrorCode.UNKNOWN_SERVICE, f"no connector serves {request.service} now"
            if request.connector is not None:
                reason = f"connector {request.connector} is not connected"
            if connector is not None:
                code = ErrorCode.UNREACHABLE
                reason = f"connector {connector.identity.name} does not answer"
            self._refuse(agent, request.request, code, reason)
            return
        session = self._between(agent, connector, request)
        if session is None:
            session = self._open(agent, connector, request, now)
            if session is None:
                return
        if len(session.requests) >= MAX_REQUESTS:
            reason = f"{MAX_REQUESTS} requests wait for connector {connector.identity.name}"
            self._refuse(agent, request.request, ErrorCode.OVER_LIMIT, reason)
            return
        session.requests.append(request)
        if session.answered:
            self._tell_opened(session)

    def _choose(
        self, agent: ConnectedNode, request: messages.SessionRequest
    ) -> ConnectedNode | None:
        """The connector for a request: the one named, else one that answers, is already joined,
        or is the least used."""
        realm = agent.identity.realm
        if request.connector is not None:
            return self._connectors.get(request.connector)
        candidates: list[ConnectedNode] = self._directory.lookup(realm, request.service)
        return min(
            candidates,
            key=lambda c: (c.is_silent, not (agent.sessions & c.sessions), len(c.sessions)),
            default=None,
        )

    def _between(
        self, agent: ConnectedNode, connector: ConnectedNode, request: messages.SessionRequest
    ) -> RelayedSession | None:
        """A session of the two that serves the request: to resume one, no other will do."""
        for session_id in sorted(agent.sessions & connector.sessions):
            session = self._sessions[session_id]
            if request.connector is not None and session_id != request.session:
                continue
            if session.policy == request.policy:
                return session
        return None

    def _open(
        self,
        agent: ConnectedNode,
        connector: ConnectedNode,
        request: messages.SessionRequest,
        now: float,
    ) -> RelayedSession | None:
        refusal = self._why_not(agent, connector, request.session)
        if refusal is not None:
            self._refuse(agent, request.request, *refusal)
            return None
        upward, downward = self._entropy(CHANNEL_LENGTH), self._entropy(CHANNEL_LENGTH)
        circuit = Circuit(upward, downward, agent.address, connector.address, self._rate, now)
        session = RelayedSession(
            request.session, request.service, agent, connector, circuit, request.policy
        )
        self._sessions[session.id] = session
        agent.sessions.add(session.id)
        connector.sessions.add(session.id)
        self._relay.open(circuit)
        connector.send(
            messages.SessionOffer(
                session.id,
                agent.identity.name,
                agent.instance,
                request.service,
                send_channel=downward,
                receive_channel=upward,
                policy=request.policy,
            )
        )
        patience = max(OFFER_TIMEOUT, ROUND_TRIPS * (connector.connection.smoothed_rtt or 0.0))
        self._timers.call_at(now + patience, lambda t: self._overdue(session, t))
        return session

    def _overdue(self, session: RelayedSession, now: float) -> None:
        """A connector that does not answer may be dead: others are asked before it from now on."""
        if session.answered or self._sessions.get(session.id) is not session:
            return
        session.connector.is_silent = True
        reason = "the offer was not answered in time"
        session.connector.send(messages.SessionClosed(session.id, ErrorCode.PEER_LOST, reason))
        self._remove(session, reason)
        for request in session.requests:
            self.request(session.agent, request, now, silent=session.connector)

    def _why_not(
        self, agent: ConnectedNode, connector: ConnectedNode, session_id: bytes
    ) -> tuple[ErrorCode, str] | None:
        if not self.accepting:
            return ErrorCode.DRAINING, "the intermediate is shutting down"
        if len(self._sessions) >= self._max_sessions:
            return ErrorCode.OVER_LIMIT, f"the intermediate relays {self._max_sessions} sessions"
        for end in (agent, connector):
            if len(end.sessions) >= self._max_per_node:
                role, name = end.identity.role, end.identity.name
                return ErrorCode.OVER_LIMIT, f"{role} {name} has {self._max_per_node} sessions"
        if session_id in self._sessions:
            return ErrorCode.PROTOCOL_ERROR, "that session is another node's"
        return None

    def _refuse(self, agent: ConnectedNode, request: int, code: ErrorCode, reason: str) -> None:
        agent.send(messages.SessionRefused(request, code, reason[:512]))

    def answer(self, connector: ConnectedNode, answer: messages.SessionAnswer, now: float) -> None:
        """A connector takes or refuses a session. From any other connection it counts nothing."""
        session = self._sessions.get(answer.session)
        if session is None or session.connector is not connector or session.answered:
            return
        if answer.code == ErrorCode.NO_ERROR:
            session.answered = True
            self._tell_opened(session)
            self._emit(
                reports.RelayOpened(
                    session.id.hex(),
                    session.agent.identity.name,
                    connector.identity.name,
                    session.service,
                )
            )
            return
        self._remove(session, answer.reason)
        for request in session.requests:
            if request.service == session.service:
                code = ErrorCode.of(answer.code)
                self._refuse(session.agent, request.request, code, answer.reason)
            else:  # it had hoped to share the session; the refusal is not about its service
                self.request(session.agent, request, now)

    def _tell_opened(self, session: RelayedSession) -> None:
        for request in session.requests:
            session.agent.send(
                messages.SessionOpened(
                    request.request,
                    session.id,
                    session.connector.identity.name,
                    session.connector.instance,
                    send_channel=session.circuit.upward,
                    receive_channel=session.circuit.downward,
                    peer_rtt=min(60.0, session.connector.connection.smoothed_rtt or 0.0),
                )
            )
        session.requests.clear()

    # -- candidates ------------------------------------------------------------------------------

    def forward(self, client: ConnectedNode, message: messages.CandidateMessage) -> None:
        """Pass what one end says about candidates on to the other. For another's session, not."""
        session = self._sessions.get(message.session)
        if session is None or client not in (session.agent, session.connector):
            return
        from_agent = client is session.agent
        only_from_agent = {messages.CandidateOffer: True, messages.CandidateAnswer: False}
        if only_from_agent.get(type(message), from_agent) != from_agent:
            return
        other = session.connector if from_agent else session.agent
        other.send(message)
        if isinstance(message, messages.CandidateAnswer):
            self._start_punching(session)

    def _start_punching(self, session: RelayedSession) -> None:
        """Let both ends begin at the same moment, without comparing clocks: each is told to wait
        for what is left once the word has reached it."""
        ends = (session.agent, session.connector)
        halves = [(end.connection.smoothed_rtt or 0.0) / 2 for end in ends]
        moment = max(*halves, PUNCHING_DELAY)
        for end, half in zip(ends, halves, strict=True):
            delay = min(round((moment - half) * 1000), 10_000)
            end.send(messages.StartPunching(session.id, delay))

    # -- closing ---------------------------------------------------------------------------------

    def leave(self, client: ConnectedNode, closed: messages.SessionClosed) -> None:
        """One end of a session says that it is over, which the other is told with the code."""
        if closed.session in client.sessions:
            self._close(self._sessions[closed.session], client, closed.code, closed.reason)

    def lost(self, client: ConnectedNode, code: ErrorCode, reason: str) -> None:
        """A node's connection is over, and with it the relaying of its sessions."""
        for session_id in sorted(client.sessions):
            self._close(self._sessions[session_id], client, code, reason)

    def _close(self, session: RelayedSession, cause: ConnectedNode, code: int, reason: str) -> None:
        self._remove(session, reason)
        other = session.connector if cause is session.agent else session.agent
        if not session.answered and other is session.agent:
            for request in session.requests:
                self._refuse(other, request.request, ErrorCode.PEER_LOST, reason)
        other.send(messages.SessionClosed(session.id, code, reason[:512]))

    def _remove(self, session: RelayedSession, reason: str) -> None:
        del self._sessions[session.id]
        session.agent.sessions.discard(session.id)
        session.connector.sessions.discard(session.id)
        self._relay.close(session.circuit, functools.partial(self._closed, session, reason))

    def _closed(self, session: RelayedSession, reason: str, traffic: Traffic) -> None:
        if session.answered:
            self._emit(reports.RelayClosed(session.id.hex(), reason, *traffic))
