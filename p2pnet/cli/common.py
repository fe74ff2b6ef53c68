"""Shared parts of the commands: options, tables, and errors in one line."""

import contextlib
import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

from p2pnet.testing.processes import ProcessError

TABLE_WIDTH = 150  # columns if the output is no terminal

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Raise ClickException, one line on standard error, for a ProcessError or OSError."""
    try:
        yield
    except (ProcessError, OSError) as error:
        raise click.ClickException(str(error)) from None


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal, or TABLE_WIDTH columns where there is none."""
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)
