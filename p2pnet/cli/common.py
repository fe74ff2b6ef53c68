"""What the laboratory's commands have in common: options, tables, and errors in one line."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from p2pnet.lab.namespaces import LabUnavailable
from p2pnet.lab.nat import BEHAVIORS
from p2pnet.lab.processes import LabError

TABLE_WIDTH = 150  # columns, where the output is no terminal
BEHAVIOR = click.Choice(list(BEHAVIORS))

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


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
    try:
        yield
    except LabUnavailable as error:
        raise click.ClickException(f"no laboratory here: {error}") from None
    except (LabError, OSError) as error:
        raise click.ClickException(str(error)) from None


def print_table(table: Table) -> None:
    """As wide as the terminal, if it is one."""
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)
