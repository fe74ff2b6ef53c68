"""The clocks: the wall clock, and an even one that no correction of the wall clock affects."""

import datetime
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase


def utcnow() -> datetime.datetime:
    """The time of the wall clock, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def _read() -> Callable[[], float]:
    if sys.platform == "linux":
        return functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.time


_now = _read()  # chosen once: each request and response reads the clock two dozen times


def elapsed() -> float:
    """Seconds on a clock that also counts the machine's sleep (Linux: CLOCK_BOOTTIME).

    On other systems the clock is the wall clock. A wall clock that is set forward then looks like
    sleep, which does no harm.
    """
    return _now()


def use_elapsed_time(reactor: Any) -> None:
    """Let the timers of a reactor follow elapsed() if they follow the wall clock.

    Otherwise a wall clock that is set back would delay all timers, and one that is set forward by
    more than an idle timeout would end every connection. Pending calls keep their times.
    """
    if isinstance(reactor, ReactorBase) and reactor.seconds is ReactorBase.seconds:
        offset = reactor.seconds() - elapsed()
        reactor.seconds = lambda: _now() + offset
