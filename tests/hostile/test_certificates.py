"""Certificates that the realm's CA has signed, and that nobody should believe all the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.identity import (
    Credentials,
    CredentialsError,
    IdentityError,
    Problem,
    Role,
    verify_peer,
)
from p2pnet.pki import create_authority, write_private
from tests.test_identity import NOW, OURS, REALM, alternative

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY, CODE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.CODE_SIGNING
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def usage(*allowed: str) -> x509.KeyUsage:
    """A key usage that allows these, by the names of cryptography."""
    return x509.KeyUsage(**{name: name in allowed for name in USAGES})


def certify(
    extensions: Iterable[x509.ExtensionType] = (),
    *,
    role: Role = Role.AGENT,
    key: Any = None,
    authority: tuple[x509.Certificate, Any] = (REALM.ca, REALM.ca_key),
) -> x509.Certificate:
    """A node's certificate by the realm's CA, with these extensions."""
    issuer, issuer_key = authority
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(alternative(f"p2pnet://example/{role}/node"), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def make_ca(key: Any, *extensions: x509.ExtensionType) -> tuple[x509.Certificate, Any]:
    """A CA of the realm with any key and extensions."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd ca")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()), key


class CertificateCase(SynchronousTestCase):
    """A Connector that judges the certificates of peers."""

    def judge(self, certificate: x509.Certificate, *chain: x509.Certificate) -> None:
        """Accept the certificate, or raise IdentityError."""
        verify_peer(certificate, chain, ours=OURS, roles=set(Role), now=NOW)

    def refused(
        self, problem: Problem, certificate: x509.Certificate, *chain: x509.Certificate
    ) -> str:
        """The text of the refusal."""
        error = self.assertRaises(IdentityError, self.judge, certificate, *chain)
        self.assertIs(problem, error.problem, str(error))
        return str(error)


class KeyTests(CertificateCase):
    """Keys that can be broken."""

    def test_regression_a_key_of_rsa_1024_was_accepted(self) -> None:
        """The text says what to use."""
        key = rsa.generate_private_key(65537, 1024)
        self.assertEqual(
            "certificate of agent node has a weak key (RSA with 1024 bits); "
            "use P-256, Ed25519, or RSA with 2048 bits",
            self.refused(Problem.WEAK_KEY, certify(key=key)),
        )

    def test_a_small_curve_is_refused(self) -> None:
        """Below P-256."""
        key = ec.generate_private_key(ec.SECP224R1())
        self.assertIn("(secp224r1)", self.refused(Problem.WEAK_KEY, certify(key=key)))

    def test_strong_keys_of_other_types_are_accepted(self) -> None:
        """An operator's CA may issue them."""
        self.judge(certify(key=rsa.generate_private_key(65537, 2048)))
        self.judge(certify(key=ec.generate_private_key(ec.SECP384R1())))

    def test_a_weak_ca_is_refused(self) -> None:
        """Of the realm, or in the chain that a peer sends."""
        authority = make_ca(rsa.generate_private_key(65537, 1024))
        certificate = certify(authority=authority)
        ours = dataclasses.replace(OURS, ca=authority[0])
        error = self.assertRaises(
            IdentityError, verify_peer, certificate, (), ours=ours, roles=set(Role), now=NOW
        )
        self.assertIn("CA certificate of this realm has a weak key", str(error))
        text = self.refused(Problem.WEAK_KEY, certify(), authority[0])
        self.assertIn("CA above the certificate of agent node", text)


class UsageTests(CertificateCase):
    """Certificates for something else."""

    def test_regression_a_certificate_without_digital_signature_was_accepted(self) -> None:
        """It may not sign a handshake."""
        self.assertEqual(
            "certificate of agent node lacks the key usage digitalSignature; "
            "issue a new one with `p2pnet pki issue`",
            self.refused(Problem.WRONG_USAGE, certify([usage("key_agreement")])),
        )

    def test_regression_a_certificate_for_code_was_accepted(self) -> None:
        """Of each role; what a role needs depends on who dials whom."""
        for role, needed, missing in (
            (Role.AGENT, [CLIENT], "clientAuth"),
            (Role.INTERMEDIATE, [SERVER], "serverAuth"),
            (Role.CONNECTOR, [SERVER, CLIENT], "serverAuth"),
        ):
            good = x509.ExtendedKeyUsage([*needed, CODE])
            self.judge(certify([usage("digital_signature"), good], role=role))
            code = certify([x509.ExtendedKeyUsage([CODE])], role=role)
            self.assertIn(f"usage {missing};", self.refused(Problem.WRONG_USAGE, code))
        half = certify([x509.ExtendedKeyUsage([SERVER])], role=Role.CONNECTOR)
        self.assertIn("usage clientAuth;", self.refused(Problem.WRONG_USAGE, half))

    def test_a_certificate_that_restricts_nothing_is_accepted(self) -> None:
        """RFC 5280: without the extensions, or for any purpose."""
        self.judge(certify())
        self.judge(certify([x509.ExtendedKeyUsage([ANY])]))

    def test_a_ca_that_may_not_sign_is_refused(self) -> None:
        """Of the realm: the text says why; in the chain too."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = make_ca(key, usage("digital_signature"))
        ours = dataclasses.replace(OURS, ca=authority[0])
        error = self.assertRaises(
            IdentityError, verify_peer, certify(authority=authority), (),
            ours=ours, roles=set(Role), now=NOW,
        )  # fmt: skip
        self.assertIn("CA certificate of this realm lacks the key usage keyCertSign", str(error))
        self.refused(Problem.WRONG_USAGE, certify(), authority[0])


class ChainTests(CertificateCase):
    """Certificates between the realm's CA and a node's."""

    def test_regression_a_node_that_may_sign_certificates_passed_for_a_ca(self) -> None:
        """OpenSSL takes a certificate with keyCertSign for a CA's if it does not say what it is."""
        key = ec.generate_private_key(ec.SECP256R1())
        root = make_ca(ec.generate_private_key(ec.SECP256R1()), usage("key_cert_sign"))
        node = certify([usage("key_cert_sign", "digital_signature")], key=key, authority=root)
        certificate = certify(role=Role.INTERMEDIATE, authority=(node, key))
        ours = dataclasses.replace(OURS, ca=root[0])
        error = self.assertRaises(
            IdentityError, verify_peer, certificate, [node], ours=ours, roles=set(Role), now=NOW
        )
        self.assertEqual(
            "certificate of intermediate node came with another that is no CA's", str(error)
        )


class OwnFilesTests(SynchronousTestCase):
    """A node does not start with files that its peers would refuse."""

    def refused(self, certificate: x509.Certificate, key: Any, ca: x509.Certificate) -> str:
        """The text of the refusal."""
        folder = Path(self.mktemp())
        folder.mkdir()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(folder / "key", secret)
        for name, made in (("cert", certificate), ("ca", ca)):
            (folder / name).write_bytes(made.public_bytes(Encoding.PEM))
        files = {name: folder / name for name in ("cert", "key", "ca")}
        with self.assertRaises(CredentialsError) as caught:
            Credentials.load(**files, now=NOW)
        return str(caught.exception)

    def test_usage_and_keys_are_checked_when_they_are_loaded(self) -> None:
        """With the file's name and the reason."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = self.refused(certify([usage("key_agreement")], key=key), key, REALM.ca)
        self.assertIn("lacks the key usage digitalSignature", text)
        weak = make_ca(rsa.generate_private_key(65537, 1024))
        text = self.refused(certify(key=key, authority=weak), key, weak[0])
        self.assertIn("CA certificate of this realm has a weak key", text)

    def test_what_p2pnet_issues_is_accepted(self) -> None:
        """By every role, with each type of key."""
        for role in Role:
            for key_type in ("p256", "ed25519"):
                node = REALM.node(role, "node", hosts=("node.example",), key_type=key_type)
                verify_peer(node.certificate, (REALM.ca,), ours=OURS, roles=[role], now=NOW)
        ca, _key = create_authority("example", now=NOW)
        self.assertTrue(ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign)
