"""``python -m lab sim``: runs on the simulated network, each from a seed."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Iterator

import click

from lab.chaos import Report, run
from lab.commands.common import jobs_option
from lab.scenario import Scenario, generate, simpler
from p2pnet.cli.common import json_option

CHUNK = 4  # seeds that a process takes at a time


def run_seed(seed: int) -> Report:
    """The run of a seed. An exception is a problem too."""
    return _run(generate(seed))


def _run(scenario: Scenario) -> Report:
    try:
        return run(scenario)
    except Exception as error:
        return Report(scenario.seed, (f"raised {error!r}",), 0.0, 0, 0.0)


def shrink(scenario: Scenario) -> tuple[Scenario, Report]:
    """The least of a scenario that still fails, and how."""
    report = _run(scenario)
    smaller = True
    while smaller:
        smaller = False
        for candidate in simpler(scenario):
            found = _run(candidate) if candidate != scenario else None
            if found is not None and found.problems:
                scenario, report, smaller = candidate, found, True
                break
    return scenario, report


def _reports(seeds: range, jobs: int) -> Iterator[Report]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(run_seed, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK)


def _describe(report: Report) -> str:
    """A failure, and how to see it again."""
    problems = "\n".join(f"  {problem}" for problem in report.problems)
    return f"seed {report.seed} failed:\n{problems}\nagain: python -m lab sim --seed {report.seed}"


@click.command()
@click.option(
    "--seeds",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="How many to run.",
)
@click.option("--first", default=1, show_default=True, metavar="N", help="The first of them.")
@click.option("--seed", type=int, metavar="N", help="Only this one.")
@jobs_option("processes")
@json_option
def sim(seeds: int, first: int, seed: int | None, jobs: int, as_json: bool) -> None:  # fmt: skip
    """Run nodes on a simulated network on which things break, and check that nothing is lost.

    A seed says who is there, behind which NATs, over which links, and what breaks when. One that
    fails is printed with the least of it that still does.
    """
    chosen = range(seed, seed + 1) if seed is not None else range(first, first + seeds)
    if seed is not None and not as_json:
        click.echo(generate(seed))
    began = time.monotonic()
    failed: list[Report] = []
    shrunk: list[tuple[Scenario, Report]] = []
    packets = 0
    for report in _reports(chosen, jobs):
        packets += report.packets
        if report.problems:
            failed.append(report)
            click.echo(_describe(report), err=True)
            shrunk.append(shrink(generate(report.seed)))
            click.echo(f"the least that fails:\n{shrunk[-1][0]!r}\n{shrunk[-1][0]}", err=True)
            click.echo(_describe(shrunk[-1][1]), err=True)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        summary = {
            "seeds": len(chosen), "failed": len(failed), "seconds": seconds, "packets": packets,
            "failures": [
                {**dataclasses.asdict(report), "least": repr(least)}
                for report, (least, _) in zip(failed, shrunk, strict=True)
            ],
        }  # fmt: skip
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{len(chosen)} seeds in {seconds} s, {packets} packets, {len(failed)} failed")
    if failed:
        raise SystemExit(1)
