"""``python -m lab run`` and ``matrix``: sessions between pairs of NAT behaviors."""

import concurrent.futures
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from lab.commands.common import BEHAVIOR, delay_option, jobs_option, reported, trials_option
from lab.expectations import Outcome, expected_outcome
from lab.namespaces import acquire, find_obstacle
from lab.nat import BEHAVIORS, Behavior
from lab.trial import PATIENCE, Cell, Conduct, Trial, meets, summarize
from lab.wire import Conditions
from p2pnet.cli.common import json_option, print_table
from p2pnet.testing.processes import guarded

_OPTIONS = (
    trials_option(3),
    delay_option(0.0),
    click.option(
        "--loss", default=0.0, type=click.FloatRange(0, 100), metavar="PERCENT",
        help="Loss on each site's link.",
    ),
    click.option("--ipv6", is_flag=True, help="Both sides have IPv6 behind a firewall as well."),
    click.option(
        "--wait", default=PATIENCE, show_default=True, type=click.FloatRange(0), metavar="SECONDS",
        help="How long a session gets to become direct.",
    ),
)  # fmt: skip


def conduct_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `run` and `matrix` have in common."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.option("--agent", required=True, type=BEHAVIOR, help="What the Agent is behind.")
@click.option("--connector", required=True, type=BEHAVIOR, help="What the Connector is behind.")
@conduct_options
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep configurations, output and event logs of the processes here.",
)
@json_option
def run(
    agent: str, connector: str, trials: int, delay_ms: float, loss: float, ipv6: bool,
    wait: float, logs: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Try sessions between two behaviors, with a transfer running while the path changes.

    Fails if a transfer did; a session that stays relayed is no failure.
    """
    sides = BEHAVIORS[agent], BEHAVIORS[connector]
    conditions = Conditions(delay_ms / 1000, loss / 100) if delay_ms or loss else None
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        logs = logs.absolute()
    done: list[Trial] = []
    with reported():
        acquire()
        with Cell(*sides, Conduct(conditions, ipv6, wait, logs)) as cell:
            for number in range(1, trials + 1):
                done.append(cell.trial())
                if not as_json:
                    click.echo(f"trial {number}: {_describe_trial(done[-1])}")
    summary = summarize(*sides, done)
    for reason in filter(None, (trial.reason for trial in done)):
        click.echo(f"failed: {reason}", err=True)
    expected = expected_outcome(*sides, ipv6=ipv6)
    click.echo(json.dumps(summary) if as_json else f"{_describe(summary)}; expected: {expected}")
    if summary[Outcome.FAILED]:
        raise SystemExit(1)


@click.command()
@conduct_options
@click.option(
    "--cells", metavar="A:B,...", default="", help="Only these, Agent's before Connector's."
)
@jobs_option("cells")
@json_option
def matrix(
    trials: int, delay_ms: float, loss: float, ipv6: bool, wait: float, cells: str, jobs: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Try every pair of behaviors and compare with what is expected of it.

    Fails unless all trials of all cells became direct, relayed or unreachable as expected.
    """
    pairs = _parse_cells(cells)
    if obstacle := find_obstacle():
        raise click.ClickException(f"no laboratory here: {obstacle}")
    options = [f"--trials={trials}", f"--delay-ms={delay_ms}", f"--loss={loss}", f"--wait={wait}"]
    options += ["--ipv6"] if ipv6 else []
    rows: list[dict[str, Any]] = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = pool.map(lambda pair: _run_apart(pair, trials, options), pairs)
        for sides, summary in zip(pairs, runs, strict=True):
            expected = expected_outcome(*sides, ipv6=ipv6)
            rows.append({**summary, "expected": expected, "ok": meets(summary, expected)})
            verdict = "as expected" if rows[-1]["ok"] else f"EXPECTED {expected}"
            where = f"[{len(rows)}/{len(pairs)}] {sides[0].name}:{sides[1].name}"
            click.echo(f"{where}: {_describe(summary)}, {verdict}", err=True)
    ok = all(row["ok"] for row in rows)
    if as_json:
        click.echo(json.dumps({"ok": ok, "cells": rows}))
    else:
        print_table(_matrix_table(rows))
    if not ok:
        raise SystemExit(1)


def _parse_cells(text: str) -> list[tuple[Behavior, Behavior]]:
    """The pairs in the text of --cells; every pair if there is none."""
    if not text:
        return [(one, other) for one in BEHAVIORS.values() for other in BEHAVIORS.values()]
    pairs = []
    for cell in text.split(","):
        agent, _, connector = cell.strip().partition(":")
        for name in (agent, connector):
            if name not in BEHAVIORS:
                known = ", ".join(BEHAVIORS)
                problem = f"{cell!r}: {name!r} is none of {known}"
                raise click.BadParameter(problem, param_hint="--cells")
        pairs.append((BEHAVIORS[agent], BEHAVIORS[connector]))
    return pairs


def _run_apart(
    sides: tuple[Behavior, Behavior], trials: int, options: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """The summary of a cell that is tried in a process of its own."""
    names = f"--agent={sides[0].name}", f"--connector={sides[1].name}"
    command = [sys.executable, "-m", "lab", "run", "--json", *names, *options]
    done = subprocess.run(guarded(command), stdout=subprocess.PIPE)
    try:
        summary: dict[str, Any] = json.loads(done.stdout)
    except ValueError:  # it said why on standard error, and the other cells go on
        summary = summarize(*sides, [Trial(Outcome.FAILED)] * trials)
    return summary


def _describe_trial(trial: Trial) -> str:
    if trial.time_to_direct is not None:
        return f"{trial.outcome} after {trial.time_to_direct * 1000:.1f} ms"
    return trial.outcome


def _counts(summary: dict[str, Any]) -> list[str]:
    """How many trials ended how, without the ways in which none did."""
    return [f"{outcome} {summary[outcome]}" for outcome in Outcome if summary.get(outcome)]


def _describe(summary: dict[str, Any]) -> str:
    times = summary["time_to_direct_ms"]
    after = f" after {times['p50']} ms (p95 {times['p95']})" if times["p50"] is not None else ""
    return f"{', '.join(_counts(summary))}{after}, {summary['bytes_lost']} bytes lost"


def _matrix_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Agents down, Connectors across; green is as expected."""
    cells = {(row["agent"], row["connector"]): row for row in rows}
    agents, connectors = ([n for n in BEHAVIORS if any(n == c[i] for c in cells)] for i in (0, 1))
    table = Table("Agent \\ Connector", header_style="bold", show_lines=True)
    for name in connectors:
        table.add_column(name.replace("-", "-\n"))
    for agent in agents:
        texts = [_matrix_cell(cells.get((agent, connector))) for connector in connectors]
        table.add_row(agent, *texts)
    return table


def _matrix_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    p50 = row["time_to_direct_ms"]["p50"]
    lines = [*_counts(row), *([f"{p50:.0f} ms"] if p50 is not None else [])]
    if not row["ok"]:
        lines.append(f"not {row['expected']}!")
    color = "green" if row["ok"] else "bold red"
    return f"[{color}]" + "\n".join(lines)
