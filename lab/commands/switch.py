"""``python -m lab switch``: what changes of path cost a transfer, or a dialog."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.table import Table

from lab.commands.common import BEHAVIOR, delay_option, reported
from lab.namespaces import acquire
from lab.nat import BEHAVIORS
from lab.switching import (
    DIRECT,
    RELAY,
    SWITCHING,
    Course,
    Echoes,
    Transfer,
    compare,
    echo,
)
from lab.trial import Cell, Conduct
from lab.wire import Conditions
from p2pnet.cli.common import json_option, print_table


@click.command()
@click.option("--agent", default="port-restricted", show_default=True, type=BEHAVIOR)
@click.option("--connector", default="port-restricted", show_default=True, type=BEHAVIOR)
@click.option(
    "--megabytes",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    metavar="MIB",
    help="How much to transfer at least.",
)
@click.option(
    "--switches",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="How often the path changes in a transfer.",
)
@click.option("--upload", is_flag=True, help="From the Agent to the Connector.")
@click.option("--echo", "dialog", is_flag=True, help="An echo every 20 ms instead of a transfer.")
@click.option(
    "--kills",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="How often the direct path is killed under the echoes.",
)
@delay_option(0.0)
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1), metavar="N")
@json_option
def switch(
    agent: str, connector: str, megabytes: int, switches: int, upload: bool, dialog: bool,
    kills: int, delay_ms: float, runs: int, as_json: bool,
) -> None:  # fmt: skip
    """Kill the direct path without notice and give it back, over and over, while it is used.

    Compares what a transfer gets between the switches with transfers on each path alone. Fails if a
    hash differs, a byte or an echo is lost, or a stream was reset.
    """
    conduct = Conduct(Conditions(delay_ms / 1000) if delay_ms else None)
    course = Course(megabytes, switches, upload)
    with reported():
        acquire()
        with Cell(BEHAVIORS[agent], BEHAVIORS[connector], conduct) as cell:
            if dialog:
                summary = summarize_echoes([echo(cell, kills) for _ in range(runs)])
            else:
                summary = summarize_transfers([compare(cell, course) for _ in range(runs)])
    if as_json:
        what = {"upload": upload, "megabytes": megabytes} if not dialog else {"kills": kills}
        sides = {"agent": agent, "connector": connector, "delay_ms": delay_ms, "runs": runs}
        click.echo(json.dumps({**sides, **what, **summary}))
    else:
        table = _echo_table(summary) if dialog else _transfer_table(summary)
        print_table(table)
        for problem in summary["problems"]:
            click.echo(problem, err=True)
    if not summary["ok"]:
        raise SystemExit(1)


def summarize_transfers(runs: Sequence[Mapping[str, Transfer]]) -> dict[str, Any]:
    """The figures of several `compare()`: rates in MB/s, the medians of all phases."""
    switching = [run[SWITCHING] for run in runs]
    every = [done for run in runs for done in run.values()]
    problems = [problem for done in every for problem in done.problems]
    return {
        "ok": not problems and all(done.intact for done in every),
        "transfers": len(every),
        "sha256_ok": sum(done.intact for done in every),
        "bytes_lost": sum(done.lost for done in every),
        "problems": problems,
        "switches": [done.switches for done in switching],
        "seconds": {k: [round(run[k].seconds, 2) for run in runs] for k in runs[0]},
        "worst_stall_ms": {
            k: round(max(run[k].stall for run in runs) * 1000, 1) for k in runs[0]
        },
        **{path: _compare_rates(runs, path) for path in (DIRECT, RELAY)},
    }  # fmt: skip


def _compare_rates(runs: Sequence[Mapping[str, Transfer]], path: str) -> dict[str, Any]:
    """What a path carries between switches and without any, and the one as part of the other."""
    between, alone = (
        [round(rate / 1e6, 2) for run in runs for rate in run[kind].rates[path]]
        for kind in (SWITCHING, path)
    )
    medians = [statistics.median(rates) if rates else 0.0 for rates in (between, alone)]
    return {
        "between_mb_s": round(medians[0], 2),
        "alone_mb_s": round(medians[1], 2),
        "ratio": round(medians[0] / medians[1], 3) if all(medians) else None,
        "phases_between_mb_s": between,
        "phases_alone_mb_s": alone,
    }


def summarize_echoes(runs: Sequence[Echoes]) -> dict[str, Any]:
    """The figures of several `echo()`: times in milliseconds, null where nothing came back."""
    problems = [problem for done in runs for problem in done.problems]
    times = sorted(time for done in runs for time in done.round_trips)
    lost = sum(done.lost for done in runs)
    return {
        "ok": not problems and not lost,
        "echoes": sum(done.sent for done in runs),
        "echoes_lost": lost,
        "problems": problems,
        "switches": [done.switches for done in runs],
        "round_trip_ms": {
            name: round(times[int(part * (len(times) - 1))] * 1000, 1) if times else None
            for name, part in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
        },
        "gaps_at_kills_ms": [round(gap * 1000, 1) for done in runs for gap in done.gaps],
        "worst_gap_ms": round(max(done.worst_gap for done in runs) * 1000, 1),
    }


def _transfer_table(summary: dict[str, Any]) -> Table:
    title = f"{summary['transfers']} transfers, {summary['bytes_lost']} bytes lost"
    names = ("path", "MB/s between switches", "MB/s alone", "ratio")
    table = Table(*names, title=title, box=None, header_style="bold")
    for path in (DIRECT, RELAY):
        rates = summary[path]
        table.add_row(path, *(str(rates[k]) for k in ("between_mb_s", "alone_mb_s", "ratio")))
    return table


def _echo_table(summary: dict[str, Any]) -> Table:
    title = f"{summary['echoes']} echoes, {summary['echoes_lost']} lost"
    table = Table("", "ms", title=title, box=None, header_style="bold")
    for name, value in summary["round_trip_ms"].items():
        table.add_row(f"round trip, {name}", str(value))
    table.add_row("worst gap", str(summary["worst_gap_ms"]))
    return table
