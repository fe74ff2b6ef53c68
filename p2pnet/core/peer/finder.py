"""An Agent's requests for sessions: which Intermediate is asked, and which next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from p2pnet.core.peer.ends import AgentSession
from p2pnet.core.peer.link import ControlLink
from p2pnet.quic.engine import Engine
from p2pnet.quic.multiplexer import prepare
from p2pnet.wire import messages
from p2pnet.wire.address import PeerAddress
from p2pnet.wire.codes import ErrorCode

if TYPE_CHECKING:
    from p2pnet.core.peer.agent import AgentCore

SEARCH_AGAIN = 0.5  # seconds
ANSWER_TIMEOUT = 4.0  # seconds for an answer, in which an Intermediate tries two connectors
# What another Intermediate may answer otherwise.
ELSEWHERE = {
    ErrorCode.UNKNOWN_SERVICE,
    ErrorCode.UNREACHABLE,
    ErrorCode.DRAINING,
    ErrorCode.OVER_LIMIT,
    ErrorCode.PEER_LOST,
}


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """A SessionRequest that is not answered yet.

    :ivar session_id: of the session that is asked for.
    :ivar resumes: the session that is to have another relay; None: any session for the service.
    :ivar engine: the connection that is prepared meanwhile for a new session.
    """

    number: int
    session_id: bytes
    service: str
    link: ControlLink
    resumes: AgentSession | None
    engine: Engine | None = None


class Requests:
    """The requests of an Agent that are under way.

    :param failed: called with service, code and reason when no Intermediate has a session for it.
    """

    def __init__(self, node: AgentCore, failed: Callable[[str, ErrorCode, str], object]) -> None:
        self._node = node
        self._failed = failed
        self._last = 0
        self._open: dict[int, Request] = {}
        self._refused: dict[
            str, dict[ControlLink, tuple[ErrorCode, str]]
        ] = {}  # by service searched

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._open.values()))

    def find(self, service: str) -> None:
        """Ask for a session for `service`, unless that is being asked: the best Intermediate
        first, and the others one after the other."""
        if any(r.resumes is None and r.service == service for r in self):
            return
        refused = self._refused.setdefault(service, {})
        links = [link for link in self._node.links if link not in refused]
        usable = [link for link in links if link.is_usable]
        if usable:
            self._send(min(usable, key=lambda link: link.rtt), service, None)
        elif not links:
            code, reason = self.refusals(service)
            del self._refused[service]
            self._failed(service, code, reason)
        elif refused:  # not the last word, while an Intermediate or its Connectors are on the way
            later = self._node.now + SEARCH_AGAIN
            self._node.timers.call_at(later, lambda _: self._search_again(service))

    def _search_again(self, service: str) -> None:
        if self._node.awaits(service):
            self._refused.pop(service, None)
            self.find(service)

    def refusals(self, service: str) -> tuple[ErrorCode, str]:
        """What the Intermediates said of a service that is being searched, "" if nothing yet."""
        refused = self._refused.get(service, {})
        codes = {code for code, _ in refused.values()} or {ErrorCode.UNREACHABLE}
        code = codes.pop() if len(codes) == 1 else ErrorCode.UNREACHABLE
        if len(self._node.links) == 1:
            return code, "".join(reason for _, reason in refused.values())
        texts = (f"intermediate {link.name}: {reason}" for link, (_, reason) in refused.items())
        return code, "; ".join(texts)

    def join(self, session: AgentSession) -> bool:
        """Ask every Intermediate that does not relay the session yet. Returns whether there is one
        that could."""
        asked = {request.link for request in self if request.resumes is session}
        missing = [
            link
            for link in self._node.links
            if link.is_usable and not session.is_relayed_by(link.address)
        ]
        for link in missing:
            if link not in asked:
                self._send(link, session.service, session)
        return bool(missing)

    def _send(self, link: ControlLink, service: str, resumes: AgentSession | None) -> None:
        node = self._node
        self._last += 1
        session_id = resumes.id if resumes is not None else node.entropy(16)
        request = Request(self._last, session_id, service, link, resumes)
        self._open[self._last] = request
        policy = node.policy_of(service)
        connector = resumes.peer_name if resumes is not None else None
        link.send(messages.SessionRequest(request.number, session_id, service, connector, policy))
        node.timers.call_at(node.now + ANSWER_TIMEOUT, lambda _: self._overdue(request))
        if resumes is None:
            node.timers.call_at(node.now, lambda now: self._prepare(request, now))

    def _prepare(self, request: Request, now: float) -> None:
        """Make the connection while the answer is on its way: that takes no less time."""
        if request.number in self._open:
            address = PeerAddress.of_session(request.session_id)
            request.engine = prepare(self._node.peer_settings(), address, now)

    def answered(self, number: int) -> Request | None:
        """The request of an answer, which is no longer open. None: it was given up."""
        request = self._open.pop(number, None)
        if request is not None and request.resumes is None:
            self._refused.pop(request.service, None)
        return request

    def refused(self, number: int, code: ErrorCode, reason: str) -> Request | None:
        """A request was refused: for a session that is to be found, ask elsewhere.

        Returns the request if it was to resume a session.
        """
        request = self._open.pop(number, None)
        if request is None or request.resumes is not None:
            return request
        if code not in ELSEWHERE:
            self._refused.pop(request.service, None)
            self._failed(request.service, code, reason)
            return None
        if code is ErrorCode.DRAINING:
            request.link.draining = True
        else:
            self._refused.setdefault(request.service, {})[request.link] = code, reason
        self.find(request.service)
        return None

    def _overdue(self, request: Request) -> None:
        if request.number in self._open:
            reason = f"no answer in {ANSWER_TIMEOUT:.0f} s"
            self.refused(request.number, ErrorCode.UNREACHABLE, reason)

    def give_up(self, link: ControlLink) -> None:
        """The link is down: what was asked there is asked elsewhere, if there is an elsewhere."""
        for request in self:
            if request.link is link:
                del self._open[request.number]
                if request.resumes is None:
                    self.find(request.service)

    def forget(self, service: str) -> None:
        """Nobody waits for the service any more: the next search begins from the start."""
        self._refused.pop(service, None)
