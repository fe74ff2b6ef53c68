"""What one session does to be direct."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from p2pnet.core.timers import Timer
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.health import Keepalive, PathHealth
from p2pnet.traversal.pair import CandidatePair

if TYPE_CHECKING:
    from p2pnet.core.session import Session

TAG_LENGTH = 4  # bytes of a transaction id that name the session


class Attempt:
    """The checks of one session, and the path that they found.

    :ivar tag: what its transaction ids begin with.
    :ivar checks: None before the first exchange of candidates.
    :ivar pair: the one in use, with its `health`; None while there is none.
    :ivar peer_direct_at: since when the peer sends directly, as far as is seen here.
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
        self.keepalive = Keepalive()
        self.failures = 0
        self.next_step: Timer | None = None

    def get_timer(self) -> float | None:
        """When its checks or its path are to be looked at, None for never."""
        parts = (self.checks, self.health)
        times = [part.get_timer() for part in parts if part is not None]
        return min((time for time in times if time is not None), default=None)
