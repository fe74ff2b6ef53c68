"""What is expected of each pair of behaviors, against a table made by hand."""

from twisted.trial.unittest import SynchronousTestCase

from lab.expectations import Outcome, expected_outcome
from lab.nat import BEHAVIORS

TABLE = """
                        op fw fc ar pr pf cg sy sq ub
open                    D  D  D  D  D  D  D  D  D  U
firewall                D  D  D  D  D  D  D  R  R  U
full-cone               D  D  D  D  D  D  D  D  D  U
address-restricted      D  D  D  D  D  D  D  D  D  U
port-restricted         D  D  D  D  D  D  D  R  R  U
port-restricted-fragile D  D  D  D  D  D  D  R  R  U
cgnat                   D  D  D  D  D  D  D  R  R  U
symmetric               D  R  D  D  R  R  R  R  R  U
symmetric-sequential    D  R  D  D  R  R  R  R  R  U
udp-blocked             U  U  U  U  U  U  U  U  U  U
"""
LETTERS = {"D": Outcome.DIRECT, "R": Outcome.RELAYED, "U": Outcome.UNREACHABLE}


class ExpectationTests(SynchronousTestCase):
    """expected_outcome()."""

    def test_every_pair(self) -> None:
        """As in the table, whose columns are in the order of its rows."""
        rows = [line.split() for line in TABLE.strip().splitlines()[1:]]
        names = [row[0] for row in rows]
        self.assertEqual(set(BEHAVIORS), set(names))
        for agent, *letters in rows:
            for connector, letter in zip(names, letters, strict=True):
                outcome = expected_outcome(BEHAVIORS[agent], BEHAVIORS[connector])
                self.assertEqual(LETTERS[letter], outcome, f"{agent}:{connector}")

    def test_ipv6(self) -> None:
        """IPv6 behind firewalls makes every pair direct that gets UDP out."""
        blocked = BEHAVIORS["udp-blocked"]
        for agent in BEHAVIORS.values():
            for connector in BEHAVIORS.values():
                expected = Outcome.UNREACHABLE if blocked in (agent, connector) else Outcome.DIRECT
                self.assertEqual(expected, expected_outcome(agent, connector, ipv6=True))
