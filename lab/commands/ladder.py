"""``python -m lab ladder``: a transfer on a direct path that loses packets."""

import dataclasses
import json

import click

from lab.commands.common import reported
from lab.ladder import LOSSES, climb
from lab.namespaces import acquire
from lab.nat import BEHAVIORS
from p2pnet.cli.common import json_option

SIDE = BEHAVIORS["port-restricted"]


@click.command()
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(1), metavar="S",
    help="How long to transfer at each loss.",
)  # fmt: skip
@click.option(
    "--loss", "percents", multiple=True, type=click.FloatRange(0, 50), metavar="PERCENT",
    help="Only this loss, one way from end to end; repeatable.",
)  # fmt: skip
@json_option
def ladder(seconds: float, percents: tuple[float, ...], as_json: bool) -> None:
    """Transfer on a direct path of 45 ms each way that loses 0, 1, 5, 10, 20 % of the packets.

    Fails if the session does not stay up, moves nothing, or a byte is lost.
    """
    losses = [percent / 100 for percent in percents] or LOSSES
    rungs = []
    with reported():
        acquire()
        for rung in climb((SIDE, SIDE), seconds, losses):
            rungs.append(rung)
            if not as_json:
                click.echo(
                    f"{rung.loss:6.1%} loss: {rung.rate / 1e6:7.3f} MB/s, longest stall"
                    f" {rung.stall * 1000:.0f} ms, {rung.switches} switches,"
                    f" {'hash equal' if rung.intact else 'HASH DIFFERS'}"
                )
    ok = all(rung.intact and not rung.problems for rung in rungs)
    if as_json:
        click.echo(json.dumps({"ok": ok, "rungs": [dataclasses.asdict(rung) for rung in rungs]}))
    for rung in rungs:
        for problem in rung.problems:
            click.echo(f"{rung.loss:.1%}: {problem}", err=True)
    if not ok:
        raise SystemExit(1)
