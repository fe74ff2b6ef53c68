"""Write the pages of docs/ that say what the code says: ``python -m tests.reference``.

tests.test_docs fails while a page differs from what this program would write.
"""

import dataclasses
import enum
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from p2pnet import reports

ROOT = Path(__file__).absolute().parent.parent
COMMAND = "`make reference` writes this page from the code."


def tables() -> Iterator[tuple[str, Mapping[enum.Enum, set[enum.Enum]]]]:
    """The path of each module with a TRANSITIONS table, and the table."""
    for path in sorted((ROOT / "p2pnet").rglob("*.py")):
        if re.search(r"^TRANSITIONS\b", path.read_text(), re.MULTILINE):
            relative = path.relative_to(ROOT)
            module = importlib.import_module(".".join(relative.with_suffix("").parts))
            yield str(relative), module.TRANSITIONS


def diagram(table: Mapping[enum.Enum, set[enum.Enum]]) -> str:
    """The table as a Mermaid diagram; a machine starts in the first state of its Enum."""
    states = list(type(next(iter(table))))
    lines = ["stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        following = [target for target in states if target in table[state]]
        lines += [f"    {state.name} --> {target.name}" for target in following]
        lines += [] if following else [f"    {state.name} --> [*]"]
    return "\n".join(lines)


def states_page() -> str:
    """docs/states.md."""
    text = f"# State machines\n\n{COMMAND} Each diagram is a `TRANSITIONS` table.\n"
    for path, table in tables():
        states = type(next(iter(table)))
        summary = (states.__doc__ or "").strip()
        text += f"\n## {states.__name__} (`{path}`)\n\n{summary}\n"
        text += f"\n```mermaid\n{diagram(table)}\n```\n"
    return text


def reports_page() -> str:
    """docs/reports.md."""
    text = (
        f"# Reports\n\n{COMMAND} A node reports these to its event log, one JSON object a line:"
        "\n`event` is the name, beside the fields. Addresses are text, ids hexadecimal, durations"
        "\nseconds.\n\n| event | fields | meaning |\n|---|---|---|\n"
    )
    for kind in vars(reports).values():
        if isinstance(kind, type) and issubclass(kind, reports.Report) and kind.__annotations__:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
            fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
            meaning = " ".join((kind.__doc__ or "").split())
            text += f"| `{name}` | {fields} | {meaning} |\n"
    return text


PAGES = {"docs/states.md": states_page, "docs/reports.md": reports_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).write_text(page())
