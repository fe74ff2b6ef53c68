"""The identity of a node, read from its certificate.

A node's certificate (RFC 5280) is issued by the CA of its realm and names the node in its
subjectAltName (section 4.2.1.6) by URIs of our own:

    p2pnet://REALM/ROLE/NAME         exactly one: the node itself
    p2pnet://REALM/service/SERVICE   any number, connectors only: a service it may offer

`verify_peer` alone decides about a peer's certificate, on every TLS leg and in both directions.
`Credentials.load` applies the same rules to our own files, so that a node does not start with a
certificate that its peers would refuse. TLS proves that the peer holds the certificate's key.
"""

from __future__ import annotations

import enum
import functools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from p2pnet.certificate import MIN_RSA, is_authority, missing_usage, subject_names, weak_key
from p2pnet.files import FilePath, find_open_directory, others_may_read
from p2pnet.wire.names import MAX_NAME, NAME_PATTERN
from p2pnet.wire.text import printable

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

# A realm's CA may have one or two CAs below it, and a peer may send the root as well.
MAX_CHAIN = 3

# A name or subject in an error is so short that it leaves room for the remedy.
_quoted = functools.partial(printable, limit=40)

_DATE = "%Y-%m-%d %H:%M UTC"
_NODE_URI = re.compile(
    rf"p2pnet://(?P<realm>{NAME_PATTERN.pattern})"
    r"/(?P<role>intermediate|connector|agent|service)"
    rf"/(?P<name>{NAME_PATTERN.pattern})"
)


class Role(enum.StrEnum):
    """The role of a node in its realm."""

    INTERMEDIATE = "intermediate"
    CONNECTOR = "connector"
    AGENT = "agent"


PURPOSES = {
    Role.INTERMEDIATE: (ExtendedKeyUsageOID.SERVER_AUTH,),
    Role.CONNECTOR: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    Role.AGENT: (ExtendedKeyUsageOID.CLIENT_AUTH,),
}
"""The extended key usage of each role: a Connector dials Intermediates, and Agents dial it."""


class Problem(enum.StrEnum):
    """The reason for the refusal of a certificate."""

    NOT_P2PNET = "not-p2pnet"
    WRONG_REALM = "wrong-realm"
    WRONG_ROLE = "wrong-role"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNTRUSTED = "untrusted"
    WRONG_HOST = "wrong-host"
    MALFORMED = "malformed"
    WEAK_KEY = "weak-key"
    WRONG_USAGE = "wrong-usage"


class IdentityError(Exception):
    """A certificate was refused because of a Problem, `problem`.

    The text names the certificate, the problem and the remedy. It is printable, whatever the peer
    wrote into its certificate.
    """

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(printable(message))
        self.problem = problem


class CredentialsError(Exception):
    """Our own certificate, key or CA file is unusable; the text names file, problem and remedy."""


def check_name(kind: str, value: str) -> None:
    """Raise ValueError unless `value` is a valid name of a `kind` ("realm", "node", "service")."""
    if not NAME_PATTERN.fullmatch(value):
        raise ValueError(
            f"{kind} name {_quoted(value)!r} is not valid: use 1 to {MAX_NAME} of a-z 0-9 . _ - "
            "and begin and end with a letter or digit"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """The node that a certificate names: a mere claim unless `verify_peer` returned it.

    :ivar fingerprint: SHA-256 of the certificate's DER form, in lower-case hexadecimal.
    :ivar not_valid_after: aware, in UTC.
    """

    realm: str
    role: Role
    name: str
    services: frozenset[str]
    fingerprint: str
    not_valid_after: datetime

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate) -> Identity:
        """Read the identity from a node's certificate, without trusting it.

        Raises IdentityError: NOT_P2PNET for a CA certificate or one without a p2pnet node,
        MALFORMED for one with several nodes or a broken name, or one that cannot be parsed.
        """
        with _malformed_if_unreadable(certificate):
            fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
            return cls(*_parse_names(certificate), fingerprint, certificate.not_valid_after_utc)

    def __str__(self) -> str:
        return f"{self.role} {self.name} of realm {self.realm}"

    def grants(self, service: str) -> bool:
        """Whether the certificate lets this node offer `service`."""
        return service in self.services


@dataclass(frozen=True)
class Credentials:
    """A node's certificate and key, the `chain` of CAs above it (usually none), the realm's CA."""

    identity: Identity
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False)
    ca: x509.Certificate
    ca_pem: bytes = field(repr=False)

    @classmethod
    def load(
        cls, *, cert: FilePath, key: FilePath, ca: FilePath, now: datetime | None = None
    ) -> Credentials:
        """Read and check the three PEM files of a node.

        The certificates must be valid at `now` (aware), None for the present. Raises
        CredentialsError for a certificate that peers would refuse, for a key that others may read
        or for a file that they may replace.
        """
        (certificate, *chain), private_key = load_pair(cert, key)
        _check_place(ca)
        authority, *others = load_certificates(ca)
        try:
            if others or not is_authority(authority):
                raise CredentialsError(f"{ca}: is not one CA certificate; use the realm's ca.pem")
            identity = Identity.from_certificate(certificate)
            pem = authority.public_bytes(Encoding.PEM)
            loaded = cls(identity, certificate, tuple(chain), private_key, authority, pem)
            now = now or datetime.now(UTC)
            verify_peer(certificate, chain, ours=loaded, roles=(identity.role,), now=now)
        except IdentityError as error:
            raise CredentialsError(f"{cert} (with CA {ca}): {error}") from error
        except ValueError as error:
            raise CredentialsError(f"{ca}: cannot be parsed: {error}") from error
        return loaded


def verify_peer(
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    *,
    ours: Credentials,
    roles: Collection[Role],
    host: str | None = None,
    now: datetime,
) -> Identity:
    """Verify a peer's certificate and return the peer's identity (RFC 5280 section 6).

    A node of another realm should read of its realm, not of signatures: realm and role come first.
    Raises IdentityError for any certificate that is refused, ValueError for a naive `now`.

    :param chain: the certificates that the peer sent after its own.
    :param roles: the roles that are accepted here.
    :param host: the name or address that we dialed (RFC 9525 section 6), None if the peer dialed.
    :param now: the time (aware) at which the certificates must be valid.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    with _malformed_if_unreadable(certificate):
        identity = Identity.from_certificate(certificate)
        _check_realm_and_role(identity, ours.identity.realm, roles)
        _check_dates(_named(identity), certificate, now)
        _check_dates("CA certificate of this realm", ours.ca, now)
        _check_use(_named(identity), certificate, PURPOSES[identity.role])
        _check_use("CA certificate of this realm", ours.ca)
        _check_chain(identity, certificate, chain, ours.ca, now)
        if host is not None:
            _check_host(identity, certificate, host)
    return identity


def load_certificates(path: FilePath) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises CredentialsError for a file without any."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (ValueError, x509.InvalidVersion) as error:
        raise CredentialsError(f"{path}: holds no valid PEM certificate") from error


def load_pair(cert: FilePath, key: FilePath) -> tuple[list[x509.Certificate], PrivateKey]:
    """The certificates of the file `cert`, and the private key of the first in the file `key`.

    Raises CredentialsError, also for a key that others may read or a file that they may replace.
    """
    for path in (cert, key):
        _check_place(path)
    certificates = load_certificates(cert)
    try:
        private_key = load_pem_private_key(_read(key, private=True), password=None)
        public_key = certificates[0].public_key()
    except TypeError as error:
        raise CredentialsError(f"{key}: is encrypted; store it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{key}: holds no private key we can use with {cert}") from error
    if not isinstance(private_key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) or (
        isinstance(private_key, ec.EllipticCurvePrivateKey)
        and not isinstance(private_key.curve, ec.SECP256R1)
    ):
        raise CredentialsError(f"{key}: is a key of an unsupported type; use P-256 or Ed25519")
    if private_key.public_key() != public_key:
        raise CredentialsError(f"{key}: is not the key of the certificate in {cert}")
    return certificates, private_key


def _check_place(path: FilePath) -> None:
    """Raise CredentialsError if any user of the machine could replace the file."""
    if directory := find_open_directory(path):
        raise CredentialsError(
            f"{path}: others may replace it, as anybody may write to {directory}; move it, or run"
            f" `chmod o-w {directory}`"
        )


def _read(path: FilePath, *, private: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if private and others_may_read(status):
                mode = f"{status.st_mode & 0o7777:04o}"
                text = f"others may read it (mode {mode}); run `chmod 600 {path}`, or let root"
                raise CredentialsError(f"{path}: {text} own it with mode 0640 and a group")
            return file.read()
    except FileNotFoundError as error:
        raise CredentialsError(f"{path}: no such file; see `p2pnet pki --help`") from error
    except OSError as error:
        raise CredentialsError(f"{path}: cannot be read: {error.strerror}") from error


def _named(identity: Identity) -> str:
    return f"certificate of {identity.role} {_quoted(identity.name)}"


def _described(certificate: x509.Certificate) -> str:
    """A description of a certificate without a p2pnet name: its subject."""
    try:
        return f'certificate "{_quoted(certificate.subject.rfc4514_string())}"'
    except Exception:  # the library parses the subject only now
        return "certificate without a readable subject"


@contextmanager
def _malformed_if_unreadable(certificate: x509.Certificate) -> Iterator[None]:
    """Raise IdentityError for any exception that a certificate causes in the X.509 libraries.

    Three libraries parse the parts of a certificate lazily and document no common exception.
    """
    try:
        yield
    except IdentityError:
        raise
    except Exception as error:
        text = f"{_described(certificate)} cannot be parsed: {error}"
        raise IdentityError(Problem.MALFORMED, text) from error


def _parse_names(certificate: x509.Certificate) -> tuple[str, Role, str, frozenset[str]]:
    """The realm, role, name and services of the certificate's node."""
    described = _described(certificate)
    uris, _hosts = subject_names(certificate)
    if is_authority(certificate) or not uris:
        text = f"{described} is not that of a p2pnet node; issue one with `p2pnet pki issue`"
        raise IdentityError(Problem.NOT_P2PNET, text)
    parsed = [_NODE_URI.fullmatch(uri) for uri in uris]
    nodes = [match for match in parsed if match and match["role"] != "service"]
    grants = [match for match in parsed if match and match["role"] == "service"]
    if None in parsed or len(nodes) != 1:
        text = f"{described} does not name one node: {printable(' '.join(uris), 80)}"
        raise IdentityError(Problem.MALFORMED, text)
    realm, role = nodes[0]["realm"], Role(nodes[0]["role"])
    if grants and (role is not Role.CONNECTOR or {grant["realm"] for grant in grants} != {realm}):
        text = f"{described} grants services, but to no connector of their realm"
        raise IdentityError(Problem.MALFORMED, text)
    return realm, role, nodes[0]["name"], frozenset(grant["name"] for grant in grants)


def _check_realm_and_role(identity: Identity, realm: str, roles: Collection[Role]) -> None:
    if identity.realm != realm:
        theirs, ours = _quoted(identity.realm), _quoted(realm)
        text = f"{_named(identity)} belongs to realm {theirs}, this node to realm {ours}"
        raise IdentityError(Problem.WRONG_REALM, text)
    if identity.role not in roles:
        welcome = " or ".join(sorted(roles))
        text = f"{_named(identity)} has the wrong role; needed here: {welcome}"
        raise IdentityError(Problem.WRONG_ROLE, text)


def _check_dates(named: str, certificate: x509.Certificate, now: datetime) -> None:
    """Check the validity (RFC 5280 section 4.1.2.5); like OpenSSL, without the last second."""
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < since:
        text = f"{named} is not valid before {since:{_DATE}}; check the clocks of both nodes"
        raise IdentityError(Problem.NOT_YET_VALID, text)
    if now >= until:
        text = f"{named} expired on {until:{_DATE}}; issue a new one with `p2pnet pki issue`"
        raise IdentityError(Problem.EXPIRED, text)


@functools.lru_cache(maxsize=64)  # each handshake would find the same of our CA
def _check_use(
    named: str, certificate: x509.Certificate, purposes: tuple[x509.ObjectIdentifier, ...] = ()
) -> None:
    """Check the strength of the key, and that the certificate allows what the key is used for."""
    if weak := weak_key(certificate):
        text = f"{named} has a weak key ({weak}); use P-256, Ed25519, or RSA with {MIN_RSA} bits"
        raise IdentityError(Problem.WEAK_KEY, text)
    if missing := missing_usage(certificate, purposes):
        text = f"{named} lacks the key usage {missing}; issue a new one with `p2pnet pki issue`"
        raise IdentityError(Problem.WRONG_USAGE, text)


def _check_chain(
    identity: Identity,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    ca: x509.Certificate,
    now: datetime,
) -> None:
    """Validate the chain up to our CA (RFC 5280 section 6.1) at `now`, not by the wall clock."""
    if len(chain) > MAX_CHAIN:
        text = f"{_named(identity)} came with {len(chain)} others; at most {MAX_CHAIN} may follow"
        raise IdentityError(Problem.MALFORMED, text)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(ca))
    store.set_time(now.astimezone(UTC))  # set_time() ignores the time zone
    leaf = crypto.X509.from_cryptography(certificate)
    others = [crypto.X509.from_cryptography(other) for other in chain]
    for other in chain:
        if not is_authority(other):
            text = f"{_named(identity)} came with another that is no CA's"
            raise IdentityError(Problem.UNTRUSTED, text)
        _check_use(f"CA above the {_named(identity)}", other)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        text = f"{_named(identity)} is not signed by this realm's CA ({error})"
        raise IdentityError(Problem.UNTRUSTED, text) from error


def _check_host(identity: Identity, certificate: x509.Certificate, host: str) -> None:
    try:
        if ":" in host or host.replace(".", "").isdecimal():
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    # The CA has signed the certificate, so a ValueError means that `host` is no host name.
    except (VerificationError, CertificateError, ValueError) as error:
        hosts = _quoted(" or ".join(subject_names(certificate)[1]) or "(none)")
        text = f"{_named(identity)} is for host {hosts}, not {_quoted(host)}"
        raise IdentityError(Problem.WRONG_HOST, text) from error
