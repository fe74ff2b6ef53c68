"""What p2pnet relies on inside aioquic: one test for each private name that p2pnet.quic touches.

Run these first against a new aioquic. The message of a failure says what relied on the name.
Loss recovery is in test_contract_recovery.py, what only the fast engine relies on in
test_contract_fast.py, the functions for packets are in test_packet.py. That there is nothing else
is checked in test_contract_boundary.py.
"""

import dataclasses
import inspect
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import (
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionState,
)
from aioquic.quic.events import ConnectionTerminated, PingAcknowledged
from aioquic.quic.packet import (
    QuicStreamFrame,
    QuicTransportParameters,
    push_quic_transport_parameters,
)
from aioquic.quic.stream import QuicStreamReceiver, QuicStreamSender
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.engine import Engine
from p2pnet.quic.flow_control import STREAM_WINDOW
from p2pnet.quic.memory import CONNECTION_IDS
from p2pnet.quic.tls import StrictContext
from tests.quic.harness import CLIENT, LIMITS, Pair, client_settings, server_settings


class ContractTestCase(SynchronousTestCase):
    """An established connection of two engines."""

    def setUp(self) -> None:
        cubic = {"congestion": "cubic"}
        self.pair = Pair(client=client_settings(**cubic), server=server_settings(**cubic))
        self.one, self.other = self.pair.connect()
        self.client: Any = self.one.engine
        self.server: Any = self.other.engine

    def open_stream(self, data: bytes = b"x") -> Any:
        """The client's side of a new stream with some data queued, not sent."""
        stream_id = self.one.open_stream()
        self.one.send(stream_id, data)
        return self.client._streams[stream_id]


class StateTests(ContractTestCase):
    """What Engine reads of a connection."""

    def test_state(self) -> None:
        """_state goes from FIRSTFLIGHT over CONNECTED to TERMINATED."""
        message = "_state: Engine.is_first_flight, is_terminated; Multiplexer forgets by them"
        fresh = Pair().dial().engine
        self.assertIs(QuicConnectionState.FIRSTFLIGHT, fresh._state, message)
        self.assertIs(QuicConnectionState.CONNECTED, self.server._state, message)
        self.one.close(0, "")
        self.pair.run(10.0)
        self.assertIs(QuicConnectionState.TERMINATED, self.server._state, message)
        self.assertIs(QuicConnectionState.TERMINATED, self.client._state, message)

    def test_is_client(self) -> None:
        """_is_client tells the roles apart."""
        message = "_is_client: Engine._initialize, who demands a client certificate"
        self.assertEqual((True, False), (self.client._is_client, self.server._is_client), message)

    def test_connection_ids(self) -> None:
        """_local_active_connection_id_limit is told, and no more ids than that are given."""
        message = "_local_active_connection_id_limit: memory.economize"
        self.assertEqual(CONNECTION_IDS, self.client._remote_active_connection_id_limit, message)
        self.assertEqual(CONNECTION_IDS, len(self.server._host_cids), message)
        self.assertEqual(CONNECTION_IDS - 1, len(self.client._peer_cid_available), message)

    def test_network_paths(self) -> None:
        """_network_paths is empty until there is an address, which is then the first one's."""
        message = "_network_paths: Engine.can_transmit, or datagrams_to_send() raises"
        fresh = Engine(
            configuration=server_settings().configuration(is_client=False),
            verify=server_settings().verify, max_streams=0, entropy=bytes,
            original_destination_connection_id=b"8",
        )  # fmt: skip
        self.assertEqual([], fresh._network_paths, message)
        self.assertEqual(CLIENT, self.server._network_paths[0].addr, message)
        self.assertEqual(CLIENT, self.server.get_peer_address())
        path = self.server._network_paths[0]
        self.assertTrue(path.is_validated, "is_validated: Engine._make_datagrams")
        self.assertTrue(0 < path.bytes_sent <= 3 * path.bytes_received, "Engine._make_datagrams")

    def test_retry_count(self) -> None:
        """_retry_count of a client grows with the Retry."""
        message = "_retry_count: Engine.is_answered"
        self.assertEqual(0, self.client._retry_count, message)
        pair = Pair(limits=dataclasses.replace(LIMITS, retry_above=0))
        one = pair.dial()
        pair.run_until(lambda: pair.server.mux.admission.retry.sent)
        self.assertFalse(one.is_answered)
        pair.run(1.5 * pair.delay)
        self.assertEqual(1, one.engine._retry_count, message)
        self.assertTrue(one.is_answered)

    def test_close_event(self) -> None:
        """_close_event is None, and set as soon as either end closes."""
        message = "_close_event: Engine.closing, and with it ConnectionClosed"
        self.assertIsNone(self.client._close_event, message)
        self.one.close(7, "why")
        expected = ConnectionTerminated(error_code=7, frame_type=None, reason_phrase="why")
        self.assertEqual(expected, self.client._close_event, message)
        self.pair.run(0.02)
        self.assertEqual(expected, self.server._close_event, message)

    def test_events(self) -> None:
        """_events holds what next_event() gives, and nothing else."""
        message = "_events: Engine.has_events"
        self.assertEqual(0, len(self.client._events), message)
        self.client._events.append(PingAcknowledged(uid=7))
        self.assertTrue(self.client.has_events, message)
        self.assertEqual(PingAcknowledged(uid=7), self.client.next_event(), message)
        self.assertFalse(self.client.has_events, message)

    def test_handshake_confirmed(self) -> None:
        """_handshake_confirmed follows the handshake, at the client with HANDSHAKE_DONE."""
        message = "_handshake_confirmed: Engine.update_keys_if_due, not before RFC 9001 allows it"
        self.assertFalse(Pair().dial().engine._handshake_confirmed, message)
        self.assertTrue(self.client._handshake_confirmed, message)
        self.assertTrue(self.server._handshake_confirmed, message)

    def test_packet_number(self) -> None:
        """_packet_number counts every packet that is sent."""
        message = "_packet_number: Engine.update_keys_if_due counts packets by it"
        before = self.client._packet_number
        self.one.ping()
        self.pair.run(0.001)
        self.assertEqual(before + 1, self.client._packet_number, message)

    def test_probe_pending(self) -> None:
        """_probe_pending makes the next datagram an ack-eliciting one."""
        message = "_probe_pending: Engine.path_changed, the probe on the new path"
        self.assertIs(False, self.client._probe_pending, message)
        self.client._probe_pending = True
        self.assertEqual(1, len(self.client.datagrams_to_send(self.pair.now)), message)
        self.assertIs(False, self.client._probe_pending, message)

    def test_max_datagram_size(self) -> None:
        """_max_datagram_size bounds what is sent, and may be changed at any time."""
        message = "_max_datagram_size: Engine.set_max_datagram_size"
        self.assertEqual(1200, self.client._max_datagram_size, message)
        for size in (1300, 1200):
            self.client._max_datagram_size = size
            self.one.send(self.one.open_stream(), bytes(20000))
            self.pair.sent.clear()
            self.pair.run(1.0)
            self.assertEqual(size, max(size for _, _, size in self.pair.sent), message)

    def test_parse_transport_parameters(self) -> None:
        """_parse_transport_parameters gets what the peer said, and does not keep its limit."""
        message = "_parse_transport_parameters: Engine.set_max_datagram_size, the peer's limit"
        parameters = inspect.signature(QuicConnection._parse_transport_parameters).parameters
        self.assertEqual(["self", "data", "from_session_ticket"], list(parameters), message)
        said = Buffer(capacity=64)
        push_quic_transport_parameters(said, QuicTransportParameters(max_udp_payload_size=1300))
        self.client._parse_transport_parameters(said.data, from_session_ticket=True)
        self.client.set_max_datagram_size(1452)
        self.assertEqual(1300, self.client._max_datagram_size, message)

    def test_remote_max_datagram_frame_size(self) -> None:
        """_remote_max_datagram_frame_size is the peer's transport parameter, None without it."""
        message = "_remote_max_datagram_frame_size: Engine.datagram_limit; too much kills"
        self.assertEqual(65535, self.client._remote_max_datagram_frame_size, message)
        one, _ = Pair(server=server_settings(datagrams=False)).connect()
        self.assertIsNone(one.engine._remote_max_datagram_frame_size, message)

    def test_datagrams_pending(self) -> None:
        """_datagrams_pending is the queue of DATAGRAM frames."""
        message = "_datagrams_pending: Engine.queued_datagrams, the bound of the queue"
        self.client.send_datagram_frame(b"x")
        self.assertEqual([b"x"], list(self.client._datagrams_pending), message)

    def test_host_cid_and_connection_id_events(self) -> None:
        """host_cid is there from the start; others come as events when they are sent."""
        message = "host_cid: the Multiplexer's table of connection ids"
        self.assertEqual(8, len(self.client.host_cid), message)
        self.assertEqual(CONNECTION_IDS, len(self.one.connection_ids), message)


class StreamTests(ContractTestCase):
    """What Engine reads of streams, and the credit that it gives for them."""

    def test_streams(self) -> None:
        """_streams has those that are not finished, by id."""
        message = "_streams: Engine.unsent, receives, forget, and both windows"
        stream = self.open_stream()
        self.assertIs(stream, self.client._streams[stream.stream_id], message)
        self.one.send(stream.stream_id, b"", end=True)
        self.pair.run_until_quiet()
        self.other.send(stream.stream_id, b"", end=True)
        self.pair.run_until_quiet()
        self.assertEqual({}, self.client._streams, message)

    def test_sender_offsets(self) -> None:
        """_buffer_stop is what was written, highest_offset what was sent once."""
        message = "sender._buffer_stop, highest_offset: Engine.unsent and all backpressure"
        sender = self.open_stream(bytes(1000)).sender
        self.assertEqual((1000, 0), (sender._buffer_stop, sender.highest_offset), message)
        self.pair.run_until_quiet()
        self.assertEqual((1000, 1000), (sender._buffer_stop, sender.highest_offset), message)

    def test_sender_is_finished(self) -> None:
        """When the end is acknowledged."""
        message = "sender.is_finished: Engine.unsent"
        sender = QuicStreamSender(stream_id=0, writable=True)
        self.assertIs(False, sender.is_finished, message)
        self.assertIs(True, QuicStreamSender(stream_id=0, writable=False).is_finished, message)

    def test_receiver_offsets(self) -> None:
        """starting_offset() is what was delivered, highest_offset the farthest that came."""
        message = "receiver.starting_offset(), highest_offset: Engine's windows"
        receiver = self.receive((4, b"late"))
        self.assertEqual((0, 8), (receiver.starting_offset(), receiver.highest_offset), message)
        receiver = self.receive((4, b"late"), (0, b"soon"))
        self.assertEqual((8, 8), (receiver.starting_offset(), receiver.highest_offset), message)

    def test_receiver_buffer(self) -> None:
        """_buffer keeps what came out of order, even after a reset, when nothing reads it."""
        message = "receiver._buffer: Engine.forget frees it"
        receiver = self.receive((4, b"late"))
        receiver.handle_reset(final_size=8)
        self.assertIs(True, receiver.is_finished, message)
        self.assertEqual(b"\0\0\0\0late", receiver._buffer, message)
        receiver._buffer.clear()
        frame = QuicStreamFrame(data=b"soon", offset=0)
        self.assertIsNone(receiver.handle_frame(frame), message)

    def test_receiver_ranges(self) -> None:
        """_ranges has the pieces that wait for what is missing."""
        message = "receiver._ranges: Engine._check_gaps"
        self.assertEqual(2, len(self.receive((4, b"late"), (10, b"later"))._ranges), message)
        self.assertEqual(0, len(self.receive((0, b"soon"))._ranges), message)

    def receive(self, *frames: tuple[int, bytes]) -> QuicStreamReceiver:
        """A receiver that got some (offset, data)."""
        receiver = QuicStreamReceiver(stream_id=0, readable=True)
        for offset, data in frames:
            receiver.handle_frame(QuicStreamFrame(data=data, offset=offset))
        return receiver

    def test_crypto_streams(self) -> None:
        """_crypto_streams has the handshake's stream of each epoch."""
        message = "_crypto_streams: Engine._handle_crypto_frame"
        epochs = {tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT}
        self.assertEqual(epochs, set(self.client._crypto_streams), message)

    def test_frame_handlers_can_be_overridden(self) -> None:
        """_handle_stream_frame and _handle_crypto_frame are looked up on the instance."""
        message = "_handle_stream_frame, _handle_crypto_frame: Engine bounds the gaps there"
        handlers = self.client._QuicConnection__frame_handlers
        for kind, own in (
            (0x06, self.client._handle_crypto_frame),
            (0x08, self.client._handle_stream_frame),
        ):
            self.assertEqual(own, handlers[kind][0], message)
        expected = ["self", "context", "frame_type", "buf"]
        for method in (QuicConnection._handle_stream_frame, QuicConnection._handle_crypto_frame):
            self.assertEqual(expected, list(inspect.signature(method).parameters), message)

    def test_frame_handlers(self) -> None:
        """_QuicConnection__frame_handlers has a bound method and its epochs for each type."""
        message = "_QuicConnection__frame_handlers: memory.FrameHandlers stands for them"
        stock = QuicConnection(configuration=client_settings().configuration(is_client=True))
        table = stock._QuicConnection__frame_handlers  # type: ignore[attr-defined]
        self.assertIs(dict, type(table), message)
        ours = self.client._QuicConnection__frame_handlers
        for kind, (handler, epochs) in table.items():
            self.assertEqual((handler.__name__, epochs), (ours[kind][0].__name__, ours[kind][1]))
        self.assertRaises(KeyError, lambda: ours[0x3F])

    def test_crypto_buffers(self) -> None:
        """_discard_epoch is called for each epoch, and _crypto_buffers is what TLS writes to."""
        message = "_crypto_buffers, _discard_epoch: memory.discard"
        fresh = Pair().dial().engine
        for buffer in fresh._crypto_buffers.values():
            self.assertEqual(16384, buffer.capacity, message)
        for engine in (self.client, self.server):
            (left,) = engine._crypto_buffers.items()
            self.assertEqual((tls.Epoch.ONE_RTT, 512), (left[0], left[1].capacity), message)

    def test_stream_limits(self) -> None:
        """_local_max_streams_bidi and _uni go into the transport parameters of the handshake."""
        message = "_local_max_streams_bidi, _uni: Engine.__init__; stock lets a peer open 128 each"
        self.assertEqual(16, self.server._local_max_streams_bidi.value, message)
        self.assertEqual(16, self.client._remote_max_streams_bidi, message)
        self.assertEqual(0, self.server._local_max_streams_uni.value, message)
        self.assertEqual(0, self.client._remote_max_streams_uni, message)

    def test_local_max_data(self) -> None:
        """_local_max_data counts every byte up to the farthest of each stream."""
        message = "_local_max_data: the connection's window"
        limit = self.server._local_max_data
        self.assertEqual((0, limit.value), (limit.used, limit.sent), message)
        self.open_stream(bytes(5000))
        self.pair.run_until_quiet()
        self.assertEqual(5000, limit.used, message)

    def test_connection_limits_hook(self) -> None:
        """_write_connection_limits is called for each packet; stock doubles by `used` there."""
        message = "_write_connection_limits: Engine's window that follows consumption"
        value = self.server._local_max_data.value
        self.pair.client.upload(self.one, self.one.open_stream(), bytes(value))
        self.pair.run_until_quiet()
        got = self.server._local_max_data.value
        self.assertTrue(value < got <= 2 * value and got == self.client._remote_max_data, message)

    def test_stream_limits_hook(self) -> None:
        """_write_stream_limits is called for each packet, with max_stream_data_local and _sent."""
        message = "_write_stream_limits: Engine's window that follows consumption"
        self.pair.server.consumes = False
        stream = self.open_stream(bytes(STREAM_WINDOW))
        self.pair.run_until_quiet()
        receiving = self.server._streams[stream.stream_id]
        self.assertEqual(stream.stream_id, receiving.stream_id, message)
        for limit in (receiving.max_stream_data_local, receiving.max_stream_data_local_sent):
            self.assertEqual(STREAM_WINDOW, limit, message)
        self.other.consume(stream.stream_id, STREAM_WINDOW)
        self.pair.run_until_quiet()
        for limit in (receiving.max_stream_data_local_sent, stream.max_stream_data_remote):
            self.assertEqual(2 * STREAM_WINDOW, limit, message)

    def test_lost_stream_limits_are_sent_again(self) -> None:
        """_on_max_stream_data_delivery has the frame written again unless it was acknowledged."""
        message = "_on_max_stream_data_delivery: a lost MAX_STREAM_DATA would stall the stream"
        stream = self.open_stream()
        self.client._on_max_stream_data_delivery(None, stream)
        self.assertEqual(0, stream.max_stream_data_local_sent, message)
        self.assertGreaterEqual(MAX_STREAM_DATA_FRAME_CAPACITY, 1 + 8 + 8, message)


class TlsTests(ContractTestCase):
    """What StrictContext overrides and reads."""

    def test_initialize(self) -> None:
        """_initialize makes the TLS context, again after a Retry, before anything is sent."""
        message = "_initialize: where Engine makes the context a StrictContext"
        for engine in (self.client, self.server):
            self.assertIs(StrictContext, type(engine.tls), message)
            before = engine.tls
            engine._initialize(b"12345678")
            self.assertIsNot(before, engine.tls, message)
            self.assertIs(StrictContext, type(engine.tls), message)
        self.assertEqual(
            ["self", "peer_cid"], list(inspect.signature(Engine._initialize).parameters)
        )

    def test_request_client_certificate(self) -> None:
        """_request_client_certificate makes a server ask."""
        message = "_request_client_certificate: without it there is no mutual TLS"
        stock = QuicConnection(configuration=client_settings().configuration(is_client=True))
        stock.connect(CLIENT, 0.0)
        self.assertIs(False, stock.tls._request_client_certificate, message)
        self.assertIs(True, self.server.tls._request_client_certificate, message)
        self.assertIsNotNone(self.server.tls._peer_certificate, message)

    def test_certificate_hooks(self) -> None:
        """_server_handle_certificate[_verify], _client_handle_certificate_verify are called."""
        message = "the three hooks of StrictContext, where peers are judged"
        for name in (
            "_server_handle_certificate",
            "_server_handle_certificate_verify",
            "_client_handle_certificate_verify",
        ):
            parameters = inspect.signature(getattr(tls.Context, name)).parameters
            self.assertEqual(["self", "input_buf"], list(parameters), message)
        self.assertEqual(self.server.tls.peer, self.other.peer, message)
        self.assertIsNotNone(self.server.tls.peer, message)
        self.assertIsNotNone(self.client.tls.peer, message)

    def test_peer_certificate(self) -> None:
        """_peer_certificate and _peer_certificate_chain are what the peer sent."""
        message = "_peer_certificate, _peer_certificate_chain: what Engine's verify judges"
        for engine, peer in ((self.client, server_settings()), (self.server, client_settings())):
            self.assertEqual(peer.credentials.certificate, engine.tls._peer_certificate, message)
            self.assertEqual([], engine.tls._peer_certificate_chain, message)

    def test_set_peer_certificate(self) -> None:
        """_set_peer_certificate parses them; what it cannot parse is an Alert or escapes."""
        message = "_set_peer_certificate: StrictContext turns all it raises into an Alert"
        for data in (b"", b"junk"):
            certificate = tls.Certificate(certificates=[(data, b"")])
            with self.assertRaises(tls.AlertBadCertificate, msg=message):
                self.client.tls._set_peer_certificate(certificate)

    def test_supported_groups(self) -> None:
        """_supported_groups are the groups of the ClientHello's key shares."""
        message = "_supported_groups: Engine, half the cost of a ClientHello"
        self.assertEqual([tls.Group.X25519], self.client.tls._supported_groups, message)

    def test_alerts(self) -> None:
        """A raised Alert closes with its description as the code, and its text as the reason."""
        message = "tls.Alert: the reason that the refused end reads"
        self.assertEqual(116, tls.AlertDescription.certificate_required, message)
        self.assertEqual(42, tls.AlertBadCertificate.description, message)
        self.assertEqual(45, tls.AlertCertificateExpired.description, message)
