"""The command ``p2pnet demo``: the three roles on this machine, and a download through them."""

import dataclasses
import json
import tempfile
from pathlib import Path

import click
from rich.table import Table

from p2pnet.cli.common import json_option, print_table, reported
from p2pnet.demo.demonstration import Demonstration, Step
from p2pnet.demo.stage import Loopback, Stage

size_option = click.option(
    "--size", default=64, show_default=True, type=click.IntRange(1, 4096), metavar="MIB",
    help="How much to download.",
)  # fmt: skip


def _print_timeline(steps: list[Step]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("seconds", justify="right")
    table.add_column("what")
    table.add_column("")
    for step in steps:
        table.add_row(f"{step.at:.3f}", step.what, step.detail)
    print_table(table)


def perform(stage: Stage, size: int, as_json: bool) -> None:
    """Run the demonstration on `stage` and print its timeline, or one JSON object.

    Raises ProcessError for a process that fails, ClickException for a damaged download.

    :param size: of the download, in MiB.
    """
    with tempfile.TemporaryDirectory(prefix="p2pnet-demo-") as directory:
        demonstration = Demonstration(stage, Path(directory), size)
        ok = demonstration.run()
    steps = demonstration.steps
    if as_json:
        timeline = [dataclasses.asdict(step) for step in steps]
        click.echo(json.dumps({"ok": ok, **demonstration.figures, "timeline": timeline}))
    else:
        _print_timeline(steps)
    if not ok:
        raise click.ClickException("the download differs from what was served")


@click.command()
@json_option
@size_option
def demo(as_json: bool, size: int) -> None:
    """Start the three roles on this machine and download a file through them."""
    with reported():
        perform(Loopback(), size, as_json)
