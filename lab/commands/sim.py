"""``python -m lab sim``: runs on the simulated network, each from a seed."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Iterator

import click

from lab.chaos import Verdict, run
from lab.commands.common import jobs_option
from lab.scenario import Scenario, generate, simpler
from p2pnet.cli.common import json_option

CHUNK = 4  # seeds that a process takes at a time


def run_seed(seed: int) -> Verdict:
    """The run of a seed. An exception is a problem too."""
    return _run(generate(seed))


def _run(scenario: Scenario) -> Verdict:
    try:
        return run(scenario)
    except Exception as error:
        return Verdict(scenario.seed, (f"raised {error!r}",), 0.0, 0, 0.0)


def shrink(scenario: Scenario) -> tuple[Scenario, Verdict]:
    """The least of a scenario that still fails, and how."""
    verdict = _run(scenario)
    smaller = True
    while smaller:
        smaller = False
        for candidate in simpler(scenario):
            found = _run(candidate) if candidate != scenario else None
            if found is not None and found.problems:
                scenario, verdict, smaller = candidate, found, True
                break
    return scenario, verdict


def _verdicts(seeds: range, jobs: int) -> Iterator[Verdict]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(run_seed, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK)


def _describe(verdict: Verdict) -> str:
    """A failure, and how to see it again."""
    problems = "\n".join(f"  {problem}" for problem in verdict.problems)
    return (
        f"seed {verdict.seed} failed:\n{problems}\nagain: python -m lab sim --seed {verdict.seed}"
    )


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
    failed: list[Verdict] = []
    shrunk: list[tuple[Scenario, Verdict]] = []
    packets = 0
    for verdict in _verdicts(chosen, jobs):
        packets += verdict.packets
        if verdict.problems:
            failed.append(verdict)
            click.echo(_describe(verdict), err=True)
            shrunk.append(shrink(generate(verdict.seed)))
            click.echo(f"the least that fails:\n{shrunk[-1][0]!r}\n{shrunk[-1][0]}", err=True)
            click.echo(_describe(shrunk[-1][1]), err=True)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        summary = {
            "seeds": len(chosen), "failed": len(failed), "seconds": seconds, "packets": packets,
            "failures": [
                {**dataclasses.asdict(verdict), "least": repr(least)}
                for verdict, (least, _) in zip(failed, shrunk, strict=True)
            ],
        }  # fmt: skip
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{len(chosen)} seeds in {seconds} s, {packets} packets, {len(failed)} failed")
    if failed:
        raise SystemExit(1)
