"""The corpus of the fuzzer: inputs that show a format or once did harm. And the fuzzer itself."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.fuzz.__main__ import CORPUS, main
from tests.fuzz.engine import MAX_INPUT, Target, shrink
from tests.fuzz.targets import TARGETS
from tests.wire import test_messages, test_path_messages


class CorpusTests(SynchronousTestCase):
    """Each input of tests/corpus, once."""

    def test_no_input_of_the_corpus_does_harm(self) -> None:
        """Each target returns, or raises an error that it documents."""
        for name, target in TARGETS.items():
            inputs = sorted((CORPUS / name).iterdir())
            self.assertGreater(len(inputs), 0, name)
            for path in inputs:
                failure = target.failure(path.read_bytes())
                if failure is not None:
                    raise AssertionError(f"{path.relative_to(CORPUS)}") from failure

    def test_the_corpus_is_small_and_for_targets_that_there_are(self) -> None:
        """A target and its directory have one name."""
        self.assertEqual(set(TARGETS), {path.name for path in CORPUS.iterdir()})
        large = [path for path in CORPUS.glob("*/*") if path.stat().st_size > MAX_INPUT]
        self.assertEqual([], large)

    def test_the_messages_of_the_corpus_are_all_that_there_are(self) -> None:
        """With the bytes that the tests of the wire know."""
        for name, golden in (
            ("control-message", test_messages.GOLDEN),
            ("path-message", test_path_messages.GOLDEN),
        ):
            inputs = {path.read_bytes() for path in (CORPUS / name).iterdir()}
            self.assertLessEqual({bytes.fromhex(data)[4:] for data in golden.values()}, inputs)


def planted(data: bytes) -> None:
    """Refuses what it documents, and has a bug."""
    if len(data) < 4:
        raise EOFError("documented")
    if data[3] == 0x7F:
        raise IndexError("planted")


class EngineTests(SynchronousTestCase):
    """The program, with targets that have a bug."""

    def setUp(self) -> None:
        self.corpus = Path(self.mktemp())
        self.printed = io.StringIO()

    def run_main(self, target: Target, engine: str, seconds: float) -> int:
        """The exit status of a run with one target."""
        arguments = ["--seconds", str(seconds), "--engine", engine, "--corpus", str(self.corpus)]
        with contextlib.redirect_stdout(self.printed):
            return main(arguments, {"target": target})

    def assert_found(self, engine: str) -> None:
        """The planted bug is found, with the least input that shows it, which is kept."""
        self.assertEqual(1, self.run_main(Target(planted, (EOFError,)), engine, 60.0))
        self.assertIn("IndexError: planted", self.printed.getvalue())
        found = [path.read_bytes() for path in (self.corpus / "target").iterdir()]
        self.assertEqual([4], [len(data) for data in found])
        self.assertEqual(0x7F, found[0][3])

    def test_hypothesis_finds_a_planted_bug(self) -> None:
        """By arbitrary bytes, without a corpus."""
        self.assert_found("hypothesis")

    def test_atheris_finds_a_planted_bug(self) -> None:
        """Where it is installed."""
        if importlib.util.find_spec("atheris") is None:
            raise SkipTest("Atheris is not installed")
        self.assert_found("atheris")

    def test_a_process_that_dies_is_a_finding(self) -> None:
        """The input that it died of outlives it."""
        directory = self.corpus / "target"
        directory.mkdir(parents=True)
        (directory / "known").write_bytes(b"die")
        target = Target(lambda data: os._exit(3) if data == b"die" else None)
        self.assertEqual(1, self.run_main(target, "hypothesis", 1.0))
        self.assertEqual([b"die"] * 2, [path.read_bytes() for path in directory.iterdir()])

    def test_a_target_without_a_bug_passes(self) -> None:
        """What it documents is no bug, and nothing is written."""
        target = Target(lambda data: planted(data[:3]), (EOFError,))
        self.assertEqual(0, self.run_main(target, "hypothesis", 0.2))
        self.assertRegex(self.printed.getvalue(), r"target +[1-9]\d* executions, 0 findings")
        self.assertFalse((self.corpus / "target").exists())

    def test_a_name_that_is_no_target_is_refused(self) -> None:
        """With the names that are."""
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed), self.assertRaises(SystemExit):
            main(["--engine", "hypothesis", "nothing"], {"target": Target(planted)})
        self.assertIn("no target nothing; there are target", printed.getvalue())

    def test_shrinking_keeps_what_fails(self) -> None:
        """Each piece without which the input fails too goes."""
        self.assertEqual(b"ab", shrink(lambda data: b"a" in data and b"b" in data, b"xxaxxbxx"))
        self.assertEqual(b"", shrink(lambda data: True, bytes(1000)))
