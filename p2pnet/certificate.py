"""What an X.509 certificate says (RFC 5280): its names, its key, and the purposes of the key."""

from collections.abc import Collection
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

MIN_RSA = 2048  # bits (RFC 9325 section 4.5)
MIN_CURVE = 256  # bits

Extension = TypeVar("Extension", bound=x509.ExtensionType)


def get_extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The extension of a kind, None if there is none. Raises ValueError if broken."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from error


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate is a CA's (RFC 5280 section 4.2.1.9). Raises ValueError if broken."""
    constraints = get_extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def subject_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """The `p2pnet:` URIs and hosts (IP addresses, then names). Raises ValueError if broken."""
    names = get_extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return [], []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    hosts += names.get_values_for_type(x509.DNSName)
    return [uri for uri in uris if uri.startswith("p2pnet:")], hosts


def weak_key(certificate: x509.Certificate) -> str:
    """The type of a key that others may break, or that is none of ours; "" for a strong key.

    Strong are Ed25519, Ed448, curves of 256 bits or more, and RSA of 2048 bits or more. Raises
    ValueError or UnsupportedAlgorithm if the key cannot be read.
    """
    key = certificate.public_key()
    match key:
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return ""
        case ec.EllipticCurvePublicKey():
            return "" if key.curve.key_size >= MIN_CURVE else key.curve.name
        case rsa.RSAPublicKey():
            return "" if key.key_size >= MIN_RSA else f"RSA with {key.key_size} bits"
    return type(key).__name__


def missing_usage(
    certificate: x509.Certificate, purposes: Collection[x509.ObjectIdentifier] = ()
) -> str:
    """The usage that a certificate lacks, "" if it lacks none. Raises ValueError if broken.

    A CA signs certificates; a node signs handshakes (RFC 8446 section 4.4.2.2), for `purposes` of
    its extended key usage. A certificate without one of the two extensions allows every usage of
    that extension (RFC 5280 sections 4.2.1.3 and 4.2.1.12).
    """
    usage = get_extension(certificate, x509.KeyUsage)
    if usage is not None:
        if is_authority(certificate):
            return "" if usage.key_cert_sign else "keyCertSign"
        if not usage.digital_signature:
            return "digitalSignature"
    extended = get_extension(certificate, x509.ExtendedKeyUsage)
    if extended is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in extended:
        return ""
    return next((_NAMES[purpose] for purpose in purposes if purpose not in extended), "")


_NAMES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}
