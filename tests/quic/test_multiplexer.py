"""Many connections on one socket: which datagram is whose, who is let in, and what is left."""

import dataclasses
import gc

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import TOGETHER, AnyAddress, Multiplexer
from p2pnet.quic.profile import FAST
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.codes import ErrorCode
from tests.quic.harness import (
    CLIENT,
    LIMITS,
    PEER,
    SERVER,
    TWICE,
    Network,
    Pair,
    client_settings,
    server_settings,
)

INTERNAL_ERROR = 0x01
OTHER_PEER = PeerAddress.of_session(bytes([1] * 16))


def source(number: int) -> Address:
    """One of many addresses, each in a /24 of its own."""
    return f"10.{number // 256}.{number % 256}.1", 50000


def first_datagram(address: AnyAddress = SERVER, now: float = 0.0) -> bytes:
    """The Initial of a new client, whose handshake goes no further."""
    mux = Multiplexer()
    mux.connect(client_settings(), address, now)
    ((data, _address),) = mux.datagrams_to_send(now)
    return data


def in_all(mux: Multiplexer) -> int:
    """How many things a multiplexer keeps about connections."""
    connections = len(mux._connections) + len(mux._by_id) + len(mux._dirty) + len(mux._timers)
    return connections + len(mux._answers) + len(mux._events)


class DemultiplexingTests(SynchronousTestCase):
    """Datagrams find their connection, or are dropped and counted."""

    def test_one_socket_carries_both_roles(self) -> None:
        """Clients and servers, to real addresses and to peers, all at once."""
        network = Network()
        ends = []
        for address in (CLIENT, SERVER):
            mux = Multiplexer(
                server=server_settings(), limits=LIMITS, accept_peer=lambda _: server_settings()
            )
            ends.append(network.add(mux, address))
        dialed = [
            end.mux.connect(client_settings(), address, 0.0)
            for end, other in zip(ends, reversed(ends), strict=True)
            for address in (other.address, PEER, other.address)
        ]
        network.run_until_quiet()
        for number, connection in enumerate(dialed):
            self.assertTrue(connection.is_established)
            end, other = ends if number < 3 else ends[::-1]
            stream_id, data = connection.open_stream(), bytes([number] * 5000)
            end.upload(connection, stream_id, data)
            network.run_until_quiet()
            received = other.happened(events.StreamDataReceived)
            self.assertTrue(received[-1].data.endswith(bytes([number])))
        for end in ends:
            self.assertEqual((6, 0), (len(end.mux), end.mux.dropped))

    @given(st.binary(max_size=60) | st.binary(min_size=1195, max_size=1250))
    @hypothesis_settings(max_examples=200, suppress_health_check=TWICE)
    def test_garbage_is_dropped(self, data: bytes) -> None:
        """From anywhere, whatever it is; nothing is raised, answered or kept."""
        mux = Multiplexer(accept_peer=lambda _: server_settings())
        for address in (CLIENT, PEER):
            self.assertIsNone(mux.receive_datagram(data, address, 0.0))
        self.assertEqual(2, mux.dropped)
        self.assertEqual(0, in_all(mux))

    @given(st.data())
    @hypothesis_settings(max_examples=50, suppress_health_check=TWICE)
    def test_a_damaged_datagram_does_no_harm(self, data: st.DataObject) -> None:
        """To a connection that it is for, or seems to be for."""
        pair = Pair()
        one, other = pair.connect()
        one.ping()
        ((packet, _),) = pair.client.mux.datagrams_to_send(pair.now)
        damaged = bytearray(packet)
        for _ in range(data.draw(st.integers(1, 5))):
            damaged[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(damaged[: data.draw(st.integers(0, len(packet)))])
        pair.server.mux.receive_datagram(cut, CLIENT, pair.now)
        pair.run_until_quiet()
        self.assertTrue(one.is_established and other.is_established)
        self.assertEqual(0, pair.server.mux.failures)

    def test_an_unknown_connection_id_is_dropped(self) -> None:
        """Nothing is said about it: the RFC's stateless reset would be, and is not ours."""
        mux = Multiplexer(server=server_settings())
        self.assertIsNone(mux.receive_datagram(b"\x40" + bytes(30), CLIENT, 0.0))
        self.assertEqual((1, []), (mux.dropped, mux.datagrams_to_send(0.0)))

    def test_a_peers_connection_takes_nothing_from_another_peer(self) -> None:
        """A session's packets come through its own channel."""
        pair = Pair(peer=True)
        one, _ = pair.connect()
        one.ping()
        ((data, _address),) = pair.client.mux.datagrams_to_send(pair.now)
        self.assertIsNone(pair.server.mux.receive_datagram(data, OTHER_PEER, pair.now))
        self.assertEqual(1, pair.server.mux.dropped)

    def test_a_peers_packets_may_come_directly(self) -> None:
        """From any real address; where the answers go is decided above, and stays."""
        pair = Pair(peer=True)
        one, other = pair.connect()
        for address in (CLIENT, ("192.0.2.77", 7)):
            stream_id = one.open_stream()
            one.send(stream_id, b"directly")
            for data, _ in pair.client.mux.datagrams_to_send(pair.now):
                self.assertIs(other, pair.server.mux.receive_datagram(data, address, pair.now))
            pair.server.take_events()
            self.assertEqual(b"directly", pair.server.received(other, stream_id))
            self.assertEqual(PEER, other.peer_address)
        pair.run_until_quiet()
        self.assertTrue(one.is_established and other.is_established)

    def test_a_real_connection_takes_nothing_from_a_peer(self) -> None:
        """A peer is no path to migrate to."""
        pair = Pair()
        one, other = pair.connect()
        one.ping()
        ((data, _address),) = pair.client.mux.datagrams_to_send(pair.now)
        self.assertIsNone(pair.server.mux.receive_datagram(data, PEER, pair.now))
        self.assertEqual(1, pair.server.mux.dropped)
        self.assertEqual(CLIENT, other.peer_address)

    def test_without_a_server_role_initials_are_dropped(self) -> None:
        """And no version is negotiated: an agent is silent towards strangers."""
        mux = Multiplexer(accept_peer=lambda address: None)
        foreign = b"\xc0\0\0\0\x02\x08" + bytes(1200)
        for data, address in ((first_datagram(), CLIENT), (first_datagram(), PEER)):
            mux.receive_datagram(data, address, 0.0)
        for address in (CLIENT, PEER):
            mux.receive_datagram(foreign, address, 0.0)
        self.assertEqual((4, 0, []), (mux.dropped, in_all(mux), mux.datagrams_to_send(0.0)))

    def test_a_rebound_client_keeps_its_connection(self) -> None:
        """A NAT gives it another address while it sends; the server follows."""
        pair = Pair()
        one, other = pair.connect()
        stream_id = one.open_stream()
        pair.client.upload(one, stream_id, bytes(400_000))
        pair.run(0.05)
        pair.client.address = rebound = (CLIENT[0], CLIENT[1] + 1)
        pair.run_until_quiet()
        self.assertEqual(400_000, len(pair.server.received(other, stream_id)))
        self.assertEqual(rebound, other.peer_address)
        self.assertTrue(one.is_established and other.is_established)

    def test_a_rebound_client_goes_on_reading(self) -> None:
        """A PING tells the server where it is now."""
        pair = Pair()
        one, other = pair.connect()
        stream_id = one.open_stream()
        pair.client.upload(one, stream_id, b"download, please")
        pair.run_until_quiet()
        pair.server.upload(other, stream_id, bytes(400_000))
        pair.run(0.05)
        pair.client.address = rebound = (CLIENT[0], CLIENT[1] + 1)
        one.ping()
        pair.run_until_quiet()
        self.assertEqual(400_000, len(pair.client.received(one, stream_id)))
        self.assertEqual(rebound, other.peer_address)

    def test_a_fault_of_ours_ends_only_the_connection_that_met_it(self) -> None:
        """Whatever is raised while a datagram is taken apart."""
        pair = Pair()
        one, _ = pair.connect()
        pair.server.mux.admission.server = server_settings(utcnow=lambda: 1 / 0)
        pair.dial()
        pair.run_until_quiet()
        (closed,) = pair.server.happened(events.ConnectionClosed)
        self.assertEqual((INTERNAL_ERROR, False), (closed.code, closed.by_application))
        self.assertIs(ErrorCode.PEER_LOST, closed.error_code)
        self.assertEqual((1, 1), (pair.server.mux.failures, len(pair.server.mux)))
        self.assertTrue(one.is_established)

    def test_nothing_follows_the_end(self) -> None:
        """What still arrives for a connection that was just closed is not reported."""
        pair = Pair()
        one, other = pair.connect()
        stream_id = one.open_stream()
        one.send(stream_id, bytes(5000))
        datagrams = pair.client.mux.datagrams_to_send(pair.now)
        self.assertGreater(len(datagrams), 2)
        other.close(ErrorCode.SHUTDOWN, "bye")
        for data, _ in datagrams:
            pair.server.mux.receive_datagram(data, CLIENT, pair.now)
        other.watch(stream_id)
        pair.run_until_quiet()
        last = [event for _, event in pair.server.events][-1]
        self.assertEqual(events.ConnectionClosed(ErrorCode.SHUTDOWN, "bye", True), last)


def half_open(mux: Multiplexer) -> int:
    """The number of handshakes of a server that neither completed nor failed."""
    return len(mux.admission.half_open)


def arrive(
    mux: Multiplexer, data: bytes, address: AnyAddress = CLIENT, now: float = 0.0
) -> list[tuple[bytes, AnyAddress]]:
    """Have a datagram arrive at a server, and give the client its turn. Returns what is sent."""
    mux.receive_datagram(data, address, now)
    return mux.datagrams_to_send(now)


class AdmissionTests(SynchronousTestCase):
    """Strangers, and floods of them."""

    def server(self, **limits: int) -> Multiplexer:
        """A server's multiplexer, the only one; each Initial is made when it is needed."""
        return Multiplexer(server=server_settings(), limits=dataclasses.replace(LIMITS, **limits))

    def test_another_version_is_negotiated_with_large_datagrams_only(self) -> None:
        """And never with a version negotiation, or two servers would not come to an end."""
        mux = self.server()
        for version, size, answers in ((2, 1200, 1), (2, 1199, 0), (0, 1200, 0), (1, 1200, 0)):
            data = b"\xc0" + version.to_bytes(4, "big") + b"\x0812345678\x0487654321"
            mux.receive_datagram(data.ljust(size, b"\0"), CLIENT, 0.0)
            sent = mux.datagrams_to_send(0.0)
            self.assertEqual([CLIENT] * answers, [address for _, address in sent])
            self.assertTrue(all(len(answer) < 100 for answer, _ in sent))
        self.assertEqual(4, mux.dropped)

    def test_retry_under_load(self) -> None:
        """Above the limit an address must be proven, which costs a round trip and no state."""
        pair = Pair(limits=dataclasses.replace(LIMITS, retry_above=3))
        for number in range(3):
            arrive(pair.server.mux, first_datagram(), source(number))
        self.assertEqual((3, 0), (half_open(pair.server.mux), self.retries(pair)))
        one, other = pair.connect()
        self.assertEqual(1, self.retries(pair))
        self.assertTrue(one.is_established and other.is_established)
        self.assertEqual(3, half_open(pair.server.mux))
        self.assertEqual(4, len(pair.server.mux))

    def retries(self, pair: Pair) -> int:
        """How many Retry packets the server sent."""
        return pair.server.mux.admission.retry.sent

    def test_a_retry_is_smaller_than_what_it_answers_and_keeps_nothing(self) -> None:
        """Or it would be an amplifier, and a way to fill the memory."""
        mux = self.server(retry_above=0)
        ((answer, address),) = arrive(mux, first_datagram())
        self.assertEqual((CLIENT, 0), (address, in_all(mux)))
        header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
        self.assertIs(QuicPacketType.RETRY, header.packet_type)
        self.assertLess(len(answer), 200)

    def test_a_token_is_for_one_address_and_a_short_time(self) -> None:
        """Replayed from elsewhere, or late, or damaged, it is refused without a word."""
        for address, later, opened in (
            (CLIENT, 0.0, 1), (source(1), 0.0, 0), ((CLIENT[0], 1), 0.0, 0),
            (CLIENT, 29.0, 1), (CLIENT, 31.0, 0),
        ):  # fmt: skip
            mux = self.server(retry_above=0)
            data = self.with_token(mux)
            arrive(mux, data, address, later)
            self.assertEqual(opened, half_open(mux), (address, later))
            self.assertEqual(1 - opened, mux.admission.refused)

    def with_token(self, mux: Multiplexer) -> bytes:
        """The Initial with which a client answers the Retry of `mux`."""
        client = Multiplexer()
        client.connect(client_settings(), SERVER, 0.0)
        ((initial, _),) = client.datagrams_to_send(0.0)
        ((retry, _),) = arrive(mux, initial)
        client.receive_datagram(retry, SERVER, 0.0)
        return client.datagrams_to_send(0.0)[0][0]

    def test_the_cap_of_connections_holds_for_proven_addresses(self) -> None:
        """A token shows where a client is; beyond the cap nobody is let in."""
        mux = self.server(connections=2, retry_above=0)
        for _ in range(4):
            arrive(mux, self.with_token(mux))
        self.assertEqual((2, 2), (half_open(mux), mux.admission.refused))

    def test_half_open_returns_to_0(self) -> None:
        """After completion, after refusal and after silence."""
        pair = Pair()
        pair.connect()
        self.assertEqual(0, half_open(pair.server.mux))
        pair.server.mux.admission.server = server_settings(roles=frozenset())
        pair.dial()
        pair.run_until_quiet()
        self.assertEqual(1, len(pair.server.happened(events.ConnectionClosed)))
        self.assertEqual(0, half_open(pair.server.mux))
        arrive(pair.server.mux, first_datagram(), source(1), pair.now)
        self.assertEqual(1, half_open(pair.server.mux))
        pair.run(60.0)
        self.assertEqual(0, half_open(pair.server.mux))

    def test_an_initial_that_cannot_be_decrypted_leaves_nothing(self) -> None:
        """Nor an answer."""
        for address, mux in (
            (CLIENT, self.server()), (PEER, Multiplexer(accept_peer=lambda _: server_settings())),
        ):  # fmt: skip
            data = bytearray(first_datagram())
            data[100] ^= 1
            self.assertEqual([], arrive(mux, bytes(data), address))
            self.assertEqual((1, 0, 0), (mux.dropped, half_open(mux), in_all(mux)))

    def test_an_unproven_address_gets_no_more_than_three_times_what_it_sent(self) -> None:
        """RFC 9000 section 8.1, until the idle timeout."""
        pair = Pair()
        data = first_datagram()
        arrive(pair.server.mux, data)
        pair.run(60.0)
        self.assertTrue(0 < sum(size for _, _, size in pair.sent) <= 3 * len(data))


class TimerTests(SynchronousTestCase):
    """When a multiplexer wants to be called."""

    def test_idle_connections_are_looked_at_together(self) -> None:
        """Each ping puts the idle timeout off, which is found out at the old time: not a call for
        each connection. And one that fell silent ends hardly later than it should."""
        # aioquic's own engine also asks for a call to answer each ping.
        pair = Pair(client=client_settings(engine=FAST), server=server_settings(engine=FAST))
        mux = pair.server.mux
        ones = [pair.connect()[0] for _ in range(20)]
        handle, calls = mux.handle_timer, []

        def count(now: float) -> None:
            calls.append(now)
            handle(now)

        self.patch(mux, "handle_timer", count)
        idle = ones[0].engine._idle_timeout()
        for _ in range(round(3 * idle / 5.0)):
            for one in ones:
                one.ping()
                pair.run(0.01)
            pair.run(4.8)
        spread = len(ones) * 0.1
        self.assertTrue(0 < len(calls) < 3 * (1 + spread / TOGETHER), calls)
        self.assertEqual(len(ones), len(mux))
        self.patch(pair, "loss", 1.0)
        pair.run(idle + 2 * TOGETHER)
        self.assertEqual(0, len(mux))


class LeakTests(SynchronousTestCase):
    """What is left of connections that ended, in whatever way."""

    def test_200_connections_leave_nothing(self) -> None:
        """Closed by either end, refused, or fallen silent; not even the objects."""
        pair = Pair(limits=dataclasses.replace(LIMITS, retry_above=1000))
        for number in range(200):
            self.end_in_some_way(pair, number)
        pair.run(60.0)
        for end in pair.endpoints:
            self.assertEqual(200, len(end.happened(events.ConnectionClosed)))
            self.assertEqual((0, None), (len(end.mux), end.mux.get_timer()))
            self.assertEqual(0, in_all(end.mux))
            self.assertEqual(0, half_open(end.mux))
            end.events.clear()
            end.uploads.clear()
        gc.collect()
        alive = [thing for thing in gc.get_objects() if isinstance(thing, Connection)]
        self.assertEqual([], [thing for thing in alive if thing.owner == "leak test"])

    def end_in_some_way(self, pair: Pair, number: int) -> None:
        """One connection, ended in one of six ways."""
        way = number % 6
        if way == 5:
            pair.dial(client_settings(roles=frozenset())).owner = "leak test"
            pair.run_until_quiet()
            return
        one, other = pair.connect()
        one.owner = other.owner = "leak test"
        stream_id = one.open_stream()
        pair.client.upload(one, stream_id, bytes(3000))
        if way == 0:
            one.close(0, "by the client")
        elif way == 1:
            pair.run_until_quiet()
            other.close(0, "by the server")
        elif way == 2:
            one.close(0, "by both")
            other.close(0, "by both")
        elif way == 3:
            pair.run_until_quiet()  # and silence
        else:
            pair.loss = 1.0
            pair.run(30.0)
            pair.loss = 0.0
