"""``python -m lab soak``: many agents come and go for long, and nothing may grow."""

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from lab.soak import Soak
from p2pnet.cli.common import json_option, reported


@click.command()
@click.option("--agents", default=200, show_default=True, type=click.IntRange(1), metavar="N")
@click.option("--services", default=20, show_default=True, type=click.IntRange(1, 256), metavar="N")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0.1), metavar="M")
@json_option
def soak(agents: int, services: int, minutes: float, as_json: bool) -> None:
    """Let agents connect, transfer, vanish and return, on this machine's loopback.

    Prints the growth of each process's memory after a third of the time, and what was left over a
    minute after the last agent left. Fails if a transfer did, or anything is left over.
    """

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with tempfile.TemporaryDirectory() as directory, reported():
        report = Soak(Path(directory), agents, services, minutes * 60, tell).run()
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report)
    crowd = report["crowd"]
    connectors = [name for name in report["processes"] if name.startswith("connector")]
    left = [
        number - len(connectors) * (name == "relay" and what == "node_connected")
        for name, process in report["processes"].items()
        for what, number in process["left_over"].items()
    ]
    if crowd.get("failures") or crowd.get("wrong") or any(left) or not crowd.get("transfers"):
        raise SystemExit(1)


def _print(report: dict[str, Any]) -> None:
    click.echo(f"crowd: {report['crowd']}")
    for name, process in report["processes"].items():
        click.echo(f"{name}: {process}")
