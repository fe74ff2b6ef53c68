"""Tests of p2pnet.core.peer.link: names looked up, tries repeated with backoff."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.link import CONNECT_TIMEOUT, LAST_RETRY, RETRY_JITTER, LinkState
from p2pnet.wire.address import Address
from tests.core.support import make_agent

RELAY = "relay.example:4433"


class LinkCase(SynchronousTestCase):
    """An agent whose packets nobody answers, driven by hand from one timer to the next."""

    def start(self, intermediate: str, seed: int = 1) -> None:
        """Connect to an Intermediate that is not there."""
        self.core = make_agent([intermediate], random.Random(seed).randbytes)
        self.now = 0.0
        self.events: list[events.Event] = []
        self.sent: list[Address] = []
        self.core.connect(0.0)
        self.drain()

    @property
    def state(self) -> LinkState:
        """Of the connection to the Intermediate."""
        return self.core.links[0].state

    def drain(self) -> None:
        """Take what the core has to say."""
        while (event := self.core.next_event()) is not None:
            self.events.append(event)
        self.sent += [address for _, address in self.core.datagrams_to_send(self.now)]

    def run_to(self, time: float) -> None:
        """Let time pass."""
        while (when := self.core.get_timer()) is not None and when <= time:
            self.now = max(self.now, when)
            self.core.handle_timer(self.now)
            self.drain()
        self.now = time

    def losses(self) -> Iterator[tuple[float, reports.ControlLost]]:
        """Each failure to connect, with its time."""
        while True:
            before = len(self.events)
            while len(self.events) == before:
                when = self.core.get_timer()
                assert when is not None
                self.run_to(when)
            (lost,) = self.events[before:]
            assert isinstance(lost, reports.ControlLost)
            yield self.now, lost

    def resolve(self, *hosts: str) -> None:
        """Answer the question for the name."""
        self.core.resolved(RELAY, list(hosts), self.now)
        self.drain()


class BackoffTests(LinkCase):
    """The time from one try to the next."""

    @settings(max_examples=15)
    @given(st.integers(min_value=0, max_value=2**32))
    def test_delays_double_up_to_30_seconds_with_bounded_jitter(self, seed: int) -> None:
        """1, 2, 4, 8, 16, 30, 30 seconds, 20 % more or less, each after 8 s of trying."""
        self.start("192.0.2.1:4433", seed)
        begun = 0.0
        for base, (now, lost) in zip([1, 2, 4, 8, 16, 30, 30, 30], self.losses(), strict=False):
            self.assertEqual("no answer within 8 s of connecting", lost.reason)
            self.assertAlmostEqual(begun + CONNECT_TIMEOUT, now, places=3)
            self.assertGreaterEqual(lost.retry_in, base * (1 - RETRY_JITTER) - 1e-3)
            self.assertLessEqual(lost.retry_in, base * (1 + RETRY_JITTER) + 1e-3)
            self.assertIs(LinkState.WAITING, self.state)
            begun = now + lost.retry_in
            self.run_to(begun + 2e-3)
            self.assertIs(LinkState.CONNECTING, self.state)

    def test_delays_differ_from_node_to_node(self) -> None:
        """Or all would come back at once."""
        delays = set()
        for seed in range(10):
            self.start("192.0.2.1:4433", seed)
            delays.add(next(self.losses())[1].retry_in)
        self.assertEqual(10, len(delays))

    def test_a_stopped_node_does_not_try_again(self) -> None:
        """At whatever point it is stopped; nothing is left to be done later."""
        for seconds in (0.0, 1.0, CONNECT_TIMEOUT + 0.1, 60.0):
            self.start("192.0.2.1:4433")
            self.run_to(seconds)
            self.core.close(self.now)
            self.drain()
            self.assertIs(LinkState.STOPPED, self.state)
            self.run_to(seconds + 10 * LAST_RETRY)
            self.assertIsNone(self.core.get_timer())


class ResolutionTests(LinkCase):
    """An Intermediate that is given by name."""

    def test_a_literal_needs_no_looking_up(self) -> None:
        """IPv4 or IPv6: the first packet leaves at once."""
        for name, address in (
            ("192.0.2.1:4433", ("192.0.2.1", 4433)),
            ("[2001:DB8::0001]:4433", ("2001:db8::1", 4433)),
        ):
            self.start(name)
            self.assertEqual([], self.events)
            self.assertEqual({address}, set(self.sent))

    def test_the_host_is_asked_and_nothing_is_sent_before_it_answers(self) -> None:
        """The name, and for which Intermediate."""
        self.start(RELAY)
        self.assertEqual([events.ResolutionNeeded(RELAY, "relay.example")], self.events)
        self.assertEqual([], self.sent)
        self.resolve("192.0.2.1")
        self.assertEqual({("192.0.2.1", 4433)}, set(self.sent))

    def test_each_try_asks_again_and_takes_the_next_address(self) -> None:
        """So that one dead address of several does not keep the node out."""
        self.start(RELAY)
        used = []
        for _ in range(5):
            self.assertIs(LinkState.RESOLVING, self.state)
            self.sent.clear()
            self.resolve("192.0.2.1", "2001:db8::1")
            (address,) = set(self.sent)
            used.append(address[0])
            now, lost = next(self.losses())
            self.run_to(now + lost.retry_in + 0.01)
        self.assertEqual(["192.0.2.1", "2001:db8::1"] * 2 + ["192.0.2.1"], used)

    def test_a_name_without_an_address_is_a_failure_with_a_reason(self) -> None:
        """And is tried again later."""
        self.start(RELAY)
        self.resolve()
        lost = self.events[-1]
        assert isinstance(lost, reports.ControlLost)
        self.assertEqual("the name relay.example has no address", lost.reason)
        self.run_to(self.now + 1.5)
        self.assertIs(LinkState.RESOLVING, self.state)

    def test_a_resolver_that_does_not_answer_is_named(self) -> None:
        """Rather than the network."""
        self.start(RELAY)
        _, lost = next(self.losses())
        self.assertEqual("no answer within 8 s of looking up the name", lost.reason)

    def test_an_answer_that_comes_too_late_or_to_another_question_is_ignored(self) -> None:
        """After the try was given up, after a stop, or for a name that nobody asked for."""
        self.start(RELAY)
        self.core.resolved("other.example:4433", ["192.0.2.9"], self.now)
        self.assertIs(LinkState.RESOLVING, self.state)
        self.run_to(CONNECT_TIMEOUT + 0.01)
        self.resolve("192.0.2.1")
        self.assertIs(LinkState.WAITING, self.state)
        self.core.close(self.now)
        self.resolve("192.0.2.1")
        self.assertIs(LinkState.STOPPED, self.state)
        self.assertEqual([], self.sent)
