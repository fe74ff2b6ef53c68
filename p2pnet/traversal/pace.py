"""When one session may send a check: its own pace, and its turn among the sessions of the node."""

from p2pnet.timing import TOLERANCE
from p2pnet.traversal.budget import PACING, Cause, SendBudget
from p2pnet.wire.address import Address


class Pace:
    """The checks of one session.

    :param budget: of the node.
    :param session: the name of the session in the budget.
    :ivar free_at: when the next check may be sent, in seconds of the caller's clock.
    :ivar turn_at: when it may be sent to an unproven address, as far as known.
    """

    def __init__(self, budget: SendBudget, session: bytes) -> None:
        self.free_at = self.turn_at = 0.0
        self._budget = budget
        self._session = session

    @property
    def has_waited(self) -> bool:
        """Whether sessions wait for each other, so that this one is slower than PACING."""
        return self.turn_at > self.free_at + TOLERANCE

    def sent(self, now: float) -> None:
        """A check was sent, or would have been sent."""
        self.free_at = now + PACING

    def take_turn(self, now: float) -> bool:
        """Whether it is the session's turn now; else `turn_at` is when to ask again."""
        if now < self.turn_at - TOLERANCE:
            return False
        turn = self._budget.turn(self._session, now)
        if turn > now:
            self.turn_at = turn
        return turn <= now

    def allows(self, address: Address, cause: Cause, now: float) -> bool:
        """Whether a packet may go to `address`; if so, it counts as sent."""
        return self._budget.allows(address, cause, now)

    def answered(self, address: Address, at: float) -> None:
        """A check was answered from `address` at that time."""
        self._budget.answered(address, at)
