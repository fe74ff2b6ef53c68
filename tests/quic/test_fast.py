"""The fast engine packet by packet: what it takes is what aioquic would take."""

from collections.abc import Iterable
from typing import Any

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.fast import FastEngine
from p2pnet.quic.fast.frames import STREAM
from p2pnet.quic.fast.receive import ACK_ALONE, FastReceiver
from p2pnet.quic.fast.streams import Chunks
from p2pnet.quic.flow_control import STREAM_WINDOW
from p2pnet.quic.profile import ENGINES, FAST, STOCK
from tests.quic.harness import CLIENT, Pair, client_settings, server_settings

PROTOCOL_VIOLATION = 0x0A  # RFC 9000 section 20.1
WATCHED = ("wake", "signal")  # what the fast engine adds to a stream


def told(events: Iterable[Any]) -> dict[int | None, list[Any]]:
    """What events say of each stream, None for all else; bytes that follow each other are one."""
    rows: dict[int | None, list[Any]] = {}
    for event in events:
        row = rows.setdefault(getattr(event, "stream_id", None), [])
        if not isinstance(event, Chunks | StreamDataReceived):
            row.append(event)
            continue
        data = b"".join(event.chunks) if isinstance(event, Chunks) else event.data
        if row and isinstance(row[-1], bytes):
            row[-1] += data
        else:
            row.append(data)
        if isinstance(event, StreamDataReceived) and event.end_stream:
            row.append("end")
    return rows


def fast_pair(loss: float = 0.0, **options: Any) -> Pair:
    """Two fast engines, whatever the rest of the suite is run with."""
    return Pair(
        client=client_settings(engine=FAST),
        server=server_settings(engine=FAST, **options),
        loss=loss,
    )


class Forge:
    """A server with an engine, and a client of which every packet can be made by hand."""

    def __init__(self, engine: str) -> None:
        self.pair = Pair(
            client=client_settings(engine=STOCK), server=server_settings(engine=engine)
        )
        self.one, self.other = self.pair.connect()
        for _ in range(2):  # something to acknowledge, and to be flow-controlled
            stream_id = self.one.open_stream()
            self.one.send(stream_id, b"hello")
            self.pair.run_until_quiet()
            self.other.send(stream_id, b"world")
        self.pair.run(0.0)
        self.server: Any = self.other.engine
        self.number: int = self.one.engine._packet_number

    def packet(self, payload: bytes, *, size: int = 2, reserved: int = 0) -> bytes:
        """A protected 1-RTT packet with its number in so many bytes."""
        client: Any = self.one.engine
        pair = client._cryptos[tls.Epoch.ONE_RTT]
        number, self.number = self.number, self.number + 1
        first = 0x40 | reserved | pair.key_phase << 2 | (size - 1)
        truncated = (number & ((1 << 8 * size) - 1)).to_bytes(size, "big")
        header = bytes([first]) + client._peer_cid.cid + truncated
        data: bytes = pair.encrypt_packet(header, payload, number)
        return data

    def give(self, data: bytes) -> None:
        """Let the server have a datagram."""
        self.server.receive_datagram(data, CLIENT, self.pair.now)

    def state(self) -> dict[str, Any]:
        """All that a packet may change."""
        if isinstance(self.server, FastEngine):
            self.server._settle_acks()  # as it would before it sends anything
        server, space = self.server, self.server._loss.spaces[-1]
        return {
            "events": told(server._events),
            "closing": server.closing,
            "streams": {
                stream_id: (
                    {n: repr(v) for n, v in vars(stream.receiver).items() if n not in WATCHED},
                    {n: repr(v) for n, v in vars(stream.sender).items() if n not in WATCHED},
                    stream.max_stream_data_local,
                    stream.max_stream_data_remote,
                )
                for stream_id, stream in server._streams.items()
            },
            "data": (server._local_max_data.used, server._remote_max_data, server._undelivered),
            "ranges": list(space.ack_queue),
            "expected": (space.expected_packet_number, space.largest_received_packet),
            "ack due": space.ack_at is not None,
            "acked": (space.largest_acked_packet, list(space.sent_packets)),
            "in flight": (server.bytes_in_flight, space.ack_eliciting_in_flight),
            "window": server._loss.congestion_window,
            "pending": (list(server._ping_pending), server._close_pending),
        }


small = st.integers(0, 70).map(encode_uint_var)
anything = small | st.integers(0, 2**62 - 1).map(encode_uint_var)
stream_ids = st.sampled_from([0, 0, 0, 4, 4, 1, 2, 8, 64, 400]).map(encode_uint_var)
stream_frames = st.builds(
    lambda kind, stream_id, offset, data, lie: (
        bytes([kind])
        + stream_id
        + (offset if kind & 4 else b"")
        + (encode_uint_var(len(data) + lie) if kind & 2 else b"")
        + data
    ),
    st.integers(8, 15),
    stream_ids,
    st.sampled_from([5, 5, 5, 0, 3, 6, 9, STREAM_WINDOW, 2**61]).map(encode_uint_var),
    st.binary(max_size=8),
    st.sampled_from([0, 0, 0, 0, 1]),
)
ack_frames = st.builds(
    lambda kind, fields: kind + b"".join(fields),
    st.sampled_from([b"\x02", b"\x02", b"\x03"]),
    st.lists(small, min_size=3, max_size=8),
)
frames = (
    stream_frames
    | stream_frames
    | ack_frames
    | st.binary(max_size=6).map(lambda data: b"\x31" + encode_uint_var(len(data)) + data)
    | st.sampled_from([b"\x01", b"\x00", b"\x30rest", b"\x06\x00\x00", b"\x1e", b"\x40\x01"])
    | st.builds(
        lambda kind, id, n: kind + id + n, st.sampled_from([b"\x05", b"\x11"]), stream_ids, anything
    )
    | st.builds(lambda n: b"\x10" + n, anything)
    | st.builds(lambda id, n: b"\x04" + id + b"\x07" + n, stream_ids, small)
    | st.binary(min_size=1, max_size=5)
)
payloads = st.lists(frames, min_size=1, max_size=5).map(b"".join)


class PacketTests(SynchronousTestCase):
    """Packets made by hand."""

    @given(st.lists(payloads, min_size=1, max_size=4))
    @example([b""])
    @example([b"\x0a\x00\x02hi", b"\x0e\x00\x05\x02hi", b"\x0f\x00\x0a\x00"])
    @example([b"\x0e\0\5\2ab", b"\x0e\0\x09\2ef", b"\x0e\0\7\2cd", b"\x0e\0\x0b\2gh"])
    @example([b"\x0e\0\5\2ab", b"\0\x0e\0\7\2cd", b"\x0e\0\x09\2ef"])  # aioquic's between
    @hypothesis_settings(max_examples=150)
    def test_both_engines_make_the_same_of_any_packet(self, packets: list[bytes]) -> None:
        """Of frames that are right, cut short, out of order, beyond limits, or nonsense."""
        forges = [Forge(engine) for engine in (FAST, STOCK)]
        self.assertIsInstance(forges[0].server, FastEngine)
        for payload in packets:
            for forge in forges:
                forge.give(forge.packet(payload, size=4))  # enough to sample, if empty
            fast, stock = (forge.state() for forge in forges)
            self.assertEqual(stock, fast)

    def test_both_engines_make_the_same_of_an_acknowledgement(self) -> None:
        """The fast one a little later: it delivers what came with it first."""
        states = []
        for engine in (FAST, STOCK):
            forge = Forge(engine)
            forge.other.send(0, b"more")
            forge.server.datagrams_to_send(forge.pair.now)
            self.assertGreater(forge.server.bytes_in_flight, 0)
            number = encode_uint_var(forge.server._packet_number - 1)
            forge.give(forge.packet(b"\x02" + number + bytes(2) + number + b"\x31\x02hi"))
            self.assertEqual(1, len(forge.server._events))
            states.append(forge.state())
            self.assertEqual((0, 0), states[-1]["in flight"])
        self.assertEqual(*states)

    def test_a_mere_ping_is_answered_at_once(self) -> None:
        """Nothing else will go with the answer; with that to anything else, it may."""
        for payload, packets in ((b"\x01" + bytes(9), 1), (b"\x31\x02hi", 0)):
            forge = Forge(FAST)
            forge.server.datagrams_to_send(forge.pair.now)
            forge.give(forge.packet(payload))
            self.assertEqual(packets, len(forge.server.datagrams_to_send(forge.pair.now)))

    def test_a_question_in_parts_is_acknowledged_with_its_answer(self) -> None:
        """A second packet is acknowledged at once only if it is large, or one was lost before."""
        large = b"\x31\x42\x58" + bytes(0x258)
        for payloads, gap, packets in (
            ([b"\x31\x02hi"] * 2, 0, 0), ([large] * 2, 0, 1), ([b"\x31\x02hi"] * 2, 1, 1),
        ):  # fmt: skip
            forge = Forge(FAST)
            forge.server.datagrams_to_send(forge.pair.now)
            for payload in payloads:
                forge.give(forge.packet(payload))
                forge.number += gap
            self.assertEqual(packets, len(forge.server.datagrams_to_send(forge.pair.now)), gap)
            later = forge.server.datagrams_to_send(forge.pair.now + ACK_ALONE)
            self.assertEqual(1, packets + len(later))

    def test_packet_numbers_of_any_length_are_taken(self) -> None:
        """One to four bytes, in order, late, and with the bytes that are left out carried over."""
        for size in (1, 2, 3, 4):
            forges = [Forge(engine) for engine in (FAST, STOCK)]
            for start in (0, 250, 255, 3):  # relative to the last
                for forge in forges:
                    forge.number += start
                    late = forge.packet(b"\x01\x00\x00\x00", size=size)
                    forge.give(forge.packet(b"\x01\x00\x00\x00", size=size))
                    forge.give(late)
                fast, stock = (forge.state() for forge in forges)
                self.assertEqual(stock, fast)
            if size > 1:
                self.assertEqual(forges[0].number - 1, fast["expected"][1])

    def test_a_packet_is_taken_once(self) -> None:
        """However often it comes."""
        forge = Forge(FAST)
        data = forge.packet(b"\x31\x02hi")
        for _ in range(3):
            forge.give(data)
        self.assertEqual(1, len(forge.state()["events"]))

    def test_a_damaged_packet_changes_nothing(self) -> None:
        """Whichever byte it is."""
        forge = Forge(FAST)
        data = forge.packet(b"\x31\x02hi")
        before = forge.state()
        for index in range(len(data)):
            forge.give(data[:index] + bytes([data[index] ^ 0x15]) + data[index + 1 :])
            forge.give(data[:index])
        self.assertEqual(before, forge.state())

    def test_reserved_bits_end_the_connection(self) -> None:
        """RFC 9000 section 17.3.1."""
        for engine in ENGINES:
            forge = Forge(engine)
            forge.give(forge.packet(b"\x01\x00\x00\x00", reserved=0x08))
            self.assertEqual(PROTOCOL_VIOLATION, forge.server.closing.error_code)


class ShareTests(SynchronousTestCase):
    """Which packets are left to aioquic."""

    def setUp(self) -> None:
        self.left: list[str] = []
        for name in ("receive_datagram", "datagrams_to_send"):
            self.patch(QuicConnection, name, self.counted(name, getattr(QuicConnection, name)))

    def counted(self, name: str, method: Any) -> Any:
        """A method of aioquic's that is noted when it is called."""

        def call(*arguments: Any) -> Any:
            self.left.append(name)
            return method(*arguments)

        return call

    def transfer(self, pair: Pair, one: Any, other: Any) -> None:
        """Send something both ways."""
        stream_id = one.open_stream()
        for endpoint, end in zip(pair.endpoints, (one, other), strict=True):
            endpoint.upload(end, stream_id, bytes(200_000))
            pair.run_until_quiet()
            end.send_datagram(b"x")
        pair.run_until_quiet()

    def test_a_transfer_needs_aioquic_for_nothing(self) -> None:
        """Not one packet, over loss and out of order, but for probes and what follows them."""
        for loss, jitter in ((0.0, 0.0), (0.02, 0.005)):
            pair = fast_pair(loss=loss)
            pair.jitter = jitter
            one, other = pair.connect()
            self.left.clear()
            self.transfer(pair, one, other)
            self.assertLessEqual(len(self.left), 20 if loss else 0)

    def test_streams_begin_and_end_without_it(self) -> None:
        """One after the other, of which the peer opens each."""
        left: list[bytes] = []
        leave = FastReceiver._leave_frames

        def leave_frames(engine: FastReceiver, plain: bytes, now: float) -> bool:
            left.append(plain)
            return leave(engine, plain, now)

        self.patch(FastReceiver, "_leave_frames", leave_frames)
        pair = fast_pair()
        one, other = pair.connect()
        left.clear()
        for number in range(10):
            stream_id = one.open_stream()
            self.assertEqual(4 * number, stream_id)
            one.send(stream_id, b"question", end=True)
            pair.run_until_quiet()
            other.send(stream_id, b"answer", end=True)
            pair.run_until_quiet()
        self.assertEqual(b"question", pair.server.received(other, 36))
        self.assertEqual(b"answer", pair.client.received(one, 36))
        self.assertEqual([], [plain for plain in left if plain[0] & 0xF8 == STREAM])

    def test_fast_again_after_the_client_moved(self) -> None:
        """Its server validates the new path first."""
        pair = fast_pair()
        one, other = pair.connect()
        pair.client.address = (pair.client.address[0], 50_009)
        one.ping()
        pair.run_until_quiet()
        self.assertIn("receive_datagram", self.left)
        self.left.clear()
        self.transfer(pair, one, other)
        self.assertEqual([], self.left)

    def test_fast_again_after_a_key_update(self) -> None:
        """By either end."""
        pair = fast_pair()
        one, other = pair.connect()
        for end in (one, other):
            end.engine.request_key_update()
            end.ping()
            pair.run_until_quiet()
        self.left.clear()
        self.transfer(pair, one, other)
        self.assertEqual([], self.left)


class IdleTests(SynchronousTestCase):
    """Streams that are open and have nothing to do."""

    def test_idle_streams_are_not_looked_at(self) -> None:
        """Neither end has any awake while another stream transfers."""
        pair = fast_pair(max_streams=200)
        one, other = pair.connect()
        for _ in range(100):
            one.send(one.open_stream(), b"x")
        pair.run_until_quiet()
        stream_id = one.open_stream()
        pair.client.upload(one, stream_id, bytes(300_000))
        while not pair.server.received(other, stream_id)[290_000:]:
            pair.run(0.01)
            for end in (one, other):
                engine: Any = end.engine
                awake = {*engine._streams.awake, *engine._streams.signaling}
                self.assertLessEqual(awake, {stream_id})

    def test_streams_take_turns(self) -> None:
        """Ten uploads are never far apart."""
        pair = fast_pair()
        one, other = pair.connect()
        ids = []
        for _ in range(10):
            ids.append(one.open_stream())
            pair.client.upload(one, ids[-1], bytes(100_000))
            pair.run(0.0)
        while pair.now < 60 and not all(pair.server.received(other, i)[99_999:] for i in ids):
            pair.run(0.005)
            sizes = [len(pair.server.received(other, stream_id)) for stream_id in ids]
            self.assertLess(max(sizes) - min(sizes), 40_000, sizes)
