"""Strict mutual TLS: who is let in, who is not, and that both ends learn why."""

import dataclasses
import datetime
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import pull_quic_header
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.identity import Credentials, Role
from p2pnet.quic import events
from p2pnet.quic.connection import Connection
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.testing.realm import Realm
from p2pnet.wire.codes import ErrorCode
from tests.quic.harness import (
    CLIENT,
    SERVER,
    Pair,
    client_settings,
    credentials,
    server_settings,
    settings,
)

CERTIFICATE_REQUIRED = 0x100 + 116  # RFC 9001 section 4.8: TLS alerts as QUIC error codes
BAD_CERTIFICATE = 0x100 + 42
UNSUPPORTED_CERTIFICATE = 0x100 + 43
CERTIFICATE_EXPIRED = 0x100 + 45


class Encoded:
    """Bytes in the place of a certificate, for aioquic to send."""

    def __init__(self, der: bytes) -> None:
        self.der = der

    def public_bytes(self, encoding: Encoding) -> bytes:
        """The bytes, whatever the encoding."""
        return self.der


@dataclasses.dataclass(frozen=True)
class Presenting(ConnectionProfile):
    """ConnectionProfile that show the peer something else than the node's certificate."""

    shown: Any = None

    def configuration(self, *, is_client: bool) -> QuicConfiguration:
        """As it was, but for the certificate."""
        configuration = super().configuration(is_client=is_client)
        configuration.certificate = self.shown
        return configuration


def presenting(plain: ConnectionProfile, shown: Any) -> ConnectionProfile:
    """`plain` with another certificate, but the same key."""
    names = [field.name for field in dataclasses.fields(ConnectionProfile)]
    return Presenting(**{name: getattr(plain, name) for name in names}, shown=shown)


def self_signed(ours: Credentials) -> Credentials:
    """The same names, signed by the node's own key."""
    names = ours.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(ours.certificate.subject)
        .issuer_name(ours.certificate.subject)
        .public_key(ours.private_key.public_key())
        .serial_number(1)
        .not_valid_before(ours.certificate.not_valid_before_utc)
        .not_valid_after(ours.certificate.not_valid_after_utc)
        .add_extension(names.value, critical=False)
        .sign(ours.private_key, None)
    )
    return dataclasses.replace(ours, certificate=certificate)


def years_from_now(years: int) -> Any:
    """A calendar clock that is wrong."""
    return lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=366 * years)


class HandshakeTestCase(SynchronousTestCase):
    """Handshakes, and what both ends say of them."""

    def closed(self, pair: Pair, one: Connection) -> tuple[Any, Any]:
        """How the client and the server report the end of the only connection."""
        pair.run_until_quiet()
        (at_client,) = pair.client.happened(events.ConnectionClosed, one)
        (at_server,) = pair.server.happened(events.ConnectionClosed)
        return at_client, at_server

    def assert_refused(self, pair: Pair, code: int, reason: str) -> None:
        """The connection does not come to be, and both ends know why."""
        one = pair.dial()
        sent = one.open_stream()
        one.send(sent, b"let me in")
        for closed in self.closed(pair, one):
            self.assertEqual((code, False), (closed.code, closed.by_application))
            self.assertIn(reason, closed.reason)
            self.assertIs(ErrorCode.BAD_CERTIFICATE, closed.error_code)
        self.assertEqual([], pair.server.happened(events.HandshakeCompleted))
        self.assertEqual([], pair.server.happened(events.StreamDataReceived))
        self.assertEqual(0, len(pair.server.mux.admission.half_open))
        self.assertEqual(0, pair.server.mux.failures)
        self.assertFalse(one.is_established)


class RefusedClientTests(HandshakeTestCase):
    """The server refuses the client's certificate."""

    def refuse(self, client: ConnectionProfile, code: int, reason: str, **server: Any) -> None:
        """The client's own check is satisfied, so it believes itself connected for a while."""
        pair = Pair(client=client, server=server_settings(**server))
        self.assert_refused(pair, code, reason)
        self.assertEqual(1, len(pair.client.happened(events.HandshakeCompleted)))

    def test_no_certificate(self) -> None:
        """An empty Certificate message, which aioquic would accept."""
        client = presenting(client_settings(), None)
        self.refuse(client, CERTIFICATE_REQUIRED, "this realm demands a client certificate")

    def test_a_self_signed_certificate(self) -> None:
        """With the right names."""
        client = client_settings(credentials=self_signed(credentials(Role.AGENT, "the-agent")))
        self.refuse(client, BAD_CERTIFICATE, "is not signed by this realm's CA")

    def test_another_realm(self) -> None:
        """The client could not name the server's CA as its own and be let in."""
        theirs = self.trusting_us(Realm("other").credentials(Role.AGENT, "mallory"))
        client = client_settings(credentials=theirs)
        self.refuse(client, BAD_CERTIFICATE, "belongs to realm other, this node to realm example")

    def test_another_realm_of_the_same_name(self) -> None:
        """Names prove nothing."""
        theirs = self.trusting_us(Realm("example").credentials(Role.AGENT, "the-agent"))
        client = client_settings(credentials=theirs)
        self.refuse(client, BAD_CERTIFICATE, "is not signed by this realm's CA")

    def trusting_us(self, theirs: Credentials) -> Credentials:
        """A stranger's credentials, who nevertheless accepts our server."""
        ours = credentials(Role.AGENT, "the-agent")
        return dataclasses.replace(theirs, identity=ours.identity, ca=ours.ca, ca_pem=ours.ca_pem)

    def test_an_expired_certificate(self) -> None:
        """By the server's calendar."""
        self.refuse(client_settings(), CERTIFICATE_EXPIRED, "expired on", utcnow=years_from_now(3))

    def test_a_certificate_of_the_future(self) -> None:
        """By the server's calendar."""
        self.refuse(
            client_settings(), CERTIFICATE_EXPIRED, "is not valid before",
            utcnow=years_from_now(-1),
        )  # fmt: skip

    def test_a_connectors_certificate_where_an_agents_is_wanted(self) -> None:
        """The role counts, not only the realm."""
        client = client_settings(credentials=credentials(Role.CONNECTOR, "another"))
        reason = "certificate of connector another has the wrong role; needed here: agent"
        self.refuse(client, BAD_CERTIFICATE, reason)

    def test_another_nodes_certificate_without_its_key(self) -> None:
        """Possession is proven by the signature of the handshake."""
        pair = Pair(
            client=presenting(client_settings(), credentials(Role.AGENT, "other").certificate)
        )
        one = pair.dial()
        for closed in self.closed(pair, one):
            self.assertIs(ErrorCode.BAD_CERTIFICATE, closed.error_code)
        self.assertEqual([], pair.server.happened(events.HandshakeCompleted))

    def test_an_unparsable_certificate(self) -> None:
        """One of X.509 version 4 raises what aioquic does not expect, and so does junk."""
        der = credentials(Role.AGENT, "the-agent").certificate.public_bytes(Encoding.DER)
        version_4 = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
        self.assertRaises(x509.InvalidVersion, x509.load_der_x509_certificate, version_4)
        for data in (version_4, b"junk", b""):
            client = presenting(client_settings(), Encoded(data))
            self.refuse(client, BAD_CERTIFICATE, "parsed")


class RefusedServerTests(HandshakeTestCase):
    """The client refuses the server's certificate."""

    def refuse(self, server: ConnectionProfile, code: int, reason: str, **client: Any) -> None:
        """Neither end takes the connection for established."""
        pair = Pair(client=client_settings(**client), server=server)
        self.assert_refused(pair, code, reason)
        self.assertEqual([], pair.client.happened(events.HandshakeCompleted))

    def test_a_self_signed_certificate(self) -> None:
        """With the right names."""
        ours = self_signed(credentials(Role.CONNECTOR, "the-connector"))
        server = server_settings(credentials=ours)
        self.refuse(server, BAD_CERTIFICATE, "is not signed by this realm's CA")

    def test_another_realm(self) -> None:
        """Of another name, or of the same."""
        for name, reason in (("other", "belongs to realm other"), ("example", "is not signed by")):
            theirs = Realm(name).credentials(Role.CONNECTOR, "the-connector")
            self.refuse(server_settings(credentials=theirs), BAD_CERTIFICATE, reason)

    def test_an_expired_certificate(self) -> None:
        """By the client's calendar."""
        self.refuse(server_settings(), CERTIFICATE_EXPIRED, "expired on", utcnow=years_from_now(3))

    def test_the_wrong_role(self) -> None:
        """An Agent's certificate, where a Connector was dialed."""
        server = server_settings(credentials=credentials(Role.AGENT, "the-agent"))
        self.refuse(server, BAD_CERTIFICATE, "has the wrong role; needed here: connector")

    def test_the_wrong_host(self) -> None:
        """The address dialed, or the name, must be in an Intermediate's certificate."""
        server = server_settings(credentials=credentials(Role.INTERMEDIATE, "relay"))
        roles = frozenset([Role.INTERMEDIATE])
        for host in ("192.0.2.9", "relay.example", "2001:db8::1"):
            reason = f"is for host {SERVER[0]}, not {host}"
            self.refuse(server, BAD_CERTIFICATE, reason, host=host, roles=roles)
        one, _ = Pair(client=client_settings(host=SERVER[0], roles=roles), server=server).connect()
        self.assertTrue(one.is_established)

    def test_an_unparsable_certificate(self) -> None:
        """As a hostile server would send it."""
        for data in (b"junk", b""):
            server = presenting(server_settings(), Encoded(data))
            self.refuse(server, BAD_CERTIFICATE, "parsed")


class AcceptedTests(HandshakeTestCase):
    """Everybody is who they should be."""

    def test_both_ends_know_the_other(self) -> None:
        """Whether they know each other by real addresses or as peers."""
        for peer in (False, True):
            one, other = Pair(peer=peer).connect()
            for connection, name, role in (
                (one, "the-connector", Role.CONNECTOR),
                (other, "the-agent", Role.AGENT),
            ):
                assert connection.peer is not None
                self.assertEqual((role, name), (connection.peer.role, connection.peer.name))
                self.assertTrue(connection.is_established)

    def test_a_refused_client_does_not_disturb_another(self) -> None:
        """Whatever it sends, only its own connection ends: junk, or a key that is none."""
        der = credentials(Role.AGENT, "the-agent").certificate.public_bytes(Encoding.DER)
        # The algorithm of the key becomes an unknown one, which the parser notices late.
        unknown_key = der.replace(b"\x06\x03\x2b\x65\x70\x03\x21", b"\x06\x03\x2b\x65\x7f\x03\x21")
        self.assertNotEqual(der, unknown_key)
        pair = Pair()
        one, other = pair.connect()
        for data in (b"junk", unknown_key):
            pair.dial(presenting(client_settings(), Encoded(data)))
            pair.run_until_quiet()
        codes = [event.code for event in pair.server.happened(events.ConnectionClosed)]
        # An unknown key is an invalid one to older versions of cryptography.
        self.assertIn(codes.pop(), (UNSUPPORTED_CERTIFICATE, BAD_CERTIFICATE))
        self.assertEqual([BAD_CERTIFICATE], codes)
        self.assertEqual(0, pair.server.mux.failures)
        self.assertEqual(1, len(pair.server.mux))
        stream_id = one.open_stream()
        pair.client.upload(one, stream_id, b"still there")
        pair.run_until_quiet()
        self.assertEqual(b"still there", pair.server.received(other, stream_id))

    def test_no_session_tickets_are_issued(self) -> None:
        """Even to a client that asks: with client certificates they break the handshake."""
        pair = Pair()
        tickets: list[tls.SessionTicket] = []
        client = QuicConnection(
            configuration=client_settings().configuration(is_client=True),
            session_ticket_handler=tickets.append,
        )
        client.connect(SERVER, 0.0)
        for tick in range(20):
            now = tick / 100
            for data, _ in client.datagrams_to_send(now):
                pair.server.mux.receive_datagram(data, CLIENT, now)
            for data, _ in pair.server.mux.datagrams_to_send(now):
                client.receive_datagram(data, SERVER, now)
        pair.server.take_events()
        self.assertEqual(1, len(pair.server.happened(events.HandshakeCompleted)))
        self.assertEqual([], tickets)


class ObserverTests(SynchronousTestCase):
    """What anybody on the way can read, since the keys of Initials are public (RFC 9001 5.2)."""

    def client_hello(self, client: ConnectionProfile, *, peer: bool = False) -> tls.ClientHello:
        """The ClientHello in a client's first datagram."""
        pair = Pair(peer=peer, client=client)
        pair.dial()
        ((data, _address),) = pair.client.mux.datagrams_to_send(0.0)
        buffer = Buffer(data=data)
        header = pull_quic_header(buffer, host_cid_length=8)
        crypto = CryptoPair()
        crypto.setup_initial(cid=header.destination_cid, is_client=False, version=1)
        packet = data[: header.packet_length]
        _, frames, _ = crypto.decrypt_packet(packet, buffer.tell(), 0)
        buffer = Buffer(data=frames)
        self.assertEqual((6, 0), (buffer.pull_uint_var(), buffer.pull_uint_var()))
        return tls.pull_client_hello(Buffer(data=buffer.pull_bytes(buffer.pull_uint_var())))

    def test_the_name_of_the_intermediate_is_all(self) -> None:
        """On the control leg; an address is not sent (RFC 6066 section 3)."""
        roles = [Role.INTERMEDIATE]
        client = settings(Role.AGENT, roles, host="relay.example")
        self.assertEqual("relay.example", self.client_hello(client).server_name)
        client = settings(Role.AGENT, roles, host=SERVER[0])
        self.assertIsNone(self.client_hello(client).server_name)

    def test_nothing_is_said_about_a_peer(self) -> None:
        """No name on the end-to-end leg, and never an early-data or resumption offer."""
        hello = self.client_hello(client_settings(), peer=True)
        self.assertIsNone(hello.server_name)
        self.assertFalse(hello.early_data)
        self.assertIsNone(hello.pre_shared_key)
        self.assertEqual(["test/1"], hello.alpn_protocols)
