"""The public API: docs/api.md and the code say the same, and importing p2pnet costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from incremental import Version
from twisted.python.deprecate import deprecatedModuleAttribute
from twisted.trial.unittest import SynchronousTestCase

import p2pnet

ROOT = Path(__file__).absolute().parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()
MODULES = "import sys; {}; print(*sorted(sys.modules))"


def imported_by(statement: str) -> set[str]:
    """The modules of a fresh Python after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES.format(statement)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(done.stdout.split())


def names_for_type_checkers() -> Iterator[tuple[str, str]]:
    """(name, module) of what p2pnet/__init__.py imports where only type checkers look."""
    tree = ast.parse(Path(p2pnet.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            yield alias.name, str(statement.module)


class PageTests(SynchronousTestCase):
    """What docs/api.md lists."""

    def test_it_lists_the_public_names_once_each(self) -> None:
        """All of them and no others, modules and names."""
        listed = re.findall(r"^\| `(?:p2pnet\.)?(\w+)` \|", PAGE, re.MULTILINE)
        self.assertEqual(sorted(p2pnet.__all__), sorted(listed))

    def test_its_programs_import_public_names(self) -> None:
        """The blocks of Python are such."""
        blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "p2pnet":
                self.assertEqual("p2pnet", node.module)
                for alias in node.names:
                    self.assertIn(alias.name, p2pnet.__all__)


class NameTests(SynchronousTestCase):
    """What can be imported from p2pnet."""

    def test_each_public_name_is_there(self) -> None:
        """It has a docstring, and its home is a module that exists."""
        for name in p2pnet.__all__:
            self.assertTrue(getattr(p2pnet, name).__doc__, name)
            self.assertIn(name, dir(p2pnet))

    def test_type_checkers_see_the_same_names(self) -> None:
        """In the same homes."""
        here = dict.fromkeys(p2pnet._MODULES, "p2pnet")
        self.assertEqual(here | p2pnet._HOMES, dict(names_for_type_checkers()))

    def test_every_error_of_a_service_is_public(self) -> None:
        """Each exception that p2pnet.errors defines."""
        errors = importlib.import_module("p2pnet.errors")
        for name, value in vars(errors).items():
            if isinstance(value, type) and issubclass(value, errors.ServiceError):
                self.assertIn(name, p2pnet.__all__)

    def test_another_name_is_an_attribute_error(self) -> None:
        """As of any module."""
        error = self.assertRaises(AttributeError, getattr, p2pnet, "AgentNote")
        self.assertEqual("module 'p2pnet' has no attribute 'AgentNote'", str(error))

    def test_a_deprecated_name_works_and_warns_at_each_use(self) -> None:
        """The way that docs/api.md describes reaches users of the name in p2pnet."""
        home: Any = types.ModuleType("p2pnet_old")
        home.OldClass = object
        sys.modules["p2pnet_old"] = home
        self.addCleanup(sys.modules.pop, "p2pnet_old")
        deprecatedModuleAttribute(
            Version("p2pnet", 0, 2, 0), "Use p2pnet.NewClass instead.", "p2pnet_old", "OldClass"
        )
        self.patch(p2pnet, "_HOMES", {"OldClass": "p2pnet_old"})
        for _ in range(2):
            self.assertIs(object, p2pnet.OldClass)
            (warning,) = self.flushWarnings()
            self.assertIs(DeprecationWarning, warning["category"])
            self.assertEqual(
                "p2pnet_old.OldClass was deprecated in p2pnet 0.2.0: Use p2pnet.NewClass instead.",
                warning["message"],
            )


class WeightTests(SynchronousTestCase):
    """What an import brings with it."""

    def test_importing_p2pnet_imports_nothing_else_of_it(self) -> None:
        """Nor a library that takes time to load."""
        modules = imported_by("import p2pnet")
        self.assertEqual(["p2pnet"], [name for name in modules if name.startswith("p2pnet")])
        self.assertEqual(set(), modules & {"twisted", "aioquic", "cryptography", "msgspec"})

    def test_no_public_name_installs_a_reactor(self) -> None:
        """A program chooses its reactor after it has imported what it needs."""
        modules = imported_by("from p2pnet import *")
        self.assertIn("p2pnet.endpoints", modules)
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_errors_come_without_quic(self) -> None:
        """A program that handles them needs not wait for the protocol."""
        self.assertNotIn("aioquic", imported_by("from p2pnet import ServiceError, reports"))

    def test_the_core_of_an_agent_comes_without_twisted(self) -> None:
        """For programs with a loop of their own; p2pnet.config is as pure."""
        modules = imported_by("from p2pnet import AgentConfig, agent_core, load_credentials")
        self.assertIn("p2pnet.core.peer.agent", modules)
        self.assertNotIn("twisted", modules)
