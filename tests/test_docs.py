"""The documentation agrees with the code, and its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.messages import TYPES
from tests.reference import PAGES, ROOT, tables

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Everything that is written for people."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


class WireTests(SynchronousTestCase):
    """docs/wire.md against p2pnet/wire."""

    def test_the_error_codes_are_those_of_the_code(self) -> None:
        """Numbers and names, in order."""
        table = [(int(row[0], 16), row[1]) for row in rows("docs/wire.md", "Error codes")]
        self.assertEqual([(code.value, code.name) for code in ErrorCode], table)

    def test_the_messages_are_those_of_the_code(self) -> None:
        """Each type with all of its keys."""
        table: dict[str, set[str]] = {}
        keys: set[str] = set()
        for tag, _, cell in rows("docs/wire.md", "Control stream"):
            if cell != "the same":
                keys = set(re.findall(r"`(\w+)`", cell))
            table[tag.strip("`")] = keys
        self.assertEqual({tag: set(kind.__struct_fields__) for tag, kind in TYPES.items()}, table)

    def test_every_file_that_a_section_names_is_there(self) -> None:
        """A heading names its file of p2pnet/wire in parentheses."""
        named = re.findall(r"^## .*`(\w+\.py)`", prose(ROOT / "docs/wire.md"), re.MULTILINE)
        self.assertEqual([], [name for name in named if not (ROOT / "p2pnet/wire" / name).exists()])
        self.assertGreater(len(named), 0)


class ReferenceTests(SynchronousTestCase):
    """The pages that are written by a program."""

    def test_every_page_is_up_to_date(self) -> None:
        """If not: ``make reference``."""
        for name, page in PAGES.items():
            self.assertEqual(page(), (ROOT / name).read_text(), name)

    def test_every_table_is_found(self) -> None:
        """A search that finds nothing would make an empty page."""
        self.assertIn("p2pnet/traversal/pair.py", dict(tables()))
