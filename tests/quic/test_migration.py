"""A server that follows its client to validated addresses, and to no others."""

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events
from p2pnet.quic.migration import CHALLENGE_INTERVAL
from p2pnet.wire.address import Address
from tests.quic.harness import CLIENT, Pair

REBOUND = (CLIENT[0], CLIENT[1] + 1)
UPLOAD = 6_000_000  # bytes
ELSEWHERE = ("203.0.113.9", 50009)


class MigrationTestCase(SynchronousTestCase):
    """An established connection to a server at a real address."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.one, self.other = self.pair.connect()
        self.sent: list[tuple[Address, int]] = []
        send = self.pair._send

        def record(sender: Any, data: bytes, address: Any) -> None:
            if sender is self.pair.server:
                self.sent.append((address, len(data)))
            send(sender, data, address)

        self.patch(self.pair, "_send", record)

    def ping(self) -> bytes:
        """A packet of the client that only the test delivers."""
        self.one.ping()
        ((data, _),) = self.pair.client.mux.datagrams_to_send(self.pair.now)
        return data

    def arrive(self, data: bytes, source: Address) -> None:
        """Let the server receive a packet, and answer."""
        self.pair.server.mux.receive_datagram(data, source, self.pair.now)
        self.pair._pump(self.pair.server)

    def sent_to(self, address: Address) -> int:
        """Bytes that the server sent there."""
        return sum(size for to, size in self.sent if to == address)


class MigrationTests(MigrationTestCase):
    """Where the server sends."""

    def test_the_old_address_is_used_until_the_new_one_is_validated(self) -> None:
        """One round trip; then it alone is known."""
        self.pair.client.address = REBOUND
        self.one.ping()
        self.pair.run(self.pair.delay)
        self.assertEqual(CLIENT, self.other.peer_address)
        self.pair.run(2.5 * self.pair.delay)
        self.assertEqual(REBOUND, self.other.peer_address)
        engine: Any = self.other.engine
        self.assertEqual([REBOUND], [path.addr for path in engine._network_paths])

    def test_an_address_that_does_not_answer_gets_thrice_what_came_from_there(self) -> None:
        """And everything else goes where it went before."""
        came = 0
        stream_id = self.one.open_stream()
        self.one.send(stream_id, b"x")
        self.pair.run_until_quiet()
        for _ in range(20):
            data = self.ping()
            came += len(data)
            self.arrive(data, ELSEWHERE)
            self.other.send(stream_id, bytes(5000))
            self.pair.run(CHALLENGE_INTERVAL / 2)
        self.assertLessEqual(self.sent_to(ELSEWHERE), 3 * came)
        self.assertGreater(self.sent_to(ELSEWHERE), 0)
        self.assertEqual(CLIENT, self.other.peer_address)
        self.assertEqual(100_000, len(self.pair.client.received(self.one, stream_id)))

    def test_challenges_are_limited(self) -> None:
        """However many packets come, from however many addresses."""
        for number in range(100):
            self.arrive(self.ping(), ("203.0.113.9", 50_000 + number))
            self.pair.run(CHALLENGE_INTERVAL / 20)
        challenged = {to for to, _ in self.sent if to[0] == "203.0.113.9"}
        self.assertLessEqual(len(challenged), math.ceil(100 / 20) + 1)

    def test_moves_are_limited(self) -> None:
        """A client that comes from another port with each packet is not followed each time."""
        moves, address = 0, self.other.peer_address
        start = self.pair.now
        for number in range(100):
            self.pair.client.address = (CLIENT[0], 50_001 + number // 3)
            self.one.ping()
            self.pair.run(0.03)
            moves += self.other.peer_address != address
            address = self.other.peer_address
        self.assertGreater(moves, 1)
        self.assertLessEqual(moves, (self.pair.now - start) / CHALLENGE_INTERVAL + 1)

    def test_no_connection_id_is_used_up(self) -> None:
        """By however many addresses."""
        engine: Any = self.other.engine
        before = list(engine._peer_cid_available)
        for number in range(20):
            self.arrive(self.ping(), ("203.0.113.9", 50_000 + number))
            self.pair.run(CHALLENGE_INTERVAL)
        self.assertEqual(before, engine._peer_cid_available)

    def test_a_datagram_from_the_address_in_use_ends_all_validations(self) -> None:
        """Copies that overtake a packet make no move, though every challenge comes back."""
        for _ in range(10):
            data = self.ping()
            self.arrive(data, ELSEWHERE)
            self.arrive(data, CLIENT)
            self.pair.client.address = ELSEWHERE  # the challenge is passed on, the response too
            self.pair.run(CHALLENGE_INTERVAL)
            self.pair.client.address = CLIENT
        self.assertEqual(CLIENT, self.other.peer_address)
        self.assertTrue(self.other.is_established)

    def test_a_client_stays_where_it_is_until_the_handshake_is_over(self) -> None:
        """What comes from elsewhere is dropped: its Finished validates no other address."""
        pair = Pair()
        pair.dial()
        pair.run(1.5 * pair.delay)
        pair.client.address = ELSEWHERE
        pair.run(1.0)
        self.assertEqual([], pair.server.happened(events.HandshakeCompleted))
        pair.client.address = CLIENT
        pair.run_until_quiet()
        ((server, _),) = pair.server.events[:1]
        self.assertEqual(CLIENT, server.peer_address)
        self.assertTrue(server.is_established)

    def test_what_the_old_address_did_not_get_is_sent_again_at_once(self) -> None:
        """Not after a probe timeout."""
        stream_id = self.one.open_stream()
        self.one.send(stream_id, b"x")
        self.pair.run_until_quiet()
        self.pair.client.address = REBOUND
        self.other.send(stream_id, b"lost")
        self.one.ping()
        self.pair.run(4.5 * self.pair.delay)
        self.assertEqual(b"lost", self.pair.client.received(self.one, stream_id))

    def follows_within(self, seconds: float) -> None:
        """The client moves in the midst of its upload, and the server follows in time."""
        self.pair.client.address = REBOUND
        self.pair.run(seconds)
        self.assertEqual(REBOUND, self.other.peer_address)
        self.pair.run_until_quiet()
        self.assertEqual(UPLOAD, len(self.pair.server.received(self.other, 0)))

    def test_regression_a_full_congestion_window_does_not_hold_back_the_answer(self) -> None:
        """The acknowledgements that would open it go to the old address."""
        self.one.send(self.one.open_stream(), bytes(UPLOAD))
        self.pair.run(1.5 * self.pair.delay)
        self.follows_within(5 * self.pair.delay)

    def test_regression_packets_that_come_together_do_not_cancel_the_challenge(self) -> None:
        """The second of them found that a challenge was due already, which had not been sent."""
        self.one.send(self.one.open_stream(), bytes(UPLOAD))
        self.pair.run(20.5 * self.pair.delay)
        self.follows_within(3.5 * self.pair.delay)
