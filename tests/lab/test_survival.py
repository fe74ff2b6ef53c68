"""A transfer of real processes goes on after failures, with no byte lost and no stream broken."""

from typing import Any

from tests.lab import LabTestCase, lab

GENEROUS = 5000  # ms; an idle time-out is longer, and no busy machine is that slow


class SurvivalTests(LabTestCase):
    """One trial each of the failures that are soon over; the rest is `python -m lab survive`."""

    def survive(self, case: str) -> list[dict[str, Any]]:
        """The summaries of a case, in which everything arrived."""
        report = lab("survive", f"--case={case}", "--trials=1")
        for row in report["cases"]:
            self.assertEqual(case, row["case"])
            self.assertEqual([], row["reasons"], row)
            figures = [row[key] for key in ("failed", "bytes_lost", "streams_broken", "sha256_ok")]
            self.assertEqual([0, 0, 0, 1], figures, row)
            self.assertLess(row["ms"]["max"], GENEROUS, row)
            print(f"\n      {row['what']}: {row['ms']['max']} ms", end="")
        found: list[dict[str, Any]] = report["cases"]
        return found

    def test_a_direct_path_is_cut(self) -> None:
        """Nobody is told; the relay takes over."""
        self.assertEqual(1, len(self.survive("black-hole")))

    def test_a_nat_is_rebound(self) -> None:
        """That of either side, under a direct and under a relayed session."""
        self.assertEqual(4, len(self.survive("rebind")))

    def test_the_intermediate_in_use_is_killed(self) -> None:
        """Another one takes over."""
        self.assertEqual(1, len(self.survive("kill-intermediate")))
