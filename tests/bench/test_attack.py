"""The program of attacks: its tests in process, its floods, and when they come."""

import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.attack import storm
from bench.attack.__main__ import FLOODS
from bench.attack.flood import CYCLE, KINDS, PROVEN, Flood, is_on
from bench.attack.simulated import SIMULATED, Simulated


class SimulatedTests(SynchronousTestCase):
    """What a test measured becomes a row."""

    def test_a_row_has_what_the_test_measured(self) -> None:
        """And the bound that the test asserts."""
        row = SIMULATED["requests"].row()
        self.assertEqual("317 requests at the Connector", row["bound"])
        self.assertLessEqual(float(row["measured"]), 317)
        self.assertTrue(row["holds"])

    def test_a_bound_that_no_test_has_does_not_hold(self) -> None:
        """A bound that moved must not pass unseen."""
        row = Simulated("", SIMULATED["requests"].test, "", bound=1.5).row()
        self.assertEqual(("-", False), (row["measured"], row["holds"]))


class StormTests(SynchronousTestCase):
    """Real nodes lose their Intermediate."""

    def test_all_nodes_come_back(self) -> None:
        """Three of them, in whatever time."""
        row = storm.measure(Path(self.mktemp()).absolute(), 3)
        self.assertTrue(row["measured"].startswith("3 back"), row)


class FloodTests(SynchronousTestCase):
    """What a stranger sends."""

    def test_every_flood_has_a_row(self) -> None:
        """Each kind is tried alone."""
        self.assertEqual(set(KINDS), set(FLOODS))
        self.assertLessEqual(set(PROVEN), set(KINDS))

    def test_attackers_come_in_a_part_of_each_cycle(self) -> None:
        """All at once."""
        self.assertTrue(is_on(1 / 3, 2 * CYCLE))
        self.assertFalse(is_on(1 / 3, 2.5 * CYCLE))
        self.assertTrue(is_on(1.0, 2.99 * CYCLE))

    def test_a_flood_counts_what_it_sends(self) -> None:
        """Over loopback, to a socket of this test."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
            target.bind(("127.0.0.1", 0))
            flood = Flood("padding", target.getsockname(), pool=4)
            did = flood.run(2000.0, 1.0, lambda: flood.sent >= 20)
            flood.close()
            self.assertEqual(did["bytes_sent"], 1200 * did["sent"])
