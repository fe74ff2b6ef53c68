"""The test runner: what it counts, what it prints last, and when it fails."""

import argparse
import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tests.run

PASSES = """
    def test_passes(self):
        pass
"""
FAILS = """
    def test_fails(self):
        self.assertEqual(1, 2)
"""
SKIPS = """
    def test_skips(self):
        raise SkipTest("no such program here")
"""
EXPECTED = """
    def test_expected(self):
        self.assertEqual(1, 2)
    test_expected.todo = "not written yet"
"""
SURPRISE = """
    def test_surprise(self):
        pass
    test_surprise.todo = "written meanwhile"
"""
TWO_ERRORS = """
    def test_leaves_errors_behind(self):
        self.addCleanup(lambda: 1 / 0)
        self.addCleanup(lambda: [][0])
"""
DIRTY = """
    def test_leaves_a_timer_behind(self):
        from twisted.internet import reactor
        reactor.callLater(60, lambda: None)
"""
DIES = """
    def test_dies(self):
        import os
        os._exit(0)
"""


# Each process forks from a process that has imported these, and no reactor.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hypothesis", "twisted.trial.runner", *tests.run.PRELOADED])


def run_copy(directory: Path, arguments: Sequence[str]) -> None:
    """Do what ``python -m tests.run`` does in that directory, with the output in its file."""
    os.chdir(directory)
    output = os.open("output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path.insert(0, str(directory))
    sys.argv[1:] = arguments
    runpy.run_module("tests.run", run_name="__main__", alter_sys=True)


class RunTests(SynchronousTestCase):
    """Each test runs the runner on a small suite, in a process of its own."""

    def run_suite(self, *arguments: str, **modules: str) -> tuple[int, list[str]]:
        """Run a suite of these test modules (name to test methods); exit status and output."""
        directory = Path(self.mktemp()).absolute()
        (directory / "tests").mkdir(parents=True)
        (directory / "tests" / "__init__.py").write_text("")
        (directory / "tests" / "run.py").write_text(Path(tests.run.__file__).read_text())
        for name, body in modules.items():
            source = "from twisted.trial.unittest import SkipTest, TestCase\n"
            source += f"class SampleTests(TestCase):\n{body}" if body.startswith("\n") else body
            (directory / "tests" / f"{name}.py").write_text(source)
        process = PROCESSES.Process(target=run_copy, args=(directory, arguments))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, (directory / "output").read_text().splitlines()

    def assert_run(self, status: int, last: str, *arguments: str, **modules: str) -> list[str]:
        """Both ways to run the suite end with this status and this line."""
        for how in ((), ("-j", "2")):
            found, output = self.run_suite(*how, *arguments, **modules)
            self.assertEqual((status, last), (found, output[-1]), "\n".join(output))
        return output

    def test_a_run_of_nothing_fails(self) -> None:
        """Nothing ran: a suite that was not found is not a success."""
        self.assert_run(1, "0 passed, 0 failed, 0 skipped")
        self.assert_run(1, "0 passed, 0 failed, 0 skipped", test_empty="")

    def test_a_run_of_passing_tests_succeeds(self) -> None:
        """The plain case, over two files."""
        self.assert_run(0, "2 passed, 0 failed, 0 skipped", test_a=PASSES, test_b=PASSES)

    def test_a_failure_fails_the_run(self) -> None:
        """One failure among passing tests."""
        self.assert_run(1, "2 passed, 1 failed, 0 skipped", test_a=PASSES + FAILS, test_b=PASSES)

    def test_a_module_that_cannot_be_imported_counts_as_failed(self) -> None:
        """So do one with a syntax error, and one that does not exist."""
        broken = "import there_is_no_such_module\n"
        self.assert_run(1, "1 passed, 1 failed, 0 skipped", test_a=PASSES, test_b=broken)
        self.assert_run(1, "1 passed, 1 failed, 0 skipped", test_a=PASSES, test_b="def:\n")
        self.assert_run(1, "0 passed, 1 failed, 0 skipped", "tests.test_missing", test_a=PASSES)

    def test_a_skip_is_counted_with_its_reason(self) -> None:
        """It does not fail a run in which other tests passed, but a run of skips ran nothing."""
        output = self.assert_run(0, "1 passed, 0 failed, 1 skipped", test_a=PASSES + SKIPS)
        self.assertIn("no such program here", "\n".join(output))
        self.assert_run(1, "0 passed, 0 failed, 1 skipped", test_a=SKIPS)

    def test_an_expected_failure_counts_as_skipped(self) -> None:
        """It neither works nor breaks anything."""
        self.assert_run(0, "1 passed, 0 failed, 1 skipped", test_a=PASSES + EXPECTED)

    def test_an_unexpected_success_fails_the_run(self) -> None:
        """The mark on the test is out of date."""
        self.assert_run(1, "1 passed, 1 failed, 0 skipped", test_a=PASSES + SURPRISE)

    def test_several_errors_of_one_test_are_one_failure(self) -> None:
        """The line counts tests."""
        self.assert_run(1, "1 passed, 1 failed, 0 skipped", test_a=PASSES + TWO_ERRORS)

    def test_a_test_that_leaves_the_reactor_dirty_has_failed(self) -> None:
        """And it has not passed as well."""
        self.assert_run(1, "1 passed, 1 failed, 0 skipped", test_a=PASSES + DIRTY)

    def test_names_are_dotted_or_paths(self) -> None:
        """A package, a file and a method can be run alone."""
        for name in ("tests.test_a", "tests/test_a.py", "tests.test_a.SampleTests.test_passes"):
            self.assert_run(0, "1 passed, 0 failed, 0 skipped", name, test_a=PASSES, test_b=FAILS)

    def test_a_line_for_each_file_and_the_output_of_those_that_failed(self) -> None:
        """With -j, the output of the others is shown if it is asked for."""
        samples = {"test_a": PASSES, "test_b": FAILS}
        _, output = self.run_suite("-j", "2", **samples)
        lines = [line for line in output if line.startswith("[")]
        self.assertTrue(any(" tests.test_a 1 passed " in line for line in lines), lines)
        self.assertTrue(any(" tests.test_b 0 passed, 1 failed " in line for line in lines), lines)
        self.assertNotIn("test_passes", "\n".join(output))
        self.assertIn("FAILED: tests.test_b", output)
        _, output = self.run_suite("-j", "2", "-v", **samples)
        self.assertIn("test_passes", "\n".join(output))

    def test_the_longest_file_of_the_last_run_starts_first(self) -> None:
        """So that no processor waits for it in the end; files that are new start early as well."""
        options = argparse.Namespace(jobs=2, verbose=False)
        self.patch(tests.run, "DURATIONS", Path(self.mktemp()))
        tests.run.DURATIONS.write_text('{"tests.test_pki": 3, "tests.test_run": 30}')
        names = ["tests.test_pki", "tests.lab.test_new", "tests.test_run"]
        waiting = tests.run.Runner(names, options).waiting
        self.assertEqual(["tests.lab.test_new", "tests.test_run", "tests.test_pki"], waiting)

    def test_a_process_that_dies_counts_as_failed(self) -> None:
        """With -j, a file whose process ends early does not vanish from the sum."""
        status, output = self.run_suite("-j", "2", test_a=PASSES, test_b=DIES)
        self.assertEqual((1, "1 passed, 1 failed, 0 skipped"), (status, output[-1]))
