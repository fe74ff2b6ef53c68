"""Tests of p2pnet.core.peer.link: names looked up, tries repeated, and what a node learns of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.backoff import (
    CONNECT_TIMEOUT,
    LAST_RETRY,
    QUICK_RETRY,
    QUICK_TIMEOUT,
    RETRY_JITTER,
)
from p2pnet.core.peer.link import LinkState
from p2pnet.core.peer.liveness import PING_IN_USE, PING_INTERVAL, PING_TIMEOUT
from p2pnet.quic import events as quic_events
from p2pnet.wire import messages
from p2pnet.wire.codes import ErrorCode
from tests.core.peer.links import INSTANCE, LITERAL, OBSERVED, RELAY, LinkCase

SESSION = bytes(16)


class BackoffTests(LinkCase):
    """The time from one try to the next."""

    @settings(max_examples=15)
    @given(st.integers(min_value=0, max_value=2**32))
    def test_delays_double_up_to_30_seconds_with_bounded_jitter(self, seed: int) -> None:
        """1, 2, 4, 8, 16, 30, 30 seconds, 20 % more or less, each after 8 s of trying."""
        self.start(LITERAL, seed)
        begun = 0.0
        for base, (now, lost) in zip([1, 2, 4, 8, 16, 30, 30, 30], self.losses(), strict=False):
            self.assertEqual("no answer within 8 s of connecting", lost.reason)
            self.assertAlmostEqual(begun + CONNECT_TIMEOUT, now, places=3)
            self.assertGreaterEqual(lost.retry_in, base * (1 - RETRY_JITTER) - 1e-3)
            self.assertLessEqual(lost.retry_in, base * (1 + RETRY_JITTER) + 1e-3)
            self.assertIs(LinkState.WAITING, self.link.state)
            begun = now + lost.retry_in
            self.run_to(begun + 2e-3)
            self.assertIs(LinkState.CONNECTING, self.link.state)

    def test_delays_differ_from_node_to_node(self) -> None:
        """Or all would come back at once."""
        delays = set()
        for seed in range(10):
            self.start(LITERAL, seed)
            delays.add(next(self.losses())[1].retry_in)
        self.assertEqual(10, len(delays))

    def test_a_stopped_node_does_not_try_again(self) -> None:
        """At whatever point it is stopped; nothing is left to be done later."""
        for seconds in (0.0, 1.0, CONNECT_TIMEOUT + 0.1, 60.0):
            self.start()
            self.run_to(seconds)
            for _ in range(2):
                self.link.stop("node stopped")
                self.assertIs(LinkState.STOPPED, self.link.state)
            self.run_to(seconds + 10 * LAST_RETRY)
            self.assertIsNone(self.timers.get_timer())

    def test_a_needed_node_tries_quickly_after_a_loss(self) -> None:
        """For a second, every 0.4 s or so."""
        self.start()
        self.come_up()
        self.node.is_needed = True
        lost = quic_events.ConnectionClosed(ErrorCode.PEER_LOST, "gone", True)
        self.handle(lost)
        begun = self.now
        now, _ = next(self.losses())
        self.assertLess(abs(now - begun - QUICK_RETRY - QUICK_TIMEOUT), 0.1)

    def test_a_quick_try_that_was_answered_goes_on(self) -> None:
        """The Intermediate is there, and another try would queue behind this one's place."""
        self.start()
        self.come_up()
        self.node.is_needed = True
        self.handle(quic_events.ConnectionClosed(ErrorCode.PEER_LOST, "gone", True))
        self.run_to(self.now + 2 * QUICK_RETRY)
        self.connection.answered = True
        begun = self.now
        now, _ = next(self.losses())
        self.assertLess(abs(now - begun - CONNECT_TIMEOUT), 2 * QUICK_RETRY)


class ResolutionTests(LinkCase):
    """An Intermediate that is given by name."""

    def resolve(self, *hosts: str) -> None:
        """Answer the question for the name."""
        self.link.resolved(list(hosts), self.now)

    def test_a_literal_needs_no_looking_up(self) -> None:
        """IPv4 or IPv6: the connection begins at once."""
        for name, address in (
            (LITERAL, ("192.0.2.1", 4433)),
            ("[2001:DB8::0001]:4433", ("2001:db8::1", 4433)),
        ):
            self.start(name)
            self.assertEqual([], self.node.events)
            self.assertEqual((address, address), (self.connection.address, self.link.address))
            self.assertEqual(address[0], self.node.hosts[-1])

    def test_a_name_without_a_port_is_refused_when_it_is_configured(self) -> None:
        """Not when the node starts."""
        self.assertRaises(ValueError, self.start, "relay.example")

    def test_the_host_is_asked_and_nothing_is_sent_before_it_answers(self) -> None:
        """The name, and for which Intermediate; the certificate must bear the name."""
        self.start(RELAY)
        self.assertEqual([events.ResolutionNeeded(RELAY, "relay.example")], self.node.events)
        self.assertEqual([], self.node.connections)
        self.resolve("192.0.2.1")
        self.assertEqual(("192.0.2.1", 4433), self.connection.address)
        self.assertEqual("relay.example", self.node.hosts[-1])

    def test_each_try_asks_again_and_takes_the_next_address(self) -> None:
        """So that one dead address of several does not keep the node out."""
        self.start(RELAY)
        for _ in range(5):
            self.assertIs(LinkState.RESOLVING, self.link.state)
            self.resolve("192.0.2.1", "2001:db8::1")
            now, lost = next(self.losses())
            self.run_to(now + lost.retry_in + 0.01)
        used = [connection.address[0] for connection in self.node.connections]
        self.assertEqual(["192.0.2.1", "2001:db8::1"] * 2 + ["192.0.2.1"], used)

    def test_a_name_without_an_address_is_a_failure_with_a_reason(self) -> None:
        """And is tried again later."""
        self.start(RELAY)
        self.resolve()
        self.assertEqual([("failed", "the name relay.example has no address")], self.node.calls)
        self.run_to(self.now + 1.5)
        self.assertIs(LinkState.RESOLVING, self.link.state)

    def test_a_resolver_that_does_not_answer_is_named(self) -> None:
        """Rather than the network."""
        self.start(RELAY)
        _, lost = next(self.losses())
        self.assertEqual("no answer within 8 s of looking up the name", lost.reason)

    def test_an_answer_that_comes_too_late_is_ignored(self) -> None:
        """After the try was given up, and after a stop."""
        self.start(RELAY)
        self.run_to(CONNECT_TIMEOUT + 0.01)
        self.resolve("192.0.2.1")
        self.assertIs(LinkState.WAITING, self.link.state)
        self.link.stop("node stopped")
        self.resolve("192.0.2.1")
        self.assertIs(LinkState.STOPPED, self.link.state)
        self.assertEqual([], self.node.connections)


class GreetingTests(LinkCase):
    """From the handshake to a link that is ready."""

    def test_a_welcome_makes_the_link_ready(self) -> None:
        """The node learns its address, and how long that took."""
        self.start()
        self.assertFalse(self.link.is_ready)
        self.come_up(0.25)
        self.assertEqual([messages.Hello(messages.VERSION, INSTANCE)], self.connection.sent)
        self.assertIs(self.link, self.connection.owner)
        address = ("203.0.113.1", 50000)
        self.assertEqual([("observed", address), ("ready", address, 0.25)], self.node.calls)
        self.assertEqual((address, 0.05), (self.link.observed, self.link.rtt))
        self.assertTrue(self.link.is_usable)
        self.assertGreater(self.connection.consumed, 0)

    def test_without_a_sample_half_of_the_greeting_is_the_round_trip_time(self) -> None:
        """The first packet was lost, and its repetition too."""
        self.start()
        self.connection.rtt = None
        self.come_up(0.4)
        self.assertEqual(0.2, self.link.rtt)

    def test_a_welcome_without_an_observed_address_will_do(self) -> None:
        """The address may come later. A second Welcome changes nothing."""
        self.start()
        self.prove()
        self.say(messages.Welcome(messages.VERSION), messages.Welcome(messages.VERSION))
        self.assertEqual([("ready", ("unknown", 0), 0.0)], self.node.calls)

    def test_another_major_version_is_a_failure_that_says_so(self) -> None:
        """What follows on that connection is ignored."""
        self.start()
        self.prove()
        self.say(messages.Welcome((3, 0)), OBSERVED)
        self.assertEqual([("failed", "it speaks p2pnet/3, this node p2pnet/2")], self.node.calls)
        self.assertIsNotNone(self.connection.closed)

    def test_a_message_about_sessions_counts_only_after_the_welcome(self) -> None:
        """Then the node gets it."""
        closed = messages.SessionClosed(SESSION, 0, "over")
        self.start()
        self.prove()
        self.say(closed)
        self.assertEqual([], self.node.calls)
        self.say(messages.Welcome(messages.VERSION), closed)
        self.assertEqual(("message", closed), self.node.calls[-1])

    def test_an_address_is_told_when_it_changes(self) -> None:
        """Not when an older message comes late, nor when it is no address."""
        self.start()
        self.come_up()
        del self.node.calls[:]
        for sequence, host in ((1, "203.0.113.1"), (3, "203.0.113.9"), (2, "203.0.113.5")):
            self.say(messages.ObservedAddress(sequence, host, 50000))
        self.say(messages.ObservedAddress(4, "localhost", 50000))
        self.assertEqual([("observed", ("203.0.113.9", 50000))], self.node.calls)
        self.assertEqual(("203.0.113.9", 50000), self.link.observed)

    def test_a_message_that_is_sent_without_a_connection_is_dropped(self) -> None:
        """Before the first one, and between two."""
        self.start(RELAY)
        self.link.send(OBSERVED)
        self.link.resolved(["192.0.2.1"], 0.0)
        self.link.send(OBSERVED)
        self.assertEqual([OBSERVED], self.connection.sent)


class LossTests(LinkCase):
    """Ways in which the connection ends."""

    def setUp(self) -> None:
        """The link is up."""
        self.start()
        self.come_up()
        del self.node.calls[:]

    def test_malformed_bytes_close_the_connection(self) -> None:
        """With the code for that."""
        data = b"\x00\x00\x00\x01\xff"
        self.handle(quic_events.StreamDataReceived(messages.CONTROL_STREAM, data, False))
        assert self.connection.closed is not None
        self.assertEqual(ErrorCode.PROTOCOL_ERROR, self.connection.closed[0])
        self.assertIn("message: ", self.link.last_error)
        self.assertIs(LinkState.WAITING, self.link.state)

    def test_a_closed_connection_is_reported_with_its_reason_or_code(self) -> None:
        """And the observed address is not known any more."""
        self.handle(quic_events.ConnectionClosed(0x1E, "", True))
        self.assertEqual([("failed", "closed with code 0x1e")], self.node.calls)
        self.assertIsNone(self.link.observed)
        (lost,) = self.node.events
        assert isinstance(lost, reports.ControlLost)
        self.assertEqual((LITERAL, "closed with code 0x1e"), (lost.intermediate, lost.reason))

    def test_what_an_earlier_connection_says_is_ignored(self) -> None:
        """Its last packets may come late."""
        earlier = self.connection
        self.handle(quic_events.ConnectionClosed(0, "gone", True))
        self.link.handle(earlier, quic_events.ConnectionClosed(0, "again", True), self.now)
        self.run_to(self.now + 1.5)
        self.assertIs(LinkState.CONNECTING, self.link.state)
        self.link.handle(earlier, quic_events.ConnectionClosed(0, "again", True), self.now)
        self.assertEqual([("failed", "gone")], self.node.calls)

    def test_a_superseded_node_does_not_fight_with_the_other_process(self) -> None:
        """Its next try comes after the longest delay."""
        self.node.is_needed = True
        self.say(messages.Goodbye(ErrorCode.SUPERSEDED, "another process"), OBSERVED)
        (lost,) = self.node.events
        assert isinstance(lost, reports.ControlLost)
        self.assertGreaterEqual(lost.retry_in, LAST_RETRY * (1 - RETRY_JITTER))
        self.assertEqual([("failed", "another process")], self.node.calls)

    def test_a_draining_intermediate_is_ready_but_takes_no_new_sessions(self) -> None:
        """Until the node is connected again."""
        self.say(messages.Draining(5.0))
        self.assertEqual([("draining", 5.0)], self.node.calls)
        self.assertEqual((True, False), (self.link.is_ready, self.link.is_usable))
        self.handle(quic_events.ConnectionClosed(0, "gone", True))
        self.run_to(self.now + 1.5)
        self.come_up()
        self.assertTrue(self.link.is_usable)

    def test_an_event_of_no_concern_is_ignored(self) -> None:
        """The Intermediate may reset what it likes."""
        self.handle(quic_events.StreamReset(0, 0))
        self.assertTrue(self.link.is_ready)

    def test_a_connection_that_is_lost_while_it_is_stopped_is_not_made_again(self) -> None:
        """The node is told nothing more."""
        connection = self.connection
        self.link.stop("node stopped")
        self.assertEqual((ErrorCode.SHUTDOWN, "node stopped"), connection.closed)
        self.link.handle(connection, quic_events.ConnectionClosed(0, "gone", True), self.now)
        self.assertEqual([], self.node.calls)


class PingTests(LinkCase):
    """What test_liveness says, of a link."""

    def setUp(self) -> None:
        """The link is up, at time 0."""
        self.start()
        self.come_up(0.0)
        del self.node.calls[:]

    def answer(self) -> None:
        """Let the Intermediate answer a ping."""
        self.handle(quic_events.PingAnswered())

    def test_answered_pings_keep_an_idle_connection(self) -> None:
        """And measure the round-trip time."""
        for number in range(1, 5):
            self.run_to(number * PING_INTERVAL + 0.1 * number)
            self.assertEqual(number, self.connection.pings)
            self.connection.rtt = 0.01 * number
            self.answer()
            self.assertEqual(0.01 * number, self.link.rtt)
        self.assertTrue(self.link.is_ready)

    def test_an_unanswered_ping_fails_the_link(self) -> None:
        """With the time that the answer had."""
        self.run_to(PING_INTERVAL + PING_TIMEOUT)
        self.assertEqual([("failed", "no answer to a ping within 5 s")], self.node.calls)

    def test_silence_is_noticed_sooner_while_streams_are_relayed(self) -> None:
        """The node says whether they are; relayed packets are no silence."""
        self.node.in_use = True
        self.run_to(3.0)
        self.node.last_relayed = self.now
        self.run_to(3.0 + PING_IN_USE - 0.1)
        self.assertEqual(0, self.connection.pings)
        self.run_to(3.0 + PING_IN_USE)
        self.assertEqual(1, self.connection.pings)
        self.run_to(3.0 + PING_IN_USE + 2.01)
        self.assertEqual([("failed", "no answer to a ping within 2 s")], self.node.calls)

    def test_a_probe_pings_at_once_and_only_once(self) -> None:
        """Of two, the second does nothing; nor does one while the link is down."""
        for _ in range(2):
            self.link.probe(0.0)
        self.assertEqual(1, self.connection.pings)
        self.run_to(2.0)
        self.assertEqual([("failed", "no answer to a ping within 2 s")], self.node.calls)
        self.link.probe(self.now)
        self.assertEqual(5, self.connection.pings)

    def test_another_network_is_probed(self) -> None:
        """QUIC learns of it, and a probe under way begins anew."""
        self.link.probe(0.0)
        self.link.network_changed(0.0)
        self.assertEqual((2, 1), (self.connection.pings, self.connection.path_changes))

    def test_another_network_ends_the_wait_for_the_next_try(self) -> None:
        """Which begins at once."""
        self.handle(quic_events.ConnectionClosed(0, "gone", True))
        self.link.network_changed(self.now)
        self.run_to(self.now)
        self.assertIs(LinkState.CONNECTING, self.link.state)
        self.assertEqual(2, len(self.node.connections))
        self.link.network_changed(self.now)
        self.assertEqual((0, 2), (self.connection.pings, len(self.node.connections)))

    def test_an_answer_before_the_welcome_is_no_concern(self) -> None:
        """No ping was sent."""
        self.start()
        self.answer()
        self.assertEqual(0.0, self.link.rtt)
