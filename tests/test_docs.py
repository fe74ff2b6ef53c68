"""The documentation agrees with the code, and its links lead somewhere."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import messages, path_messages, stun
from p2pnet.wire.codes import ErrorCode
from tests.reference import PAGES, ROOT, tables

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LIMIT = re.compile(r"\| .+ \| ([\d.]+)(?: (s|KiB|MiB))? \| `([\w/]+)\.py` `([\w.]+)` \|")
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def documents() -> list[Path]:
    """Everything that is written for people."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def prose(document: Path) -> str:
    """The text without blocks of code."""
    return FENCE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """What a link to a heading of the document may name, as GitHub makes it of the heading."""
    headings = re.findall(r"^#+ +(.*)$", prose(document), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def rows(document: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the table below a heading, without the head of the table."""
    section = (ROOT / document).read_text().partition(f"\n## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


class LinkTests(SynchronousTestCase):
    """Relative links; whether the sites of others are there is not ours to say."""

    def test_every_link_leads_to_a_file_and_a_heading(self) -> None:
        """From the page that it is on."""
        broken, found = [], 0
        for document in documents():
            for link in LINK.findall(re.sub(r"`[^`]*`", "", prose(document))):
                name, _, anchor = link.partition("#")
                if "://" in link or link.startswith("mailto:"):
                    continue
                found += 1
                target = document.parent / name if name else document
                if not target.exists() or (anchor and anchor not in anchors(target)):
                    broken.append(f"{document.relative_to(ROOT)}: {link}")
        self.assertEqual([], broken)
        self.assertGreater(found, 0)


class SourceTests(SynchronousTestCase):
    """Files of the repository that the prose names."""

    def test_every_source_is_there(self) -> None:
        """Under the name, or the end of the name, that a page gives; old names are exempt."""
        tops = (ROOT / top for top in ("bench", "docs", "lab", "p2pnet", "tests"))
        paths = [
            "/" + path.relative_to(ROOT).as_posix() for top in tops for path in top.rglob("*.py")
        ]
        missing = [
            f"{document.relative_to(ROOT)}: {name}"
            for document in documents()
            for name in re.findall(
                r"`([\w/]+\.py)`", prose(document).partition("\n## Old module")[0]
            )
            if not any(path.endswith("/" + name) for path in paths)
        ]
        self.assertEqual([], missing)


class WireTests(SynchronousTestCase):
    """docs/wire.md against p2pnet/wire."""

    def test_the_error_codes_are_those_of_the_code(self) -> None:
        """Numbers and names, in order."""
        table = [(int(row[0], 16), row[1]) for row in rows("docs/wire.md", "Error codes")]
        self.assertEqual([(code.value, code.name) for code in ErrorCode], table)

    def test_the_messages_are_those_of_the_code(self) -> None:
        """Each type with all of its keys."""
        for section, types in (
            ("Control stream", messages.TYPES),
            ("Paths stream", path_messages.TYPES),
        ):
            table = {
                tag.strip("`"): set(re.findall(r"`(\w+)`", fields))
                for tag, _, fields, _ in rows("docs/wire.md", section)
            }
            self.assertEqual({t: set(kind.__struct_fields__) for t, kind in types.items()}, table)

    def test_the_attributes_are_those_of_the_code(self) -> None:
        """Types and names of all STUN attributes that a receiver knows."""
        table = [row[:2] for row in rows("docs/wire.md", "STUN attributes")]
        self.assertEqual(len(stun.LENGTHS), len(table))
        for kind, name in table:
            self.assertEqual(f"`{getattr(stun, name.replace('-', '_')):#06x}`", kind)

    def test_every_file_that_a_section_names_is_there(self) -> None:
        """A heading names its file of p2pnet/wire in parentheses."""
        named = re.findall(r"^## .*`(\w+\.py)`", prose(ROOT / "docs/wire.md"), re.MULTILINE)
        self.assertEqual([], [name for name in named if not (ROOT / "p2pnet/wire" / name).exists()])
        self.assertGreater(len(named), 0)


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
    """docs/limits.md against the constants and settings that it names."""

    def test_every_cap_is_that_of_the_code(self) -> None:
        """Each row has a number with a unit, and the module and name of its source."""
        page = (ROOT / "docs/limits.md").read_text()
        lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
        self.assertGreater(len(lines), 30)
        for line in lines:
            match = LIMIT.fullmatch(line)
            self.assertIsNotNone(match, line)
            assert match is not None
            number, unit, module, name = match.groups(default="")
            self.assertEqual(float(number) * UNITS[unit], value_of(module, name), line)


class SecurityTests(SynchronousTestCase):
    """docs/security.md against the tests that it names."""

    def test_every_sentence_has_tests_that_exist(self) -> None:
        """A test is named by its module, class and method."""
        sentences = (ROOT / "docs/security.md").read_text().split("\n* ")[1:]
        self.assertGreater(len(sentences), 30)
        for sentence in sentences:
            named = re.findall(r"`(tests\.[\w.]+)`", sentence)
            self.assertNotEqual([], named, sentence)
            for test in named:
                module, kind, method = test.rsplit(".", 2)
                self.assertTrue(method.startswith("test_"), test)
                found = getattr(importlib.import_module(module), kind, None)
                self.assertTrue(hasattr(found, method), test)


class ReferenceTests(SynchronousTestCase):
    """The pages that are written by a program."""

    def test_every_page_is_up_to_date(self) -> None:
        """If not: ``make reference``."""
        for name, page in PAGES.items():
            self.assertEqual(page(), (ROOT / name).read_text(), name)

    def test_every_table_is_found(self) -> None:
        """A search that finds nothing would make an empty page."""
        self.assertIn("p2pnet/traversal/pair.py", dict(tables()))
