"""One round of some cases, in a process that can run in a network namespace.

::

    python -m bench.pair.stage '{"directory": ..., ...}'    (a Plan)

The process prints one JSON object: case name to batches, each with the figures of both sites.
"""

import contextlib
import faulthandler
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.forwarding import target
from bench.pair.case import Case, Effort, Figures, Sample
from bench.pair.cases import CASES, SMALL_PACKETS
from bench.pair.site import Site
from bench.pair.trees import Tree
from bench.report import print_error
from bench.tunnel import Place
from p2pnet.testing.processes import ProcessError

BATCH_LIMIT = 120.0  # seconds after which a batch counts as hung, and this process ends

Batch = tuple[Figures, Figures]  # of the old and the new site


class Plan(msgspec.Struct, frozen=True):
    """The order for one round.

    :ivar directory: an empty directory for all files.
    :ivar trees: name, path and commit of the old and of the new checkout.
    :ivar turn: number of the round; the old site goes first in even rounds.
    """

    directory: str
    trees: Sequence[tuple[str, str, str]]
    cases: Sequence[str]
    batches: int
    turn: int
    effort: Effort


def batches(case: Case, sites: Sequence[Site], plan: Plan) -> list[Batch]:
    """Measure both sites by turns; each turn reverses their order."""
    for site in sites:
        watch()
        case.prepare(site, plan.effort)
    found, turn = [], plan.turn
    for _ in range(max(1, round(plan.batches * case.share))):
        samples: dict[Site, list[Sample]] = {site: [] for site in sites}
        for _ in range(case.turns(plan.effort)):
            for site in sites[:: 1 if turn % 2 == 0 else -1]:
                watch()
                samples[site].append(case.measure(site, plan.effort))
            turn += 1
        old, new = (case.figures(samples[site]) for site in sites)
        found.append((old, new))
    return found


def watch() -> None:
    """Give this process BATCH_LIMIT seconds until the next call, or it ends with its children."""
    faulthandler.dump_traceback_later(BATCH_LIMIT, exit=True)


def run(plan: Plan) -> dict[str, list[Batch]]:
    """Measure all cases. A case that fails goes to standard error, and has no result."""
    found = {}
    directory = Path(plan.directory)
    with contextlib.ExitStack() as stack:
        watch()
        address = stack.enter_context(target(directory, Place()))
        started: dict[str, Site] = {}
        labels = list(zip(("old", "new"), plan.trees, strict=True))
        for label, tree in labels[:: 1 if plan.turn % 2 == 0 else -1]:
            watch()
            (directory / label).mkdir()
            name, path, commit = tree
            started[label] = Site(Tree(name, Path(path), commit), directory / label, address)
            stack.callback(started[label].close)
        sites = started["old"], started["new"]
        for name in plan.cases:
            print_error(f"  {name}")
            try:
                found[name] = batches({**CASES, **SMALL_PACKETS}[name], sites, plan)
            except (ProcessError, OSError) as error:
                print_error(f"  {name} failed: {error}")
        watch()
    return found


def main() -> None:
    """Print the batches of all cases."""
    json.dump(run(msgspec.json.decode(sys.argv[1], type=Plan)), sys.stdout)


if __name__ == "__main__":
    main()
