"""Sessions of real processes between NATs that no direct path gets through: the relay's work."""

from tests.lab import LabTestCase, lab

WAIT = "2"  # seconds; direct paths take a fraction of one where there are any


class RelayedTests(LabTestCase):
    """One trial of each cell."""

    def assert_relayed(self, agent: str, connector: str) -> None:
        """The download arrives, by way of the Intermediate."""
        report = lab(
            "run", f"--agent={agent}", f"--connector={connector}", "--trials=1", f"--wait={WAIT}"
        )
        self.assertEqual(
            {
                "agent": agent,
                "connector": connector,
                "trials": 1,
                "direct": 0,
                "relayed": 1,
                "failed": 0,
                "time_to_direct_ms": {"p50": None, "p95": None},
                "bytes_lost": 0,
                "sha256_ok": 1,
            },
            report,
        )

    def test_both_symmetric(self) -> None:
        """Nobody can tell the port that the other side's packets come from."""
        self.assert_relayed("symmetric", "symmetric")

    def test_port_restricted_agent(self) -> None:
        """It lets no packet in from a port that it does not know."""
        self.assert_relayed("port-restricted", "symmetric-sequential")

    def test_port_restricted_connector(self) -> None:
        """The same the other way round, through two NATs."""
        self.assert_relayed("symmetric", "cgnat")

    def test_no_udp(self) -> None:
        """A node that cannot reach the Intermediate says so and why."""
        report = lab("run", "--agent=udp-blocked", "--connector=open", "--trials=1")
        self.assertEqual(1, report["unreachable"], report)
        self.assertEqual(0, report["failed"], report)
