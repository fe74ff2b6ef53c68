"""Tests of p2pnet.core.peer.sessions: whose a datagram is, and what paths ask for."""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.sessions import LINGER
from p2pnet.core.peer.stream import Stream
from p2pnet.quic.events import StreamDataReceived, StreamWritable
from p2pnet.traversal import path_events
from p2pnet.wire import messages
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.check import Check, CheckKind, decode_check
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.encoding import encode_message
from p2pnet.wire.path_messages import PATHS_STREAM, CandidateUpdate, PathMessage
from p2pnet.wire.relay_frame import encode_relay_frame
from p2pnet.wire.stream import StreamKind
from tests.core.peer.links import PeerConnection
from tests.core.peer.side import ID, OTHER_ID, PACKETS, STRANGER, SessionsCase, Side


class TableTests(SessionsCase):
    """Which session a datagram belongs to."""

    def of_frame(self, channel: int, source: Address | None) -> Session | None:
        """The session of a frame."""
        assert source is not None
        frame = encode_relay_frame(bytes([channel] * 8), b"packet")
        return self.sessions.table.of_frame(frame, source)

    def test_a_frame_is_known_by_its_channel_and_its_intermediate(self) -> None:
        """Not by one of them alone, and not once the relay is gone."""
        self.assertIs(self.session, self.of_frame(2, self.first))
        for channel, source in ((1, self.first), (2, self.second), (2, STRANGER)):
            self.assertIsNone(self.of_frame(channel, source))
        self.assertIsNone(self.sessions.table.of_frame(b"\x20\x02\x02", STRANGER))
        self.sessions.remove_relay(self.session, self.links[0], "gone", 0.0)
        self.assertIsNone(self.of_frame(2, self.first))

    def test_a_relay_that_names_another_channel_is_not_known_by_the_first(self) -> None:
        """It has forgotten that one."""
        self.side.relay(self.session, channel=7)
        self.assertIs(self.session, self.of_frame(16, self.first))
        self.assertIsNone(self.of_frame(2, self.first))
        self.assertEqual(1, len(self.side.reported(reports.RelayReady)))

    def test_regression_an_intermediate_cannot_take_the_channel_of_another(self) -> None:
        """Frames of a session were dropped, and those of the other in its place were taken."""
        other = self.side.begin(session_id=OTHER_ID)
        offer = messages.SessionOffer(
            OTHER_ID, "alice", b"instance", "web", bytes([1] * 8), bytes([2] * 8)
        )
        self.sessions.add_relay(other, self.links[1], offer, 0.1, 0.0)
        self.assertIs(self.session, self.of_frame(2, self.first))
        self.assertIs(other, self.of_frame(2, self.second))
        self.sessions.end(other, ErrorCode.NO_ERROR, "", 0.0)
        self.assertIs(self.session, self.of_frame(2, self.first))

    def test_a_check_is_known_by_the_tag_of_its_session(self) -> None:
        """In the username of a request, in the transaction id of an answer."""
        tag = self.sessions.paths_of(self.session).tag
        of_check = self.sessions.table.of_check
        answer = Check(CheckKind.SUCCESS, tag + bytes(8))
        self.assertIs(self.session, of_check(answer))
        self.assertIsNone(of_check(Check(CheckKind.ERROR, bytes(12))))
        for name in ("", "!:x", "AAAAAAAA:x", "\xe9:x", "A:x"):
            self.assertIsNone(of_check(Check(CheckKind.REQUEST, tag + bytes(8), username=name)))

    def test_regression_sessions_with_the_same_tag_end_without_an_error(self) -> None:
        """Tags are four random bytes. The end of the second session raised KeyError."""
        side = Side(controlling=True, host="203.0.113.1", entropy=bytes)
        one, two = side.begin(), side.begin(session_id=OTHER_ID)
        tag = side.sessions.paths_of(one).tag
        self.assertEqual(tag, side.sessions.paths_of(two).tag)
        side.sessions.end(one, ErrorCode.NO_ERROR, "", 0.0)
        self.assertIs(two, side.sessions.table.of_check(Check(CheckKind.SUCCESS, tag + bytes(8))))
        side.sessions.end(two, ErrorCode.NO_ERROR, "", 0.0)
        self.assertEqual(2, len(side.ended))

    def test_a_session_is_found_by_its_id_while_it_lives(self) -> None:
        """And iteration bears that sessions end meanwhile."""
        self.assertIs(self.session, self.sessions.find(ID))
        self.assertIsNone(self.sessions.find(OTHER_ID))
        self.side.begin(session_id=OTHER_ID)
        self.assertEqual(2, len(self.sessions))
        for session in self.sessions:
            self.sessions.end(session, ErrorCode.NO_ERROR, "", 0.0)
        self.assertEqual(0, len(self.sessions))


class RelayTests(SessionsCase):
    """Intermediates that relay, and no more."""

    def test_packets_go_to_the_nearest_relay_in_its_channel(self) -> None:
        """Each packet behind the header of the frame."""
        self.side.relay(self.session, link=1)
        frames = [(encode_relay_frame(bytes([1] * 8), data), self.first) for data in PACKETS]
        self.assertEqual(frames, self.sessions.along_ways(self.session.address, PACKETS, 0.0))
        self.assertEqual([self.session], self.sessions.relayed_by(self.links[1]))

    def test_the_connection_learns_that_its_packets_take_another_way(self) -> None:
        """And whether those on the last way are lost."""
        self.side.relay(self.session, link=1)
        before = len(self.connection.moves)
        self.sessions.remove_relay(self.session, self.links[0], "lost it", 0.0)
        self.assertEqual([self.second], self.ways())
        self.assertEqual(before + 1, len(self.connection.moves))
        (lost,) = self.side.reported(reports.RelayLost)
        self.assertEqual(("192.0.2.1:4433", "lost it"), (lost.intermediate, lost.reason))

    def test_a_session_without_a_way_sends_nothing_and_its_owner_is_told(self) -> None:
        """The packets are counted."""
        self.sessions.remove_relay(self.session, self.links[0], "lost it", 0.0)
        self.assertEqual([self.session], self.side.lost)
        self.assertEqual([], self.sessions.along_ways(self.session.address, PACKETS, 0.0))
        nobody = PeerAddress.of_session(OTHER_ID)
        self.assertEqual([], self.sessions.along_ways(nobody, PACKETS, 0.0))
        self.assertEqual(4, self.sessions.dropped["no_path"])

    def test_a_connection_that_is_not_established_is_not_disturbed(self) -> None:
        """Its handshake goes on over the other way."""
        self.connection.established = False
        del self.connection.moves[:]
        self.side.relay(self.session, link=1)
        self.sessions.remove_relay(self.session, self.links[0], "gone", 0.0)
        self.assertEqual([], self.connection.moves)

    def test_a_relay_that_is_about_to_stop_gives_way(self) -> None:
        """As planned: what was sent still arrives."""
        self.side.relay(self.session, link=1)
        del self.connection.moves[:]
        self.sessions.retire_relay(self.links[0], 0.0)
        self.assertEqual([self.second], self.ways())
        self.assertEqual([], self.connection.moves)

    def test_after_frames_were_dropped_their_content_is_sent_again(self) -> None:
        """The Intermediate knew the node at another address."""
        del self.connection.moves[:]
        self.sessions.renew(self.links[1], 0.0)
        self.assertEqual([], self.connection.moves)
        self.sessions.renew(self.links[0], 0.0)
        self.assertEqual([False], self.connection.moves)

    def test_a_silent_relay_is_asked_whether_it_still_works(self) -> None:
        """If an answer is due. A packet that comes ends the doubt."""
        self.run_to(100.0)
        self.connection.answer_due = True
        self.ways(100.0)
        self.run_to(110.0)
        self.assertGreater(self.links[0].probes, 0)
        self.assertEqual(0, self.links[1].probes)
        moves = len(self.connection.moves)
        assert self.first is not None
        self.sessions.heard_relayed(self.session, self.first, 110.0)
        self.assertEqual(moves + 1, len(self.connection.moves))

    def test_a_session_is_silent_from_its_first_unanswered_packet_on(self) -> None:
        """Any packet of the peer, through a relay or directly, ends the silence."""
        self.ways(99.0)
        self.assertEqual(math.inf, self.session.unanswered_since)
        self.connection.answer_due = True
        assert self.first is not None
        for hears in (self.sessions.heard_relayed, self.sessions.heard):
            for now in (100.0, 101.0):
                self.ways(now)
            self.assertEqual(100.0, self.session.unanswered_since)
            hears(self.session, self.first, 102.0)
            self.assertEqual(math.inf, self.session.unanswered_since)


class EndTests(SessionsCase):
    """How sessions end."""

    def test_an_ended_session_is_closed_everywhere(self) -> None:
        """For the peer, at its relays that are ready, for its streams and its owner; once."""
        self.side.relay(self.session, link=1)
        self.links[1].bring_down("gone")
        stream = self.session.streams[0] = Stream("web", StreamKind.BYTES, 0.0, self.side.emit)
        for _ in range(2):
            self.sessions.end(self.session, ErrorCode.PEER_LOST, 1000 * "x", 0.0)
        self.assertEqual((ErrorCode.PEER_LOST, 1000 * "x"), self.connection.closed)
        (closed,) = self.links[0].sent
        self.assertEqual(messages.SessionClosed(ID, ErrorCode.PEER_LOST, 1000 * "x"), closed)
        self.assertEqual([], self.links[1].sent)
        self.assertTrue(stream.is_closed)
        self.assertEqual([(self.session, ErrorCode.PEER_LOST, 1000 * "x")], self.side.ended)
        (report,) = self.side.reported(reports.SessionClosed)
        self.assertEqual(("office", "peer_lost"), (report.peer, report.code))
        self.assertFalse(self.sessions.is_living(self.session))

    def test_last_packets_find_the_way_for_a_while(self) -> None:
        """Then nothing is left of the session, not even a timer."""
        self.sessions.end(self.session, ErrorCode.NO_ERROR, "", 0.0)
        self.assertEqual([self.first], self.ways())
        self.run_to(LINGER)
        self.assertEqual([], self.ways())
        table = self.sessions.table
        tables = [table.living, table.paths, table._channels, table._headers, table._tags]
        self.assertEqual([{}] * 5, tables)
        self.assertIsNone(self.side.timers.get_timer())

    def test_a_session_without_a_connection_can_end(self) -> None:
        """Nobody dialled it."""
        session = self.side.begin(session_id=OTHER_ID)
        self.sessions.end(session, ErrorCode.PEER_LOST, "", 0.0)
        self.assertEqual([(session, ErrorCode.PEER_LOST, "")], self.side.ended)

    def test_a_later_session_of_the_same_id_keeps_its_paths(self) -> None:
        """They are not those that are forgotten."""
        self.sessions.end(self.session, ErrorCode.RESTARTED, "", 0.0)
        later = self.side.begin()
        self.side.relay(later, link=1)
        self.run_to(2 * LINGER)
        self.assertFalse(self.sessions.is_living(self.session))
        self.assertIs(later, self.sessions.find(ID))
        self.assertEqual(
            [self.second], [way.address for way in self.sessions.paths_of(later).using]
        )

    def test_regression_last_packets_do_not_need_a_connection_of_the_later_session(self) -> None:
        """They raised AssertionError while it had none yet."""
        self.sessions.end(self.session, ErrorCode.RESTARTED, "", 0.0)
        self.side.relay(self.side.begin(), link=1)
        self.assertEqual([self.second], self.ways())

    def test_regression_nothing_is_done_for_a_session_that_an_event_ended(self) -> None:
        """The events behind it asked relays and told the owner."""
        paths = self.sessions.paths_of(self.session)
        paths._emit(path_events.PeerGone(ErrorCode.SHUTDOWN, "peer stopped"))
        paths._emit(path_events.WaysChanged((), lost=True))
        assert self.first is not None
        paths._emit(path_events.AskRelay(self.first))
        self.sessions.follow(self.session, 0.0)
        self.assertEqual([(self.session, ErrorCode.SHUTDOWN, "peer stopped")], self.side.ended)
        self.assertEqual(([], 0), (self.side.lost, self.links[0].probes))


class ClosedTests(SessionsCase):
    """What an Intermediate says of the end of a session."""

    def closed(self, code: int, link: int = 0, session_id: bytes = ID) -> None:
        """Let an Intermediate say that it relays the session no more."""
        message = messages.SessionClosed(session_id, code, "because")
        self.sessions.take_closed(self.links[link], message, 0.0)

    def test_a_peer_that_ended_the_session_is_believed_without_another_way(self) -> None:
        """Also with a code that is not known."""
        self.closed(0x7777)
        self.assertEqual([(self.session, ErrorCode.CANCELLED, "because")], self.side.ended)

    def test_a_lost_peer_may_come_back(self) -> None:
        """Only the relay is gone."""
        self.closed(ErrorCode.PEER_LOST)
        self.assertEqual([], self.side.ended)
        self.assertEqual([self.session], self.side.lost)

    def test_another_relay_contradicts(self) -> None:
        """The session goes on there."""
        self.side.relay(self.session, link=1)
        self.closed(ErrorCode.SHUTDOWN)
        self.assertEqual([], self.side.ended)
        self.assertEqual([self.second], self.ways())

    def test_an_intermediate_cannot_close_what_it_does_not_relay(self) -> None:
        """Nor a session that there is not, or that is over."""
        self.closed(ErrorCode.SHUTDOWN, link=1)
        self.closed(ErrorCode.SHUTDOWN, session_id=OTHER_ID)
        self.assertEqual(([], []), (self.side.ended, self.side.lost))
        self.sessions.end(self.session, ErrorCode.NO_ERROR, "", 0.0)
        self.closed(ErrorCode.SHUTDOWN)
        self.assertEqual(1, len(self.side.ended))


class DirectTests(SynchronousTestCase):
    """Two sides that find a direct way to each other."""

    def setUp(self) -> None:
        """Both have the session with the same Intermediate."""
        self.now = 0.0
        self.agent = Side(controlling=True, host="203.0.113.1")
        self.office = Side(controlling=False, host="198.51.100.1")
        self.sides = [self.agent, self.office]

    def begin(self, policy: str = "prefer-direct") -> None:
        """Let the relays be ready, and time pass until the way is found."""
        for side in self.sides:
            PeerConnection(side.begin(policy))
        for side in self.sides:
            for session in side.sessions:
                side.relay(session)
                side.sessions.established(session, self.now)
        self.signal()
        self.run_for(1.0)

    def signals(self, side: Side) -> list[PathMessage]:
        """The messages of one side that are under way."""
        (session,) = side.sessions
        connection: Any = session.connection
        found: list[PathMessage] = connection.signals
        return found

    def say(self, side: Side, data: bytes, *, end: bool = False) -> None:
        """Let bytes arrive on the stream of messages about paths."""
        (session,) = side.sessions
        event = StreamDataReceived(PATHS_STREAM, data, end)
        side.sessions.receive_signals(session, event, self.now)

    def signal(self) -> None:
        """Let messages about paths arrive until there are none."""
        while any(self.signals(side) for side in self.sides if len(side.sessions)):
            for side, other in (self.sides, self.sides[::-1]):
                sent, self.signals(side)[:] = list(self.signals(side)), []
                for message in sent:
                    self.say(other, encode_message(message))

    def run_for(self, seconds: float) -> None:
        """Let time pass, with checks on their way."""
        end = self.now + seconds
        while True:
            times = [side.timers.get_timer() for side in self.sides]
            self.exchange()
            when = min((time for time in times if time is not None), default=math.inf)
            if when > end:
                break
            self.now = max(self.now, when)
            for side in self.sides:
                side.timers.handle_timer(self.now)
        self.now = end

    def exchange(self) -> None:
        """Let checks arrive, and their answers."""
        while any(side.sessions.checks_out for side in self.sides):
            for side, other in (self.sides, self.sides[::-1]):
                for data, address in side.sessions.take_checks():
                    if address == other.address and len(data) <= 1400:
                        check = decode_check(data)
                        other.sessions.receive_check(check, side.address, self.now)
        self.signal()

    def using(self, side: Side) -> list[Address]:
        """The ways in use."""
        (session,) = side.sessions
        return [way.address for way in side.sessions.paths_of(session).using]

    def test_checks_make_the_session_direct_at_both_ends(self) -> None:
        """Openers went first; the connection moved, and learnt how large packets may be."""
        self.begin()
        for side, other in (self.sides, self.sides[::-1]):
            self.assertEqual([other.address], self.using(side))
            self.assertGreater(len(side.reported(events.OpenerNeeded)), 0)
            (session,) = side.sessions
            connection: Any = session.connection
            self.assertGreater(len(connection.moves), 0)
        self.run_for(5.0)
        (session,) = self.agent.sessions
        connection = session.connection
        self.assertEqual(self.agent.sessions.paths_of(session).packet_size, connection.sizes[-1])
        self.assertGreater(connection.sizes[-1], 1200)

    def test_a_check_that_is_not_authentic_is_not_ours(self) -> None:
        """Whoever's name it bears; nor is a check for no session."""
        self.begin()
        (session,) = self.agent.sessions
        forged = Check(CheckKind.SUCCESS, self.agent.sessions.paths_of(session).tag + bytes(8))
        stray = Check(CheckKind.SUCCESS, bytes(12))
        for check in (forged, stray):
            self.assertFalse(self.agent.sessions.receive_check(check, STRANGER, self.now))
        self.assertEqual([], self.agent.sessions.checks_out)

    def test_packets_on_the_direct_way_keep_it_in_use(self) -> None:
        """As long as they are heard; then a relay repeats them."""
        self.begin()
        (session,) = self.agent.sessions
        connection: Any = session.connection
        connection.answer_due = True
        for _ in range(20):
            self.now += 0.1
            self.agent.sessions.along_ways(session.address, PACKETS, self.now)
            self.agent.sessions.heard(session, self.office.address, self.now)
        self.assertEqual([self.office.address], self.using(self.agent))
        for _ in range(40):
            self.now += 0.1
            self.agent.sessions.along_ways(session.address, PACKETS, self.now)
            self.agent.timers.handle_timer(self.now)
            self.agent.sessions.take_checks()
        self.assertNotEqual([self.office.address], self.using(self.agent))

    def test_another_network_is_checked_and_other_candidates_are_told(self) -> None:
        """With a session that is direct."""
        self.begin()
        self.agent.sessions.network_changed(self.now)
        self.assertEqual(1, len(self.agent.sessions.checks_out))
        self.agent.own.set_addresses(["203.0.113.9"], 5000)
        self.agent.sessions.candidates_changed(self.now)
        (update,) = self.signals(self.agent)
        self.assertIsInstance(update, CandidateUpdate)

    def test_under_direct_only_relays_carry_messages_about_paths_alone(self) -> None:
        """At both ends, though the connector was not told of the policy before the offer."""
        for side, policy in zip(self.sides, ("direct-only", "prefer-direct"), strict=True):
            PeerConnection(side.begin(policy))
        connections: list[Any] = []
        for side in self.sides:
            for session in side.sessions:
                side.relay(session)
                side.sessions.established(session, self.now)
                connections.append(session.connection)
        self.assertEqual(PATHS_STREAM, connections[0].only)
        self.signal()
        self.run_for(1.0)
        self.assertEqual([None, None], [connection.only for connection in connections])

    def test_what_is_no_message_about_paths_ends_the_session(self) -> None:
        """Malformed bytes, too many of them, and the end of the stream."""
        for data, end in ((b"\0\0\0\1x", False), (b"\0\1\0\0", False), (b"", True)):
            self.setUp()
            self.begin()
            self.say(self.agent, data, end=end)
            self.assertEqual([ErrorCode.PROTOCOL_ERROR], [code for _, code, _ in self.agent.ended])

    def test_a_stream_of_messages_that_can_be_written_again_changes_nothing(self) -> None:
        """That event is for users' streams."""
        self.begin()
        (session,) = self.agent.sessions
        event = StreamWritable(PATHS_STREAM)
        self.agent.sessions.receive_signals(session, event, self.now)
        self.assertEqual([], self.agent.ended)

    def test_a_session_that_ends_amid_checks_sends_no_more(self) -> None:
        """A farewell is believed after silence on the direct way."""
        self.begin()
        (session,) = self.agent.sessions
        message = messages.SessionClosed(ID, ErrorCode.SHUTDOWN, "stopped")
        self.agent.sessions.take_closed(self.agent.links[0], message, self.now)
        self.assertEqual([], self.agent.ended)
        for _ in range(40):
            self.now += 0.1
            self.agent.timers.handle_timer(self.now)
            self.agent.sessions.take_checks()
        self.assertEqual([(session, ErrorCode.SHUTDOWN, "stopped")], self.agent.ended)
