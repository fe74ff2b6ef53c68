"""The rules of the house that a program can check."""

import ast
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.house.source import classes, largest

ROOT = Path(__file__).absolute().parent.parent
FILE_BUDGET = 400
FUNCTION_BUDGET = 50
ATTRIBUTE_BUDGET = 12
TOLERANCE = 1.5
"""Budgets are to design by; what is beyond this multiple of one fails."""
LIGHT = "import sys; from twisted.plugins import p2pnet_plugin; print(*sorted(sys.modules))"
LOADED = """
import sys
before = set(sys.modules)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted(set(sys.modules) - before))
"""


@functools.cache
def modules() -> list[tuple[Path, ast.Module]]:
    """Every module of ours, with its path from the top of the checkout."""
    return [
        (path.relative_to(ROOT), ast.parse(path.read_text(), str(path)))
        for top in ("bench", "lab", "p2pnet", "tests", "twisted")
        for path in sorted((ROOT / top).rglob("*.py"))
    ]


def functions(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The length in lines and the place of every function in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length, f"{path}:{node.lineno} {node.name}"


class ArchitectureTests(SynchronousTestCase):
    """Layers, sizes and files."""

    def test_the_import_contracts_hold(self) -> None:
        """Each layer imports only those below it; the pure ones stay pure. See setup.cfg."""
        command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
        if command is None:
            raise SkipTest("import-linter is not installed")
        done = subprocess.run(
            [command, "--config", "setup.cfg", "--no-cache"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(0, done.returncode, done.stdout)

    def test_modules_say_what_they_are_for(self) -> None:
        """A docstring at the top."""
        silent = [str(path) for path, tree in modules() if not ast.get_docstring(tree)]
        self.assertEqual([], silent)

    def test_nothing_is_too_long(self) -> None:
        """Files and functions; the longest are shown whether it fails or not."""
        files = [(len((ROOT / path).read_text().splitlines()), str(path)) for path, _ in modules()]
        lengths = [item for path, tree in modules() for item in functions(path, tree)]
        for what, found, budget in (
            ("files", files, FILE_BUDGET),
            ("functions", lengths, FUNCTION_BUDGET),
        ):
            found.sort(reverse=True)
            over = [f"{length} lines: {place}" for length, place in found if length > budget]
            print(f"\n{len(over)} of {len(found)} {what} over {budget} lines", *over, sep="\n  ")
            failing = [item for item in found if item[0] > TOLERANCE * budget]
            self.assertEqual([], failing)

    def test_no_class_has_too_many_attributes(self) -> None:
        """The classes with the most are shown whether it fails or not."""
        found = largest(
            each
            for path, tree in modules()
            if path.parts[0] == "p2pnet"
            for each in classes(tree, str(path))
        )
        over = [f"{size} attributes: {place}" for size, place in found if size > ATTRIBUTE_BUDGET]
        print(f"\n{len(over)} of {len(found)} classes over {ATTRIBUTE_BUDGET} attributes",
              *over, sep="\n  ")  # fmt: skip
        self.assertEqual([], [item for item in found if item[0] > TOLERANCE * ATTRIBUTE_BUDGET])

    def test_twisted_is_not_made_a_package_of_ours(self) -> None:
        """An __init__.py in our part of twisted/ would hide Twisted's own."""
        self.assertEqual([], list((ROOT / "twisted").rglob("__init__.py")))

    def test_every_directory_of_tests_is_a_package(self) -> None:
        """trial passes over the others without a word."""
        directories = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
        bare = [path for path in directories if not (path / "__init__.py").exists()]
        self.assertEqual([], bare)

    def test_the_plugin_module_is_light(self) -> None:
        """Every twistd command on the machine imports it."""
        done = subprocess.run(
            [sys.executable, "-c", LIGHT], cwd=ROOT, check=True, capture_output=True, text=True
        )
        heavy = {
            "aioquic",
            "msgspec",
            "cryptography",
            "p2pnet.config",
            "twisted.internet.reactor",
        }
        self.assertEqual(set(), heavy & set(done.stdout.split()))

    def test_wire_and_traversal_load_no_network_library(self) -> None:
        """Nor does a library that they import; the contracts see no further than our own files."""
        names = [
            ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            for path, _ in modules()
            if path.parts[:2] in {("p2pnet", "wire"), ("p2pnet", "traversal")}
        ]
        done = subprocess.run(
            [sys.executable, "-c", LOADED, *names],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        loaded = set(done.stdout.split())
        self.assertLessEqual({*names}, loaded)
        heavy = {"aioice", "asyncio", "dns", "random", "selectors", "socket", "ssl", "twisted"}
        self.assertEqual(set(), heavy & loaded)
