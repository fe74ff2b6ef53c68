"""Mutation testing of p2pnet/traversal: ``python -m tests.mutants [--sample N] [--seed S] [-j N]``.

A mutant is a module with one small change: another comparison, operator or constant, a negated
condition, a statement left out. A test that fails kills it; a mutant that survives shows behavior
that no test checks. Each mutant runs in a forked process against the test files of TESTS, those of
its module first, up to the first failure or CPU_LIMIT seconds of processor time. The seed draws the
sample; the score goes to build/mutants.json.
"""

import argparse
import ast
import copy
import importlib.util
import json
import os
import random
import re
import resource
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from twisted.trial.reporter import MinimalReporter
from twisted.trial.runner import TestLoader, TrialRunner

from tests.individual import test_file

ROOM = Path("p2pnet/traversal")
TESTS = Path("tests/traversal")
# Whole nodes and other implementations: minutes for each mutant.
SLOW = {"test_interop.py", "test_pairings.py", "test_p2p.py", "test_trust.py"}
RESULT = Path("build/mutants.json")
CPU_LIMIT = 300
# Parts of a node that say nothing about what the code does.
SKIPPED = {"annotation", "returns", "decorator_list"}
SWAPS: dict[type[ast.AST], Any] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.LShift: ast.RShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


class Site(NamedTuple):
    """A node and where it stands: in a list, or in the attributes of its parent."""

    container: Any
    key: Any
    node: Any


class Mutant(NamedTuple):
    """The change at one site of a module; `number` is that of the site."""

    module: Path
    number: int
    line: int
    change: str

    def build(self) -> ast.Module:
        """The changed module."""
        tree = ast.parse(self.module.read_text())
        site = list(sites(tree))[self.number]
        site.container[site.key] = changed(site.node)
        return ast.fix_missing_locations(tree)


def sites(parent: ast.AST) -> Iterator[Site]:
    """Every node below `parent` that does something, in the order of the text."""
    for field, value in ast.iter_fields(parent):
        if field in SKIPPED or isinstance(parent, ast.Assert):
            continue
        container = dict(enumerate(value)) if isinstance(value, list) else {field: value}
        for key, node in container.items():
            if isinstance(node, ast.AST):
                yield Site(value if isinstance(value, list) else vars(parent), key, node)
                yield from sites(node)


def changed(node: Any) -> ast.AST | None:
    """A copy of the node with a small change, None for a node that has none to offer."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPS:
            new.ops = [SWAPS[type(operator)]()]
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(new.op) in SWAPS:
            new.op = SWAPS[type(new.op)]()
        case ast.Constant(value=bool()):
            new.value = not new.value
        case ast.Constant(value=int() | float() as value):
            new.value = value + 1
        case ast.UnaryOp(op=ast.Not()):
            return ast.copy_location(new.operand, node)
        case ast.If() | ast.IfExp() | ast.While():
            new.test = ast.UnaryOp(ast.Not(), new.test)
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute()]):
            return ast.copy_location(ast.Pass(), node)
        case ast.Return(value=ast.expr()):
            new.value = ast.Constant(None)
        case ast.Break():
            return ast.copy_location(ast.Continue(), node)
        case _:
            return None
    return new  # type: ignore[no-any-return]


def shown(node: ast.AST) -> str:
    """The first line of the node's text."""
    return ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]


def find_mutants() -> list[Mutant]:
    """All mutants of ROOM."""
    found = []
    for module in sorted(ROOM.glob("*.py")):
        for number, site in enumerate(sites(ast.parse(module.read_text()))):
            if (new := changed(site.node)) is not None:
                change = f"{shown(site.node)} -> {shown(new)}"
                found.append(Mutant(module, number, site.node.lineno, change))
    return found


def tests_of(module: Path) -> list[str]:
    """The test modules: a module's own, those that import it, and all others that are not SLOW."""
    name = re.compile(rf"traversal(\.| import (.*, )?){module.stem}\b")
    files = [path for path in sorted(TESTS.glob("test_*.py")) if path.name not in SLOW]
    files.sort(key=lambda path: not name.search(path.read_text()))
    files.sort(key=lambda path: path != test_file(module))
    return [".".join(path.with_suffix("").parts) for path in files]


def run_tests(mutant: Mutant, *, change: bool) -> int:
    """The exit status of the mutant's tests in this process, which is of no use afterwards."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
    if change:
        name = ".".join(mutant.module.with_suffix("").parts)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        exec(compile(mutant.build(), str(mutant.module), "exec"), module.__dict__)
        setattr(sys.modules[spec.parent or ""], mutant.module.stem, module)
    suite = unittest.TestSuite(map(TestLoader().loadByName, tests_of(mutant.module)))
    return 0 if TrialRunner(MinimalReporter, exitFirst=True).run(suite).wasSuccessful() else 1


def run_all(waiting: list[Mutant], jobs: int, *, change: bool) -> Iterator[tuple[Mutant, bool]]:
    """Run the tests on each mutant, `jobs` at a time; yield it, and whether it was killed."""
    running: dict[int, Mutant] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                try:
                    status = run_tests(mutant, change=change)
                except BaseException:
                    status = 1  # an import failed
                os._exit(status)
            running[pid] = mutant
        pid, result = os.wait()
        yield running.pop(pid), result != 0


def main(arguments: list[str]) -> None:
    """Run it. Raises SystemExit if the tests fail without any change."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    possible = find_mutants()
    modules = {mutant.module: mutant for mutant in possible}
    for mutant, failed in run_all(list(modules.values()), options.jobs, change=False):
        if failed:
            raise SystemExit(f"The tests of {mutant.module} fail without any change.")
    sample = random.Random(options.seed).sample(possible, min(options.sample, len(possible)))
    survivors: list[str] = []
    for number, (mutant, killed) in enumerate(run_all([*sample], options.jobs, change=True), 1):
        line = f"{mutant.module}:{mutant.line}: {mutant.change}"
        survivors += [] if killed else [line]
        print(f"[{number}/{len(sample)}] {'killed' if killed else 'SURVIVED'} {line}", flush=True)
    killed_count = len(sample) - len(survivors)
    score = {"seed": options.seed, "possible": len(possible), "sample": len(sample)}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**score, "killed": killed_count, "survivors": survivors}) + "\n")
    print(f"{killed_count} of {len(sample)} mutants were killed; see {RESULT}")


if __name__ == "__main__":
    main(sys.argv[1:])
