"""A realm's own certificate authority: a CA certificate, and one leaf for each node.

The profile is a small part of RFC 5280: the CA may sign leaves only (pathLenConstraint 0), and the
URIs of a leaf name its node (`p2pnet.identity`). A directory of certificates has ca.pem and ca.key
for the CA, NAME.pem and NAME.key for the node NAME. No node needs the CA's key.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from p2pnet.certificate import is_authority, subject_names
from p2pnet.files import FilePath
from p2pnet.identity import (
    PURPOSES,
    CredentialsError,
    PrivateKey,
    Role,
    check_name,
    load_pair,
)
from p2pnet.wire.names import NAME_PATTERN

KeyType: TypeAlias = Literal["p256", "ed25519"]
KEY_TYPES: tuple[KeyType, ...] = ("p256", "ed25519")

AUTHORITY = "ca"
"""Base name of the CA's files, which no node may have as its name."""

AUTHORITY_DAYS = 3650
NODE_DAYS = 825

# A node whose clock is slow by minutes must accept a new certificate.
BACKDATE = timedelta(minutes=5)

_AUTHORITY_URI = re.compile(rf"p2pnet://({NAME_PATTERN.pattern})")
_HOST_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# The last label has a letter, or else it is a mistyped address (RFC 1123 section 2.1).
_HOST_NAME = re.compile(rf"(?:{_HOST_LABEL}\.)*(?=[a-z0-9-]*[a-z]){_HOST_LABEL}")


def create_authority(
    realm: str,
    days: int = AUTHORITY_DAYS,
    *,
    key_type: KeyType = "p256",
    now: datetime | None = None,
) -> tuple[x509.Certificate, PrivateKey]:
    """A new self-signed CA certificate for `realm`, and its key.

    Raises ValueError for an invalid realm name or key type.

    :param days: validity from `now` on.
    :param now: aware; None for the present.
    """
    check_name("realm", realm)
    key = _generate(key_type)
    subject = _subject(f"p2pnet realm {realm}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    now = now or datetime.now(UTC)
    builder = (
        _builder(subject, subject, key, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_uris([f"p2pnet://{realm}"]), critical=False)
    )
    return builder.sign(key, _digest(key)), key


def issue(
    authority_cert: x509.Certificate,
    authority_key: PrivateKey,
    role: Role,
    name: str,
    *,
    services: Iterable[str] = (),
    hosts: Iterable[str] = (),
    days: int = NODE_DAYS,
    key_type: KeyType = "p256",
    now: datetime | None = None,
) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate for the node `name` of the CA's realm, and the node's new key.

    Raises ValueError for an invalid name, host or key type, for services of a node that is no
    connector, for an intermediate without a host, or for a CA that is expired or no realm's.

    :param services: the services that the certificate grants.
    :param hosts: the DNS names and IP addresses at which other nodes dial this one.
    :param days: validity from `now` on; the certificate expires with its CA at the latest.
    :param now: aware; None for the present.
    """
    realm = authority_realm(authority_cert)
    now = now or datetime.now(UTC)
    services, hosts = sorted(set(services)), list(hosts)
    _check_request(role, name, services, hosts)
    until = authority_cert.not_valid_after_utc
    if now >= until:
        raise ValueError(f"the CA of realm {realm} expired on {until:%Y-%m-%d}; create a new one")
    key = _generate(key_type)
    uris = [f"p2pnet://{realm}/{role}/{name}"]
    uris += [f"p2pnet://{realm}/service/{service}" for service in services]
    names = [*_uris(uris), *(_host(host) for host in hosts)]
    end = min(now + timedelta(days=days), until)
    builder = (
        _builder(_subject(f"{role} {name}"), authority_cert.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(PURPOSES[role]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    return builder.sign(authority_key, _digest(authority_key)), key


def authority_realm(certificate: x509.Certificate) -> str:
    """The realm of a CA certificate. Raises ValueError for any other certificate."""
    uris, _hosts = subject_names(certificate)
    match = _AUTHORITY_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None or not is_authority(certificate):
        raise ValueError(
            "not the CA certificate of a p2pnet realm; make one with `p2pnet pki init`"
        )
    return match[1]


def load_authority(directory: FilePath) -> tuple[x509.Certificate, PrivateKey]:
    """The CA certificate and key in `directory`. Raises CredentialsError, which names the file."""
    path = Path(directory, f"{AUTHORITY}.pem")
    (certificate, *_others), key = load_pair(path, path.with_suffix(".key"))
    try:
        authority_realm(certificate)
    except ValueError as error:
        raise CredentialsError(f"{path}: {error}") from error
    return certificate, key


def save(
    directory: FilePath,
    name: str,
    certificate: x509.Certificate,
    key: PrivateKey,
    *,
    force: bool = False,
) -> tuple[Path, Path]:
    """Write NAME.pem and NAME.key into `directory`, both or neither, and return the two paths.

    A missing directory is created, for its owner to write to. Raises FileExistsError for an
    existing file unless `force` is true, and OSError for any other failure.
    """
    folder = Path(directory)
    for missing in reversed([folder, *folder.parents]):
        missing.mkdir(0o755, exist_ok=True)
    pem, private = folder / f"{name}.pem", folder / f"{name}.key"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = certificate.public_bytes(Encoding.PEM)
    _write([(private, secret, 0o600), (pem, public, 0o644)], force=force)
    return pem, private


def write_private(path: FilePath, data: bytes, *, force: bool = False) -> None:
    """Write `data` to `path`, wholly or not at all; at no time may others than the owner read it.

    Raises FileExistsError for an existing file unless `force` is true, and OSError for any other
    failure.
    """
    _write([(Path(path), data, 0o600)], force=force)


def _write(files: Sequence[tuple[Path, bytes, int]], *, force: bool) -> None:
    """Write all of the (path, data, mode) files or, if one fails, none."""
    made: list[Path] = []
    try:
        for path, _data, mode in files:
            if not force:
                _create(path, b"", mode, made)  # reserves the name: rename replaces silently
        drafts = [path.with_name(f".{path.name}.{secrets.token_hex(8)}") for path, _, _ in files]
        for draft, (_path, data, mode) in zip(drafts, files, strict=True):
            _create(draft, data, mode, made)
        for draft, (path, _data, _mode) in zip(drafts, files, strict=True):
            draft.replace(path)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _create(path: Path, data: bytes, mode: int, made: list[Path]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    made.append(path)
    with open(descriptor, "wb") as file:
        file.write(data)


def _check_request(role: Role, name: str, services: list[str], hosts: list[str]) -> None:
    check_name("node", name)
    if name == AUTHORITY:
        raise ValueError(f"node name {name!r} is that of the CA's own files; choose another")
    for service in services:
        check_name("service", service)
    if services and role is not Role.CONNECTOR:
        raise ValueError(f"{role} {name} can offer no services: only a connector does")
    if role is Role.INTERMEDIATE and not hosts:
        raise ValueError(
            f"intermediate {name} needs a host (--host), at which the other nodes dial it"
        )


def _generate(key_type: KeyType) -> PrivateKey:
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if key_type == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    raise ValueError(f"key type {key_type!r} is none of {', '.join(KEY_TYPES)}")


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """The digest of a signature with `key`: Ed25519 has its own, so None (RFC 8410)."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        # Random (RFC 5280 section 4.1.2.2), and always 20 bytes, so that sizes do not vary.
        .serial_number(secrets.randbits(159) | 1 << 158)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(until)
    )


def _subject(common_name: str) -> x509.Name:
    """A subject for people to read, within the 64 characters of ub-common-name (RFC 5280)."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "p2pnet"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _uris(uris: Iterable[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = host.lower()
        if len(name) > 253 or not _HOST_NAME.fullmatch(name):
            raise ValueError(f"host {host!r} is neither an IP address nor a DNS name") from None
        return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """RFC 5280 section 4.2.1.3: a CA signs certificates and CRLs, a leaf signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
