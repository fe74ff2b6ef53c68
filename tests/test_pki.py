"""Tests of the files of a realm: issuing them, loading them, and the `p2pnet pki` command."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

import p2pnet
from p2pnet.cli.main import main
from p2pnet.files import others_may_read
from p2pnet.identity import Credentials, CredentialsError, Role, verify_peer
from p2pnet.pki import (
    KEY_TYPES,
    authority_realm,
    create_authority,
    issue,
    load_authority,
    save,
    write_private,
)

NOW = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    """An extension, of which tests read `critical` and `value`."""
    return certificate.extensions.get_extension_for_class(kind)


class AuthorityTests(SynchronousTestCase):
    """`create_authority`."""

    def test_the_certificate_is_that_of_a_ca_for_leaves_only(self) -> None:
        """The profile of RFC 5280, the realm's URI, and a name for people."""
        ca, key = create_authority("example", 10, now=NOW)
        self.assertEqual("CN=p2pnet realm example,O=p2pnet", ca.subject.rfc4514_string())
        self.assertEqual(ca.subject, ca.issuer)
        ca.verify_directly_issued_by(ca)
        self.assertEqual(key.public_key(), ca.public_key())
        constraints, usage = extension(ca, x509.BasicConstraints), extension(ca, x509.KeyUsage)
        self.assertTrue(constraints.critical and usage.critical)
        self.assertEqual(x509.BasicConstraints(ca=True, path_length=0), constraints.value)
        self.assertTrue(usage.value.key_cert_sign and usage.value.crl_sign)
        self.assertFalse(usage.value.digital_signature)
        self.assertEqual("example", authority_realm(ca))
        self.assertEqual(NOW - timedelta(minutes=5), ca.not_valid_before_utc)
        self.assertEqual(NOW + timedelta(days=10), ca.not_valid_after_utc)

    def test_the_longest_realm_name_fits_and_a_bad_one_is_refused(self) -> None:
        """The name for people is cut, the one in the URI is not."""
        self.assertEqual("r" * 63, authority_realm(create_authority("r" * 63)[0]))
        self.assertRaises(ValueError, create_authority, "Example/")

    def test_serial_numbers_have_one_length_and_do_not_repeat(self) -> None:
        """Always 20 bytes, positive, as RFC 5280 allows."""
        serials = {create_authority("example")[0].serial_number for _ in range(50)}
        self.assertEqual(50, len(serials))
        self.assertEqual({159}, {serial.bit_length() for serial in serials})


class IssueTests(SynchronousTestCase):
    """`issue`."""

    def setUp(self) -> None:
        """A realm."""
        self.authority = create_authority("example", 100, now=NOW)

    def issued(self, role: Role, name: str = "node", **options: Any) -> x509.Certificate:
        """Just the certificate."""
        return issue(*self.authority, role, name, **{"now": NOW, **options})[0]

    def test_every_role_gets_its_purposes_and_no_power_to_issue(self) -> None:
        """Who is dialed is a server, who dials a client; both sign, none is a CA."""
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        for role, purposes in (
            (Role.INTERMEDIATE, {server}),
            (Role.CONNECTOR, {server, client}),
            (Role.AGENT, {client}),
        ):
            certificate = self.issued(role, hosts=["node.example"])
            certificate.verify_directly_issued_by(self.authority[0])
            constraints = extension(certificate, x509.BasicConstraints)
            self.assertEqual((True, False), (constraints.critical, constraints.value.ca))
            usage = extension(certificate, x509.KeyUsage).value
            self.assertEqual((True, False), (usage.digital_signature, usage.key_cert_sign))
            self.assertEqual(purposes, set(extension(certificate, x509.ExtendedKeyUsage).value))

    def test_names_hosts_and_services_are_alternative_names(self) -> None:
        """Addresses as addresses, names in lower case, services once each."""
        certificate = self.issued(
            Role.CONNECTOR, "office", services=["web", "dns", "web"], hosts=["::1", "A.Example"]
        )
        names = extension(certificate, x509.SubjectAlternativeName).value
        uris = ["connector/office", "service/dns", "service/web"]
        self.assertEqual(
            [f"p2pnet://example/{uri}" for uri in uris],
            names.get_values_for_type(x509.UniformResourceIdentifier),
        )
        self.assertEqual(["::1"], [str(ip) for ip in names.get_values_for_type(x509.IPAddress)])
        self.assertEqual(["a.example"], names.get_values_for_type(x509.DNSName))

    def test_the_key_type_can_be_chosen(self) -> None:
        """P-256 unless told otherwise; an unknown type is refused."""
        self.assertIsInstance(self.issued(Role.AGENT).public_key(), ec.EllipticCurvePublicKey)
        modern = self.issued(Role.AGENT, key_type="ed25519")
        self.assertIsInstance(modern.public_key(), ed25519.Ed25519PublicKey)
        self.assertRaises(ValueError, self.issued, Role.AGENT, key_type="rsa")

    def test_it_begins_a_little_earlier_and_ends_no_later_than_the_ca(self) -> None:
        """A peer's clock may be behind; no leaf outlives its issuer."""
        short, long = self.issued(Role.AGENT, days=7), self.issued(Role.AGENT, days=9999)
        self.assertEqual(NOW - timedelta(minutes=5), short.not_valid_before_utc)
        self.assertEqual(NOW + timedelta(days=7), short.not_valid_after_utc)
        self.assertEqual(self.authority[0].not_valid_after_utc, long.not_valid_after_utc)
        self.assertRaises(ValueError, self.issued, Role.AGENT, now=NOW + timedelta(days=100))

    def test_requests_that_make_no_sense_are_refused(self) -> None:
        """Each would make a certificate that peers refuse, or files over the CA's."""
        for role, name, options in (
            (Role.INTERMEDIATE, "relay1", {}),
            (Role.AGENT, "alice", {"services": ["web"]}),
            (Role.INTERMEDIATE, "relay1", {"services": ["web"], "hosts": ["::1"]}),
            (Role.CONNECTOR, "office", {"services": ["Web"]}),
            (Role.AGENT, "../alice", {}),
            (Role.AGENT, "ca", {}),
            *(
                (Role.AGENT, "alice", {"hosts": [host]})
                for host in ("", "a b", "10.0.0.1:443", "[::1]", "300.0.0.1", "*.example", "a..b")
            ),
        ):
            self.assertRaises(ValueError, self.issued, role, name, **options)

    def test_only_the_ca_of_a_realm_issues(self) -> None:
        """A node's certificate and key are not enough."""
        node, key = issue(*self.authority, Role.AGENT, "alice", now=NOW)
        self.assertRaises(ValueError, issue, node, key, Role.AGENT, "bob", now=NOW)
        basic, names = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11")  # the OIDs
        der = self.authority[0].public_bytes(Encoding.DER).replace(basic, names)
        twice = x509.load_der_x509_certificate(der)  # has two extensions of one kind
        self.assertRaises(ValueError, authority_realm, twice)


class WriteTests(SynchronousTestCase):
    """`write_private` and `save`."""

    def setUp(self) -> None:
        """A directory, in a process that would let everybody read everything."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.addCleanup(os.umask, os.umask(0))

    def test_a_private_file_is_its_owners_whatever_the_umask(self) -> None:
        """Mode 0600 from the first moment, and also when it replaces an open file."""
        path = self.folder / "x.key"
        write_private(path, b"secret")
        self.assertEqual((0o600, b"secret"), (mode(path), path.read_bytes()))
        path.chmod(0o644)
        write_private(path, b"other", force=True)
        self.assertEqual((0o600, b"other"), (mode(path), path.read_bytes()))
        self.assertEqual([path], list(self.folder.iterdir()))

    def test_a_file_is_not_replaced_unasked(self) -> None:
        """The old content stays, nor is a link followed to it."""
        path, link = self.folder / "x.key", self.folder / "y.key"
        path.write_bytes(b"old")
        link.symlink_to(self.folder / "elsewhere")
        for target in (path, link):
            self.assertRaises(FileExistsError, write_private, target, b"new")
        self.assertEqual(b"old", path.read_bytes())
        self.assertEqual({path, link}, set(self.folder.iterdir()))

    def test_a_pair_is_written_wholly_or_not_at_all(self) -> None:
        """If the certificate cannot be written, no key is left behind."""
        authority = create_authority("example")
        (self.folder / "ca.pem").mkdir()
        self.assertRaises(FileExistsError, save, self.folder, "ca", *authority)
        self.assertRaises(OSError, write_private, self.folder / "ca.pem", b"", force=True)
        self.assertEqual([self.folder / "ca.pem"], list(self.folder.iterdir()))

    def test_certificates_are_public_and_keys_are_not(self) -> None:
        """`save` makes the directory and returns what it wrote; `load_authority` reads it."""
        certificate, key = create_authority("example")
        paths = save(self.folder / "a" / "b", "ca", certificate, key)
        self.assertEqual([0o644, 0o600], [mode(path) for path in paths])
        self.assertEqual(certificate, load_authority(self.folder / "a" / "b")[0])


class CredentialsTests(SynchronousTestCase):
    """`Credentials.load`: a node with bad files does not start, and says which."""

    def setUp(self) -> None:
        """The files of a connector."""
        self.folder = Path(self.mktemp())
        self.authority = create_authority("example", now=NOW)
        self.ca, _key = save(self.folder, "ca", *self.authority)
        self.cert, self.key = save(self.folder, "office", *self.issued())

    def issued(self, name: str = "office", **options: Any) -> Any:
        """A connector's certificate and key."""
        return issue(*self.authority, Role.CONNECTOR, name, **{"now": NOW, **options})

    def load(self, now: datetime = NOW, **files: Path) -> Credentials:
        """Load the connector's files, or others in their place."""
        paths = {"cert": self.cert, "key": self.key, "ca": self.ca, **files}
        return Credentials.load(**paths, now=now)

    def refused(self, path: Path, reason: str, **options: Any) -> None:
        """Loading fails with a line that names `path` and gives the reason."""
        with self.assertRaises(CredentialsError) as caught:
            self.load(**options)
        text = str(caught.exception)
        self.assertTrue(str(path) in text and reason in text and "\n" not in text, text)

    def test_good_files_load_with_either_key_type(self) -> None:
        """And judge another node of the realm."""
        for key_type in KEY_TYPES:
            made = self.issued(key_type=key_type)
            save(self.folder, "office", *made, force=True)
            ours = self.load()
            self.assertEqual(made[0], ours.certificate)
            self.assertEqual("connector office of realm example", str(ours.identity))
            self.assertEqual(self.ca.read_bytes(), ours.ca_pem)
            peer, _key = self.issued("peer")
            verify_peer(peer, (), ours=ours, roles=[Role.CONNECTOR], now=NOW)

    def test_the_key_is_not_shown(self) -> None:
        """A repr ends in logs."""
        self.assertNotIn("key=", repr(self.load()))

    def test_missing_and_unreadable_files_are_named(self) -> None:
        """For each of the three."""
        for which in ("cert", "key", "ca"):
            missing = self.folder / "missing"
            self.refused(missing, "no such file", **{which: missing})
            self.refused(self.folder, "cannot be read", **{which: self.folder})

    def test_files_of_another_kind_are_named(self) -> None:
        """Garbage, a key for a certificate, a certificate for a key."""
        junk = self.folder / "junk"
        write_private(junk, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.refused(junk, "no valid PEM certificate", cert=junk)
        self.refused(junk, "no valid PEM certificate", ca=junk)
        self.refused(junk, "no private key", key=junk)
        self.refused(self.key, "no valid PEM certificate", cert=self.key)
        self.cert.chmod(0o600)
        self.refused(self.cert, "no private key", key=self.cert)

    def test_a_key_others_may_read_is_refused(self) -> None:
        """Any bit for others, or to write; the text has the command that helps."""
        for bit in range(5):
            self.key.chmod(0o600 | 1 << bit)
            self.refused(self.key, f"run `chmod 600 {self.key}`")

    def test_regression_the_group_may_read_a_key_of_root(self) -> None:
        """So are the secrets of containers. Another owner cannot say who is in the group."""
        mode = stat.S_IFREG | 0o640
        for owner, is_open in ((0, False), (1000, True)):
            status = os.stat_result((mode, 0, 0, 1, owner, 1000, 0, 0, 0, 0))
            self.assertEqual(is_open, others_may_read(status))

    def test_keys_that_do_not_fit_are_refused(self) -> None:
        """Another node's key, other types of key, and one with a passphrase."""
        _cert, other = save(self.folder, "other", *self.issued("other"))
        self.refused(other, f"not the key of the certificate in {self.cert}", key=other)
        path = self.folder / "odd.key"
        for key, encryption, reason in (
            (rsa.generate_private_key(65537, 2048), NoEncryption(), "unsupported type"),
            (ec.generate_private_key(ec.SECP384R1()), NoEncryption(), "unsupported type"),
            (x25519.X25519PrivateKey.generate(), NoEncryption(), "unsupported type"),
            (self.authority[1], BestAvailableEncryption(b"x"), "encrypted"),
        ):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
            write_private(path, pem, force=True)
            self.refused(path, reason, key=path)

    def test_a_ca_file_must_hold_the_one_ca_of_our_certificate(self) -> None:
        """Not a node, not two CAs, not another CA of the same realm."""
        self.refused(self.cert, "not one CA certificate", ca=self.cert)
        stranger, _key = save(self.folder, "stranger", *create_authority("example", now=NOW))
        self.refused(stranger, "not signed by this realm's CA", ca=stranger)
        both = self.folder / "both.pem"
        both.write_bytes(self.ca.read_bytes() + stranger.read_bytes())
        self.refused(both, "not one CA certificate", ca=both)

    def test_certificates_that_peers_would_refuse_are_refused(self) -> None:
        """Expired, not yet valid, or a CA's."""
        self.refused(self.cert, "expired on 2003-", now=NOW + timedelta(days=826))
        self.refused(self.cert, "not valid before", now=NOW - timedelta(days=1))
        ca_key = self.ca.with_suffix(".key")
        self.refused(self.ca, "not that of a p2pnet node", cert=self.ca, key=ca_key)

    def test_certificates_after_ours_are_the_chain(self) -> None:
        """They are sent along in the handshake."""
        self.cert.write_bytes(self.cert.read_bytes() + self.ca.read_bytes())
        self.assertEqual((self.authority[0],), self.load().chain)


class CommandTests(SynchronousTestCase):
    """The `p2pnet` command."""

    def setUp(self) -> None:
        """A directory that does not exist yet."""
        self.out = Path(self.mktemp())

    def run_command(self, line: str, out: bool = True) -> Result:
        """Run `p2pnet` in this process."""
        return CliRunner().invoke(main, [*line.split(), *(["--out", str(self.out)] if out else [])])

    def succeed(self, line: str, out: bool = True) -> str:
        """What a command prints."""
        result = self.run_command(line, out)
        self.assertEqual(0, result.exit_code, result.output)
        return result.output

    def fail_with(self, text: str, line: str, out: bool = True) -> None:
        """A command fails with one line that has `text`, and leaves no new file."""
        before = sorted(self.out.rglob("*"))
        result = self.run_command(line, out)
        self.assertEqual((1, ""), (result.exit_code, result.stdout))
        self.assertTrue(text in result.stderr and result.stderr.count("\n") == 1, result.stderr)
        self.assertEqual(before, sorted(self.out.rglob("*")))

    def test_a_realm_is_made_by_four_commands(self) -> None:
        """These very commands are documented; what they write is what nodes load."""
        for line in (
            "pki init --realm example",
            "pki issue intermediate relay1 --host 127.0.0.1 --host relay.example",
            "pki issue connector office --service web --service dns",
            "pki issue agent alice --key-type ed25519 --days 7",
        ):
            output = self.succeed(line)
            self.assertTrue(f"Wrote {self.out}" in output and "Next" in output, output)
        self.assertEqual(8, len(list(self.out.iterdir())))
        cert, key, ca = (self.out / name for name in ("office.pem", "office.key", "ca.pem"))
        ours = Credentials.load(cert=cert, key=key, ca=ca)
        self.assertEqual({"web", "dns"}, ours.identity.services)
        relay = x509.load_pem_x509_certificate((self.out / "relay1.pem").read_bytes())
        role, now = [Role.INTERMEDIATE], datetime.now(UTC)
        for host in ("127.0.0.1", "relay.example"):
            verify_peer(relay, (), ours=ours, roles=role, host=host, now=now)

    def test_show_says_who_and_how_long(self) -> None:
        """For nodes, for the CA, and for certificates past their time."""
        self.succeed("pki init --realm example")
        self.succeed("pki issue connector office --service web --service dns --host ::1")
        output = self.succeed(f"pki show {self.out}/office.pem", out=False)
        for text in ("connector office of realm example", "dns, web", "::1", "valid", " UTC"):
            self.assertIn(text, output)
        output = self.succeed(f"pki show {self.out}/ca.pem", out=False)
        self.assertIn("certificate authority of realm example", output)
        save(self.out, "old", *create_authority("example", 1, now=NOW))
        self.assertIn("expired", self.succeed(f"pki show {self.out}/old.pem", out=False))

    def test_errors_are_one_line_and_leave_nothing(self) -> None:
        """The file or name at fault is in it."""
        self.fail_with("'Example'", "pki init --realm Example")
        self.fail_with(f"{self.out}/ca.pem: no such file", "pki issue agent alice")
        self.succeed("pki init --realm example")
        self.fail_with("--host", "pki issue intermediate relay1")
        self.fail_with("only a connector", "pki issue agent alice --service web")
        self.fail_with("no valid PEM", f"pki show {self.out}/ca.key", out=False)
        (self.out / "ca.key").chmod(0o644)
        self.fail_with(f"chmod 600 {self.out}/ca.key", "pki issue agent alice")
        self.assertEqual(2, self.run_command("pki issue admin alice").exit_code)

    def test_existing_files_are_replaced_only_by_force(self) -> None:
        """An authority's key above all."""
        self.succeed("pki init --realm example")
        before = (self.out / "ca.key").read_bytes()
        self.fail_with(f"{self.out}/ca.key: already exists", "pki init --realm example")
        self.assertEqual(before, (self.out / "ca.key").read_bytes())
        self.succeed("pki init --realm example --force")
        self.assertNotEqual(before, (self.out / "ca.key").read_bytes())

    def test_help_lists_the_commands_without_importing_them(self) -> None:
        """Help is fast: nothing that computes is loaded for it."""
        code = (
            "import sys; from p2pnet.cli.main import main; main(['--help'], standalone_mode=False);"
            "sys.exit(any(name in sys.modules for name in ('cryptography', 'aioquic', 'twisted')))"
        )
        root = Path(p2pnet.__file__).parent.parent
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(b"Create a realm", done.stdout)
        self.assertIn(p2pnet.__version__, self.succeed("--version", out=False))
        self.assertEqual(2, self.run_command("nonsense", out=False).exit_code)
