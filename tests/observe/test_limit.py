"""How much of the event log the reports of one kind may fill."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.observe.limit import BURST, RATE, SHARE, TIDY_INTERVAL, ReportLimit, key_of

SIZE = 1024  # bytes of a line
OTHER = reports.NodeLost("agent alice of realm example", "gone")


def lost(node: str = "agent mallory of realm example") -> reports.NodeLost:
    """A report about a node."""
    return reports.NodeLost(node, "gone")


def named(report: reports.Report) -> tuple[str, dict[str, object]]:
    """What the event log says of a report."""
    return report.name, report.fields()


def key(report: reports.Report) -> tuple[str, str]:
    """The bucket of a report."""
    return key_of(*named(report))


class KeyTests(SynchronousTestCase):
    """Whom a report is about."""

    def test_a_report_is_about_the_name_that_it_has(self) -> None:
        """Else about the session; strangers have no name, whatever their address."""
        self.assertEqual(("node_lost", "x"), key(lost("x")))
        closed = reports.RelayClosed("5e55", "alice", "", 0, 0, 0)
        self.assertEqual(("relay_closed", "alice"), key(closed))
        finished = reports.StreamFinished("5e55", "bob", "web", 0, 0, 0.0, "no_error")
        self.assertEqual(("stream_finished", "bob"), key(finished))
        self.assertEqual(("packet_size_found", "5e"), key(reports.PacketSizeFound("5e", "", 1)))
        self.assertEqual(("node_refused", ""), key(reports.NodeRefused("192.0.2.1:5", "")))
        self.assertEqual(("stream_refused", ""), key(reports.StreamRefused("", "web", "", "")))


class LimitTests(SynchronousTestCase):
    """Buckets of bytes."""

    def setUp(self) -> None:
        self.limit = ReportLimit()

    def admitted(self, report: reports.Report, times: int, now: float) -> int:
        """The number of lines that pass out of so many."""
        return sum(self.limit.admits(*named(report), SIZE, now) for _ in range(times))

    def test_a_burst_passes_and_then_a_line_every_few_seconds(self) -> None:
        """The lines that were left out are counted, once."""
        burst = BURST // SIZE
        self.assertEqual(burst, self.admitted(lost(), burst + 5, 0.0))
        self.assertEqual(2, self.admitted(lost(), 3, 2 * SIZE / RATE))
        more = reports.MoreReports(6, "node_lost", lost().node)
        self.assertEqual([more], self.limit.take_omitted())
        self.assertEqual([], self.limit.take_omitted())

    def test_one_peer_takes_nothing_from_another(self) -> None:
        """Nor from reports of another kind about itself."""
        self.admitted(lost(), 10_000, 0.0)
        self.assertEqual(5, self.admitted(OTHER, 5, 0.0))
        self.assertEqual(5, self.admitted(reports.NodeMoved(lost().node, ""), 5, 0.0))

    def test_made_up_peers_share_a_bucket(self) -> None:
        """Beyond it they are counted together, so that they fill no table either."""
        passed = sum(self.admitted(lost(str(n % 5000)), 1, 0.0) for n in range(10_000))
        self.assertEqual(SHARE * BURST // SIZE, passed)
        self.assertEqual(passed + 1, len(self.limit))
        omitted = self.limit.take_omitted()
        self.assertEqual([reports.MoreReports(10_000 - passed, "node_lost", "")], omitted)

    def test_full_buckets_are_forgotten(self) -> None:
        """A node that runs for years has sessions without number."""
        for second in range(1000):
            self.limit.admits(*named(lost(str(second))), 100, second)
        self.assertLessEqual(len(self.limit), TIDY_INTERVAL + 2)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100_000), st.floats(0, 100))))
    def test_no_order_of_reports_gets_more_than_burst_and_rate(
        self, lines: list[tuple[int, int, float]]
    ) -> None:
        """For one peer, and for all of them."""
        limit, now = ReportLimit(), 0.0
        passed = [0] * 4
        for peer, size, pause in lines:
            now += pause
            if limit.admits(*named(lost(str(peer))), size, now):
                passed[peer] += size
        self.assertLessEqual(max(passed), BURST + RATE * now + 1)
        self.assertLessEqual(sum(passed), SHARE * (BURST + RATE * now) + 1)
