"""Figures of rounds become medians, tables and JSON."""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.report import Row, Spread, alternate, number, show, spread, summarize, table
from p2pnet.testing.processes import ProcessError


def printed(*arguments: object) -> str:
    """What show() prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        show(*arguments)  # type: ignore[arg-type]
    return output.getvalue()


class RoundsTests(SynchronousTestCase):
    """alternate()."""

    def run_rounds(self, rounds: int, failing: str = "") -> tuple[list[str], dict[str, object]]:
        """The order in which cases were measured, and what came of it."""
        order: list[str] = []

        def case(name: str) -> dict[str, float]:
            order.append(name)
            if name == failing:
                raise ProcessError("it broke")
            return {"figure": float(len(order))}

        cases = {name: (lambda name=name: case(name)) for name in "abc"}
        return order, dict(alternate(cases, rounds, lambda _: None))

    def test_cases_take_turns_and_the_order_is_turned_round(self) -> None:
        """So that none has always the same neighbour."""
        order, found = self.run_rounds(2)
        self.assertEqual("abccba", "".join(order))
        self.assertEqual({"figure": Spread(3.5, 1.0, 6.0)}, found["a"])

    def test_a_case_that_fails_is_left_out_and_the_others_go_on(self) -> None:
        """As one that never worked, or in the rounds in which it did not."""
        order, found = self.run_rounds(2, failing="b")
        self.assertEqual("abccba", "".join(order))
        self.assertEqual(["a", "c"], list(found))

    def test_a_figure_that_some_round_lacks_is_that_of_the_others(self) -> None:
        """None if all do."""
        found = summarize([{"x": 1.0, "y": None}, {"x": None, "y": None}])
        self.assertEqual({"x": Spread(1.0, 1.0, 1.0), "y": None}, found)

    @given(st.lists(st.floats(-1e9, 1e9), min_size=1))
    def test_a_median_is_between_the_least_and_the_most(self, values: list[float]) -> None:
        """Whatever the values."""
        found = spread(values)
        self.assertTrue(found.least <= found.median <= found.most)


class TableTests(SynchronousTestCase):
    """table() and show()."""

    ROWS: Sequence[Row] = [
        {"case": "a | b", "MB/s": Spread(2.0, 1.0, 3.0), "lost": 0, "reached": True, "why": None},
        {"case": "c", "MB/s": None, "lost": 12, "reached": False, "why": "skipped"},
    ]

    def test_a_table_is_markdown(self) -> None:
        """With a line under its head, and the same number of columns in each row."""
        head, rule, *body = table(self.ROWS)
        self.assertEqual(["case", "MB/s", "lost", "reached", "why"], head.replace("|", "").split())
        self.assertEqual(set("|- "), set(rule))
        self.assertIn("2 [1..3]", body[0])
        self.assertIn(r"a \| b", body[0])
        self.assertEqual({6}, {line.replace(r"\|", "").count("|") for line in (head, rule, *body)})

    def test_rows_are_printed_as_they_come(self) -> None:
        """A table of a long run shows what is there."""

        def rows() -> Iterator[Row]:
            yield self.ROWS[0]
            raise ProcessError("the rest failed")

        lines = iter(table(rows()))
        self.assertEqual(3, len([next(lines) for _ in range(3)]))

    def test_json_has_the_rows_and_where_they_are_from(self) -> None:
        """A spread is a list."""
        found = json.loads(printed({"Title": iter(self.ROWS)}, True))
        self.assertEqual([2.0, 1.0, 3.0], found["tables"]["Title"][0]["MB/s"])
        self.assertLessEqual({"machine", "versions", "time", "load_average"}, set(found))

    def test_a_title_stands_above_its_table(self) -> None:
        """And no table is the title alone."""
        self.assertIn("Title\n\n| case", printed({"Title": self.ROWS}, False))
        self.assertEqual("\nEmpty\n\n", printed({"Empty": []}, False))

    @given(st.floats(1e-5, 1e12))
    def test_a_number_reads_back_as_about_itself(self, value: float) -> None:
        """To a hundredth, and without an exponent."""
        text = number(value)
        self.assertNotIn("e", text)
        self.assertLess(abs(float(text) / value - 1), 0.06)
