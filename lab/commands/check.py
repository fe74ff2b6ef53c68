"""``python -m lab check`` and ``clean``: the laboratory itself."""

import dataclasses
import json
from collections.abc import Sequence

import click
from rich.table import Table

from lab.commands.common import BEHAVIOR, reported
from lab.namespaces import acquire, remove_leftovers
from lab.nat import BEHAVIORS
from lab.probe import Finding, check
from p2pnet.cli.common import json_option, print_table


@click.command("check")
@click.option(
    "--behavior", "names", multiple=True, type=BEHAVIOR, help="Only this one; repeatable."
)
@json_option
def check_command(names: tuple[str, ...], as_json: bool) -> None:
    """Measure each behavior with plain sockets, and compare with what its name says."""
    with reported():
        acquire()
        findings = list(check(names or tuple(BEHAVIORS)))
    if as_json:
        rows = [{**dataclasses.asdict(finding), "ok": finding.is_right} for finding in findings]
        click.echo(json.dumps(rows))
    else:
        print_table(_check_table(findings))
    if not all(finding.is_right for finding in findings):
        raise SystemExit(1)


def _check_table(findings: Sequence[Finding]) -> Table:
    words = {True: "yes", False: "no", None: ""}
    table = Table("behavior", box=None, header_style="bold")
    for field in dataclasses.fields(findings[0].measured):
        table.add_column(field.name)
    table.add_column("")
    for finding in findings:
        pairs = zip(*(vars(c).values() for c in (finding.measured, finding.expected)), strict=True)
        texts = [
            words.get(got, str(got)) + ("" if got == right else f" (should be {right})")
            for got, right in pairs
        ]
        table.add_row(finding.name, *texts, "" if finding.is_right else "[bold red]WRONG")
    return table


@click.command()
def clean() -> None:
    """Remove what laboratories left behind that were killed."""
    removed = remove_leftovers()
    click.echo("\n".join(f"removed {name}" for name in removed) or "nothing to remove")
