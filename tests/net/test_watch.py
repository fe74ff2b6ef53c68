"""Tests of p2pnet.net.watch on a clock, with messages that the test sends."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.net import watch
from p2pnet.net.watch import DEBOUNCE, INTERVAL, LATE, MAX_DEBOUNCE, NetworkWatch
from tests.net.support import FakeReactor

STEP = DEBOUNCE / 2
NEW_ADDRESS, NEW_ROUTE = 20, 24  # RTM_* of Linux' rtnetlink.h


class BrokenSocket(socket.socket):
    """Raises this error when it is read from."""

    number = 0

    def recv(self, *_: Any) -> bytes:
        """Fail."""
        raise OSError(self.number, os.strerror(self.number))


class WatchCase(SynchronousTestCase):
    """A watch whose messages are sent by the test, whose snapshot and clock the test sets."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reports: list[str] = []
        self.addresses = ["192.0.2.1"]
        self.slept = 0.0
        self.kernel, self.messages = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.messages.setblocking(False)
        self.addCleanup(self.kernel.close)
        self.addCleanup(self.messages.close)
        self.watch = self.make(self.reactor)

    def make(self, reactor: Clock) -> NetworkWatch:
        """A watch, to be started."""
        made = NetworkWatch(
            reactor,
            open_messages=self.open,
            snapshot=lambda: list(self.addresses),
            clock=lambda: reactor.seconds() + self.slept,
        )
        self.addCleanup(made.stop)
        return made

    def changed(self, reason: str) -> None:
        """Take a report."""
        self.reports.append(reason)

    def open(self) -> socket.socket:
        """What the watch listens to."""
        return self.messages

    def say(self, *kinds: int) -> None:
        """The kernel sends messages of these types, which are read."""
        for kind in kinds or (NEW_ROUTE,):
            self.kernel.send(struct.pack("=IHHII", 116, kind, 0, 0, 0) + bytes(100))
        for reader in self.reactor.getReaders():
            reader.doRead()

    def pass_time(self, seconds: float) -> None:
        """So much and a little more, in steps short against every timer."""
        for _ in range(round(seconds / STEP) + 1):
            self.reactor.advance(STEP)


class ListeningTests(WatchCase):
    """Where the system tells of changes."""

    def setUp(self) -> None:
        super().setUp()
        self.watch.start(lambda reason: self.changed(reason))

    def test_the_reader_is_what_a_reactor_expects(self) -> None:
        """The interface is kept."""
        (reader,) = self.reactor.getReaders()
        verifyObject(IReadDescriptor, reader)

    def test_nothing_is_reported_while_nothing_changes(self) -> None:
        """The addresses are not even looked at."""
        self.addresses = ["192.0.2.2"]
        self.pass_time(10 * INTERVAL)
        self.assertEqual([], self.reports)

    def test_a_message_is_reported_after_it_settled(self) -> None:
        """Once, and the next one again; whether addresses changed does not matter."""
        for count in (1, 2):
            self.say(NEW_ADDRESS, NEW_ROUTE, NEW_ADDRESS)
            self.assertEqual(count - 1, len(self.reports))
            self.reactor.advance(DEBOUNCE)
            self.assertEqual(["addresses"] * count, self.reports)
            self.pass_time(INTERVAL)
            self.assertEqual(["addresses"] * count, self.reports)

    def test_a_renewed_address_is_no_change(self) -> None:
        """Unless another one is preferred now. What was said before it is over."""
        self.say()
        self.pass_time(DEBOUNCE)
        self.reports.clear()
        self.say(NEW_ADDRESS, NEW_ADDRESS)
        self.pass_time(DEBOUNCE)
        self.assertEqual([], self.reports)
        self.say(NEW_ADDRESS)
        self.addresses = ["192.0.2.2"]
        self.pass_time(DEBOUNCE)
        self.assertEqual(["addresses"], self.reports)
        self.say(NEW_ADDRESS)
        self.pass_time(DEBOUNCE)
        self.assertEqual(["addresses"], self.reports)

    def test_messages_that_come_together_are_one_change(self) -> None:
        """In one read or in several, as long as there is no pause."""
        self.say(*[NEW_ROUTE] * 10)
        for _ in range(3):
            self.reactor.advance(STEP)
            self.say()
        self.assertEqual([], self.reports)
        self.pass_time(INTERVAL)
        self.assertEqual(["addresses"], self.reports)

    def test_a_storm_does_not_postpone_the_report_for_ever(self) -> None:
        """While it lasts there is one now and then."""
        storms = 5
        for _ in range(round(storms * MAX_DEBOUNCE / STEP)):
            self.say()
            self.reactor.advance(STEP)
        self.assertIn(len(self.reports), (storms - 1, storms))

    def test_a_storm_leaves_the_reactor_its_time(self) -> None:
        """One read takes so many messages and no more."""
        self.patch(watch, "BATCH", 2)
        self.say(NEW_ROUTE, NEW_ROUTE, NEW_ADDRESS)
        self.assertEqual(watch.NEW_ADDRESS, self.messages.recv(100)[4:6])

    def test_what_a_handler_raises_is_logged(self) -> None:
        """And the next change is reported all the same."""

        def fail(reason: str) -> None:
            self.reports.append(reason)
            raise ValueError("a mistake of the handler")

        self.patch(self, "changed", fail)
        for _ in range(2):
            self.say()
            self.pass_time(DEBOUNCE)
        self.assertEqual(["addresses"] * 2, self.reports)
        self.assertEqual(2, len(self.flushLoggedErrors(ValueError)))

    def test_stop_leaves_nothing(self) -> None:
        """No reader, no timer, no descriptor, and no report of what was heard before."""
        self.say()
        self.watch.stop()
        self.assertEqual([], self.reactor.getReaders())
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assertEqual(-1, self.messages.fileno())
        self.pass_time(INTERVAL)
        self.assertEqual([], self.reports)
        self.watch.stop()

    def test_a_handler_may_stop_the_watch(self) -> None:
        """Nothing is left then either."""
        self.patch(self, "changed", lambda reason: self.watch.stop())
        self.slept = 2 * LATE
        self.pass_time(INTERVAL)
        self.assertEqual([], self.reactor.getReaders())
        self.assertEqual([], self.reactor.getDelayedCalls())


class TroubleTests(WatchCase):
    """Messages that cannot be had, or not any longer."""

    def start_with(self, number: int) -> Any:
        """Start with a socket that fails like this; returns its reader."""
        self.messages.close()
        self.messages = broken = BrokenSocket(socket.AF_UNIX, socket.SOCK_DGRAM)
        broken.number = number
        self.watch.start(lambda reason: self.changed(reason))
        return self.reactor.getReaders()[0]

    def assert_polling(self) -> None:
        """The socket is gone, and changes are noticed still."""
        self.assertEqual([], self.reactor.getReaders())
        self.assertEqual(-1, self.messages.fileno())
        self.reports.clear()
        self.pass_time(2 * INTERVAL)
        self.assertEqual([], self.reports)
        self.addresses = ["192.0.2.2"]
        self.pass_time(INTERVAL)
        self.assertEqual(["addresses"], self.reports)

    def test_an_overrun_is_a_change(self) -> None:
        """There were more messages than the socket could hold, and there will be others."""
        reader = self.start_with(errno.ENOBUFS)
        for count in (1, 2):
            reader.doRead()
            self.pass_time(DEBOUNCE)
            self.assertEqual(["addresses"] * count, self.reports)
        self.assertEqual([reader], self.reactor.getReaders())

    def test_after_any_other_error_the_watch_goes_on_without_messages(self) -> None:
        """What was missed meanwhile counts as a change."""
        self.start_with(errno.EBADMSG).doRead()
        self.pass_time(DEBOUNCE)
        self.assertEqual(["addresses"], self.reports)
        self.assert_polling()

    def test_a_reactor_may_give_the_socket_up(self) -> None:
        """Twisted's do when the kernel reports an error and nothing to read."""
        self.watch.start(lambda reason: self.changed(reason))
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionDone()))
        self.pass_time(DEBOUNCE)
        self.assertEqual(["addresses"], self.reports)
        self.assert_polling()

    def test_a_reactor_may_refuse_the_socket(self) -> None:
        """It is closed then."""
        self.reactor.refuses = True
        self.watch.start(lambda reason: self.changed(reason))
        self.assert_polling()


class PollingTests(WatchCase):
    """Where the system does not tell."""

    def setUp(self) -> None:
        super().setUp()
        self.opened = 0

    def open(self) -> socket.socket:
        """Fail, as under a policy that forbids it."""
        self.opened += 1
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    def test_other_addresses_are_reported_once(self) -> None:
        """Also when they return to what they were."""
        self.watch.start(lambda reason: self.changed(reason))
        self.assertEqual(1, self.opened)
        for count, address in enumerate(["192.0.2.2", "192.0.2.1"], 1):
            self.addresses = [address]
            self.pass_time(3 * INTERVAL)
            self.assertEqual(["addresses"] * count, self.reports)

    def test_a_reactor_without_descriptors_is_enough(self) -> None:
        """The socket is not even opened."""
        clock = Clock()
        polling = self.make(clock)
        polling.start(self.changed)
        self.addresses = []
        clock.advance(INTERVAL)
        self.assertEqual((["addresses"], 0), (self.reports, self.opened))
        polling.stop()
        self.assertEqual([], clock.getDelayedCalls())

    def test_the_snapshot_is_the_same_while_nothing_changes(self) -> None:
        """Of this machine, whatever its network is."""
        self.assertEqual(watch.take_snapshot(), watch.take_snapshot())


class SleepTests(WatchCase):
    """The machine sleeps: the clocks go on, and nothing runs."""

    def setUp(self) -> None:
        super().setUp()
        self.watch.start(lambda reason: self.changed(reason))

    def test_sleep_is_reported_once(self) -> None:
        """At the next look after it."""
        self.reactor.advance(INTERVAL - STEP)
        self.slept += 3600.0
        self.assertEqual([], self.reports)
        self.pass_time(3 * INTERVAL)
        self.assertEqual(["sleep"], self.reports)

    def test_a_process_that_stood_still_slept(self) -> None:
        """Then the timer is late on the clock that it was set by as well."""
        self.reactor.advance(INTERVAL + 2 * LATE)
        self.assertEqual(["sleep"], self.reports)

    def test_a_busy_machine_did_not_sleep(self) -> None:
        """A timer may be late."""
        self.reactor.advance(INTERVAL + LATE / 2)
        self.slept += LATE / 2
        self.pass_time(3 * INTERVAL)
        self.assertEqual([], self.reports)

    def test_a_clock_that_is_set_back_does_no_harm(self) -> None:
        """Where the calendar's has to do."""
        self.slept = -3600.0
        self.pass_time(3 * INTERVAL)
        self.assertEqual([], self.reports)
