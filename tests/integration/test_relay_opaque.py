"""The relay cannot read what it relays: with all that the Intermediate holds, no packet opens.

First in a simulated network, with the real code of all three nodes, where the Intermediate's TLS
secrets can be had; then with real processes and a tap on their sockets.
"""

import io
import os
import selectors
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from aioquic._crypto import CryptoError
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.crypto import CryptoContext, CryptoPair
from aioquic.quic.packet import (
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    pull_ack_frame,
    pull_quic_header,
)
from aioquic.tls import CipherSuite, Group, pull_client_hello, pull_server_hello
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from lab.forked import ForkedDeployment
from p2pnet.core.peer.profiles import PEER_ALPN
from p2pnet.endpoints import P2PClientEndpoint
from p2pnet.identity import Credentials, Role, load_certificates
from p2pnet.quic.profile import CONNECTION_ID_LENGTH, ConnectionProfile
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.testing.processes import Service
from p2pnet.testing.realm import Simulation
from p2pnet.wire.address import Address, parse_host_port
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.relay_frame import decode_relay_frame
from tests.integration.test_http import ANY_PORT, MEBIBYTE, TIMEOUT, listener_of, read_to_end

SERVICE, AGENT, CONNECTOR = "payroll-of-the-firm", "alice-at-home", "office-in-town"
REQUEST = b"GET /what/everybody/earns " + os.urandom(100)
RESPONSE = os.urandom(256 * 1024)
FRAGMENT = 24  # bytes in a row that show that something is not encrypted
SUITES = (CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256)
INTERMEDIATE_HOST, CONNECTOR_HOST, AGENT_HOST = "192.0.2.1", "198.51.100.1", "203.0.113.1"


class Packet(NamedTuple):
    """One QUIC packet of a datagram, still protected."""

    header: QuicHeader
    data: bytes
    encrypted_at: int

    def decrypt(self, keys: Iterable[CryptoContext]) -> bytes | None:
        """Its payload, if any of the keys opens it."""
        for key in keys:
            try:
                return key.decrypt_packet(self.data, self.encrypted_at, 0)[1]
            except CryptoError:
                continue
        return None


def split_packets(datagram: bytes) -> Iterator[Packet]:
    """The coalesced packets of a datagram (RFC 9000 section 12.2)."""
    buffer = Buffer(data=datagram)
    while any(datagram[buffer.tell() :]):  # the rest may be zeros, to fill the datagram up
        start = buffer.tell()
        header = pull_quic_header(buffer, host_cid_length=CONNECTION_ID_LENGTH)
        end = start + header.packet_length
        yield Packet(header, datagram[start:end], buffer.tell() - start)
        buffer.seek(end)


def initial_keys(datagrams: Iterable[bytes]) -> list[CryptoContext]:
    """The keys of Initial packets, which anybody can derive (RFC 9001 section 5.2)."""
    ids = {p.header.destination_cid for d in datagrams for p in split_packets(d)}
    keys = []
    for connection_id in ids:
        for is_client in (False, True):
            pair = CryptoPair()
            pair.setup_initial(connection_id, is_client, QuicProtocolVersion.VERSION_1)
            keys.append(pair.recv)
    return keys


def keys_of(secrets_log: str) -> list[CryptoContext]:
    """The keys of every secret in a log of NSS's SSLKEYLOGFILE format."""
    keys = []
    for line in secrets_log.splitlines():
        for suite in SUITES:
            key = CryptoContext()
            secret = bytes.fromhex(line.split()[2])
            key.setup(cipher_suite=suite, secret=secret, version=QuicProtocolVersion.VERSION_1)
            keys.append(key)
    return keys


def crypto_stream(payloads: Iterable[bytes]) -> bytes:
    """What the CRYPTO frames of Initial packets carry; any other frame but ACK is an error."""
    stream: dict[int, bytes] = {}
    for payload in payloads:
        buffer = Buffer(data=payload)
        while not buffer.eof():
            kind = buffer.pull_uint_var()
            if kind == QuicFrameType.ACK:
                pull_ack_frame(buffer)
            elif kind == QuicFrameType.CRYPTO:
                offset = buffer.pull_uint_var()
                stream[offset] = buffer.pull_bytes(buffer.pull_uint_var())
            elif kind not in (QuicFrameType.PADDING, QuicFrameType.PING):
                raise ValueError(f"frame {kind:#x} in an Initial packet")
    return b"".join(stream[offset] for offset in sorted(stream))


def fragments(data: bytes) -> Iterator[bytes]:
    """Pieces of `data`, so short that some show even if it is cut into packets."""
    for at in range(0, max(1, len(data) - FRAGMENT + 1), FRAGMENT):
        yield data[at : at + FRAGMENT]


def find(secrets: Iterable[bytes], datagrams: Iterable[bytes]) -> set[bytes]:
    """Those of the secrets of which any fragment is in any of the datagrams."""
    together = b"\0".join(datagrams)
    return {s for s in secrets if any(part in together for part in fragments(s))}


def der(credentials: Credentials) -> bytes:
    """The certificate as it would be on the wire."""
    return credentials.certificate.public_bytes(Encoding.DER)


class Client(Protocol):
    """Sends the request and keeps the answer."""

    def __init__(self) -> None:
        self.received = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(REQUEST)

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Server(Protocol):
    """Answers a request."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(RESPONSE)


class SimulatedRelayTests(SynchronousTestCase):
    """All of the Intermediate's traffic and all of its secrets, from one session.

    :ivar control: the QUIC datagrams between the nodes and the Intermediate itself.
    :ivar relayed: the payloads of the relay frames: (sent by the agent, packet) each.
    :ivar held: the secrets of the Intermediate; `withheld`: those of the other two nodes.
    """

    def setUp(self) -> None:
        """Let a client get an answer from the service."""
        self.control: list[bytes] = []
        self.relayed: list[tuple[bool, bytes]] = []
        self.held, self.withheld = io.StringIO(), io.StringIO()
        self._log_secrets()
        network = SimulatedNetwork(seed=1)
        network.tap = self._capture
        network.connect(AGENT_HOST, CONNECTOR_HOST, Link(loss=1.0))  # no way but by the relay
        simulation = Simulation(network)
        self.relay = simulation.intermediate(INTERMEDIATE_HOST)
        self.office = simulation.connector({SERVICE: [AGENT]}, CONNECTOR_HOST, CONNECTOR)
        self.alice = simulation.agent(AGENT_HOST, AGENT, policy="relay-only")
        self.office.serve_protocol(SERVICE, Factory.forProtocol(Server))
        client = Client()
        P2PClientEndpoint(self.alice, SERVICE).connect(Factory.forProtocol(lambda: client))
        done = network.run_until(lambda: len(client.received) == len(RESPONSE))
        self.assertTrue(done and client.received == RESPONSE)
        simulation.stop()

    def _log_secrets(self) -> None:
        """Have all connections log their secrets, the Intermediate's apart from the others."""
        original = ConnectionProfile.configuration

        def configuration(settings: ConnectionProfile, *, is_client: bool) -> QuicConfiguration:
            made = original(settings, is_client=is_client)
            is_relay = settings.credentials.identity.role is Role.INTERMEDIATE
            made.secrets_log_file = self.held if is_relay else self.withheld
            return made

        self.patch(ConnectionProfile, "configuration", configuration)

    def _capture(self, data: bytes, source: Address, destination: Address) -> None:
        if INTERMEDIATE_HOST not in (source[0], destination[0]):
            return
        if classify(data) is Kind.RELAY:
            if destination[0] == INTERMEDIATE_HOST:  # it comes out again as it went in
                self.relayed.append((source[0] == AGENT_HOST, decode_relay_frame(data)[1]))
        else:
            self.control.append(data)

    def test_the_method_opens_what_is_the_intermediates_own(self) -> None:
        """Every packet of the control connections: the keys are the right ones, and all there."""
        keys = initial_keys(self.control[:20]) + keys_of(self.held.getvalue())
        packets = [packet for datagram in self.control for packet in split_packets(datagram)]
        payloads = [packet.decrypt(keys) for packet in packets]
        self.assertNotIn(None, payloads)
        self.assertGreater(len(payloads), 20)
        seen = [payload for payload in payloads if payload is not None]
        known = {SERVICE.encode(), AGENT.encode(), der(self.relay.core.credentials)}
        known |= {der(node.core.credentials) for node in (self.office, self.alice)}
        self.assertEqual(known, find(known, seen))

    def _public_keys(self) -> list[CryptoContext]:
        """Those of the session's Initial packets."""
        return initial_keys(datagram for _, datagram in self.relayed[:20])

    def test_the_method_opens_a_session_whose_secrets_are_known(self) -> None:
        """With what the two ends hold, every relayed packet opens, and the answer is in there."""
        keys = self._public_keys() + keys_of(self.withheld.getvalue())
        packets = [packet for _, datagram in self.relayed for packet in split_packets(datagram)]
        payloads = [packet.decrypt(keys) for packet in packets]
        self.assertNotIn(None, payloads)
        seen = [payload for payload in payloads if payload is not None]
        secrets = {SERVICE.encode(), REQUEST, RESPONSE}
        secrets |= {der(node.core.credentials) for node in (self.office, self.alice)}
        self.assertEqual(secrets, find(secrets, seen))

    def test_nothing_the_intermediate_holds_opens_a_packet_of_the_session(self) -> None:
        """But for the Initial packets, which anybody can open and which hold no secret."""
        packets = [p for _, datagram in self.relayed for p in split_packets(datagram)]
        keys = self._public_keys() + keys_of(self.held.getvalue())
        counts = dict.fromkeys(QuicPacketType, 0)
        for packet in packets:
            kind = packet.header.packet_type
            counts[kind] += 1
            self.assertEqual(kind is QuicPacketType.INITIAL, packet.decrypt(keys) is not None)
        self.assertGreaterEqual(counts[QuicPacketType.HANDSHAKE], 2)
        self.assertGreater(counts[QuicPacketType.ONE_RTT], len(RESPONSE) // 1200)
        carried = sum(len(p.data) for p in packets)
        self.assertGreater(carried, len(RESPONSE))
        tried = {kind.name: count for kind, count in counts.items() if count}
        print(f"\n      packets: {tried}, each with {len(keys)} keys", flush=True)

    def test_the_initial_packets_hold_two_hellos_and_no_name(self) -> None:
        """Keys come from two fresh X25519 shares alone: no private key, the Intermediate's or
        another, opens the session afterwards either."""
        keys = self._public_keys()
        streams = []
        for by_agent in (True, False):
            packets = [p for a, d in self.relayed if a is by_agent for p in split_packets(d)]
            payloads = [p.decrypt(keys) for p in packets]
            streams.append(crypto_stream(payload for payload in payloads if payload is not None))
        client, server = Buffer(data=streams[0]), Buffer(data=streams[1])
        client_hello, server_hello = pull_client_hello(client), pull_server_hello(server)
        self.assertTrue(client.eof() and server.eof(), "more than the two messages")
        assert client_hello.key_share is not None and server_hello.key_share is not None
        self.assertEqual([Group.X25519], [group for group, _ in client_hello.key_share])
        self.assertEqual(Group.X25519, server_hello.key_share[0])
        self.assertEqual((None, None), (client_hello.pre_shared_key, server_hello.pre_shared_key))
        self.assertIsNone(client_hello.server_name)
        self.assertEqual([PEER_ALPN], client_hello.alpn_protocols)
        names = {SERVICE.encode(), AGENT.encode(), CONNECTOR.encode()}
        self.assertEqual(set(), find(names, streams))

    def test_no_plaintext_is_relayed(self) -> None:
        """No name, no certificate, nothing of request and answer."""
        secrets = {SERVICE.encode(), AGENT.encode(), CONNECTOR.encode(), REQUEST, RESPONSE}
        secrets |= {der(node.core.credentials) for node in (self.office, self.alice)}
        relayed = [datagram for _, datagram in self.relayed]
        self.assertEqual(set(), find(secrets, relayed))
        self.assertEqual(set(), find(secrets, self.control))
        self.assertEqual(secrets, find(secrets, [*relayed, *secrets]))


class Tap(threading.Thread):
    """A UDP forwarder in front of the Intermediate, which keeps what passes.

    Each sender has a socket of its own towards the Intermediate, so that it is told apart there.
    """

    def __init__(self, target: Address) -> None:
        super().__init__(daemon=True)
        self.captured: list[bytes] = []
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._front = self._open()
        self._front.bind(("127.0.0.1", 0))
        self._outward: dict[Address, socket.socket] = {}
        self._stopping = threading.Event()

    @property
    def address(self) -> Address:
        """Where the nodes are to send."""
        host, port = self._front.getsockname()
        return host, port

    def _open(self, client: Address | None = None) -> socket.socket:
        opened = socket.socket(type=socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MEBIBYTE)
        self._selector.register(opened, selectors.EVENT_READ, client)
        return opened

    def run(self) -> None:
        """Forward, both ways, until stop()."""
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.1):
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data, sender = source.recvfrom(65535)
                self.captured.append(data)
                if key.data is not None:
                    self._front.sendto(data, key.data)
                    continue
                if sender not in self._outward:
                    self._outward[sender] = self._open(sender)
                    self._outward[sender].connect(self._target)
                self._outward[sender].send(data)

    def stop(self) -> None:
        """End the forwarding."""
        self._stopping.set()
        self.join()
        for opened in (self._front, *self._outward.values()):
            opened.close()
        self._selector.close()


class RealRelayTests(SynchronousTestCase):
    """Three processes, their datagrams captured between the nodes and the Intermediate."""

    def test_no_plaintext_leaves_the_processes(self) -> None:
        """Not in the relay frames, and not around them either."""
        deployment = ForkedDeployment(Path(self.mktemp()).absolute())
        self.addCleanup(deployment.stop)
        relay = deployment.intermediate("relay1")
        tap = Tap(parse_host_port(relay.wait_for("listening")["address"]))
        tap.start()
        self.addCleanup(tap.stop)
        deployment.intermediates[:] = [f"127.0.0.1:{tap.address[1]}"]
        target = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(target.close)
        services = {SERVICE: Service(f"tcp:127.0.0.1:{target.getsockname()[1]}", [AGENT])}
        office = deployment.connector(CONNECTOR, services)
        alice = deployment.agent(AGENT, {SERVICE: ANY_PORT}, path="relay-only")
        office.wait_for("registered")
        self._converse(listener_of(alice, SERVICE), target)
        frames = [d for d in tap.captured if classify(d) is Kind.RELAY]
        self.assertGreater(sum(map(len, frames)), 2 * len(RESPONSE))  # each is seen twice
        secrets = {SERVICE.encode(), AGENT.encode(), CONNECTOR.encode(), REQUEST, RESPONSE}
        for name in (AGENT, CONNECTOR):
            certificate = load_certificates(deployment.certs / f"{name}.pem")[0]
            secrets.add(certificate.public_bytes(Encoding.DER))
        self.assertEqual(set(), find(secrets, tap.captured))

    def _converse(self, address: Address, target: socket.socket) -> None:
        """A request and its answer through the roles."""
        target.settimeout(TIMEOUT)
        with socket.create_connection(address, TIMEOUT) as client:
            client.sendall(REQUEST)
            service, _ = target.accept()
            with service:
                service.settimeout(TIMEOUT)
                self.assertEqual(REQUEST, service.recv(len(REQUEST), socket.MSG_WAITALL))
                service.sendall(RESPONSE)
            self.assertEqual(RESPONSE, read_to_end(client))
