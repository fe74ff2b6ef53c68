"""Paths that change over and over under real processes: no stream breaks, nothing is lost."""

from tests.lab import LabTestCase, lab

SWITCHES = 4
KILLS = 3


class SwitchingTests(LabTestCase):
    """Small measurements; `python -m lab switch` makes larger ones."""

    def assert_switched(self, report: dict[str, object], times: int) -> None:
        """Both ends took another path as often as it was forced, and no stream broke."""
        self.assertTrue(report["ok"], report)
        self.assertEqual([], report["problems"])
        switches = report["switches"]
        assert isinstance(switches, list)
        for run in switches:
            for node in ("agent", "connector"):
                self.assertGreaterEqual(run[node], times, report)

    def test_transfer(self) -> None:
        """The hash of a download through four switches is equal, as without any."""
        report = lab("switch", "--megabytes=16", f"--switches={SWITCHES}")
        self.assert_switched(report, SWITCHES)
        self.assertEqual((0, 3), (report["bytes_lost"], report["sha256_ok"]))

    def test_echo(self) -> None:
        """Each message has its answer, also while the path that it took is dead."""
        report = lab("switch", "--echo", f"--kills={KILLS}")
        self.assert_switched(report, 2 * KILLS)
        self.assertEqual(0, report["echoes_lost"])
