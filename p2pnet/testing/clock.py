"""Virtual time for the simulated network: a clock made of a heap, and the one that a process sees.

twisted.internet.task.Clock sorts all calls with every call that is added; a simulated network has
one for each packet that is under way.
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

STANDSTILL = 100_000  # calls at one moment, after which it is clear that they make each other


def _ignore(_: Any) -> None:
    """A cancelled call stays in the heap until its time."""


@implementer(IReactorTime)
class VirtualClock:
    """Time that passes when it is told to. Calls of one moment run in the order they were made."""

    def __init__(self) -> None:
        self._now = 0.0
        self._count = itertools.count()
        self._heap: list[tuple[float, int, DelayedCall]] = []

    def seconds(self) -> float:
        """The time, in seconds since the start."""
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call after `delay` seconds."""
        when = self._now + delay
        call = DelayedCall(when, callable, args, kw, _ignore, self._push, self.seconds)
        heapq.heappush(self._heap, (when, next(self._count), call))
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """What is still to be called."""
        return [call for when, _, call in self._heap if call.active() and call.time == when]

    def next_time(self) -> float:
        """When the next call is due, infinity for never."""
        while self._heap:
            when, _, call = self._heap[0]
            if call.active() and call.getTime() == when:
                return when
            heapq.heappop(self._heap)
            # A call that was put off, and whose other entries are gone or stale.
            if call.active() and call.time == when:
                call.activate_delay()
                self._push(call)
        return math.inf

    def advance_to(self, when: float) -> None:
        """Let it be `when`, and run everything that is due by then.

        Raises RuntimeError when that does not end.
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
        """Let so many seconds pass at once, and run everything that is due by then."""
        self.advance_to(self._now + amount)

    def _push(self, call: DelayedCall) -> None:
        heapq.heappush(self._heap, (call.time, next(self._count), call))


@implementer(IReactorTime)
class ProcessClock:
    """The clock as one process sees it: kill() takes everything with it that was to be called."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._calls: list[DelayedCall] = []
        self._alive = True

    def seconds(self) -> float:
        """The time, the same for all processes."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call after `delay` seconds, if the process lives then."""
        call = self._clock.callLater(delay, callable, *args, **kw)
        if not self._alive:
            call.cancel()
        self._calls = [*self.getDelayedCalls(), call]
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """What is still to be called."""
        return [call for call in self._calls if call.active()]

    def kill(self) -> None:
        """The process is gone, from one moment to the next."""
        self._alive = False
        for call in self.getDelayedCalls():
            call.cancel()
