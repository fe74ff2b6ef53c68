"""Virtual time for the simulated network: a clock with a heap of calls, and a process's view of it.

A simulated network has a call for each packet in flight, too many for twisted.internet.task.Clock,
which sorts all calls whenever one is added.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

STANDSTILL = 100_000  # calls at one time that prove an endless loop


def _ignore(_: Any) -> None:
    """Ignore a cancelled call, which stays in the heap until its time."""


@implementer(IReactorTime)
class VirtualClock:
    """An IReactorTime whose time only advance() and advance_to() change.

    Calls that are due at one time run in the order of their creation.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._count = itertools.count()
        self._heap: list[tuple[float, int, DelayedCall]] = []

    def seconds(self) -> float:
        """The virtual time in seconds; a new clock starts at 0."""
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call `callable` with the other arguments after `delay` seconds of virtual time."""
        when = self._now + delay
        call = DelayedCall(when, callable, args, kw, _ignore, self._push, self.seconds)
        heapq.heappush(self._heap, (when, next(self._count), call))
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """All calls that are pending, of every process."""
        return [call for when, _, call in self._heap if call.active() and call.time == when]

    def next_time(self) -> float:
        """The time of the next call in seconds, infinity without one."""
        while self._heap:
            when, _, call = self._heap[0]
            if call.active() and call.getTime() == when:
                return when
            heapq.heappop(self._heap)
            # A postponed call, whose other heap entries are gone or stale.
            if call.active() and call.time == when:
                call.activate_delay()
                self._push(call)
        return math.inf

    def advance_to(self, when: float) -> None:
        """Set the time to `when` (seconds) unless it is later, and run all calls that are due.

        Raises RuntimeError after STANDSTILL calls, which seem to make each other endlessly.
        """
        self._now = max(self._now, when)
        for _ in range(STANDSTILL):
            if self.next_time() > self._now:
                return
            call = heapq.heappop(self._heap)[2]
            call.called = 1
            call.func(*call.args, **call.kw)
        raise RuntimeError(f"time stands still at {self._now}: {call}")

    def advance(self, amount: float) -> None:
        """Advance the time by `amount` seconds in one step, and run all calls that are due.

        Raises RuntimeError like advance_to().
        """
        self.advance_to(self._now + amount)

    def _push(self, call: DelayedCall) -> None:
        heapq.heappush(self._heap, (call.time, next(self._count), call))


@implementer(IReactorTime)
class ProcessClock:
    """An IReactorTime for one simulated process, whose pending calls end with kill()."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._calls: list[DelayedCall] = []
        self._alive = True

    def seconds(self) -> float:
        """The time of the virtual clock in seconds, the same for all processes."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call `callable` after `delay` seconds of virtual time unless the process is killed."""
        call = self._clock.callLater(delay, callable, *args, **kw)
        if not self._alive:
            call.cancel()
        self._calls = [*self.getDelayedCalls(), call]
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """All pending calls of this process."""
        return [call for call in self._calls if call.active()]

    def kill(self) -> None:
        """Cancel all pending calls and every later one, as the end of a process does."""
        self._alive = False
        for call in self.getDelayedCalls():
            call.cancel()
