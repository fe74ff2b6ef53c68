"""Tests of p2pnet.core.peer.node: where each datagram goes, and what links and sessions ask for."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core.events import ResolutionNeeded
from p2pnet.core.peer.agent import DIRECT_TIMEOUT
from p2pnet.core.peer.finder import REQUEST_TIMEOUT
from p2pnet.core.peer.node import PeerCore
from p2pnet.core.peer.stream import Stream, StreamClosed
from p2pnet.identity import Role
from p2pnet.quic.flow_control import CONNECTION_WINDOW
from p2pnet.wire.address import Address
from p2pnet.wire.check import Check, CheckKind, encode_request
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.path_messages import PATHS_STREAM
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.core.peer.cores import RELAYS, UP, CoreCase
from tests.core.support import credentials, make_agent, make_connector, make_intermediate

STRANGER: Address = ("192.0.2.66", 1)
RELAY: Address = (RELAYS[0], 4433)
OTHER_RELAY: Address = (RELAYS[1], 4433)


class RelayedCase(CoreCase):
    """A session whose packets go through the first Intermediate."""

    def setUp(self) -> None:
        """A talk is under way."""
        super().setUp()
        self.ours, self.theirs = self.talk()

    def dropped(self, data: bytes, source: Address = STRANGER) -> dict[str, int]:
        """What the connector counts when a datagram arrives."""
        before = self.office.dropped
        self.office.receive_datagram(data, source, self.now)
        after = self.office.dropped
        return {
            cause: n - before.get(cause, 0)
            for cause, n in after.items()
            if n != before.get(cause, 0)
        }


class DatagramTests(RelayedCase):
    """What arrives, told apart by its first byte."""

    def test_what_is_nothing_of_ours_is_counted(self) -> None:
        """By cause; no datagram is counted twice."""
        frame = encode_relay_frame(self.channel(0, self.connector.session.id, UP), b"\x40packet")
        check = encode_request(Check(CheckKind.REQUEST, bytes(12), "AAAAAAAA:x"), "a guess")
        for data, source, cause in (
            (b"", STRANGER, "unknown"),
            (b"\x80", STRANGER, "quic"),
            (b"\x10", STRANGER, "unknown"),
            (frame, STRANGER, "relay_unknown"),
            (frame, OTHER_RELAY, "relay_unknown"),
            (frame[:9], RELAY, "relay_payload"),
            (frame[:9] + b"\x00", RELAY, "relay_payload"),
            (frame, RELAY, "quic"),
            (b"\x00\x01", STRANGER, "stun"),
            (check, STRANGER, "stun"),
        ):
            self.assertEqual({cause: 1}, self.dropped(data, source), data)
        self.assertEqual([], self.office.datagrams_to_send(self.now))
        self.assertIsNone(self.office.next_event())

    def test_a_relayed_packet_shows_that_its_relay_works(self) -> None:
        """Only an authentic one, and no replay of it."""
        self.ours.write(b"question")
        ((frame, address),) = self.agent.pump(self.now)
        self.assertEqual(RELAY, address)
        link = self.connector.links[0]
        before = self.office.relayed_at(link)
        self.now += 1.0
        self.office.receive_datagram(frame[:-1] + b"x", address, self.now)
        self.assertEqual(before, self.office.relayed_at(link))
        self.office.receive_datagram(frame, address, self.now)
        self.assertEqual(self.now, self.office.relayed_at(link))
        self.now += 1.0
        self.office.receive_datagram(frame, address, self.now)
        self.assertEqual(self.now - 1.0, self.office.relayed_at(link))
        self.connector.pump(self.now)
        self.assertEqual(b"question", self.theirs.owner.data)

    def test_regression_an_intermediate_that_relays_nothing_any_more_is_forgotten(self) -> None:
        """The time of its last packet stayed, for every address that an Intermediate ever had."""
        link = self.connector.links[0]
        self.assertIsNotNone(self.office.relayed_at(link))
        self.assertIsNone(self.office.relayed_at(self.connector.links[1]))
        self.lose(self.connector, 0)
        self.assertIsNone(self.office.relayed_at(link))
        self.core.sessions.end(self.agent.session, ErrorCode.NO_ERROR, "", self.now)
        for core in (self.core, self.office):
            self.assertEqual({}, core._relayed_at)
        link.address = None
        self.assertIsNone(self.office.relayed_at(link))

    def test_an_intermediate_in_use_is_watched_more_closely(self) -> None:
        """While it relays a session that has streams."""
        first, second = self.agent.links
        self.assertTrue(self.core.relays_streams(first))
        self.assertFalse(self.core.relays_streams(second))
        self.ours.reset()
        self.assertFalse(self.core.relays_streams(first))

    def test_a_core_is_for_credentials_of_its_role(self) -> None:
        """The error names them."""
        office = credentials(Role.CONNECTOR, "office")
        self.assertIn("office", str(self.assertRaises(
            ValueError, type(self.core), office, [], self.core.profiles.options,
            policy="relay-only", utcnow=self.core.profiles.utcnow,
        )))  # fmt: skip
        self.office.credentials = credentials(Role.CONNECTOR, "annex")
        self.assertEqual("annex", self.office.credentials.identity.name)


class SessionTests(RelayedCase):
    """What happens on end-to-end connections."""

    def test_a_connection_that_the_peer_closes_ends_the_session(self) -> None:
        """With its code; the streams break with it."""
        self.office.sessions.end(self.connector.session, ErrorCode.SHUTDOWN, "enough", self.now)
        self.silent = {0, 1}
        frames = self.connector.pump(self.now)
        self.now += 0.02
        for frame, address in frames:
            self.core.receive_datagram(frame, address, self.now)
        self.agent.pump(self.now)
        (closed,) = self.agent.happened(reports.SessionClosed)
        self.assertEqual(("shutdown", "enough"), (closed.code, closed.reason))
        self.assertEqual((ErrorCode.SHUTDOWN, "enough"), self.ours.owner.outcome)

    def test_the_credit_of_a_session_counts_for_the_name_of_its_peer(self) -> None:
        """At both ends, and only as long as the session lives."""
        accounts = self.core.ledger.credit("office"), self.office.ledger.credit("alice")
        self.assertEqual([CONNECTION_WINDOW] * 2, [account.total for account in accounts])
        self.core.sessions.end(self.agent.session, ErrorCode.NO_ERROR, "", self.now)
        self.run_for(1.0)
        self.assertEqual([0, 0], [account.total for account in accounts])

    def test_events_of_a_session_that_is_over_are_ignored(self) -> None:
        """Its last packets may be answered."""
        self.theirs.write(b"late")
        frames = self.connector.pump(self.now)
        self.core.sessions.end(self.agent.session, ErrorCode.NO_ERROR, "", self.now)
        for frame, address in frames:
            self.core.receive_datagram(frame, address, self.now)
        self.run_for(10.0)
        self.assertEqual(b"", self.ours.owner.data)
        self.assertEqual((0, 0), (len(self.core.sessions), len(self.office.sessions)))

    def test_a_relay_that_knows_the_node_by_another_address_is_used_anew(self) -> None:
        """The address is reported, and what was sent meanwhile is sent again."""
        self.core.address_observed(self.agent.links[0], ("203.0.113.9", 1), self.now)
        self.assert_echo(self.ours, self.theirs)
        (observed,) = self.agent.happened(reports.AddressObserved)
        self.assertEqual("203.0.113.9:1", observed.address)

    def test_regression_observed_addresses_are_three_and_then_one_a_second(self) -> None:
        """Each that an Intermediate made up was a message to every peer, and a line in the log."""
        for port in range(1, 101):
            self.core.address_observed(self.agent.links[0], ("203.0.113.9", port), self.now)
        self.run_for(5.0)
        observed = [report.address for report in self.agent.happened(reports.AddressObserved)]
        self.assertEqual([f"203.0.113.9:{port}" for port in (1, 2, 3, 100)], observed)

    def test_a_stop_tells_the_peer_why(self) -> None:
        """And the links."""
        self.core.close(self.now, "enough")
        self.run_for(1.0)
        (closed,) = self.connector.happened(reports.SessionClosed)
        self.assertEqual(("shutdown", "enough"), (closed.code, closed.reason))
        self.assertFalse(any(link.is_ready for link in self.agent.links))


class DirectTests(CoreCase):
    """Sessions whose packets go straight to the peer."""

    policy = "prefer-direct"

    def talk(self) -> tuple[Stream, Stream]:
        """Both ends of a stream, with time for the search."""
        found = super().talk()
        self.run_for(1.0)
        return found

    def assert_direct(self) -> None:
        """Each end sends to the other's address."""
        self.assertEqual([self.connector.address], self.agent.ways)
        self.assertEqual([self.agent.address], self.connector.ways)

    def test_a_session_becomes_direct(self) -> None:
        """Packets of both ends go there, large ones too, and keep the way in use."""
        stream, other = self.talk()
        self.assert_direct()
        for _ in range(5):
            self.assert_echo(stream, other)
        self.run_for(30.0)
        stream.write(bytes(100_000))
        self.run_for(1.0)
        self.assertGreater(len(other.owner.data), 100_000)
        self.assert_direct()

    def test_under_direct_only_no_user_byte_is_relayed(self) -> None:
        """Relays carry the handshake, acknowledgements and messages about paths."""
        self.core._policy = "direct-only"
        stream, other = self.talk()
        self.assert_direct()
        self.assert_echo(stream, other)
        relayed = self.relayed
        for _ in range(5):
            self.assert_echo(stream, other)
        self.assertEqual(relayed, self.relayed)
        before, self.mtu = len(other.owner.data), 0
        stream.write(bytes(10_000))
        self.run_for(5.0)
        self.assertGreater(self.relayed, relayed)
        self.assertEqual(before, len(other.owner.data))
        self.mtu = 1500
        self.run_for(5.0)
        self.assertEqual(before + 10_000, len(other.owner.data))

    def test_under_direct_only_a_stream_waits_ten_seconds_for_a_direct_path(self) -> None:
        """And a session without a direct path ends, with a reason."""
        self.core._policy = "direct-only"
        self.mtu = 0
        stream = self.core.open_stream("web", self.now)
        self.run_for(REQUEST_TIMEOUT + 1.0)
        self.assertTrue(stream.is_closed)
        closed = [event for event in self.agent.events if isinstance(event, StreamClosed)]
        self.assertIn("direct", closed[0].reason)
        self.run_for(DIRECT_TIMEOUT)
        ended = [event for event in self.agent.events if isinstance(event, reports.SessionClosed)]
        self.assertIn("no direct path", ended[0].reason)

    def test_a_way_that_carries_no_large_packets_any_more_is_used_with_small_ones(self) -> None:
        """A black hole (RFC 8899 section 4.3)."""
        stream, other = self.talk()
        self.run_for(5.0)
        paths = self.core.paths_of(self.agent.session)
        self.assertGreater(paths.packet_size, 1300)
        self.mtu = 1250
        stream.write(bytes(100_000))
        self.run_for(20.0)
        self.assertEqual(100_000, len(other.owner.data))
        self.assertLessEqual(paths.packet_size, 1250)

    def test_another_network_is_checked_at_once(self) -> None:
        """And other addresses are signaled, but not the same ones again."""
        self.talk()
        connection = self.agent.session.connection
        self.core.set_local_addresses([self.agent.address[0]], 5000, [], self.now)
        self.assertEqual(0, connection.unsent(PATHS_STREAM))
        self.core.set_local_addresses(["203.0.113.7"], 5000, [("198.51.100.7", 1)], self.now)
        self.assertGreater(connection.unsent(PATHS_STREAM), 0)
        self.core.network_changed(self.now)
        checks = self.core.datagrams_to_send(self.now)
        self.assertIn(self.connector.address, [address for _, address in checks])

    def test_regression_an_ended_session_is_not_held_by_its_last_datagram(self) -> None:
        """The connection of the latest direct packet was kept."""
        self.talk()
        assert self.core._heard is not None
        self.assertEqual(self.agent.session.address, self.core._heard[0])


class Peers:
    """A core and an Intermediate's, whose datagrams take no time."""

    def __init__(self, core: PeerCore, address: Address) -> None:
        self.core = core
        self.address = address
        self.intermediate = make_intermediate()
        self.events: list[Any] = []

    def run(self, now: float) -> None:
        """Let everything arrive, and what is due within a moment happen."""
        for moment in range(10):
            for core in (self.core, self.intermediate):
                core.handle_timer(now + moment * 0.001)
            while self._exchange(now + moment * 0.001):
                pass

    def _exchange(self, now: float) -> int:
        sent = 0
        ends: list[tuple[Any, Address]]
        ends = [(self.core, self.address), (self.intermediate, RELAY)]
        for (core, address), (other, there) in (ends, ends[::-1]):
            while (event := core.next_event()) is not None:
                if core is self.core:
                    self.events.append(event)
            for data, target in core.datagrams_to_send(now):
                sent += 1
                if target == there:
                    other.receive_datagram(data, address, now)
        return sent


class ControlTests(SynchronousTestCase):
    """A core's own links, to an Intermediate in memory."""

    def names(self, peers: Peers) -> list[str]:
        """The names of the events since the last call."""
        names = [type(event).__name__ for event in peers.events]
        peers.events.clear()
        return names

    def test_a_core_connects_to_its_intermediates(self) -> None:
        """It learns its address there, and the connector registers."""
        for core, address, names in (
            (make_agent([f"{RELAYS[0]}:4433"]), ("203.0.113.1", 5000), []),
            (make_connector([f"{RELAYS[0]}:4433"]), ("198.51.100.1", 5000), ["Registered"]),
        ):
            peers = Peers(core, address)
            core.connect(0.0)
            peers.run(0.0)
            self.assertEqual(["AddressObserved", "ControlConnected", *names], self.names(peers))
            (link,) = core.links
            self.assertEqual((True, address), (link.is_ready, link.observed))

    def test_a_name_is_resolved_by_the_host(self) -> None:
        """For the link that asked."""
        core = make_agent(["relay.example:4433", "other.example:4433"])
        core.connect(0.0)
        asked = [core.next_event(), core.next_event()]
        names = ["relay.example", "other.example"]
        self.assertEqual([ResolutionNeeded(f"{name}:4433", name) for name in names], asked)
        core.resolved("other.example:4433", [RELAYS[0]], 0.0)
        self.assertEqual([RELAY], [address for _, address in core.datagrams_to_send(0.0)])

    def test_a_lost_intermediate_is_tried_again_and_a_stop_ends_that(self) -> None:
        """The timer of the core says when."""
        core = make_agent([f"{RELAYS[0]}:4433"])
        peers = Peers(core, ("203.0.113.1", 5000))
        core.connect(0.0)
        peers.run(0.0)
        self.names(peers)
        peers.intermediate.close(1.0)
        peers.run(1.0)
        self.assertIn("ControlLost", self.names(peers))
        core.network_changed(1.0)
        self.assertEqual(1.0, core.get_timer())
        core.close(1.0)
        while (when := core.get_timer()) is not None:
            core.handle_timer(when)
            core.datagrams_to_send(when)
        self.assertEqual([], core.datagrams_to_send(100.0))
