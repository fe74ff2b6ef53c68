"""What strict.py and migration.py rely on inside aioquic, beyond test_contract.py."""

import inspect
from typing import Any

from aioquic import tls
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.packet_builder import QuicDeliveryState

from tests.quic.harness import CLIENT
from tests.quic.test_contract import ContractTestCase

ELSEWHERE = ("203.0.113.9", 50009)


class MigrationTests(ContractTestCase):
    """How aioquic's server moves to another address; all calls are those of the base class."""

    def arrive(self, data: bytes) -> Any:
        """Deliver a packet from ELSEWHERE to aioquic. Returns the paths of the server."""
        QuicConnection.receive_datagram(self.server, data, ELSEWHERE, self.pair.now)
        return self.server._network_paths

    def ping(self) -> bytes:
        """A packet with a PING of the client."""
        self.client.send_ping(7)
        return bytes(self.client.datagrams_to_send(self.pair.now)[0][0])

    def test_the_newest_packet_moves_the_connection(self) -> None:
        """_network_paths has the path of that packet first, not validated; the old one stays."""
        message = "_network_paths, is_validated: MigratingConnection._stay_on, which undoes this"
        new, old = self.arrive(self.ping())
        self.assertEqual((ELSEWHERE, CLIENT), (new.addr, old.addr), message)
        self.assertEqual((False, True), (new.is_validated, old.is_validated), message)
        self.assertIs(False, new.local_challenge_sent, message)

    def test_an_older_packet_moves_nothing(self) -> None:
        """The path is added, as the last."""
        message = "_network_paths: MigratingConnection._stay_on, which takes the first for newest"
        old = self.ping()
        self.server.receive_datagram(self.ping(), CLIENT, self.pair.now)
        paths = self.arrive(old)
        self.assertEqual([CLIENT, ELSEWHERE], [path.addr for path in paths], message)

    def test_a_copy_adds_no_path(self) -> None:
        """A duplicate is dropped before."""
        message = "_network_paths: a copy that comes too late is no move"
        data = self.ping()
        self.server.receive_datagram(data, CLIENT, self.pair.now)
        self.assertEqual(1, len(self.arrive(data)), message)

    def test_paths_behind_the_first_get_probing_frames(self) -> None:
        """With the id in peer_cid, thrice what came at most, unless local_challenge_sent."""
        message = "local_challenge_sent, peer_cid, _peer_cid: MigratingConnection.datagrams_to_send"
        ids = list(self.server._peer_cid_available)
        ping = self.ping()
        new, old = self.arrive(ping)
        self.server._network_paths[:] = [old, new]
        new.local_challenge_sent = True
        self.assertEqual({CLIENT}, self.send(), message)
        new.local_challenge_sent, new.peer_cid = False, self.server._peer_cid
        self.assertEqual({ELSEWHERE}, self.send(), message)
        self.assertEqual(3 * len(ping), new.bytes_sent, message)
        self.assertEqual(ids, self.server._peer_cid_available, message)

    def send(self) -> set[Any]:
        """Have aioquic send what is due. Returns where to."""
        now = self.pair.now + 1.0
        return {address for _, address in QuicConnection.datagrams_to_send(self.server, now)}

    def test_a_lost_challenge_of_such_a_path_is_not_repeated(self) -> None:
        """Another packet from there brings another challenge."""
        message = "_on_path_challenge_delivery: nothing but a packet causes a challenge"
        new, old = self.arrive(self.ping())
        self.server._network_paths[:] = [old, new]
        new.local_challenge_sent = True
        self.server._on_path_challenge_delivery(QuicDeliveryState.LOST, new)
        self.assertIs(True, new.local_challenge_sent, message)

    def test_a_response_validates_the_path_of_its_challenge(self) -> None:
        """A response from anywhere, in any path's local_challenges."""
        message = "is_validated: MigratingConnection._stay_on, when it moves"
        new, old = self.arrive(self.ping())
        self.server._network_paths[:] = [old, new]
        new.local_challenges.append(b"12345678")
        context = self.context(old)
        self.server._payload_received(context, b"\x1b12345678")
        self.assertEqual([old, new], self.server._network_paths, message)
        self.assertIs(True, new.is_validated, message)

    def test_a_response_may_be_sent_whatever_the_congestion_window(self) -> None:
        """By _send_probing_frames, on the path in use too, with the peer_cid that it has."""
        message = "_send_probing_frames: MigratingConnection.datagrams_to_send"
        path = self.client._network_paths[0]
        path.remote_challenges.append(b"12345678")
        path.peer_cid = self.client._peer_cid
        self.client._loss._cc.congestion_window = 0
        ((datagram, _),) = self.client._send_probing_frames(path, self.pair.now)
        self.assertEqual((1200, 0), (len(datagram), len(path.remote_challenges)), message)

    def context(self, path: Any) -> QuicReceiveContext:
        """Of a 1-RTT packet that came on a path."""
        return QuicReceiveContext(
            epoch=tls.Epoch.ONE_RTT, host_cid=self.server.host_cid, network_path=path,
            quic_logger_frames=None, time=self.pair.now, version=None,
        )  # fmt: skip


class StrictTests(ContractTestCase):
    """What StrictConnection overrides."""

    def test_payload_received(self) -> None:
        """_payload_received takes the frames of each packet."""
        message = "_payload_received: FrameBudget.begin_packet"
        parameters = inspect.signature(QuicConnection._payload_received).parameters
        expected = ["self", "context", "plain", "crypto_frame_required"]
        self.assertEqual(expected, list(parameters), message)

    def test_handlers(self) -> None:
        """_handle_ack_frame, _handle_stream_frame and _handle_datagram_frame are called."""
        message = "StrictConnection overrides handlers of frames"
        for name in ("ack", "stream", "datagram"):
            handler = getattr(QuicConnection, f"_handle_{name}_frame")
            parameters = list(inspect.signature(handler).parameters)
            self.assertEqual(["self", "context", "frame_type", "buf"], parameters, message)

    def test_a_number_that_is_skipped_is_no_packet(self) -> None:
        """_packet_number may be raised at any time; recovery takes no such number for lost."""
        message = "_packet_number: StrictConnection skips numbers"
        self.client._packet_number += 1
        number = self.client._packet_number
        self.one.ping()
        self.pair.run_until_quiet()
        self.assertEqual({}, self.client._spaces[tls.Epoch.ONE_RTT].sent_packets, message)
        self.assertEqual(number, self.server._spaces[tls.Epoch.ONE_RTT].ack_queue[-1].stop - 1)
