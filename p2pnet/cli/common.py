"""What commands have in common: options, tables, and errors in one line."""

import contextlib
import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

from p2pnet.testing.processes import ProcessError

TABLE_WIDTH = 150  # columns, where the output is no terminal

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn the failure of a process, or of the system, into a line on standard error."""
    try:
        yield
    except (ProcessError, OSError) as error:
        raise click.ClickException(str(error)) from None


def print_table(table: Table) -> None:
    """As wide as the terminal, if it is one."""
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)
