"""``p2pnet demo``: the three roles on this machine, and a download through them."""

import dataclasses
import json
import tempfile
from pathlib import Path

import click
from rich.table import Table

from p2pnet.cli.common import json_option, print_table, reported
from p2pnet.lab.demonstration import Demonstration, Step
from p2pnet.lab.namespaces import acquire
from p2pnet.lab.nat import BEHAVIORS
from p2pnet.lab.stage import BehindNats, Loopback, Stage


def _print_timeline(steps: list[Step]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("seconds", justify="right")
    table.add_column("what")
    table.add_column("")
    for step in steps:
        table.add_row(f"{step.at:.3f}", step.what, step.detail)
    print_table(table)


def _stage(nat: str | None) -> Stage:
    """Where to perform: on loopback, or behind "AGENT:CONNECTOR"."""
    if nat is None:
        return Loopback()
    agent, colon, connector = nat.partition(":")
    if not colon or agent not in BEHAVIORS or connector not in BEHAVIORS:
        known = ", ".join(BEHAVIORS)
        raise click.BadParameter(f"write AGENT:CONNECTOR, each one of {known}", param_hint="--nat")
    acquire()
    return BehindNats(BEHAVIORS[agent], BEHAVIORS[connector])


@click.command()
@json_option
@click.option(
    "--size",
    default=64,
    show_default=True,
    type=click.IntRange(1, 4096),
    metavar="MIB",
    help="How much to download.",
)
@click.option(
    "--nat", metavar="AGENT:CONNECTOR",
    help="Behind two real NATs in network namespaces, such as port-restricted:port-restricted.",
)  # fmt: skip
def demo(as_json: bool, size: int, nat: str | None) -> None:
    """Start the three roles on this machine and download a file through them."""
    with tempfile.TemporaryDirectory(prefix="p2pnet-demo-") as directory, reported():
        demonstration = Demonstration(_stage(nat), Path(directory), size)
        ok = demonstration.run()
    steps = demonstration.steps
    if as_json:
        timeline = [dataclasses.asdict(step) for step in steps]
        click.echo(json.dumps({"ok": ok, **demonstration.figures, "timeline": timeline}))
    else:
        _print_timeline(steps)
    if not ok:
        raise click.ClickException("the download differs from what was served")
