"""The declaration of a setting beside its type: help text, example and check.

The structs of `p2pnet.config.roles` annotate each field with a `Setting`. The loader, the options
of the command line and the error messages all read these declarations.
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
    """The declaration of a setting, besides its type and default.

    :ivar help: the text of ``--help``.
    :ivar example: a correct value for error messages; None stands for the default.
    :ivar check: called with the value, or each element of a list; raises ValueError with the
        reason.
    :ivar option: the command-line option if it is not the name of the field.
    :ivar unique: whether the elements of the list, or tables of the array, must have different
        values; listeners on any port are exempt.
    :ivar element: the struct of each table of a setting that is an array of ``[[option]]`` tables.
    """

    help: str
    example: object = None
    check: Callable[[Any], None] | None = None
    option: str = ""
    unique: bool = False
    element: type[Struct] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the value is a list, and the option may be repeated."""
        return isinstance(self.example, list)


def check_service(name: str) -> None:
    """Raise ValueError unless `name` is a possible service name."""
    check_name("service", name)


def check_agent(name: str) -> None:
    """Raise ValueError unless `name` is a possible agent name, or ``*`` for all agents."""
    if name != "*":
        check_name("agent", name)


def check_remote(text: str) -> None:
    """Raise ValueError unless `text` is ``host:port`` to connect to, with a port above 0."""
    if parse_host_port(text)[1] == 0:
        raise ValueError(f"{text!r}: port 0 cannot be connected to")


def check_listen(text: str) -> None:
    """Raise ValueError unless `text` is ``ip:port`` to bind a socket to; port 0 is any port."""
    if not is_ip_literal(parse_host_port(text)[0]):
        raise ValueError(f"{text!r}: write an IP address of this machine instead of a name")


def check_bind(text: str) -> None:
    """Raise ValueError unless `text` passes check_listen() or is empty."""
    if text:
        check_listen(text)


def check_endpoint(text: str) -> None:
    """Raise ValueError unless `text` has the form of an endpoint string.

    Twisted checks the kind and the arguments when the endpoint is made.
    """
    kind, _, rest = text.partition(":")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*", kind) or kind == "localhost" or not rest:
        raise ValueError(f"{text!r} is not an endpoint; write, for example, tcp:127.0.0.1:8080")


def is_any_port(item: object) -> bool:
    """Whether `item` is the endpoint of a listener on port 0, any port."""
    return isinstance(item, str) and bool(re.match(r"\w+:(0|(.*:)?port=0)(:|$)", item))


def check_external(text: str) -> None:
    """Raise ValueError unless `text` is ``ip:port`` with a port above 0."""
    host, port = parse_host_port(text)
    if not is_ip_literal(host) or port == 0:
        raise ValueError(f"{text!r} is not IP:PORT; write, for example, 203.0.113.7:4433")


def one_of(names: Collection[str]) -> Callable[[str], None]:
    """A check that raises ValueError unless the value is one of `names`."""

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
    """Raise ValueError unless `name` is the name of a path policy or empty."""
    if name:
        check_policy(name)


def check_file(path: Path) -> None:
    """Raise ValueError unless `path` is a file that this process may read."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}; `p2pnet pki` makes these files") from None
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory, not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: no permission to read it")


def check_log(path: Path | None) -> None:
    """Raise ValueError unless `path` is None or in an existing directory."""
    if path is not None and not os.path.isdir(path.parent):
        raise ValueError(f"{path}: there is no directory {path.parent}")


def check_seconds(value: float) -> None:
    """Raise ValueError for a number of seconds that is not finite: TOML has inf and nan."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number of seconds")


def right_spelling(name: str, known: Collection[str]) -> str:
    """A hint for a misspelt `name`: the closest of the `known` names, or all of them."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"use {', '.join(sorted(known))}"


def reason_of(error: OSError | ValueError) -> str:
    """The reason of a failure to open a path, without path and errno, equal on all Pythons."""
    if "embedded null" in str(error):
        return "embedded null byte"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def declared_settings(kind: type[Struct]) -> dict[str, Setting]:
    """The settings of a config struct by field name, in order, with example and option set."""
    found = {}
    for field in msgspec.structs.fields(kind):
        metadata = getattr(field.type, "__metadata__", ())  # empty for fields that the loader sets
        setting = next((item for item in metadata if isinstance(item, Setting)), None)
        if setting is None:
            continue
        found[field.name] = dataclasses.replace(
            setting,
            example=field.default if setting.example is None else setting.example,
            option=setting.option or field.name.replace("_", "-"),
        )
    return found
