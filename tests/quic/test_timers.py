"""One heap of timers for all connections of a multiplexer."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import FAR, TOGETHER, ConnectionTimers


class FakeEngine:
    """An engine that has nothing but a timer."""

    def __init__(self, timer: float | None) -> None:
        self.timer = timer

    def get_timer(self) -> float | None:
        """When the engine is to be called."""
        return self.timer


class ConnectionTimersTests(SynchronousTestCase):
    """Connections come in the order of their timers, however these move."""

    def setUp(self) -> None:
        self.connections: dict[Connection, None] = {}
        self.timers = ConnectionTimers(self.connections)

    def add(self, timer: float | None) -> Connection:
        """A connection that has sent something, and wants to be called at that time."""
        engine: Any = FakeEngine(timer)
        connection = Connection(engine, touch=lambda _: None)
        self.connections[connection] = self.timers.unarmed[connection] = None
        return connection

    def move(self, connection: Connection, timer: float | None) -> None:
        """Have a connection send something, which gives it another timer."""
        connection.engine.timer = timer  # type: ignore[attr-defined]
        self.timers.unarmed[connection] = None
        self.timers.get_timer()

    def test_connections_are_due_in_the_order_of_their_timers(self) -> None:
        later, never, sooner = self.add(2.0), self.add(None), self.add(1.0)
        self.assertEqual(1.0, self.timers.get_timer())
        self.assertIsNone(self.timers.next_due(0.5))
        self.assertEqual([sooner, later], [self.timers.next_due(2.0) for _ in range(2)])
        self.assertIsNone(self.timers.next_due(9.0))
        self.assertEqual((None, None), (self.timers.get_timer(), never.timer))

    def test_a_due_connection_has_no_timer_until_it_has_sent(self) -> None:
        connection = self.add(1.0)
        self.assertIs(connection, self.timers.next_due(1.0))
        self.assertEqual((None, None), (connection.timer, self.timers.get_timer()))
        self.move(connection, 3.0)
        self.assertEqual(3.0, self.timers.get_timer())

    def test_a_timer_that_moves_later_adds_no_entry(self) -> None:
        connection = self.add(1.0)
        for step in range(100):
            self.move(connection, 1.0 + step / 100)
        self.assertEqual(1, len(self.timers))
        self.assertIsNone(self.timers.next_due(1.5))
        self.assertEqual(1.99, self.timers.get_timer())
        self.assertIs(connection, self.timers.next_due(1.99))

    def test_a_timer_that_moves_earlier_is_kept(self) -> None:
        connection = self.add(3.0)
        for timer in (2.0, 1.0, 2.5):
            self.move(connection, timer)
        self.assertEqual(1.0, self.timers.get_timer())
        self.assertIsNone(self.timers.next_due(2.4))
        self.assertIs(connection, self.timers.next_due(2.5))
        self.assertIsNone(self.timers.next_due(9.0))
        self.assertEqual((0, []), (len(self.timers), connection.check_ins))

    def test_far_timers_of_idle_connections_are_due_together(self) -> None:
        first, second = self.add(1.0), self.add(1.0)
        self.timers.get_timer()
        self.move(first, 1.6 + FAR)
        self.move(second, 1.7 + FAR)
        self.assertIsNone(self.timers.next_due(1.0))
        at = self.timers.get_timer()
        assert at is not None
        self.assertTrue(1.7 + FAR <= at <= 1.7 + FAR + TOGETHER)
        self.assertEqual({first, second}, {self.timers.next_due(at) for _ in range(2)})

    def test_a_connection_that_is_gone_is_never_due(self) -> None:
        gone, unarmed = self.add(1.0), self.add(2.0)
        self.timers.get_timer()
        self.timers.unarmed[unarmed] = None
        self.connections.clear()
        self.assertEqual((None, None), (self.timers.get_timer(), self.timers.next_due(9.0)))
        self.assertEqual((0, 1.0), (len(self.timers), gone.timer))
