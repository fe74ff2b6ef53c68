"""Sessions of real processes between NATs that ICE gets through: direct, with no byte lost."""

from tests.lab import LabTestCase, lab

CELLS = (
    "open:symmetric",
    "firewall:firewall",
    "full-cone:symmetric",
    "symmetric:address-restricted",
    "symmetric-sequential:full-cone",
    "address-restricted:port-restricted",
    "port-restricted:port-restricted",
    "port-restricted-fragile:firewall",
    "port-restricted-fragile:port-restricted-fragile",  # in vain without openers
    "cgnat:port-restricted",
    "cgnat:cgnat",
)
TRIALS = 3


class DirectTests(LabTestCase):
    """A representative part of the matrix; the whole is `make lab`."""

    def test_every_trial_of_these_cells_becomes_direct(self) -> None:
        """In the middle of a transfer, whose hash is equal."""
        report = lab("matrix", f"--trials={TRIALS}", "--jobs=2", f"--cells={','.join(CELLS)}")
        self.assertEqual(len(CELLS), len(report["cells"]))
        for cell in report["cells"]:
            names = f"{cell['agent']}:{cell['connector']}"
            figures = [cell[key] for key in ("direct", "failed", "bytes_lost", "sha256_ok")]
            self.assertEqual([TRIALS, 0, 0, TRIALS], figures, names)
            print(f"\n      {names}: {cell['time_to_direct_ms']}", end="")
