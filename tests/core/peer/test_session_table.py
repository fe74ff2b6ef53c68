"""Tests of p2pnet.core.peer.session_table: whose a datagram is."""

from __future__ import annotations

from p2pnet import reports
from p2pnet.core.peer.session import Session
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.core.peer.side import ID, OTHER_ID, STRANGER, SessionsCase, Side


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
