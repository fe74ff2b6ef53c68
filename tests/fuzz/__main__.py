"""Fuzz targets, a share of the time each: ``python -m tests.fuzz [--seconds 60] [TARGET ...]``.

Atheris makes the inputs where it is installed, guided by coverage; else Hypothesis does. A finding
goes into tests/corpus/TARGET, from which tests.test_fuzz replays it, and the exit status is 1.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.engine import ENGINES, Target, fuzz
from tests.run import preload

CORPUS = Path(__file__).absolute().parent.parent / "corpus"


def load_targets(engine: str) -> dict[str, Target]:
    """All targets; for Atheris from modules that report which code an input reaches."""
    instrumented: Any = contextlib.nullcontext()
    if engine == "atheris":
        atheris = importlib.import_module("atheris")
        instrumented = atheris.instrument_imports(include=["p2pnet"], enable_loader_override=False)
    with contextlib.redirect_stderr(io.StringIO()), instrumented:  # all modules' names
        targets: dict[str, Target] = importlib.import_module("tests.fuzz.targets").TARGETS
    if engine == "hypothesis":
        preload()
    return targets


def main(arguments: Sequence[str], targets: Mapping[str, Target] | None = None) -> int:
    """The exit status: 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="TARGET", help="default: all of them")
    options = parser.parse_args(arguments)
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "hypothesis"
    targets = targets or load_targets(engine)
    if unknown := set(options.names) - set(targets):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    chosen = {name: targets[name] for name in options.names or targets}
    unit = options.seconds / sum(target.share for target in chosen.values())
    findings = 0
    print(f"{len(chosen)} targets, {options.seconds:g} s, by {engine}", flush=True)
    for name, target in chosen.items():
        corpus = options.corpus / name
        count, found, output = fuzz(target, corpus, engine, unit * target.share)
        print(f"{name:20} {count:9} executions, {int(found is not None)} findings", flush=True)
        if found is not None:
            findings += 1
            path = corpus / f"found-{hashlib.sha256(found).hexdigest()[:12]}"
            corpus.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found)
            print(f"{output}\nThe input is in {path}.", flush=True)
    print(f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
