"""The event log: what is written, when, and what a full disk does to the node."""

import datetime
import json
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.observe.eventlog import MAX_WAITING, SUMMARY_INTERVAL, WRITE_DELAY, EventLog
from p2pnet.observe.limit import BURST


class EventLogTests(SynchronousTestCase):
    """A log of a node on a virtual clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp())
        self.log = self.make(self.path)
        self.log.open()
        self.addCleanup(self.log.close)

    def make(self, path: Path) -> EventLog:
        """A log whose calendar began with the clock, in 1970."""
        return EventLog(
            path,
            lambda: datetime.datetime.fromtimestamp(self.clock.seconds(), datetime.UTC),
            self.clock,
        )

    def lines(self) -> list[dict[str, object]]:
        """What is in the file."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def changed(self, reason: str) -> reports.NetworkChanged:
        """A report with a field."""
        return reports.NetworkChanged(reason)

    def test_reports_are_written_together_with_the_times_of_each(self) -> None:
        """A moment after the first of them; nobody has to wait for it meanwhile."""
        self.log.write(self.changed("one"))
        self.clock.advance(WRITE_DELAY / 2)
        self.log.write(self.changed("two"))
        self.assertEqual([], self.lines())
        self.clock.advance(WRITE_DELAY / 2)
        first = {"time": 0.0, "event": "network_changed", "reason": "one"}
        second = {"time": WRITE_DELAY / 2, "event": "network_changed", "reason": "two"}
        self.assertEqual([first, second], self.lines())
        self.assertEqual([], self.clock.getDelayedCalls())
        self.log.write(self.changed("three"))
        self.clock.advance(WRITE_DELAY)
        self.assertEqual("three", self.lines()[-1]["reason"])

    def test_what_waits_is_bounded(self) -> None:
        """A crowd's reports are written as they come in."""
        for number in range(2 * MAX_WAITING + 1):
            self.log.write(self.changed(str(number)))
        self.assertEqual(
            [str(n) for n in range(2 * MAX_WAITING)], [x["reason"] for x in self.lines()]
        )

    def test_the_last_ones_are_written_when_it_is_closed(self) -> None:
        """And nothing is left to do."""
        self.log.write(self.changed("last"))
        self.log.close()
        self.assertEqual(["last"], [line["reason"] for line in self.lines()])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_before_and_after_that_nothing_waits(self) -> None:
        """The log of the process has them at once, for there may be no later."""
        self.log.close()
        self.log.write(self.changed("late"))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual([], self.lines())

    def test_a_full_disk_is_told_of_and_the_node_goes_on(self) -> None:
        """/dev/full takes nothing."""
        log = self.make(Path("/dev/full"))
        log.open()
        log.write(self.changed("lost"))
        self.clock.advance(WRITE_DELAY)
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
        log.write(self.changed("lost too"))
        log.close()
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))

    def flood(self) -> int:
        """Write more than a peer may fill, a thousand reports; return the number of lines."""
        for _ in range(1000):
            self.log.write(reports.NodeLost("agent mallory of realm example", "x" * 400))
        self.clock.advance(WRITE_DELAY)
        self.assertLess(self.path.stat().st_size, BURST)
        return len(self.lines())

    def test_a_flood_about_one_peer_ends_in_a_number(self) -> None:
        """A minute after the first report that was left out; the other reports pass."""
        written = self.flood()
        self.log.write(self.changed("other"))
        self.clock.advance(SUMMARY_INTERVAL)
        self.assertEqual("other", self.lines()[written]["reason"])
        more = {key: self.lines()[-1][key] for key in ("event", "count", "kind", "peer")}
        self.assertEqual(
            {
                "event": "more_reports", "count": 1000 - written, "kind": "node_lost",
                "peer": "agent mallory of realm example",
            },
            more,
        )  # fmt: skip
        self.clock.advance(10 * SUMMARY_INTERVAL)
        self.assertEqual(written + 2, len(self.lines()))

    def test_the_number_is_written_when_it_is_closed(self) -> None:
        """And nothing is left to do."""
        written = self.flood()
        self.log.close()
        self.assertEqual(1000 - written, self.lines()[-1]["count"])
        self.assertEqual([], self.clock.getDelayedCalls())
