"""Runs a target with many inputs, by Atheris or by Hypothesis, and keeps the last of them."""

import faulthandler
import functools
import importlib
import itertools
import math
import mmap
import os
import random
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SCRATCH = Path("build/fuzz")  # the inputs by which Atheris reached new code
MAX_INPUT = 1000  # bytes
MUTATIONS = 50  # for one input that Hypothesis makes, which takes more time
MAX_SHRINKS = 500  # executions for one finding
PATIENCE = 60  # seconds beyond its time after which a target that does not end is a finding
_HEADER = struct.Struct("=QI")


class Target(NamedTuple):
    """Code that takes bytes from outside, and raises nothing but `refusals`.

    :ivar share: of the time, in comparison with other targets.
    """

    run: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()
    share: float = 1.0

    def failure(self, data: bytes) -> Exception | None:
        """The exception that `data` causes, None for none and for a refusal."""
        try:
            self.run(data)
        except self.refusals:
            pass
        except Exception as error:
            return error
        return None


class Journal:
    """The number of executions and the input of the last one; they outlive the process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEADER.size + MAX_INPUT)

    def begin(self, data: bytes) -> None:
        """Note that an execution begins."""
        written = _HEADER.pack(self.read()[0] + 1, len(data)) + data
        self._memory[: len(written)] = written

    def read(self) -> tuple[int, bytes]:
        """The number of executions, and the input of the last one."""
        count, size = _HEADER.unpack_from(self._memory)
        return count, self._memory[_HEADER.size : _HEADER.size + size]


def fuzz(
    target: Target, corpus: Path, engine: str, seconds: float
) -> tuple[int, bytes | None, str]:
    """Fuzz in a process of its own, also if that process crashes, hangs or fills the memory.

    Returns the number of executions, the input that failed or None, and the output.
    """
    journal = Journal()
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                faulthandler.dump_traceback_later(seconds + PATIENCE, exit=True, file=2)
                ENGINES[engine](functools.partial(_execute, target, journal), corpus, seconds)
                os._exit(0)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:  # nothing of the parent may run twice
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        text = output.read().decode(errors="replace")[-4000:]
    count, data = journal.read()
    assert count, f"{corpus}: nothing was executed\n{text}"
    return count, data if status else None, text


def _execute(target: Target, journal: Journal, data: bytes) -> None:
    """Run the target. A failure is shrunk and printed, and ends the process."""
    journal.begin(data)
    if (failure := target.failure(data)) is None:
        return
    faulthandler.cancel_dump_traceback_later()
    data = shrink(lambda shorter: type(target.failure(shorter)) is type(failure), data)
    journal.begin(data)
    os.write(2, "".join(traceback.format_exception(target.failure(data) or failure)).encode())
    os._exit(1)


def shrink(fails: Callable[[bytes], bool], data: bytes) -> bytes:
    """`data` without the pieces, large ones first, without which it fails too."""
    size, left = len(data), MAX_SHRINKS
    while size := size // 2:
        at = 0
        while at < len(data) and (left := left - 1) > 0:
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
    return data


def with_hypothesis(run: Callable[[bytes], None], corpus: Path, seconds: float) -> None:
    """Fuzz with the corpus, then with arbitrary bytes, and with many mutations of both."""
    end = time.monotonic() + seconds
    known = [b"", *(path.read_bytes() for path in sorted(corpus.glob("*")))]
    source = random.Random()

    @settings(
        max_examples=100, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.binary(max_size=MAX_INPUT))
    def batch(drawn: bytes) -> None:
        for data in itertools.chain([drawn], mutations([drawn, *known], source)):
            if time.monotonic() < end:
                run(data)

    for data in known:
        run(data)
    while time.monotonic() < end:
        seed(source.getrandbits(32))(batch)()


def mutations(inputs: Sequence[bytes], source: random.Random) -> Iterator[bytes]:
    """Inputs with some bytes less, others more, or the end of another input."""
    for _ in range(MUTATIONS):
        data, other = source.choice(inputs), source.choice(inputs)
        for _ in range(source.choice((1, 1, 2, 4))):
            at, start = source.randint(0, len(data)), source.randint(0, len(other))
            new = source.choice((b"", source.randbytes(1), source.randbytes(4), other[start:]))
            data = data[:at] + new + data[at + source.choice((0, 1, len(new), 16)) :]
        yield data[:MAX_INPUT]


def with_atheris(run: Callable[[bytes], None], corpus: Path, seconds: float) -> None:
    """Fuzz with inputs that reach new code. Does not return: Atheris ends the process."""
    atheris = importlib.import_module("atheris")
    scratch = SCRATCH / corpus.name
    for directory in (scratch, corpus):
        directory.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={math.ceil(seconds)}", f"-max_len={MAX_INPUT}"]
    options += [f"-timeout={PATIENCE}", f"-artifact_prefix={scratch}."]
    atheris.Setup(["fuzz", *options, str(scratch), str(corpus)], run)
    atheris.Fuzz()


ENGINES = {"atheris": with_atheris, "hypothesis": with_hypothesis}
