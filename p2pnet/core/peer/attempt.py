"""What one session does to be direct."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from p2pnet.core.timers import Timer
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.health import Health, Keepalive, PathHealth
from p2pnet.traversal.mtu import Phase
from p2pnet.traversal.pair import CandidatePair
from p2pnet.traversal.way import DirectPath
from p2pnet.wire.packet_size import BASE

if TYPE_CHECKING:
    from p2pnet.core.peer.session import Session

TAG_LENGTH = 4  # bytes of a transaction id that name the session


class Attempt:
    """The checks of one session, and the path that they found.

    :ivar tag: what its transaction ids begin with.
    :ivar checks: None before the first exchange of candidates.
    :ivar pair: the one in use, with its `health`; None while there is none.
    :ivar peer_direct_at: since when the peer sends directly, as far as is seen here.
    :ivar refuted: how often a check was answered on a path that was doubted, with no other word of
        the peer's on it since.
    :ivar next_step: when the answer is overdue, or the next round begins.
    """

    def __init__(self, session: Session, credentials: IceCredentials) -> None:
        self.session = session
        self.credentials = credentials
        self.tag = base64.b64decode(credentials.username_fragment)[:TAG_LENGTH]
        self.checks: CheckList | None = None
        self.pair: CandidatePair | None = None
        self.health: PathHealth | None = None
        self.peer_direct_at: float | None = None
        self.refuted = 0
        self.keepalive = Keepalive()
        self.failures = 0
        self.next_step: Timer | None = None

    def get_timer(self) -> float | None:
        """When its checks or its path are to be looked at, None for never."""
        parts = (self.checks, self.health)
        times = [part.get_timer() for part in parts if part is not None]
        if self.pair is not None and self._is_heard:
            times.append(self.pair.mtu.get_timer())
        return min((time for time in times if time is not None), default=None)

    @property
    def _is_heard(self) -> bool:
        return self.health is not None and self.health.state is Health.GOOD

    def use_path(self, now: float) -> None:
        """Look for larger packets that the path in use carries (RFC 8899), and use what is found.

        Not while it is silent: then an unanswered probe says nothing of its size.
        """
        pair, checks, session = self.pair, self.checks, self.session
        if pair is None or checks is None or not self._is_heard:
            return
        mtu = pair.mtu
        size = mtu.next_probe(now)
        if size is not None:
            checks.check(pair, now, size)
        if mtu.phase is Phase.ERROR:
            session.rest_direct(f"packets of {BASE} bytes do not get through", lost=True)
            return
        if session.direct_is_doubtful:
            session.set_direct(DirectPath(pair.address), pair.rtt, "it answers again")
        session.set_packet_size(mtu.size, is_settled=mtu.phase is Phase.SEARCH_COMPLETE)
