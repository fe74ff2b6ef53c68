"""What a setting is: its help text, its example and its check, declared beside its type.

The structs of `p2pnet.config.roles` annotate each field with a `Setting`; reading the file, the
options of the command line and the error messages all come from there, so that none can be
forgotten.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from p2pnet.identity import check_name
from p2pnet.quic.congestion import CONTROLLERS
from p2pnet.quic.profile import ENGINES
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire.address import is_ip_literal, parse_host_port

CANDIDATE_SOURCES = ("host", "srflx", "external")
UDP_TRANSPORTS = ("auto", "plain")


class ConfigError(ValueError):
    """A setting is wrong. The message names the file and line, or the option, and the remedy."""


@dataclass(frozen=True)
class Setting:
    """What there is to know about a setting besides its type and default."""

    help: str
    """What ``--help`` says."""
    example: object = None
    """A value that would be right, for error messages; the default unless given."""
    check: Callable[[Any], None] | None = None
    """Called with the value, or each element of a list; raises ValueError with the reason."""
    option: str = ""
    """The command-line option, where it is not the name of the field."""
    unique: bool = False
    """No two elements of the list, or tables of the array, may have the same value, unless that
    is a listener on any port."""
    element: type[Struct] | None = None
    """What a table of the array is, where the setting is written as ``[[option]]`` tables."""

    @property
    def repeatable(self) -> bool:
        """Whether the value is a list, and the option may be given several times."""
        return isinstance(self.example, list)


def check_service(name: str) -> None:
    """The name of a service."""
    check_name("service", name)


def check_agent(name: str) -> None:
    """The name of an agent, or ``*`` for all of them."""
    if name != "*":
        check_name("agent", name)


def check_remote(text: str) -> None:
    """``host:port`` to connect to."""
    if parse_host_port(text)[1] == 0:
        raise ValueError(f"{text!r}: port 0 cannot be connected to")


def check_listen(text: str) -> None:
    """``ip:port`` to bind a socket to; port 0 is any port."""
    if not is_ip_literal(parse_host_port(text)[0]):
        raise ValueError(f"{text!r}: write an IP address of this machine instead of a name")


def check_bind(text: str) -> None:
    """The same, or empty."""
    if text:
        check_listen(text)


def check_endpoint(text: str) -> None:
    """An endpoint string. Its kind is for Twisted to judge, when it is used."""
    kind, _, rest = text.partition(":")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*", kind) or kind == "localhost" or not rest:
        raise ValueError(f"{text!r} is not an endpoint; write, for example, tcp:127.0.0.1:8080")


def is_any_port(item: object) -> bool:
    """Whether this is the endpoint of a listener on a port that the system picks."""
    return isinstance(item, str) and bool(re.match(r"\w+:(0|(.*:)?port=0)(:|$)", item))


def check_external(text: str) -> None:
    """An address that this node can be reached at."""
    host, port = parse_host_port(text)
    if not is_ip_literal(host) or port == 0:
        raise ValueError(f"{text!r} is not IP:PORT; write, for example, 203.0.113.7:4433")


def one_of(names: Collection[str]) -> Callable[[str], None]:
    """A check that a value is one of these."""

    def check(name: str) -> None:
        if name not in names:
            raise ValueError(f"{name!r} is none of {', '.join(names)}")

    return check


check_policy = one_of(SELECTORS)
check_candidate_source = one_of(CANDIDATE_SOURCES)
check_udp = one_of(UDP_TRANSPORTS)
check_engine = one_of(ENGINES)
check_congestion = one_of(CONTROLLERS)


def check_own_policy(name: str) -> None:
    """A policy, or empty."""
    if name:
        check_policy(name)


def check_file(path: Path) -> None:
    """A file that can be read."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}; `p2pnet pki` makes these files") from None
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory, not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: no permission to read it")


def check_log(path: Path | None) -> None:
    """A file that can be created, or none."""
    if path is not None and not os.path.isdir(path.parent):
        raise ValueError(f"{path}: there is no directory {path.parent}")


def check_seconds(value: float) -> None:
    """A time that passes: TOML also has inf and nan."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number of seconds")


def right_spelling(name: str, known: Collection[str]) -> str:
    """What to write instead of a name that is none of the `known`."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"use {', '.join(sorted(known))}"


def reason_of(error: OSError | ValueError) -> str:
    """Why a path could not be opened, without the path and the errno, the same on all Pythons."""
    if "embedded null" in str(error):
        return "embedded null byte"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def declared_settings(kind: type[Struct]) -> dict[str, Setting]:
    """The settings of a config struct by field name, in order, all of their blanks filled in."""
    found = {}
    for field in msgspec.structs.fields(kind):
        metadata = getattr(field.type, "__metadata__", ())  # none: the loader fills the field
        setting = next((item for item in metadata if isinstance(item, Setting)), None)
        if setting is None:
            continue
        found[field.name] = dataclasses.replace(
            setting,
            example=field.default if setting.example is None else setting.example,
            option=setting.option or field.name.replace("_", "-"),
        )
    return found
