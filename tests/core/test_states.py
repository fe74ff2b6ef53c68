"""Tests of the state machines of streams and control connections: the tables say everything."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer import link, stream
from p2pnet.core.peer.link import LinkState
from p2pnet.core.peer.stream import Stream, StreamState
from p2pnet.wire.stream import StreamKind
from tests.core.support import make_agent


class TransitionTests(SynchronousTestCase):
    """Every state has its line, and nothing else happens."""

    def check(
        self, transitions: Mapping[Any, set[Any]], states: type[enum.Enum], last: enum.Enum
    ) -> None:
        """The table is total, stays within the states, and only the last one has no way out."""
        self.assertEqual(set(states), set(transitions))
        for state, following in transitions.items():
            self.assertLessEqual(following, set(states))
            self.assertNotIn(state, following)
            self.assertEqual(state is last, not following)

    def try_all(
        self,
        transitions: Mapping[Any, set[Any]],
        make: Callable[[], Any],
        advance: Callable[[Any, Any], None],
    ) -> None:
        """Each pair of states is tried; what is not in the table is a bug and stops there."""
        for state, following in transitions.items():
            for target in transitions:
                machine = make()
                machine.state = state
                if target in following:
                    advance(machine, target)
                    self.assertIs(target, machine.state)
                else:
                    self.assertRaises(AssertionError, advance, machine, target)
                    self.assertIs(state, machine.state)

    def test_a_stream_goes_where_its_table_says(self) -> None:
        """And nowhere from CLOSED."""
        self.check(stream.TRANSITIONS, StreamState, StreamState.CLOSED)
        self.try_all(
            stream.TRANSITIONS,
            lambda: Stream("web", StreamKind.BYTES, 0.0, lambda event: None),
            Stream.advance,
        )

    def test_a_control_connection_goes_where_its_table_says(self) -> None:
        """And nowhere from STOPPED."""
        self.check(link.TRANSITIONS, LinkState, LinkState.STOPPED)
        core = make_agent([])
        self.try_all(
            link.TRANSITIONS,
            lambda: link.ControlLink(
                "192.0.2.1:4433", core, core.timers, instance=bytes(8), random=lambda: 0.5
            ),
            link.ControlLink._advance,
        )
