"""Callbacks at given times, for a core that has no clock: get_timer() and handle_timer()."""

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Timer:
    """One pending callback of Timers, which may be cancelled."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[float], Any]) -> None:
        self.when = when
        self._callback: Callable[[float], Any] | None = callback

    @property
    def active(self) -> bool:
        """Whether the callback is still to run."""
        return self._callback is not None

    def cancel(self) -> None:
        """Make sure that it does not run. Harmless when it already did."""
        self._callback = None

    def _run(self, now: float) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(now)


class Timers:
    """A heap of timers. Callbacks get the time that handle_timer() was called with."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return sum(timer.active for _, _, timer in self._heap)

    def call_at(self, when: float, callback: Callable[[float], Any]) -> Timer:
        """Run `callback` once the time is `when` (seconds of the caller's clock)."""
        timer = Timer(when, callback)
        heapq.heappush(self._heap, (when, next(self._count), timer))
        return timer

    def get_timer(self) -> float | None:
        """The time of the earliest timer, None when there is none."""
        while self._heap:
            when, _, timer = self._heap[0]
            if timer.active:
                return when
            heapq.heappop(self._heap)
        return None

    def handle_timer(self, now: float) -> None:
        """Run every callback whose time is `now` or before."""
        while (when := self.get_timer()) is not None and when <= now:
            heapq.heappop(self._heap)[2]._run(now)


class Deadlines(Generic[T]):
    """The next time for each of many things, none of which costs anything while it waits.

    A deadline only moves forward. When it comes, `handle` does what is due, if anything is by now,
    and sets the next one.

    :param handle: called with the thing and the time.
    """

    def __init__(self, timers: Timers, handle: Callable[[T, float], object]) -> None:
        self._timers = timers
        self._handle = handle
        self._set: dict[T, Timer] = {}

    def bring_forward(self, thing: T, when: float) -> None:
        """Handle the thing at that time, unless it is handled earlier; math.inf is never."""
        timer = self._set.get(thing)
        if (timer is not None and timer.when <= when) or when == math.inf:
            return
        if timer is not None:
            timer.cancel()
        self._set[thing] = self._timers.call_at(when, functools.partial(self._due, thing))

    def forget(self, thing: T) -> None:
        """Cancel the thing's timer: it needs no handling any more."""
        timer = self._set.pop(thing, None)
        if timer is not None:
            timer.cancel()

    def _due(self, thing: T, now: float) -> None:
        del self._set[thing]
        self._handle(thing, now)


class Alarm:
    """One timer at a time: setting another one replaces it."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._timer: Timer | None = None

    def set(self, when: float, callback: Callable[[float], Any]) -> None:
        """Run `callback` once the time is `when` (seconds of the caller's clock), and only that."""
        self.cancel()
        self._timer = self._timers.call_at(when, callback)

    def cancel(self) -> None:
        """Make sure that nothing runs. Harmless when nothing is set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
