"""What a connection with BBR remembers of paths."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.bbr.phases import Phase
from p2pnet.quic.recovery import MAX_PATHS, MEMORY
from tests.quic.harness import Pair, client_settings, server_settings

RATE = 1e6  # bytes/s


class MemoryTests(SynchronousTestCase):
    """One end of a connection, told of paths."""

    def setUp(self) -> None:
        bbr = {"congestion": "bbr", "idle_timeout": 10 * MEMORY}
        self.pair = Pair(client=client_settings(**bbr), server=server_settings(**bbr))
        self.one, _ = self.pair.connect()
        engine: Any = self.one.engine
        self.recovery = engine._loss

    def fill(self) -> None:
        """Have the present path known as one of RATE."""
        model = self.recovery._cc.model
        model.max_bandwidth.set(RATE)
        model.min_rtt.update(self.pair.now, 0.02)
        model.pipe.found()

    def go(self, path: str | None) -> Any:
        """Take another path. Returns the controller on it."""
        self.one.path_changed(self.pair.now, path=path)
        return self.recovery._cc

    def test_a_known_path_starts_at_its_rate(self) -> None:
        """Filled for a round, then probed; the pacer knows at once."""
        self.one.name_path("home")
        self.fill()
        self.assertIsNone(self.go("away").pacing_rate)
        back = self.go("home")
        self.assertIs(Phase.REFILL, back.machine.phase)
        self.assertAlmostEqual(0.99, back.pacing_rate / RATE)
        self.assertEqual(0.02, back.model.min_rtt.value)
        self.assertGreaterEqual(back.congestion_window, RATE * 0.02)

    def test_a_path_that_was_never_filled_is_not_remembered(self) -> None:
        """Its rate is that of what there was to send."""
        self.one.name_path("home")
        self.go("away")
        self.assertIs(Phase.STARTUP, self.go("home").machine.phase)

    def test_what_was_known_of_it_stands_then(self) -> None:
        """A visit too short to learn from does not erase it."""
        self.one.name_path("home")
        self.fill()
        for path in ("away", "home", "away"):
            self.go(path)
        self.assertIs(Phase.REFILL, self.go("home").machine.phase)

    def test_a_path_without_a_name_is_new(self) -> None:
        """As of a control connection."""
        self.fill()
        self.go(None)
        self.assertIs(Phase.STARTUP, self.go(None).machine.phase)

    def test_what_is_old_is_not_used(self) -> None:
        """The network is another one by then."""
        self.one.name_path("home")
        self.fill()
        self.go("away")
        self.pair.now += MEMORY + 1
        self.assertIs(Phase.STARTUP, self.go("home").machine.phase)

    def test_the_newest_are_kept(self) -> None:
        """So many and no more."""
        self.one.name_path("0")
        for number in range(1, 3 * MAX_PATHS):
            self.fill()
            self.go(str(number))
            self.assertLessEqual(len(self.recovery._known), MAX_PATHS)
        self.assertIs(Phase.REFILL, self.go(str(3 * MAX_PATHS - 2)).machine.phase)
        self.assertIs(Phase.STARTUP, self.go("0").machine.phase)

    def test_other_controllers_start_afresh(self) -> None:
        """Whatever the name."""
        one, _ = Pair().connect()
        engine: Any = one.engine
        one.name_path("home")
        before = engine._loss._cc
        one.path_changed(1.0, path="away")
        one.path_changed(1.0, path="home")
        self.assertIs(type(before), type(engine._loss._cc))
        self.assertIsNot(before, engine._loss._cc)
