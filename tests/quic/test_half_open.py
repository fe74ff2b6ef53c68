"""Tests of p2pnet.quic.half_open."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.half_open import (
    LEAST,
    LIFE,
    MOST,
    PATIENCE,
    START,
    HalfOpen,
    HalfOpenTable,
)
from p2pnet.quic.sources import prefixes


class FakeEngine:
    """An engine of which only the newest packet counts."""

    newest_packet = 0


class FakeConnection:
    """A connection in handshake."""

    def __init__(self) -> None:
        self.engine = FakeEngine()


class HalfOpenTests(SynchronousTestCase):
    """How many handshakes may be half-open, and which make way."""

    def setUp(self) -> None:
        self.table = HalfOpenTable()

    def begin(self, host: str, now: float) -> Any:
        """Begin a handshake with a client."""
        connection: Any = FakeConnection()
        self.table.begin(HalfOpen(connection, prefixes((host, 1)), False, began_at=now))
        return connection

    def fill(self, now: float) -> None:
        """Fill the table."""
        while not self.table.is_full:
            self.begin("10.0.0.1", now)

    def test_the_capacity_is_what_the_processor_makes_in_the_horizon(self) -> None:
        """By the time that handshakes take lately; never less than LEAST, nor more than MOST."""
        self.assertEqual(START, self.table.capacity)
        for seconds, capacity in ((0.01, 200), (1.0, LEAST), (0.0, MOST)):
            for _ in range(100):
                self.table.measured(seconds)
            self.assertEqual(capacity, self.table.capacity)

    def test_one_long_handshake_is_no_load(self) -> None:
        """The machine may have been busy for a moment."""
        self.table.measured(0.1)
        self.assertGreater(self.table.capacity, START / 2)

    def test_handshakes_expire_in_the_order_of_their_beginning(self) -> None:
        """After LIFE, whatever came from the client meanwhile."""
        first, second = self.begin("10.0.0.1", 1.0), self.begin("10.0.0.2", 2.0)
        self.assertEqual(1.0 + LIFE, self.table.expires_at)
        self.assertEqual([first], self.table.expired(1.0 + LIFE))
        self.assertEqual([first, second], self.table.expired(2.0 + LIFE))

    def test_a_silent_handshake_makes_way_for_anybody(self) -> None:
        """After PATIENCE without a new packet; otherwise only one of a fuller source."""
        oldest = self.begin("10.0.0.1", 0.0)
        self.fill(0.5)
        mine, other = prefixes(("10.0.0.1", 1)), prefixes(("10.1.0.1", 1))
        self.assertIsNone(self.table.makes_way(mine, PATIENCE - 0.1))
        self.assertIs(oldest, self.table.makes_way(other, PATIENCE - 0.1))
        self.assertEqual(PATIENCE, self.table.has_room_at)
        oldest.engine.newest_packet = 1
        self.assertIsNone(self.table.makes_way(mine, PATIENCE))
        self.assertIsNot(oldest, self.table.makes_way(mine, PATIENCE + 0.5))
        self.assertIsNotNone(self.table.makes_way(mine, PATIENCE + 0.5))

    def test_a_connection_is_counted_off_once(self) -> None:
        """Any other is no matter."""
        connection = self.begin("10.0.0.1", 0.0)
        entry = self.table.end(connection)
        self.assertIs(connection, entry and entry.connection)
        self.assertIsNone(self.table.end(connection))
        self.assertEqual(0, len(self.table))
