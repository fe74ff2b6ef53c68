"""The caps of docs/limits.md are those of the code."""

import dataclasses
import importlib
import re
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

PAGE = Path(__file__).absolute().parent.parent / "docs" / "limits.md"
ROW = re.compile(r"\| .+ \| ([\d.]+)(?: (s|KiB|MiB))? \| `([\w/]+)\.py` `([\w.]+)` \|")
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def value_of(module: str, name: str) -> object:
    """The constant of a module, or the default of a field of a class in it."""
    holder, _, field = name.rpartition(".")
    found = importlib.import_module(f"p2pnet.{module.replace('/', '.')}")
    if not holder:
        return getattr(found, field)
    kind = getattr(found, holder)
    fields = dataclasses.fields if dataclasses.is_dataclass(kind) else msgspec.structs.fields
    return {each.name: each.default for each in fields(kind)}[field]


class LimitsTests(SynchronousTestCase):
    """The table of the page."""

    def test_every_row_has_the_value_of_the_code(self) -> None:
        """Each names a constant or a field, with its module."""
        rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
        self.assertGreater(len(rows), 30)
        for row in rows:
            match = ROW.fullmatch(row)
            self.assertIsNotNone(match, row)
            assert match is not None
            number, unit, module, name = match.groups(default="")
            self.assertEqual(float(number) * UNITS[unit], value_of(module, name), row)
