"""How the name of a service becomes a session with a connector that serves it.

An Agent requests a session from one Intermediate after the other, and streams wait meanwhile. The
session that an Intermediate opens is the route of later streams of the service as well. A service
has several routes while connectors race: the first whose handshake completes remains.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Container, Iterator, Sequence
from typing import Protocol, cast

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.ends import AgentSession, Need
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.stream import Stream
from p2pnet.core.timers import Deadlines, Timers
from p2pnet.quic.engine import Engine
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode

REQUEST_TIMEOUT = 10.0  # seconds for a service to be found, with a restart of an Intermediate in it
SEARCH_AGAIN = 0.5  # seconds from the refusal of all Intermediates to the next search
ANSWER_TIMEOUT = 4.0  # seconds for an answer, in which an Intermediate tries two connectors
MAX_WAITING = 1024  # streams that wait for one service
MAX_DECLINED = 64  # sessions; each was the answer to a request of a few seconds before
# Another Intermediate may answer otherwise.
ELSEWHERE = {
    ErrorCode.UNKNOWN_SERVICE,
    ErrorCode.UNREACHABLE,
    ErrorCode.DRAINING,
    ErrorCode.OVER_LIMIT,
    ErrorCode.PEER_LOST,
}


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """A SessionRequest without an answer yet.

    :ivar number: of the request on all links; the answer repeats it.
    :ivar session_id: 16 bytes; the Intermediate may answer with another session.
    :ivar resumes: the session that shall have another relay; None: any session for the need.
    :ivar engine: the connection prepared for a new session before the answer arrives.
    """

    number: int
    session_id: bytes
    need: Need
    link: ControlLink
    resumes: AgentSession | None
    engine: Engine | None = None


class FinderOwner(Protocol):
    """What a ServiceFinder needs of its Agent."""

    def new_session_id(self) -> bytes:
        """16 random bytes, which name a session at both ends and at Intermediates."""

    def tried(self, now: float) -> tuple[str, ...]:
        """The connectors that do not answer, MAX_TRIED names at most."""

    def prepare(self, session_id: bytes, now: float) -> Engine:
        """A connection for a session of that id, ready to begin."""

    def emit(self, event: events.Event) -> None:
        """Queue a SessionRefused report for the host."""


class ServiceFinder:
    """The routes of an Agent, the streams that wait for one, and the requests under way.

    :param links: to the Intermediates.
    """

    def __init__(self, links: Sequence[ControlLink], timers: Timers, owner: FinderOwner) -> None:
        self._links = links
        self._timers = timers
        self._owner = owner
        self._routes: dict[Need, list[AgentSession]] = {}  # the first one first
        self._waiting: dict[Need, list[Stream]] = {}
        self._requests: dict[int, Request] = {}  # by number
        self._last_number = 0
        self._refused: dict[Need, dict[ControlLink, tuple[ErrorCode, str]]] = {}
        self._searches = Deadlines(timers, self._search_again)
        self._declined: collections.OrderedDict[tuple[ControlLink, bytes], None]
        self._declined = collections.OrderedDict()

    def __iter__(self) -> Iterator[Request]:
        """The requests under way."""
        return iter(list(self._requests.values()))

    # -- routes ----------------------------------------------------------------------------------

    def route(self, need: Need) -> AgentSession | None:
        """The session for new streams of the service, None while there is none."""
        return next(iter(self._routes.get(need, ())), None)

    def add_route(self, need: Need, session: AgentSession) -> None:
        """New streams of the service take the session, unless another one is ready earlier."""
        routes = self._routes.setdefault(need, [])
        if session not in routes:
            routes.append(session)

    def keep_route(self, session: AgentSession) -> list[AgentSession]:
        """The session is ready: its services have no other route from now on.

        Returns the sessions that are a route of no service any more.
        """
        needs = self.needs_of(session)
        raced = dict.fromkeys(each for need in needs for each in self._routes[need])
        self._routes.update((need, [session]) for need in needs)
        return [each for each in raced if not self.needs_of(each)]

    def drop_route(self, need: Need, session: AgentSession) -> None:
        """New streams of the service do not take the session any more."""
        routes = self._routes.get(need, [])
        if session in routes:
            routes.remove(session)
        if not routes:
            self._routes.pop(need, None)

    def needs_of(self, session: AgentSession) -> list[Need]:
        """The needs of which the session is a route."""
        return [need for need, routes in self._routes.items() if session in routes]

    def reroute(self, session: AgentSession, now: float) -> None:
        """New streams do not go to the session any more; find another for those that wait."""
        for need in self.needs_of(session):
            self.drop_route(need, session)
            if self.awaits(need):
                self.find(need, now)

    # -- streams that wait -----------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Whether any stream waits for a session."""
        return any(self._waiting.values())

    def awaits(self, need: Need) -> bool:
        """Whether streams wait for a session of the service, and it has no route."""
        return bool(self._waiting.get(need)) and need not in self._routes

    def wait(self, stream: Stream, need: Need, now: float) -> bool:
        """Let a stream wait for a session, and find one.

        Returns False if MAX_WAITING streams wait already; then this one does not.
        """
        waiting = self._waiting.setdefault(need, [])
        if len(waiting) >= MAX_WAITING:
            return False
        waiting.append(stream)
        self._timers.call_at(now + REQUEST_TIMEOUT, lambda _: self._timed_out(stream, need))
        if need not in self._routes:
            self.find(need, now)
        return True

    def take_waiting(self, need: Need) -> list[Stream]:
        """The streams that waited for the service; they wait no more."""
        return self._waiting.pop(need, [])

    def take_all_waiting(self) -> list[Stream]:
        """The streams that waited for any service; they wait no more."""
        return [stream for need in list(self._waiting) for stream in self.take_waiting(need)]

    def find_all(self, now: float) -> None:
        """Request a session for each need that streams wait for: an Intermediate is ready."""
        for need in [need for need in self._waiting if self.awaits(need)]:
            self.find(need, now)

    def fail(self, need: Need, code: ErrorCode, reason: str) -> None:
        """Refuse the streams that wait, unless they have a route or a request is under way."""
        self._refused.pop(need, None)
        if need in self._routes or self._is_requested(need):
            return
        self._owner.emit(reports.SessionRefused(need.service, code.name.lower(), reason))
        for stream in self.take_waiting(need):
            stream.fail(code, reason)

    def _timed_out(self, stream: Stream, need: Need) -> None:
        waiting = self._waiting.get(need, [])
        if stream not in waiting:
            return
        waiting.remove(stream)
        troubles = [
            f"intermediate {link.name} is {trouble(link)}"
            for link in self._links
            if not link.is_usable
        ]
        code, refusals = self._refusals(need)
        if len(troubles) < len(self._links):
            route = self.route(need)
            none = f"session for {stream.service}"
            if route is not None and route.is_established:  # and waits for a direct path
                none = f"direct path to connector {route.peer_name}"
            troubles.insert(0, refusals or f"no {none} within {REQUEST_TIMEOUT:.0f} s")
        if not waiting:
            del self._waiting[need]
            self._refused.pop(need, None)
        stream.fail(code, "; ".join(troubles))

    # -- requests --------------------------------------------------------------------------------

    def find(self, need: Need, now: float) -> None:
        """Ask for a session for `service`, unless a request is under way.

        The Intermediate with the shortest round trip comes first, then the others in turn.
        """
        if self._is_requested(need):
            return
        refused = self._refused.get(need, {})
        links = [link for link in self._links if link not in refused]
        usable = [link for link in links if link.is_usable]
        if usable:
            self._send(min(usable, key=lambda link: link.rtt), need, None, now)
        elif not links:
            self.fail(need, *self._refusals(need))
        elif refused:  # not final, while an Intermediate or its Connectors are on the way
            self._searches.bring_forward(need, now + SEARCH_AGAIN)

    def _is_requested(self, need: Need) -> bool:
        return any(r.resumes is None and r.need == need for r in self)

    def _search_again(self, need: Need, now: float) -> None:
        self._refused.pop(need, None)
        if self.awaits(need):
            self.find(need, now)

    def _refusals(self, need: Need) -> tuple[ErrorCode, str]:
        """The answers of the Intermediates for a service, "" if there is none yet."""
        refused = self._refused.get(need, {})
        codes = {code for code, _ in refused.values()} or {ErrorCode.UNREACHABLE}
        code = codes.pop() if len(codes) == 1 else ErrorCode.UNREACHABLE
        if len(self._links) == 1:
            return code, "".join(reason for _, reason in refused.values())
        texts = (f"intermediate {link.name}: {reason}" for link, (_, reason) in refused.items())
        return code, "; ".join(texts)

    def join(self, session: AgentSession, relays: Container[Address | None], now: float) -> bool:
        """Request the session from every Intermediate that is not among its `relays`.

        Returns whether there is an Intermediate that could relay the session.
        """
        asked = {request.link for request in self if request.resumes is session}
        missing = [link for link in self._links if link.is_usable and link.address not in relays]
        for link in missing:
            if link not in asked:
                self._send(link, session.need, session, now)
        return bool(missing)

    def _send(
        self, link: ControlLink, need: Need, resumes: AgentSession | None, now: float
    ) -> None:
        self._last_number += 1
        session_id = resumes.id if resumes is not None else self._owner.new_session_id()
        request = Request(self._last_number, session_id, need, link, resumes)
        self._requests[request.number] = request
        policy = cast(messages.PolicyName, need.policy)
        connector = resumes.peer_name if resumes is not None else None
        tried = self._owner.tried(now) if resumes is None else ()
        link.send(
            messages.SessionRequest(
                request.number, session_id, need.service, connector, policy, tried
            )
        )
        self._timers.call_at(now + ANSWER_TIMEOUT, lambda t: self._overdue(request, t))
        if resumes is None:
            self._timers.call_at(now, lambda t: self._prepare(request, t))

    def _prepare(self, request: Request, now: float) -> None:
        """Make the connection before the answer arrives: each takes about as long."""
        if request.number in self._requests:
            request.engine = self._owner.prepare(request.session_id, now)

    def _overdue(self, request: Request, now: float) -> None:
        if request.number in self._requests:
            reason = f"no answer in {ANSWER_TIMEOUT:.0f} s"
            self.refused(request.number, ErrorCode.UNREACHABLE, reason, now)

    def answered(self, number: int) -> Request | None:
        """The request of an answer, under way no more; None if it was given up before."""
        request = self._requests.pop(number, None)
        if request is not None and request.resumes is None:
            self._refused.pop(request.need, None)
        return request

    def refused(self, number: int, code: ErrorCode, reason: str, now: float) -> Request | None:
        """An Intermediate refused a request: if it was for a new session, ask elsewhere.

        Returns the request if it was for another relay of a session.
        """
        request = self._requests.pop(number, None)
        if request is None or request.resumes is not None:
            return request
        if code not in ELSEWHERE:
            self.fail(request.need, code, reason)
            return None
        if code is ErrorCode.DRAINING:
            request.link.draining = True
        else:
            self._refused.setdefault(request.need, {})[request.link] = code, reason
        self.find(request.need, now)
        return None

    def give_up(self, link: ControlLink, now: float) -> None:
        """The link is down: make its requests at another Intermediate, if there is one."""
        for request in self:
            if request.link is link:
                del self._requests[request.number]
                if request.resumes is None:
                    self.find(request.need, now)

    # -- sessions of no use ----------------------------------------------------------------------

    def decline(self, link: ControlLink, session_id: bytes) -> None:
        """Close a session that an Intermediate opened too late, for a request that was given up."""
        reason = "the agent has no use for it any more"
        link.send(messages.SessionClosed(session_id, ErrorCode.NO_ERROR, reason))
        self._declined[link, session_id] = None
        if len(self._declined) > MAX_DECLINED:
            self._declined.popitem(last=False)

    def has_declined(self, link: ControlLink, session_id: bytes) -> bool:
        """Whether decline() sent the session back while this answer was on its way."""
        return (link, session_id) in self._declined


def trouble(link: ControlLink) -> str:
    """Why an Intermediate takes no requests, for people."""
    if link.is_ready:
        return "shutting down"
    return f"unreachable: {link.last_error or 'no answer yet'}"
