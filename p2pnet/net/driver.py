"""Drives a sans-IO core: datagrams in, events to the host, datagrams out, one timer."""

import collections
import functools
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from p2pnet.core.events import Event, OwnerEvent
from p2pnet.interfaces import Datagrams, IDatagramTransport
from p2pnet.reports import Report
from p2pnet.wire.address import Address


class Core(Protocol):
    """The five verbs of every core."""

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None: ...
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]: ...
    def next_event(self) -> Event | None: ...
    def get_timer(self) -> float | None: ...
    def handle_timer(self, now: float) -> None: ...


class Pump(Protocol):
    """The part of Driver by which a user of the core asks for its work to be sent."""

    def wake(self, within: float = 0.0) -> None: ...
    def flush(self) -> None: ...


Forwarder = Callable[[bytes, int, Address, float], Address | None]
"""A core's counterpart of IDatagramTransport.forward, with the time (s) as last argument."""


TOGETHER = 200e-6  # seconds after a flush in which a further flush waits for more writes


class Driver:
    """Pumps `core` over `transport`.

    The driver receives all datagrams of a batch, then handles the events, then sends all datagrams
    and sets the timer: once for the batch, not once for each datagram. It handles Reports last,
    because no peer waits for them.

    :param handle: gets each event.
    :param forward: the core's forwarder of joined datagrams, see IDatagramTransport.
    :ivar errors: number of exceptions that the core or a handler raised, by the step that raised;
        each is logged and the node goes on.
    """

    log = Logger()

    def __init__(
        self,
        core: Core,
        transport: IDatagramTransport,
        clock: IReactorTime,
        handle: Callable[[Event], Any],
        forward: Forwarder | None = None,
    ) -> None:
        self.errors: collections.Counter[str] = collections.Counter()
        self._core = core
        self._transport = transport
        self._clock = clock
        self._handle = handle
        self._pump_call: IDelayedCall | None = None
        self._may_wait = False  # whether an urgent wake() moves that call to the present
        self._timer_call: IDelayedCall | None = None
        self._timer_at = 0.0
        self._flushed_at = 0.0
        self._running = False
        self._pumping = False
        if forward is not None:
            transport.forward = functools.partial(self._forward, forward)

    @property
    def now(self) -> float:
        """The time that the core gets, in seconds of the clock."""
        return float(self._clock.seconds())

    def start(self) -> None:
        """Open the socket. Raises CannotListenError."""
        self._transport.start(self._receive)
        self._running = True

    def stop(self) -> Deferred[Any]:
        """Send the last datagrams and close the socket. The Deferred fires once it is closed."""
        self._pump()
        self._running = False
        for call in (self._pump_call, self._timer_call):
            if call is not None and call.active():
                call.cancel()
        return maybeDeferred(self._transport.stop)

    def wake(self, within: float = 0.0) -> None:
        """Pump the core soon: once for all calls until then.

        An event handler need not call this: the driver pumps when the handler has returned.

        :param within: seconds that pumping may wait for further work to go with.
        """
        if not self._running or self._pumping:
            return
        if self._pump_call is None:
            self._pump_call = self._clock.callLater(within, self._pump)
        elif self._may_wait and not within:
            self._pump_call.reset(0)
        else:
            return
        self._may_wait = within > 0

    def flush(self) -> None:
        """Pump the core before this returns, unless a flush less than TOGETHER ago did so.

        Events may be delivered before this returns; the caller must be reentrant.
        """
        if self._pumping or self.now - self._flushed_at < TOGETHER:
            self.wake()
        elif self._running:
            self._pump()
            self._flushed_at = self.now

    def _receive(self, datagrams: Datagrams) -> None:
        now, receive = self.now, self._core.receive_datagram
        for data, address in datagrams:
            try:
                receive(data, address, now)
            except Exception:
                self._failed("receive")
        if self._transport.gathers:
            self._pump()
        else:
            self.wake()

    def _forward(
        self, forward: Forwarder, datagrams: bytes, size: int, source: Address
    ) -> Address | None:
        try:
            target = forward(datagrams, size, source, self.now)
        except Exception:
            self._failed("forward")
            return None
        if self._timer_call is None:
            self._set_timer()
        return target

    def _failed(self, where: str) -> None:
        self.errors[where] += 1
        self.log.failure("while handling {where}", where=where)

    def _pump(self) -> None:
        call, self._pump_call = self._pump_call, None
        if call is not None and call.active():
            call.cancel()  # this pump does its work
        self._pumping = True
        try:
            self._handle_and_send()
        except Exception:  # of next_event(), in which a core handles packets too
            self._failed("event")
            self._send_all()
        finally:
            self._pumping = False
        self._set_timer()

    def _handle_and_send(self) -> None:
        core = self._core
        event: Event | None = core.next_event()
        goes_on = self._running
        while goes_on:
            reports = []
            while event is not None:
                if isinstance(event, Report):
                    reports.append(event)
                else:
                    self._handle_guarded(event)
                event = core.next_event()
            self._send_all()
            for report in reports:
                self._handle_guarded(report)
            event = core.next_event()  # sending causes events too
            goes_on = self._running and (event is not None or bool(reports))

    def _handle_guarded(self, event: Event) -> None:
        try:
            if isinstance(event, OwnerEvent):
                event.deliver()
            else:
                self._handle(event)
        except Exception:
            self._failed(type(event).__name__)

    def _send_all(self) -> None:
        try:
            datagrams = self._core.datagrams_to_send(self.now)
        except Exception:
            self._failed("send")
            return
        if datagrams:
            self._transport.send(datagrams)

    def _set_timer(self) -> None:
        if not self._running:
            return
        when = self._core.get_timer()
        call = self._timer_call
        if call is not None and call.active():
            # A call that comes too early does no harm: it sets the right time then. Compare with
            # the time that the core asked for: callLater() adds the time that its own call took.
            if when is None or self._timer_at <= when:
                return
            call.cancel()
        if when is not None:
            self._timer_at = when
            self._timer_call = self._clock.callLater(max(0.0, when - self.now), self._timer)

    def _timer(self) -> None:
        self._timer_call = None
        # Not a rounding error before its time, or the core would ask for it again for ever.
        now = max(self.now, self._timer_at)
        when = self._core.get_timer()
        if when is None or when > now:  # it was put off since it was set
            self._set_timer()
            return
        try:
            self._core.handle_timer(now)
        except Exception:
            self._failed("timer")
        self._pump()
