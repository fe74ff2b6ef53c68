"""The programs of bench/ that need nothing but p2pnet, with tiny sizes."""

import importlib
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from bench import __main__, figures, growth, handshakes, plot, sessions, stream
from bench.forward import GOALS, Goal
from bench.forwarding import opened
from bench.peers import PEERS, StockAioquic
from bench.report import Row, Spread
from bench.tunnel import LOOPBACK


class ProgramTests(SynchronousTestCase):
    """Each runs and has its figures."""

    def test_every_benchmark_can_be_imported(self) -> None:
        """And has a main()."""
        for name in __main__.BRIEF:
            self.assertTrue(callable(importlib.import_module(f"bench.{name}").main), name)

    def test_every_peer_has_a_name_of_its_own(self) -> None:
        """Figures are kept by it."""
        self.assertEqual(len(PEERS), len({kind.name for kind in PEERS}))

    def test_a_forward_over_stock_aioquic_carries_bytes(self) -> None:
        """Both ways, on several connections."""
        with opened(StockAioquic, LOOPBACK) as (_, client):
            self.assertTrue(client.run("echo", count=4)["p50_us"])
            self.assertTrue(client.run("upload", megabytes=0.3, streams=3)["bytes"])

    def test_a_quic_stream_is_measured(self) -> None:
        """Between two processes."""
        self.assertTrue(stream.measure(0.05)["MB/s"])

    def test_sessions_are_relayed(self) -> None:
        """All frames of all sessions arrive."""
        (row,) = sessions.measure([20], frames=64, rounds=1)
        self.assertEqual((20, Spread(0, 0, 0)), (row["sessions"], row["lost"]))

    def test_handshakes_of_the_stock_server_are_counted(self) -> None:
        """None is lost."""
        self.patch(handshakes, "SETTLE", 0.05)
        self.assertEqual(0, handshakes.measure(handshakes.stock, 4)["lost"])

    def test_registered_services_are_looked_up(self) -> None:
        """So many as were asked for are there."""
        directory = growth.registered(1000)
        self.assertEqual(1000, len(directory))
        self.assertTrue(growth.look_up(directory)["lookup_us"])


class GoalTests(SynchronousTestCase):
    """Goals are about figures that there are, of tunnels that there are."""

    def test_a_ratio_is_held_against_its_goal(self) -> None:
        """Either way round."""
        for goal, better in (
            (Goal("MB/s", "other", 2), 3.0),
            (Goal("MB/s", "other", 0.5, at_least=False), 1 / 3),
            (Goal("MB/s", None, 0.5, at_least=False), 1 / 3),
        ):
            found = {"other": {"MB/s": Spread(1, 1, 1)}}
            for figure in (better, 1 / better):
                found["p2pnet, direct"] = {"MB/s": Spread(figure, figure, figure)}
                self.assertIs(figure == better, goal.row(found)["reached"])

    def test_what_was_not_measured_is_neither_reached_nor_missed(self) -> None:
        """A peer that is not there."""
        self.assertIsNone(GOALS[0].row({})["reached"])

    def test_a_goal_is_held_against_a_peer(self) -> None:
        """Or the stream without TCP; a name that nobody has would never be missed."""
        names = {kind.name for kind in PEERS} | {stream.NAME}
        self.assertLessEqual({goal.other for goal in GOALS if goal.other}, names)


class PlotTests(SynchronousTestCase):
    """Plots are well-formed, whatever is measured."""

    def parse(self, document: str) -> ElementTree.Element:
        """The root of a document."""
        return ElementTree.fromstring(document)

    def test_a_bar_for_each_name(self) -> None:
        """Beside the background; names are escaped."""
        values = {"p2pnet": [1.0, 0.5, 2.0], "<b> & c": [1000.0, 1000.0, 1000.0]}
        root = self.parse(plot.bars("Title", "unit", values))
        self.assertEqual(3, len(root.findall("{*}rect")))

    def test_a_line_leaves_out_what_is_not_there(self) -> None:
        """And a series of nothing is no line."""
        series: dict[str, list[float | None]] = {"a": [1.0, None, 3.0], "b": [None, None, None]}
        for logarithmic in (True, False):
            document = plot.lines("Title", "unit", [1, 10, 100], series, logarithmic=logarithmic)
            root = self.parse(document)
            self.assertEqual(1, len(root.findall("{*}polyline")))
            self.assertEqual(2, len(root.findall("{*}circle")))

    def test_tables_are_drawn(self) -> None:
        """Those that there are."""
        tables: dict[str, list[Row]] = {
            "A forwarded connection": [
                {"tunnel": "p2pnet, direct", "MB/s": [2.0, 1.0, 3.0], "echo_p50_us": [9.0] * 3},
                {"tunnel": "skipped", "MB/s": None},
            ],
            "Uploads over a link": [
                {"link": f"100 Mbit/s, 40 ms, {loss} %", "tunnel": "p2pnet", "Mbit/s": [9.0] * 3}
                for loss in ("0", "0.1")
            ],
        }
        with tempfile.TemporaryDirectory() as directory:
            figures.draw(tables, Path(directory))
            found = {path.stem for path in Path(directory).iterdir()}
        self.assertEqual({"throughput", "latency", "loss-100-40"}, found)
