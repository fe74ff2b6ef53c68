"""Tests of how certificates are read and judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.identity import (
    Credentials,
    Identity,
    IdentityError,
    PrivateKey,
    Problem,
    Role,
    check_name,
    verify_peer,
)
from p2pnet.pki import AUTHORITY, KEY_TYPES, create_authority, issue
from p2pnet.wire.names import NAME_PATTERN

# So long ago that a check against the wall clock refuses everything issued here.
NOW = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

# An extension nobody knows.
OTHER = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")

# The name of the CA's own files is taken.
names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: name != AUTHORITY)


class Realm:
    """A CA in memory, and the credentials of its nodes."""

    def __init__(self, name: str = "example") -> None:
        self.name = name
        self.ca, self.ca_key = create_authority(name, now=NOW)

    def node(self, role: Role, name: str, **options: Any) -> Credentials:
        """Credentials of a node, as `Credentials.load` would read them; `options` are `issue`'s."""
        certificate, key = issue(self.ca, self.ca_key, role, name, days=30, now=NOW, **options)
        identity = Identity.from_certificate(certificate)
        pem = self.ca.public_bytes(Encoding.PEM)
        return Credentials(identity, certificate, (), key, self.ca, pem)


def forge(
    issuer: x509.Name,
    issuer_key: PrivateKey,
    extension: x509.ExtensionType,
    *,
    subject: str = "anyone",
    ca: bool = False,
    days: int = 1,
    key: PrivateKey | None = None,
) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate signed by any key, of a kind that `issue` would refuse to make."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(extension, critical=False)
        .sign(issuer_key, hashes.SHA256())
    ), key


def alternative(*names: str) -> x509.SubjectAlternativeName:
    """`names` as alternative names: URIs, or DNS names if without a colon."""
    return x509.SubjectAlternativeName(
        [(x509.UniformResourceIdentifier if ":" in name else x509.DNSName)(name) for name in names]
    )


REALM = Realm()
OURS = REALM.node(Role.CONNECTOR, "office", services=("web", "dns"))
ALICE = REALM.node(Role.AGENT, "alice")
RELAY = REALM.node(Role.INTERMEDIATE, "relay1", hosts=("10.0.0.1", "fd00::1", "relay.example"))


class NameTests(SynchronousTestCase):
    """What realms, nodes and services may be called."""

    def test_plain_names_are_accepted(self) -> None:
        """One character, digits, inner punctuation and the longest name are fine."""
        for name in ("a", "0", "relay1", "a.b-c_d", "a" * 63):
            check_name("node", name)

    def test_names_unfit_for_uris_or_files_are_refused_and_quoted(self) -> None:
        """Nothing that could leave a directory or a URI segment passes, and the text says why."""
        for name in ("", "A", "a/b", "..", ".a", "a-", "a" * 64, "a\n", "\u00e9", "a b"):
            error = self.assertRaises(ValueError, check_name, "service", name)
            self.assertIn("service name", str(error))
            self.assertTrue(str(error).isprintable())


class ReadIdentityTests(SynchronousTestCase):
    """`Identity.from_certificate`."""

    def refused(self, *names: str, ca: bool = False) -> Problem:
        """Why a certificate with these names is refused."""
        certificate, _key = forge(REALM.ca.subject, REALM.ca_key, alternative(*names), ca=ca)
        with self.assertRaises(IdentityError) as caught:
            Identity.from_certificate(certificate)
        error: IdentityError = caught.exception
        return error.problem

    @given(names, names, st.frozensets(names, max_size=3))
    @settings(deadline=None)
    def test_what_was_issued_is_read_back(
        self, realm: str, name: str, services: frozenset[str]
    ) -> None:
        """Any valid names survive the way through a certificate."""
        certificate, _key = issue(*create_authority(realm), Role.CONNECTOR, name, services=services)
        identity = Identity.from_certificate(certificate)
        node = (identity.realm, identity.role, identity.name)
        self.assertEqual((realm, Role.CONNECTOR, name), node)
        self.assertEqual(services, identity.services)
        self.assertEqual(f"connector {name} of realm {realm}", str(identity))
        self.assertEqual(certificate.fingerprint(hashes.SHA256()).hex(), identity.fingerprint)
        self.assertEqual(certificate.not_valid_after_utc, identity.not_valid_after)

    def test_only_granted_services_are_granted(self) -> None:
        """And no other."""
        self.assertTrue(OURS.identity.grants("web"))
        self.assertFalse(OURS.identity.grants("ssh"))

    def test_a_certificate_of_something_else_is_not_p2pnet(self) -> None:
        """A web server's, a nameless one and a CA's are told apart from broken ones."""
        for names in ((), ("a.example",), ("https://example/agent/alice",)):
            self.assertIs(Problem.NOT_P2PNET, self.refused(*names))
        error = self.assertRaises(IdentityError, Identity.from_certificate, REALM.ca)
        self.assertIs(Problem.NOT_P2PNET, error.problem)
        self.assertIn("CN=p2pnet realm example", str(error))

    def test_a_node_with_the_ca_flag_is_refused(self) -> None:
        """Otherwise a node so favored could issue certificates itself."""
        problem = self.refused("p2pnet://example/agent/alice", ca=True)
        self.assertIs(Problem.NOT_P2PNET, problem)

    def test_names_that_are_not_exactly_one_node_are_malformed(self) -> None:
        """Two nodes, none, unknown roles and sloppy spelling are all refused."""
        node = "p2pnet://example/connector/office"
        for names in (
            (node, "p2pnet://example/agent/alice"),
            (node, node),
            (node, "p2pnet:nonsense"),
            ("p2pnet://example/service/web",),
            ("p2pnet://example",),
            ("p2pnet://example/admin/alice",),
            ("p2pnet://example/agent/Alice",),
            ("p2pnet://example/agent/alice/",),
            ("p2pnet://example/agent/alice\n",),
            ("p2pnet://example//alice",),
        ):
            self.assertIs(Problem.MALFORMED, self.refused(*names))

    def test_services_are_granted_to_connectors_of_the_same_realm_only(self) -> None:
        """A grant to an agent, or from another realm, spoils the certificate."""
        for node, grant in (
            ("p2pnet://example/agent/alice", "p2pnet://example/service/web"),
            ("p2pnet://example/connector/office", "p2pnet://other/service/web"),
        ):
            self.assertIs(Problem.MALFORMED, self.refused(node, grant))


class VerifyPeerTests(SynchronousTestCase):
    """`verify_peer`: one test for each way a certificate can be wrong."""

    def judge(
        self,
        certificate: x509.Certificate,
        *chain: x509.Certificate,
        host: str | None = None,
        now: datetime = NOW,
        ours: Credentials = OURS,
    ) -> Identity:
        """Judge a peer of any role."""
        return verify_peer(certificate, chain, ours=ours, roles=set(Role), host=host, now=now)

    def refused(
        self,
        problem: Problem,
        *certificates: x509.Certificate,
        **options: Any,
    ) -> str:
        """The text with which a peer is refused for `problem`."""
        error: IdentityError = self.assertRaises(
            IdentityError, self.judge, *certificates, **options
        )
        self.assertIs(problem, error.problem, str(error))
        return str(error)

    def test_every_role_and_key_type_is_accepted(self) -> None:
        """The good case, long before the wall clock's present."""
        for role in Role:
            for key_type in KEY_TYPES:
                node = REALM.node(role, "node", hosts=("node.example",), key_type=key_type)
                self.assertEqual(node.identity, self.judge(node.certificate, host="node.example"))

    def test_a_node_of_another_realm_is_told_so(self) -> None:
        """Realms come before signatures: nobody has to decode an OpenSSL error."""
        other = Realm("other").node(Role.AGENT, "alice")
        self.assertEqual(
            "certificate of agent alice belongs to realm other, this node to realm example",
            self.refused(Problem.WRONG_REALM, other.certificate),
        )

    def test_a_role_that_is_not_welcome_is_refused(self) -> None:
        """An agent's certificate is no connector's, though the same CA signed it."""
        error = self.assertRaises(
            IdentityError,
            verify_peer,
            ALICE.certificate,
            (),
            ours=OURS,
            roles={Role.CONNECTOR, Role.INTERMEDIATE},
            now=NOW,
        )
        self.assertIs(Problem.WRONG_ROLE, error.problem)
        self.assertEqual(
            "certificate of agent alice has the wrong role; needed here: connector or intermediate",
            str(error),
        )

    def test_an_expired_certificate_says_when(self) -> None:
        """The date and the remedy are in the text."""
        self.assertEqual(
            "certificate of connector office expired on 2001-03-05 04:05 UTC; "
            "issue a new one with `p2pnet pki issue`",
            self.refused(Problem.EXPIRED, OURS.certificate, now=NOW + timedelta(days=31)),
        )

    def test_a_certificate_of_the_future_is_not_yet_valid(self) -> None:
        """Five minutes of clock difference are tolerated, more are reported as such."""
        self.judge(ALICE.certificate, now=NOW - timedelta(minutes=5))
        text = self.refused(
            Problem.NOT_YET_VALID, ALICE.certificate, now=NOW - timedelta(minutes=5, seconds=1)
        )
        self.assertIn("clocks", text)

    def test_each_certificate_is_judged_at_its_own_time(self) -> None:
        """In a process that has run for years, and has judged others under the same CA."""
        for days in (0, 400, 0, 800):
            later = NOW + timedelta(days=days)
            new, _ = issue(REALM.ca, REALM.ca_key, Role.AGENT, "bob", days=30, now=later)
            self.assertEqual("bob", self.judge(new, now=later + timedelta(days=1)).name)

    @given(st.timedeltas(timedelta(minutes=-10), timedelta(minutes=10)), st.integers(-12, 12))
    @settings(deadline=None)
    def test_the_dates_are_judged_alike_by_us_and_openssl(
        self, offset: timedelta, zone: int
    ) -> None:
        """Around the last second, in any time zone: accepted, or EXPIRED, never UNTRUSTED."""
        end = ALICE.certificate.not_valid_after_utc
        now = (end + offset).astimezone(timezone(timedelta(hours=zone)))
        if now < end:
            self.judge(ALICE.certificate, now=now)
        else:
            self.refused(Problem.EXPIRED, ALICE.certificate, now=now)

    def test_an_expired_ca_is_reported_as_that(self) -> None:
        """A leaf that outlives its CA is not blamed for it."""
        names = alternative("p2pnet://example/agent/alice")
        certificate, _key = forge(REALM.ca.subject, REALM.ca_key, names, days=9999)
        later = NOW + timedelta(days=9000)
        text = self.refused(Problem.EXPIRED, certificate, now=later)
        self.assertIn("CA certificate of this realm", text)

    def test_a_naive_time_is_our_own_bug(self) -> None:
        """It must not come out as the peer's fault."""
        self.assertRaises(ValueError, self.judge, ALICE.certificate, now=NOW.replace(tzinfo=None))

    def test_another_ca_of_the_same_name_is_not_trusted(self) -> None:
        """Anybody can create a realm called like ours."""
        forged = Realm("example").node(Role.AGENT, "alice")
        text = self.refused(Problem.UNTRUSTED, forged.certificate, forged.ca)
        self.assertIn("certificate of agent alice is not signed by this realm's CA", text)

    def test_a_certificate_that_signed_itself_is_not_trusted(self) -> None:
        """Nor does it help to call itself like our CA."""
        names = alternative("p2pnet://example/agent/alice")
        stranger = ec.generate_private_key(ec.SECP256R1())
        certificate, _key = forge(REALM.ca.subject, stranger, names)
        self.refused(Problem.UNTRUSTED, certificate, certificate)

    def test_a_node_cannot_issue_certificates(self) -> None:
        """A chain through a connector's own, perfectly valid, certificate is worth nothing."""
        names = alternative("p2pnet://example/agent/root")
        certificate, _key = forge(OURS.certificate.subject, OURS.private_key, names)
        self.refused(Problem.UNTRUSTED, certificate, OURS.certificate)

    def test_a_ca_below_ours_is_refused(self) -> None:
        """Our CA's path length of 0 means what it says, even to who got a CA certificate."""
        below, key = forge(REALM.ca.subject, REALM.ca_key, alternative(), subject="below", ca=True)
        names = alternative("p2pnet://example/agent/alice")
        certificate, _key = forge(below.subject, key, names)
        self.assertIn("path length", self.refused(Problem.UNTRUSTED, certificate, below))

    def test_an_operators_ca_may_have_another_below_it(self) -> None:
        """A CA without a path length trusts the ones it signed, if the peer sends them."""
        root_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        below, key = forge(name, root_key, alternative(), subject="below", ca=True)
        root, _key = forge(name, root_key, alternative(), subject="root", ca=True, key=root_key)
        names = alternative("p2pnet://example/agent/alice")
        certificate, _key = forge(below.subject, key, names)
        ours = replace(OURS, ca=root)
        self.assertEqual("alice", self.judge(certificate, below, ours=ours).name)
        self.assertRaises(IdentityError, self.judge, certificate, ours=ours)

    def test_a_long_chain_is_malformed(self) -> None:
        """Three may follow, so that a peer cannot make us parse and search without end."""
        self.judge(ALICE.certificate, *[REALM.ca] * 3)
        self.refused(Problem.MALFORMED, ALICE.certificate, *[REALM.ca] * 4)

    def test_the_host_we_dialed_must_be_in_the_certificate(self) -> None:
        """Addresses match as addresses, names as names, and the text shows both sides."""
        for host in ("10.0.0.1", "fd00::1", "fd00:0::1", "relay.example", "Relay.Example"):
            self.judge(RELAY.certificate, host=host)
        self.assertEqual(
            "certificate of intermediate relay1 is for host 10.0.0.1 or fd00::1 or relay.example, "
            "not 127.0.0.1",
            self.refused(Problem.WRONG_HOST, RELAY.certificate, host="127.0.0.1"),
        )
        for host in ("example", "a.relay.example", "10.0.0", "10.0.0.1:443", "", "no host", "::"):
            self.refused(Problem.WRONG_HOST, RELAY.certificate, host=host)
        text = self.refused(Problem.WRONG_HOST, ALICE.certificate, host="relay.example")
        self.assertIn("host (none), not relay.example", text)


class HostileCertificateTests(SynchronousTestCase):
    """Whatever a peer sends, the outcome is an identity or an IdentityError with a safe text."""

    def judge(self, certificate: x509.Certificate, *chain: x509.Certificate) -> str | None:
        """The text of the refusal, checked, or None if the certificate was accepted."""
        try:
            verify_peer(certificate, chain, ours=OURS, roles=set(Role), host="10.0.0.1", now=NOW)
        except IdentityError as error:
            text = str(error)
            self.assertTrue(text.isascii() and text.isprintable() and len(text) <= 200, text)
            return text
        return None

    @given(st.text(min_size=1, max_size=16), st.lists(st.text(st.characters(codec="ascii"))))
    @settings(deadline=None)
    def test_any_subject_and_uris_give_a_safe_text(self, subject: str, uris: list[str]) -> None:
        """Texts end in logs and in packets: escaped, and short."""
        names = alternative(*[f"p2pnet:{text}" for text in uris])
        certificate, _key = forge(REALM.ca.subject, REALM.ca_key, names, subject=subject)
        self.assertIsNotNone(self.judge(certificate))

    @given(names, names, st.sampled_from(Role), st.booleans())
    @settings(deadline=None)
    def test_the_longest_names_leave_room_for_the_reason(
        self, realm: str, name: str, role: Role, ours: bool
    ) -> None:
        """The end of the text, which says what is wrong, is never cut off."""
        node = f"p2pnet://{'example' if ours else realm}/{role}/{name}"
        names = alternative(node)
        text = self.judge(forge(REALM.ca.subject, REALM.ca_key, names)[0])
        self.assertTrue(text and text.endswith(("realm example", "not 10.0.0.1")), text)

    @given(st.binary(max_size=200), st.sampled_from([ExtensionOID.SUBJECT_ALTERNATIVE_NAME, OTHER]))
    @settings(deadline=None)
    def test_garbage_in_an_extension_is_refused(
        self, garbage: bytes, oid: x509.ObjectIdentifier
    ) -> None:
        """Extensions are parsed when read, by libraries with exceptions of their own."""
        extension = x509.UnrecognizedExtension(oid, garbage)
        certificate, _key = forge(REALM.ca.subject, REALM.ca_key, extension)
        self.assertIsNotNone(self.judge(certificate))

    @given(st.integers(0, 999), st.integers(1, 255))
    @example(12, 1)  # version 4, which the parser reports by an exception of its own
    @settings(deadline=None, max_examples=400)
    def test_a_changed_certificate_is_refused(self, place: int, change: int) -> None:
        """No byte of a certificate can change without the signature, or the parser, noticing."""
        der = bytearray(RELAY.certificate.public_bytes(Encoding.DER))
        der[place % len(der)] ^= change
        try:
            certificate = x509.load_der_x509_certificate(bytes(der))
        except (ValueError, x509.InvalidVersion):
            return  # it never reaches us
        self.assertIsNotNone(self.judge(certificate))
        self.judge(RELAY.certificate, certificate)
