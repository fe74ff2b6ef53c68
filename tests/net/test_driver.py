"""Tests of p2pnet.net.driver: one pump for many datagrams, and no exception ends a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2pnet import reports
from p2pnet.core import events
from p2pnet.interfaces import Datagrams, Forward, IDatagramTransport
from p2pnet.net.driver import Driver
from p2pnet.testing.network import SimulatedNetwork
from p2pnet.wire.address import Address

HERE: Address = ("192.0.2.1", 1)
THERE: Address = ("192.0.2.2", 2)


class Bug(Exception):
    """Something nobody thought of."""


class Scripted:
    """A core that does as it is told, and notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.received: list[bytes] = []
        self.pending: list[events.Event] = []
        self.outgoing: list[tuple[bytes, Address]] = []
        self.caused: list[events.Event] = []  # by sending
        self.timer: float | None = None
        self.broken = ""

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.broken == call:
            raise Bug(call)

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """Keep it, and answer."""
        self._note("receive")
        self.received.append(data)
        self.outgoing.append((b"answer to " + data, address))

    def forward_joined(self, data: bytes, size: int, source: Address, now: float) -> Address | None:
        """To another place."""
        self._note("forward")
        return THERE

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """What is due."""
        self._note("send")
        datagrams, self.outgoing = self.outgoing, []
        self.pending += self.caused
        self.caused = []
        return datagrams

    def next_event(self) -> events.Event | None:
        """One after the other."""
        if self.broken == "event":
            self._note("event")
        return self.pending.pop(0) if self.pending else None

    def get_timer(self) -> float | None:
        """When to be called."""
        return self.timer

    def handle_timer(self, now: float) -> None:
        """Not again."""
        assert self.timer is not None and now >= self.timer
        self.timer = None
        self._note("timer")


class DriverTests(SynchronousTestCase):
    """A core, a socket and a clock."""

    def setUp(self) -> None:
        """A running driver."""
        self.clock = Clock()
        self.core = Scripted()
        self.handled: list[Any] = []
        self.handle: Callable[[Any], Any] = self.handled.append
        self.transport = Kept()
        self.driver = Driver(self.core, self.transport, self.clock, lambda e: self.handle(e))
        self.driver.start()

    def forwarding(self) -> Forward:
        """What the transport asks where to forward to, once a driver wants it."""
        self.assertIsNone(self.transport.forward)
        clock, core = self.clock, self.core
        Driver(core, self.transport, clock, self.handle, core.forward_joined).start()
        assert self.transport.forward is not None
        return self.transport.forward

    def test_what_came_joined_may_be_forwarded_as_it_is(self) -> None:
        """The core says where to, and its timer is set if there is none."""
        forward = self.forwarding()
        self.core.timer = 5.0
        self.assertEqual(THERE, forward(b"onetwo", 3, HERE))
        self.assertEqual([5.0], [call.getTime() for call in self.clock.getDelayedCalls()])

    def test_a_core_that_fails_to_forward_receives_instead(self) -> None:
        """It is a failure like any other."""
        forward = self.forwarding()
        self.core.broken = "forward"
        self.assertIsNone(forward(b"onetwo", 3, HERE))
        self.assertEqual(1, len(self.flushLoggedErrors(Bug)))

    def pump(self) -> None:
        """Let what was asked for happen."""
        self.clock.advance(0)

    def report(self, number: int) -> reports.DrainFinished:
        """An event for people."""
        return reports.DrainFinished(number)

    def need(self, number: int) -> events.OpenerNeeded:
        """An event for the host."""
        return events.OpenerNeeded(b"%d" % number, THERE, 1)

    def test_many_datagrams_are_answered_by_one_flush(self) -> None:
        """All that waited are received before anything is sent, and at once."""
        self.transport.receive([(b"%d" % number, THERE) for number in range(5)])
        self.assertEqual(["receive"] * 5 + ["send"], self.core.calls)
        self.assertEqual([[(b"answer to %d" % n, THERE) for n in range(5)]], self.transport.batches)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_datagrams_that_come_one_by_one_are_answered_by_one_flush_too(self) -> None:
        """Soon, when there are no more of them."""
        self.transport.gathers = False
        for number in range(5):
            self.transport.receive([(b"%d" % number, THERE)])
        self.assertEqual(["receive"] * 5, self.core.calls)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.pump()
        self.assertEqual([[(b"answer to %d" % n, THERE) for n in range(5)]], self.transport.batches)

    def test_a_batch_takes_the_place_of_a_pump_that_was_asked_for(self) -> None:
        """There is nothing left for it to do."""
        self.driver.wake()
        self.transport.receive([(b"hello", THERE)])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_handler_needs_no_pump_of_its_own(self) -> None:
        """What it asks for is sent with the rest; a later wake is one as ever."""

        def handle(event: Any) -> None:
            self.core.outgoing.append((b"about it", THERE))
            self.driver.wake()

        self.handle = handle
        self.core.pending = [self.need(1)]
        self.transport.receive([(b"hello", THERE)])
        expected = [[(b"answer to hello", THERE), (b"about it", THERE)]]
        self.assertEqual(expected, self.transport.batches)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.driver.wake()
        self.assertEqual(1, len(self.clock.getDelayedCalls()))

    def test_many_wakes_are_one_pump(self) -> None:
        """However often the host asks for something."""
        for _ in range(5):
            self.driver.wake()
        self.pump()
        self.assertEqual(["send"], self.core.calls)

    def test_a_wake_that_may_wait_goes_with_the_next_pump(self) -> None:
        """At its own time if there is none, and never later than another one asks for."""
        self.driver.wake(1.0)
        self.driver.wake(1.0)
        self.clock.advance(0.9)
        self.assertEqual([], self.core.calls)
        self.clock.advance(0.1)
        self.assertEqual(["send"], self.core.calls)
        self.driver.wake(1.0)
        self.driver.wake()
        self.driver.wake(1.0)
        self.pump()
        self.assertEqual(["send"] * 2, self.core.calls)
        self.driver.wake(1.0)
        self.transport.receive([(b"question", THERE)])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_events_come_before_what_is_sent_and_again_after_it(self) -> None:
        """A handler may give the core something to send, and sending may make events."""
        self.core.pending = [self.need(1), self.need(2)]
        self.core.outgoing = [(b"one", THERE)]
        self.core.caused = [self.need(3)]

        def handle(event: Any) -> None:
            self.handled.append(event)
            self.core.outgoing.append((b"about " + event.data, THERE))

        self.handle = handle
        self.driver.wake()
        self.pump()
        self.assertEqual([self.need(1), self.need(2), self.need(3)], self.handled)
        expected = [b"one", b"about 1", b"about 2", b"about 3"]
        self.assertEqual(expected, [d for d, _ in self.transport.sent])

    def test_reports_come_after_what_is_sent(self) -> None:
        """The other end does not wait until a log is written; what is asked for then is sent."""
        sent: list[list[bytes]] = []

        def handle(event: Any) -> None:
            self.handled.append(event)
            sent.append([data for data, _ in self.transport.sent])
            if event == self.report(1):
                self.core.outgoing.append((b"about it", THERE))

        self.handle = handle
        self.core.pending = [self.report(1), self.need(2), self.report(3)]
        self.transport.receive([(b"hello", THERE)])
        self.assertEqual([self.need(2), self.report(1), self.report(3)], self.handled)
        self.assertEqual([[], [b"answer to hello"], [b"answer to hello"]], sent)
        self.assertEqual([b"answer to hello", b"about it"], [d for d, _ in self.transport.sent])

    def test_a_flush_is_a_pump_at_once_but_not_one_after_the_other(self) -> None:
        """What is asked for right after one goes together."""
        self.clock.advance(1.0)
        for number in range(3):
            self.core.outgoing.append((b"%d" % number, THERE))
            self.driver.flush()
        self.assertEqual([[(b"0", THERE)]], self.transport.batches)
        self.pump()
        self.assertEqual([[(b"1", THERE), (b"2", THERE)]], self.transport.batches[1:])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_flush_within_a_pump_is_part_of_it(self) -> None:
        """Nothing is pumped twice at a time."""

        def handle(event: Any) -> None:
            self.core.outgoing.append((b"about it", THERE))
            self.driver.flush()

        self.handle = handle
        self.clock.advance(1.0)
        self.core.pending = [self.need(1)]
        self.driver.flush()
        self.assertEqual([[(b"about it", THERE)]], self.transport.batches)
        self.assertEqual(["send"], self.core.calls)

    def test_a_stopped_driver_flushes_nothing(self) -> None:
        """There is no socket any more."""
        self.successResultOf(self.driver.stop())
        self.core.calls.clear()
        self.clock.advance(1.0)
        self.driver.flush()
        self.assertEqual([], self.core.calls)

    def test_a_handler_that_raises_is_logged_and_counted_and_the_rest_goes_on(self) -> None:
        """By the name of the event."""

        def handle(event: Any) -> None:
            self.handled.append(event)
            raise Bug

        self.handle = handle
        self.core.pending = [self.report(1), self.report(2)]
        self.core.outgoing = [(b"one", THERE)]
        self.driver.wake()
        self.pump()
        self.assertEqual(2, len(self.handled))
        self.assertEqual([(b"one", THERE)], self.transport.sent)
        self.assertEqual(2, len(self.flushLoggedErrors(Bug)))
        self.assertEqual({"DrainFinished": 2}, dict(self.driver.errors))

    def test_a_core_that_raises_is_logged_and_counted_and_called_again(self) -> None:
        """While receiving, sending, or at its time."""
        for number, broken in enumerate(("receive", "send", "timer"), 1):
            self.core.broken, self.core.timer = broken, 1.0 * number
            self.transport.receive([(b"first", THERE)])
            self.pump()
            self.clock.advance(1.0)
            self.assertEqual(1, self.driver.errors[broken] if broken != "send" else 1)
            self.assertGreaterEqual(len(self.flushLoggedErrors(Bug)), 1)
            self.core.broken = ""
            self.transport.batches.clear()
            self.transport.receive([(b"second", THERE)])
            self.pump()
            self.assertIn((b"answer to second", THERE), self.transport.sent)

    def test_regression_a_core_that_fails_to_give_an_event_stopped_its_node(self) -> None:
        """The exception reached the reactor: nothing was sent, and the timer was not set."""
        self.core.broken, self.core.timer = "event", 5.0
        self.transport.receive([(b"one", THERE)])
        self.clock.advance(0)
        self.assertEqual({"event": 1}, dict(self.driver.errors))
        self.assertEqual([(b"answer to one", THERE)], self.transport.sent)
        self.assertEqual([5.0], [call.getTime() for call in self.clock.getDelayedCalls()])
        self.assertEqual(1, len(self.flushLoggedErrors(Bug)))

    def test_the_timer_is_set_moved_and_never_early(self) -> None:
        """An earlier one replaces a later one; a later one may be found out at the old time."""
        self.core.timer = 10.0
        self.driver.wake()
        self.pump()
        self.core.timer = 5.0
        self.driver.wake()
        self.pump()
        self.core.calls.clear()
        self.core.timer = 7.0
        self.clock.advance(5.0)
        self.assertEqual([], self.core.calls)  # nor pumped for nothing
        self.clock.advance(1.999)
        self.assertEqual([], self.core.calls)
        self.clock.advance(0.001)
        self.assertEqual(1, self.core.calls.count("timer"))
        self.clock.advance(100.0)
        self.assertEqual(1, self.core.calls.count("timer"))

    def test_a_timer_that_stays_the_same_is_not_set_again(self) -> None:
        """Although a clock that runs while it is set puts the call a little later than asked."""
        self.clock.callLater = lambda delay, *call: Clock.callLater(  # type: ignore[method-assign]
            self.clock, delay + 1e-5, *call
        )
        self.core.timer = 5.0
        calls = []
        for _ in range(2):
            self.driver.wake()
            self.clock.advance(1e-5)
            calls.append(self.clock.getDelayedCalls())
        self.assertEqual(1, len(calls[0]))
        self.assertIs(calls[0][0], calls[1][0])

    def test_a_stop_sends_what_is_left_and_leaves_nothing_to_do(self) -> None:
        """No delayed call, and no more datagrams taken or pumps made."""
        self.core.timer = 5.0
        self.driver.wake()
        self.pump()
        self.core.outgoing = [(b"goodbye", THERE)]
        self.driver.wake()
        self.successResultOf(self.driver.stop())
        self.assertEqual([(b"goodbye", THERE)], self.transport.sent)
        self.assertFalse(self.transport.started)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.driver.wake()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_socket_that_cannot_be_opened_is_the_callers_to_know(self) -> None:
        """start() raises what the transport raises."""
        network = SimulatedNetwork()
        first, second = (network.transport(*HERE) for _ in range(2))
        self.assertTrue(verifyObject(IDatagramTransport, first))
        Driver(self.core, first, self.clock, self.handle).start()
        other = Driver(self.core, second, self.clock, self.handle)
        self.assertRaises(CannotListenError, other.start)


@implementer(IDatagramTransport)
class Kept:
    """A socket in memory."""

    gathers = True
    forward: Forward | None = None

    def __init__(self) -> None:
        self.receive: Callable[[Datagrams], Any]
        self.batches: list[Datagrams] = []
        self.started = False

    @property
    def sent(self) -> list[tuple[bytes, Address]]:
        """All datagrams."""
        return [item for batch in self.batches for item in batch]

    def start(self, receive: Callable[[Datagrams], Any]) -> None:
        """Open."""
        self.receive, self.started = receive, True

    def send(self, datagrams: Datagrams, ttl: int | None = None) -> None:
        """Keep."""
        self.batches.append(datagrams)

    def get_address(self) -> Address:
        """Always the same."""
        return HERE

    def stop(self) -> None:
        """Close."""
        self.started = False
