"""The introductions of an Intermediate: sessions between an agent and a connector."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import msgspec

from p2pnet import reports
from p2pnet.core.intermediate.forwarding import Circuit, Traffic
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.core.intermediate.shares import REQUEST_RATE
from p2pnet.core.intermediate.workers import SharedForwarder
from p2pnet.core.ledger import Kind, Ledger
from p2pnet.core.timers import Timers
from p2pnet.interfaces import IServiceDirectory
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.relay_frame import CHANNEL_LENGTH

MAX_REQUESTS = 256  # of one agent that wait for a connector's answer
OFFER_TIMEOUT = 2.0  # seconds at least until a connector's answer
OFFER_ROUND_TRIPS = 6  # round trips until the answer on a slow path


@dataclasses.dataclass(slots=True, eq=False)
class Introduction:
    """An agent and a connector that a session joins.

    :ivar session: the id of the session, which the agent chose.
    :ivar service: the service of the first request.
    :ivar circuit: the circuit that relays the session.
    :ivar policy: name of the agent's path policy; only requests with the same policy share.
    :ivar requests: the agent's requests that wait for the connector's answer.
    :ivar answered: whether the connector accepted.
    """

    session: bytes
    service: str
    agent: ConnectedNode
    connector: ConnectedNode
    circuit: Circuit
    policy: messages.PolicyName = "prefer-direct"
    requests: list[messages.SessionRequest] = dataclasses.field(default_factory=list)
    answered: bool = False

    def other_end(self, node: ConnectedNode) -> ConnectedNode:
        """The end of the session that is not `node`."""
        return self.connector if node is self.agent else self.agent


class Introductions:
    """All introductions of an Intermediate. Each ends with the connection of either of its nodes.

    :param connectors: the connected connectors by name.
    :param emit: called with each report.
    :param entropy: returns that many random bytes, for channel ids.
    :param rate: the quota of a session in bytes a second and direction, 0 for none.
    :ivar accepting: whether new sessions are accepted.
    :ivar ledger: counts requests, unanswered offers and sessions of each agent's name.
    """

    def __init__(
        self,
        forwarder: SharedForwarder,
        directory: IServiceDirectory,
        connectors: Mapping[str, ConnectedNode],
        emit: Callable[[reports.Report], None],
        entropy: Callable[[int], bytes],
        timers: Timers,
        ledger: Ledger,
        *,
        rate: int,
    ) -> None:
        self.accepting = True
        self._forwarder = forwarder
        self._directory = directory
        self._connectors = connectors
        self._emit = emit
        self._entropy = entropy
        self._timers = timers
        self.ledger = ledger
        self._rate = rate
        self._introductions: dict[bytes, Introduction] = {}

    def __len__(self) -> int:
        return len(self._introductions)

    def count_busy(self, since: float) -> int:
        """The number of sessions that relayed a frame after the time `since`."""
        return sum(each.circuit.used_at > since for each in self._introductions.values())

    def moved(self, node: ConnectedNode) -> None:
        """Move the circuits of all sessions of a node to the node's new address."""
        for session in node.sessions:
            introduction = self._introductions[session]
            ends = introduction.agent.address, introduction.connector.address
            self._forwarder.move(introduction.circuit, *ends)

    # -- opening ---------------------------------------------------------------------------------

    def request(self, agent: ConnectedNode, request: messages.SessionRequest, now: float) -> None:
        """Introduce an agent to a connector of the requested service, or refuse the request."""
        name = agent.identity.name
        if self.ledger.charge(Kind.REQUEST, name, now):
            self._introduce(agent, request, now)
            return
        reason = f"{name} sends more than {REQUEST_RATE:.0f} requests a second"
        self._refuse(agent, request.request, ErrorCode.OVER_LIMIT, reason)

    def _introduce(
        self,
        agent: ConnectedNode,
        request: messages.SessionRequest,
        now: float,
        silent: ConnectedNode | None = None,
    ) -> None:
        """Do what request() does, free of charge.

        :param silent: a connector that left an offer unanswered, and gets no other one.
        """
        connector = self._choose(agent, request)
        if connector is None or connector is silent:
            self._refuse(agent, request.request, *_no_connector(request, connector))
            return
        introduction = self._between(agent, connector, request)
        if introduction is None:
            refusal = self._admit(agent, connector, request.session)
            if refusal is not None:
                self._refuse(agent, request.request, *refusal)
                return
            introduction = self._open(agent, connector, request, now)
        if len(introduction.requests) >= MAX_REQUESTS:
            reason = f"{MAX_REQUESTS} requests wait for connector {connector.identity.name}"
            self._refuse(agent, request.request, ErrorCode.OVER_LIMIT, reason)
            return
        introduction.requests.append(request)
        if introduction.answered:
            self._send_opened(introduction)

    def _choose(
        self, agent: ConnectedNode, request: messages.SessionRequest
    ) -> ConnectedNode | None:
        """The connector for a request: the named one, or the best of those that serve the service.

        A connector that the request has not tried is better than another, one that answers offers
        better than a silent one; then comes one with which the agent shares a session, then the one
        with the fewest sessions.
        """
        if request.connector is not None:
            return self._connectors.get(request.connector)
        candidates: list[ConnectedNode] = self._directory.lookup(
            agent.identity.realm, request.service
        )
        return min(
            candidates,
            key=lambda c: (
                c.identity.name in request.tried,
                c.is_silent,
                not (agent.sessions & c.sessions),
                len(c.sessions),
            ),
            default=None,
        )

    def _between(
        self, agent: ConnectedNode, connector: ConnectedNode, request: messages.SessionRequest
    ) -> Introduction | None:
        """An introduction of the two nodes that the request can share, None if there is none.

        A request that names a connector resumes a session, so it can only share that session's.
        """
        for session in sorted(agent.sessions & connector.sessions):
            introduction = self._introductions[session]
            if request.connector is not None and session != request.session:
                continue
            if introduction.policy == request.policy:
                return introduction
        return None

    def _admit(
        self, agent: ConnectedNode, connector: ConnectedNode, session: bytes
    ) -> tuple[ErrorCode, str] | None:
        """Count a new session for the agent, or return why there is none.

        The sessions of a connector are a cap that agents share, too.
        """
        if not self.accepting:
            return ErrorCode.DRAINING, "the intermediate is shutting down"
        if session in self._introductions:
            return ErrorCode.PROTOCOL_ERROR, "that session is another node's"
        name, other = agent.identity.name, connector.identity.name
        if self.ledger.holds(Kind.OFFER, session, connector):
            return ErrorCode.OVER_LIMIT, f"connector {other} has yet to answer for that session"
        if connector.is_behind:
            return ErrorCode.OVER_LIMIT, f"connector {other} does not read its messages"
        kinds = ((Kind.OFFER, connector), (Kind.SESSION, None), (Kind.CONNECTOR_SESSION, connector))
        verdicts = [self.ledger.judge(kind, name, of) for kind, of in kinds]
        for verdict in verdicts:
            if verdict.refusal is not None:
                return ErrorCode.OVER_LIMIT, verdict.refusal
        for evicted in {verdict.evicted for verdict in verdicts} - {None}:
            self._evict(self._introductions[evicted])
        for kind, of in kinds:
            self.ledger.enter(kind, name, session, of)
        return None

    def _evict(self, introduction: Introduction) -> None:
        """End a session, because other agents want their share."""
        reason = "other names want their share of the sessions"
        self._remove(introduction, reason)
        for request in introduction.requests:
            self._refuse(introduction.agent, request.request, ErrorCode.OVER_LIMIT, reason)
        for end in (introduction.agent, introduction.connector):
            # The session may go on by other ways.
            end.send(messages.SessionClosed(introduction.session, ErrorCode.PEER_LOST, reason))

    def _open(
        self,
        agent: ConnectedNode,
        connector: ConnectedNode,
        request: messages.SessionRequest,
        now: float,
    ) -> Introduction:
        """Begin a session: forward its frames, and offer it to the connector."""
        upward, downward = self._entropy(CHANNEL_LENGTH), self._entropy(CHANNEL_LENGTH)
        circuit = Circuit(upward, downward, agent.address, connector.address, self._rate, now)
        session = request.session
        introduction = Introduction(
            session, request.service, agent, connector, circuit, request.policy
        )
        self._introductions[session] = introduction
        agent.sessions.add(session)
        connector.sessions.add(session)
        self._forwarder.open(circuit)
        offer = messages.SessionOffer(
            session, agent.identity.name, agent.instance, request.service,
            send_channel=downward, receive_channel=upward,
        )  # fmt: skip
        connector.send(offer)
        rtt = connector.connection.smoothed_rtt or 0.0
        deadline = now + max(OFFER_TIMEOUT, OFFER_ROUND_TRIPS * rtt)
        self._timers.call_at(deadline, lambda t: self._check_answer(introduction, t))
        return introduction

    def _check_answer(self, introduction: Introduction, now: float) -> None:
        """Offer the session to another connector if this one, which may be dead, is silent."""
        session, silent = introduction.session, introduction.connector
        if introduction.answered or self._introductions.get(session) is not introduction:
            return
        silent.is_silent = True
        reason = "the offer was not answered in time"
        silent.send(messages.SessionClosed(session, ErrorCode.PEER_LOST, reason))
        self._remove(introduction, reason)
        for request in introduction.requests:
            tried = *request.tried, silent.identity.name
            request = msgspec.structs.replace(request, tried=tried)
            self._introduce(introduction.agent, request, now, silent)

    def _refuse(self, agent: ConnectedNode, request: int, code: ErrorCode, reason: str) -> None:
        agent.send(messages.SessionRefused(request, code, reason))

    def answer(self, connector: ConnectedNode, answer: messages.SessionAnswer, now: float) -> None:
        """Handle a connector's answer to an offer; the answer of any other node is ignored."""
        if self.ledger.release(Kind.OFFER, answer.session, connector):
            connector.is_silent = False
        introduction = self._introductions.get(answer.session)
        if introduction is None or introduction.connector is not connector or introduction.answered:
            return
        if answer.code == ErrorCode.NO_ERROR:
            self._accepted(introduction)
            return
        self._remove(introduction, answer.reason)
        for request in introduction.requests:
            if request.service == introduction.service:
                self._refused(introduction, request, answer, now)
            else:  # the refusal is about the service of the offer, which this request only shared
                self._introduce(introduction.agent, request, now)

    def _refused(
        self,
        introduction: Introduction,
        request: messages.SessionRequest,
        answer: messages.SessionAnswer,
        now: float,
    ) -> None:
        """Offer the session to a connector that has not refused it, or pass the refusal on."""
        agent, tried = introduction.agent, (*request.tried, introduction.connector.identity.name)
        again = msgspec.structs.replace(request, tried=tried)
        other = self._choose(agent, again) if request.connector is None else None
        if other is not None and other.identity.name not in tried:
            self._introduce(agent, again, now)
        else:
            self._refuse(agent, request.request, ErrorCode.of(answer.code), answer.reason)

    def _accepted(self, introduction: Introduction) -> None:
        introduction.answered = True
        self._send_opened(introduction)
        self._emit(
            reports.RelayOpened(
                introduction.session.hex(),
                introduction.agent.identity.name,
                introduction.connector.identity.name,
                introduction.service,
            )
        )

    def _send_opened(self, introduction: Introduction) -> None:
        connector, circuit = introduction.connector, introduction.circuit
        for request in introduction.requests:
            introduction.agent.send(
                messages.SessionOpened(
                    request.request,
                    introduction.session,
                    connector.identity.name,
                    connector.instance,
                    send_channel=circuit.upward,
                    receive_channel=circuit.downward,
                    peer_rtt=min(60.0, connector.connection.smoothed_rtt or 0.0),
                )
            )
        introduction.requests.clear()

    # -- closing ---------------------------------------------------------------------------------

    def leave(self, node: ConnectedNode, closed: messages.SessionClosed) -> None:
        """End a session at the request of one end; the other end gets the code and the reason.

        Ignored unless the node is an end of that session.
        """
        if closed.session in node.sessions:
            self._close(self._introductions[closed.session], node, closed.code, closed.reason)

    def lost(self, node: ConnectedNode, code: ErrorCode, reason: str) -> None:
        """End all sessions of a node whose connection is over."""
        for session in sorted(node.sessions):
            self._close(self._introductions[session], node, code, reason)
        self.ledger.forget(Kind.OFFER, node)

    def _close(
        self, introduction: Introduction, cause: ConnectedNode, code: int, reason: str
    ) -> None:
        self._remove(introduction, reason)
        other = introduction.other_end(cause)
        if not introduction.answered and other is introduction.agent:
            for request in introduction.requests:
                self._refuse(other, request.request, ErrorCode.PEER_LOST, reason)
        other.send(messages.SessionClosed(introduction.session, code, reason))

    def _remove(self, introduction: Introduction, reason: str) -> None:
        del self._introductions[introduction.session]
        introduction.agent.sessions.discard(introduction.session)
        introduction.connector.sessions.discard(introduction.session)
        self.ledger.release(Kind.SESSION, introduction.session)
        self.ledger.release(Kind.CONNECTOR_SESSION, introduction.session, introduction.connector)
        counted = functools.partial(self._counted, introduction, reason)
        self._forwarder.close(introduction.circuit, counted)

    def _counted(self, introduction: Introduction, reason: str, traffic: Traffic) -> None:
        if introduction.answered:
            session, agent = introduction.session.hex(), introduction.agent.identity.name
            self._emit(reports.RelayClosed(session, agent, reason, *traffic))


def _no_connector(
    request: messages.SessionRequest, silent: ConnectedNode | None
) -> tuple[ErrorCode, str]:
    """The code and the reason of a refusal because no connector answers."""
    if silent is not None:
        return ErrorCode.UNREACHABLE, f"connector {silent.identity.name} does not answer"
    if request.connector is not None:
        return ErrorCode.UNKNOWN_SERVICE, f"connector {request.connector} is not connected"
    return ErrorCode.UNKNOWN_SERVICE, f"no connector serves {request.service} now"
