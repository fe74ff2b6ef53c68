"""Import circles between the rooms of a checkout, found by import-linter."""

import re
import subprocess
import tempfile
from pathlib import Path

from p2pnet.testing.processes import ProcessError, script

PACKAGE = "p2pnet"
CONTRACT = """\
[importlinter]
root_package = {package}

[importlinter:contract:circles]
name = no circles
type = acyclic_siblings
ancestors =
{ancestors}
"""
_REMOVE = re.compile(r"by removing (\d+) dependenc")
_ARROW = re.compile(r"^- (\S+ -> \S+) \(", re.MULTILINE)
_WITHIN = re.compile(r"No cycles are allowed in (\S+)\.$", re.MULTILINE)


def circles(checkout: Path) -> tuple[int, list[str]]:
    """Return how many dependencies between siblings close circles, and those that are named.

    import-linter names the first few of each package. Imports under TYPE_CHECKING count. Raises
    ProcessError if import-linter cannot run.
    """
    packages = sorted(path.parent for path in (checkout / PACKAGE).rglob("__init__.py"))
    names = [".".join(path.relative_to(checkout).parts) for path in packages]
    contract = CONTRACT.format(package=PACKAGE, ancestors="\n".join(f"    {n}" for n in names))
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "circles.cfg"
        config.write_text(contract)
        done = subprocess.run(
            ["env", f"PYTHONPATH={checkout}", script("lint-imports"), "--config", str(config),
             "--no-cache"],
            cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode not in (0, 1) or "Contracts:" not in done.stdout:
        raise ProcessError(f"lint-imports failed\n{(done.stdout + done.stderr)[-500:]}")
    return sum(map(int, _REMOVE.findall(done.stdout))), _named(done.stdout)


def _named(output: str) -> list[str]:
    """Return the named dependencies, each behind its package."""
    parts = _WITHIN.split(output)[1:]
    return [
        f"{package}: {arrow}"
        for package, text in zip(parts[::2], parts[1::2], strict=True)
        for arrow in _ARROW.findall(text)
    ]
