"""The command ``p2pnet pki``: create a realm, issue certificates to its nodes, show one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from p2pnet.certificate import is_authority, subject_names
from p2pnet.identity import (
    CredentialsError,
    Identity,
    IdentityError,
    Role,
    load_certificates,
)
from p2pnet.pki import (
    AUTHORITY,
    AUTHORITY_DAYS,
    KEY_TYPES,
    NODE_DAYS,
    KeyType,
    authority_realm,
    create_authority,
    issue,
    load_authority,
    save,
)

# Up to a century, far from the year 9999, the last one that a certificate can name.
DAYS = click.IntRange(1, 36500)

out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="certs",
    show_default=True,
    help="Directory of the certificates and keys.",
)


@click.group()
def pki() -> None:
    """Create a realm and issue certificates to its nodes."""


@pki.command("init")
@click.option("--realm", required=True, help="Name of the realm.")
@out_option
@click.option("--days", type=DAYS, default=AUTHORITY_DAYS, show_default=True, help="Validity.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace an existing authority: all that it issued becomes worthless.",
)
def init_command(realm: str, out: Path, days: int, force: bool) -> None:
    """Create the certificate authority of a new realm."""
    with _reported(out):
        written = save(out, AUTHORITY, *create_authority(realm, days), force=force)
    _report(*written)
    click.echo("Keep ca.key here, on no node. Next, for a node at the public address ADDRESS:")
    click.echo(f"  p2pnet pki issue intermediate relay1 --host ADDRESS --out {out}")


@pki.command("issue")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name")
@click.option("--host", "hosts", multiple=True, help="DNS or IP address of the node; repeatable.")
@click.option("--service", "services", multiple=True, help="Service it may offer; repeatable.")
@out_option
@click.option("--days", type=DAYS, default=NODE_DAYS, show_default=True, help="Validity.")
@click.option("--key-type", type=click.Choice(KEY_TYPES), default="p256", show_default=True)
@click.option("--force", is_flag=True, help="Replace existing files.")
def issue_command(
    role: str,
    name: str,
    hosts: tuple[str, ...],
    services: tuple[str, ...],
    out: Path,
    days: int,
    key_type: KeyType,
    force: bool,
) -> None:
    """Issue the certificate of the node NAME, with a new key.

    An intermediate needs at least one --host; only a connector takes --service.
    """
    with _reported(out):
        certificate, key = issue(
            *load_authority(out),
            Role(role),
            name,
            services=services,
            hosts=hosts,
            days=days,
            key_type=key_type,
        )
        written = save(out, name, certificate, key, force=force)
    _report(*written)
    click.echo(f"Next: copy these two and {out / 'ca.pem'} to the machine of {role} {name}.")


@pki.command("show")
@click.argument("file", type=click.Path(path_type=Path))
def show_command(file: Path) -> None:
    """Print the node and the validity of the certificate in FILE."""
    with _reported(file):
        try:
            lines = _describe(load_certificates(file)[0], datetime.now(UTC))
        except (IdentityError, ValueError) as error:
            raise CredentialsError(f"{file}: {error}") from error
    for line in lines:
        click.echo(line)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Raise ClickException, one line on standard error, for errors that a user can mend.

    :param path: the path in the line if an OSError names none (a full disk).
    """
    try:
        yield
    except FileExistsError as error:
        text = f"{error.filename}: already exists; use --force to replace it"
        raise click.ClickException(text) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: {error.strerror}") from error
    except (ValueError, CredentialsError) as error:
        raise click.ClickException(str(error)) from error


def _report(certificate: Path, key: Path) -> None:
    click.echo(f"Wrote {certificate} and {key} (keep the key secret).")


def _describe(certificate: x509.Certificate, now: datetime) -> list[str]:
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    state = "not valid yet" if now < since else "expired" if now >= until else "valid"
    if is_authority(certificate):
        lines = [f"certificate authority of realm {authority_realm(certificate)}"]
    else:
        identity = Identity.from_certificate(certificate)
        _uris, hosts = subject_names(certificate)
        lines = [
            str(identity),
            f"  services     {', '.join(sorted(identity.services)) or '(none)'}",
            f"  hosts        {', '.join(hosts) or '(none)'}",
            f"  fingerprint  {identity.fingerprint}",
        ]
    return [*lines, f"  {state:<12} {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"]
