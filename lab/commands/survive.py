"""``python -m lab survive``: how soon a session's traffic flows again after a failure."""

import json
from typing import Any

import click
from rich.table import Table

from lab.commands.common import delay_option, reported, trials_option
from lab.failures import CASES, Case, run, summarize
from lab.namespaces import acquire
from lab.survival import Recovery
from lab.wire import Conditions
from p2pnet.cli.common import json_option, print_table


@click.command()
@click.option(
    "--case",
    "names",
    multiple=True,
    type=click.Choice(list(dict.fromkeys(c.name for c in CASES))),
    help="Only this one; repeatable.",
)
@trials_option(20)
@delay_option(25.0)
@json_option
def survive(
    names: tuple[str, ...], trials: int, delay_ms: float, as_json: bool
) -> None:  # fmt: skip
    """Measure how soon a session with a transfer running flows again after a failure.

    Fails unless every trial recovered with no byte lost and no stream broken, and 95 % of them in
    the time that is the goal.
    """
    conditions = Conditions(delay_ms / 1000) if delay_ms else None
    rows: list[dict[str, Any]] = []
    with reported():
        acquire()
        chosen = [case for case in CASES if not names or case.name in names]
        for case, results in run(chosen, trials, conditions):
            rows.append(summarize(case, results))
            click.echo("\n".join(_describe(case, trial) for trial in results), err=True)
    ok = all(row["ok"] for row in rows)
    if as_json:
        click.echo(json.dumps({"ok": ok, "cases": rows}))
    else:
        print_table(_table(rows))
    if not ok:
        raise SystemExit(1)


def _describe(case: Case, trial: Recovery) -> str:
    figure = "never" if trial.seconds is None else f"{trial.seconds * 1000:.0f} ms"
    silence = f"silence {trial.silence * 1000:.0f} ms, behind for {trial.behind * 1000:.0f} ms"
    text = f"{case.name} ({case.what}): {figure}, {silence}, {trial.lost} bytes lost {trial.reason}"
    return text.rstrip()


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line a case; times in milliseconds."""
    table = Table("case", "", box=None, header_style="bold")
    for title in (
        "p50",
        "p95",
        "max",
        "goal",
        "failed",
        "silence",
        "behind",
        "bytes lost",
        "broken",
    ):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in rows:
        figures = [*row["ms"].values(), row["goal_ms"]]
        times = ["-" if figure is None else str(figure) for figure in figures]
        keys = ["failed", "longest_silence_ms", "behind_ms", "bytes_lost", "streams_broken"]
        counts = [str(row[key]) for key in keys]
        verdict = "" if row["ok"] else "[bold red]TOO SLOW OR BROKEN"
        table.add_row(row["case"], row["what"], *times, *counts, verdict)
    return table
