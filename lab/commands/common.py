"""What the laboratory's commands have in common beside what those of p2pnet have."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click

from lab.namespaces import LabUnavailable
from lab.nat import BEHAVIORS
from p2pnet.cli import common

BEHAVIOR = click.Choice(list(BEHAVIORS))

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def trials_option(default: int) -> Option:
    """How often."""
    return click.option(
        "--trials", default=default, show_default=True, type=click.IntRange(1), metavar="N"
    )


def delay_option(default: float) -> Option:
    """How long links are."""
    return click.option(
        "--delay-ms", default=default, show_default=True, type=click.FloatRange(0), metavar="MS",
        help="Delay of each site's link, one way.",
    )  # fmt: skip


def jobs_option(what: str) -> Option:
    """How much at a time."""
    return click.option(
        "--jobs", default=1, show_default=True, type=click.IntRange(1), metavar="N",
        help=f"How many {what} at a time.",
    )  # fmt: skip


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn what the laboratory complains about into a line on standard error."""
    with common.reported():
        try:
            yield
        except LabUnavailable as error:
            raise click.ClickException(f"no laboratory here: {error}") from None
