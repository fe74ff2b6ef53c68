"""The clocks: the calendar's, and one that goes on evenly whatever becomes of the calendar."""

import datetime
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase


def utcnow() -> datetime.datetime:
    """The calendar's time, with the time zone UTC."""
    return datetime.datetime.now(datetime.UTC)


def _read() -> Callable[[], float]:
    if sys.platform == "linux":
        return functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.time


_now = _read()  # asked two dozen times for each request and response


def elapsed() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is one.

    Elsewhere it is the calendar's: setting that forward looks like sleep, which does no harm.
    """
    return _now()


def use_elapsed_time(reactor: Any) -> None:
    """Let a reactor's timers follow that clock from now on, if it has them follow the calendar.

    Else a date that is set back would hold them up, and one that is set forward by more than an
    idle timeout would end every connection. What is already to be called stays when it was.
    """
    if isinstance(reactor, ReactorBase) and reactor.seconds is ReactorBase.seconds:
        offset = reactor.seconds() - elapsed()
        reactor.seconds = lambda: _now() + offset
