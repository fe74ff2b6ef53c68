"""Who a node is, read from its certificate.

A node's certificate (RFC 5280) is issued by the CA of its realm and names the node in its
subjectAltName (section 4.2.1.6) by URIs of our own:

    p2pnet://REALM/ROLE/NAME         exactly one: the node itself
    p2pnet://REALM/service/SERVICE   any number, connectors only: a service it may offer

`verify_peer` is the one place where a peer's certificate is judged, on every TLS leg and in both
directions. `Credentials.load` applies the same judgment to our own files, so that a node which its
peers would refuse does not start. That the peer holds the certificate's key is for TLS to prove.
"""

from __future__ import annotations

import enum
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from p2pnet.wire.names import MAX_NAME, NAME_PATTERN

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
FilePath: TypeAlias = str | os.PathLike[str]
Extension = TypeVar("Extension", bound=x509.ExtensionType)

# An operator's CA may have one or two below it, and a peer may send the root along. More is abuse.
MAX_CHAIN = 3

# The text may become the reason phrase of a CONNECTION_CLOSE frame (RFC 9000 section 19.19), which
# should leave room in a 1200-byte packet and is written to logs by every implementation.
MAX_MESSAGE = 199
MAX_QUOTED = 40

_DATE = "%Y-%m-%d %H:%M UTC"
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_NODE_URI = re.compile(
    rf"p2pnet://(?P<realm>{NAME_PATTERN.pattern})"
    r"/(?P<role>intermediate|connector|agent|service)"
    rf"/(?P<name>{NAME_PATTERN.pattern})"
)


class Role(enum.StrEnum):
    """What a node is in its realm."""

    INTERMEDIATE = "intermediate"
    CONNECTOR = "connector"
    AGENT = "agent"


class Problem(enum.StrEnum):
    """Why a certificate was refused."""

    NOT_P2PNET = "not-p2pnet"
    WRONG_REALM = "wrong-realm"
    WRONG_ROLE = "wrong-role"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNTRUSTED = "untrusted"
    WRONG_HOST = "wrong-host"
    NOT_GRANTED = "not-granted"
    MALFORMED = "malformed"


class IdentityError(Exception):
    """A certificate was refused.

    The text says which certificate, what is wrong and what to do. It is printable ASCII of less
    than 200 bytes, whatever the peer put into its certificate.
    """

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(_printable(message, MAX_MESSAGE))
        self.problem = problem


class CredentialsError(Exception):
    """Our own certificate, key or CA file cannot be used; the text says which, why, what to do."""


def check_name(kind: str, value: str) -> None:
    """Refuse `value` as the name of a `kind` ("realm", "node", "service").

    Raises ValueError if `value` does not match `NAME_PATTERN` as a whole.
    """
    if not NAME_PATTERN.fullmatch(value):
        raise ValueError(
            f"{kind} name {_printable(value)!r} is not valid: use 1 to {MAX_NAME} of a-z 0-9 . _ - "
            "and begin and end with a letter or digit"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate says about its node: a claim, until `verify_peer` returned it."""

    realm: str
    role: Role
    name: str
    services: frozenset[str]
    fingerprint: str
    """SHA-256 of the certificate's DER form, in lower-case hexadecimal."""
    not_valid_after: datetime
    """Aware, in UTC."""

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate) -> Identity:
        """Read the identity from a node's certificate, without trusting it.

        Raises IdentityError: NOT_P2PNET if it names no p2pnet node or is a CA's, MALFORMED if it
        names several, has a broken name, or cannot be parsed.
        """
        with _malformed_if_unreadable(certificate):
            fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
            return cls(*_parse_names(certificate), fingerprint, certificate.not_valid_after_utc)

    def __str__(self) -> str:
        return f"{self.role} {self.name} of realm {self.realm}"

    def grants(self, service: str) -> bool:
        """Whether the certificate lets this node offer `service`."""
        return service in self.services

    def require_grant(self, service: str) -> None:
        """Raise IdentityError with NOT_GRANTED unless this node may offer `service`."""
        if not self.grants(service):
            wanted = _printable(service)
            text = f"{_named(self)} does not grant service {wanted}; issue it with `--service`"
            raise IdentityError(Problem.NOT_GRANTED, text)


@dataclass(frozen=True)
class Credentials:
    """A node's own certificate and key, and the CA by which it judges its peers."""

    identity: Identity
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Intermediate CA certificates that followed ours in its file; usually none."""
    private_key: PrivateKey = field(repr=False)
    ca: x509.Certificate
    ca_pem: bytes = field(repr=False)

    @classmethod
    def load(
        cls, *, cert: FilePath, key: FilePath, ca: FilePath, now: datetime | None = None
    ) -> Credentials:
        """Read and check the three PEM files of a node.

        `now` (aware) is the time at which they must be valid, by default the present. Raises
        CredentialsError for anything a peer would refuse or that would leave the key exposed.
        """
        (certificate, *chain), private_key = load_pair(cert, key)
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
    """Judge the certificate a peer presented and return who the peer is (RFC 5280 section 6).

    `chain` is what the peer sent after its certificate, `roles` those welcome here, `host` the
    name or address we dialed (RFC 9525 section 6; None if the peer dialed us), `now` aware. The
    most telling check comes first: a node of another realm hears about realms, not signatures.
    Raises IdentityError, and nothing else, for any certificate; ValueError if `now` is naive.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    with _malformed_if_unreadable(certificate):
        identity = Identity.from_certificate(certificate)
        _check_realm_and_role(identity, ours.identity.realm, roles)
        _check_dates(_named(identity), certificate, now)
        _check_dates("CA certificate of this realm", ours.ca, now)
        _check_chain(identity, certificate, chain, ours.ca, now)
        if host is not None:
            _check_host(identity, certificate, host)
    return identity


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate is a CA's (RFC 5280 section 4.2.1.9). ValueError if unreadable."""
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def subject_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """The `p2pnet:` URIs and the hosts (addresses, then names). ValueError if unreadable."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return [], []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    hosts += names.get_values_for_type(x509.DNSName)
    return [uri for uri in uris if uri.startswith("p2pnet:")], hosts


def load_certificates(path: FilePath) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one. Raises CredentialsError."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (ValueError, x509.InvalidVersion) as error:
        raise CredentialsError(f"{path}: holds no valid PEM certificate") from error


def load_pair(cert: FilePath, key: FilePath) -> tuple[list[x509.Certificate], PrivateKey]:
    """The certificates of one PEM file and the key, of another, that belongs to the first of them.

    Raises CredentialsError, also if others than the owner may read the key.
    """
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


def _read(path: FilePath, *, private: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            # Elsewhere than on POSIX the bits say nothing about who may read.
            if private and os.name == "posix" and mode & 0o077:
                raise CredentialsError(
                    f"{path}: others may read it (mode {mode:04o}); run `chmod 600 {path}`"
                )
            return file.read()
    except FileNotFoundError as error:
        raise CredentialsError(f"{path}: no such file; see `p2pnet pki --help`") from error
    except OSError as error:
        raise CredentialsError(f"{path}: cannot be read: {error.strerror}") from error


def _printable(text: str, limit: int = MAX_QUOTED) -> str:
    """`text` as printable ASCII of at most `limit` bytes; idempotent."""
    escaped = _NOT_PRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


def _named(identity: Identity) -> str:
    return f"certificate of {identity.role} {_printable(identity.name)}"


def _described(certificate: x509.Certificate) -> str:
    """The certificate by its subject, for want of a p2pnet name."""
    try:
        return f'certificate "{_printable(certificate.subject.rfc4514_string())}"'
    except Exception:  # the subject, too, is parsed only when read
        return "certificate without a readable subject"


@contextmanager
def _malformed_if_unreadable(certificate: x509.Certificate) -> Iterator[None]:
    """Turn whatever a certificate makes the X.509 libraries raise into IdentityError.

    Three libraries parse its parts when first read and document no common exception.
    """
    try:
        yield
    except IdentityError:
        raise
    except Exception as error:
        text = f"{_described(certificate)} cannot be parsed: {error}"
        raise IdentityError(Problem.MALFORMED, text) from error


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from error


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
        text = f"{described} does not name one node: {_printable(' '.join(uris), 80)}"
        raise IdentityError(Problem.MALFORMED, text)
    realm, role = nodes[0]["realm"], Role(nodes[0]["role"])
    if grants and (role is not Role.CONNECTOR or {grant["realm"] for grant in grants} != {realm}):
        text = f"{described} grants services, but to no connector of their realm"
        raise IdentityError(Problem.MALFORMED, text)
    return realm, role, nodes[0]["name"], frozenset(grant["name"] for grant in grants)


def _check_realm_and_role(identity: Identity, realm: str, roles: Collection[Role]) -> None:
    if identity.realm != realm:
        theirs, ours = _printable(identity.realm), _printable(realm)
        text = f"{_named(identity)} belongs to realm {theirs}, this node to realm {ours}"
        raise IdentityError(Problem.WRONG_REALM, text)
    if identity.role not in roles:
        welcome = " or ".join(sorted(roles))
        text = f"{_named(identity)} has the wrong role; needed here: {welcome}"
        raise IdentityError(Problem.WRONG_ROLE, text)


def _check_dates(named: str, certificate: x509.Certificate, now: datetime) -> None:
    """RFC 5280 section 4.1.2.5, but the last second is already too late, as it is to OpenSSL."""
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < since:
        text = f"{named} is not valid before {since:{_DATE}}; check the clocks of both nodes"
        raise IdentityError(Problem.NOT_YET_VALID, text)
    if now >= until:
        text = f"{named} expired on {until:{_DATE}}; issue a new one with `p2pnet pki issue`"
        raise IdentityError(Problem.EXPIRED, text)


def _check_chain(
    identity: Identity,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    ca: x509.Certificate,
    now: datetime,
) -> None:
    """Path validation to our CA alone (RFC 5280 section 6.1), at `now`, not by the wall clock."""
    if len(chain) > MAX_CHAIN:
        text = f"{_named(identity)} came with {len(chain)} others; at most {MAX_CHAIN} may follow"
        raise IdentityError(Problem.MALFORMED, text)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(ca))
    store.set_time(now.astimezone(UTC))  # it drops the time zone
    leaf = crypto.X509.from_cryptography(certificate)
    others = [crypto.X509.from_cryptography(other) for other in chain]
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
    # The CA vouches for the certificate by now, so a ValueError means that `host` is no host name.
    except (VerificationError, CertificateError, ValueError) as error:
        hosts = _printable(" or ".join(subject_names(certificate)[1]) or "(none)")
        text = f"{_named(identity)} is for host {hosts}, not {_printable(host)}"
        raise IdentityError(Problem.WRONG_HOST, text) from error
