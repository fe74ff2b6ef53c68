"""When the engine of each connection is to be called."""

import heapq
import itertools
import math
from collections.abc import Container

from p2pnet.quic.connection import Connection

FAR = 4.0  # seconds; a timer that far away may fire a little late
TOGETHER = 0.25  # seconds; far timers of idle connections fire together, at multiples of this


class ConnectionTimers:
    """The timers of all connections, in one heap.

    A timer that moves later leaves its entry in the heap, so that the heap does not grow with every
    packet that moves an idle or loss timer: the entry that comes up too early is replaced then.
    `Connection.check_ins` has the times of a connection's entries, the earliest last.

    :param connections: the connections that exist; entries of others are dropped.
    :ivar unarmed: connections that sent something since their engine was asked for its timer.
    """

    def __init__(self, connections: Container[Connection]) -> None:
        self.unarmed: dict[Connection, None] = {}
        self._connections = connections
        self._heap: list[tuple[float, int, Connection]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def get_timer(self) -> float | None:
        """The earliest time at which next_due() may give a connection (s), None without any."""
        unarmed, self.unarmed = self.unarmed, {}
        for connection in unarmed:  # only now: the datagrams have left, nobody waits
            if connection in self._connections:
                timer = connection.timer = connection.engine.get_timer()
                if timer is not None:
                    self.check_in(connection, timer)
        while self._heap:
            deadline, _, connection = self._heap[0]
            if connection in self._connections:
                return deadline
            heapq.heappop(self._heap)
        return None

    def next_due(self, now: float) -> Connection | None:
        """The next connection whose timer is `now` or earlier, None without any.

        The connection has no timer after this, until it is in `unarmed` again.
        """
        while (deadline := self.get_timer()) is not None and deadline <= now:
            connection = heapq.heappop(self._heap)[2]
            connection.check_ins.pop()
            timer = connection.timer
            if timer is None:
                continue
            if timer <= now:
                connection.timer = None
                return connection
            if timer - now > FAR:
                timer = math.ceil(timer / TOGETHER) * TOGETHER
            self.check_in(connection, timer)
        return None

    def check_in(self, connection: Connection, at: float) -> None:
        """Have next_due() examine the connection at the time `at`, or earlier."""
        check_ins = connection.check_ins
        if not check_ins or at < check_ins[-1]:
            check_ins.append(at)
            heapq.heappush(self._heap, (at, next(self._count), connection))
