"""Attacks of tests/hostile that run in process, and how near each comes to its bound.

A test asserts `measured <= bound`. The same test runs here, and both numbers are noted.
"""

import contextlib
import dataclasses
import importlib
import tempfile
import unittest
from collections.abc import Mapping
from typing import Any

from bench.report import Row, number
from p2pnet.core.intermediate.shares import MAX_OFFERS
from p2pnet.traversal.budget import MAX_PORTS, MAX_UNPROVEN
from tests.hostile.storm import HANDSHAKE
from tests.hostile.test_connectors import FIRST
from tests.hostile.test_storm import NODES, SHARE, SOON

UNBOUNDED = 60.0  # seconds that tests wait for what is no matter


@dataclasses.dataclass(frozen=True)
class Simulated:
    """An attack that a test makes.

    :ivar test: the name of the test, after "tests.hostile.".
    :ivar unit: of the numbers.
    :ivar bound: which of the test's bounds counts, None for the only one.
    """

    attack: str
    test: str
    unit: str
    bound: float | None = None

    def row(self) -> Row:
        """Run the test; returns the row of the table, with the number that is nearest its bound."""
        module, case, method = self.test.split(".")
        kind = getattr(importlib.import_module(f"tests.hostile.{module}"), case)
        recorded: Any = type(case, (Recorder, kind), {"pairs": []})(method)
        result = unittest.TestResult()
        with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
            recorded.run(result)
        pairs = [pair for pair in recorded.pairs if self.bound in (None, pair[1])]
        measured, bound = max(pairs, key=lambda pair: pair[0] / pair[1], default=(None, None))
        return {
            "attack": self.attack,
            "bound": "-" if bound is None else f"{number(bound)} {self.unit}",
            "measured": "-" if measured is None else number(measured),
            "holds": result.wasSuccessful() and measured is not None,
        }


class Recorder(unittest.TestCase):
    """A mixin that notes what a test measured, and the bound."""

    pairs: list[tuple[float, float]]

    def assertLessEqual(self, a: Any, b: Any, msg: Any = None) -> None:
        """Note both, and assert."""
        self.pairs.append((a, b))
        super().assertLessEqual(a, b, msg)

    def assertLess(self, a: Any, b: Any, msg: Any = None) -> None:
        """Note both, and assert."""
        self.pairs.append((a, b))
        super().assertLess(a, b, msg)

    def run_until(self, simulation: Any, done: Any, seconds: float = 60.0) -> None:
        """Note how long a test of simulated nodes waited, and how long it would."""
        clock = simulation.network.clock
        began = clock.seconds()
        super().run_until(simulation, done, seconds)  # type: ignore[misc]
        if seconds < UNBOUNDED:
            self.pairs.append((clock.seconds() - began, seconds))


SIMULATED: Mapping[str, Simulated] = {
    "spoofed": Simulated(
        "T1: control packets in the name of a victim",
        "test_addresses.SpoofTests.test_the_relay_sends_a_victim_three_times_what_was_spoofed",
        "bytes to the victim, 3 times what was spoofed",
    ),
    "victim": Simulated(
        "T2: offers that name a victim",
        "test_third_parties.AgentTests.test_regression_offers_without_end_do_not_flood_a_victim",
        "packets to the victim in 10 min", MAX_UNPROVEN,
    ),
    "ports": Simulated(
        "T2: offers that name ports of a victim",
        "test_third_parties.AgentTests.test_offers_do_not_find_open_ports",
        "ports of the victim", MAX_PORTS,
    ),
    "observed": Simulated(
        "T2: an Intermediate that reports a victim's address",
        "test_third_parties.IntermediateTests"
        ".test_regression_observed_addresses_do_not_flood_a_victim",
        "packets to the victim in 10 min", MAX_UNPROVEN,
    ),
    "shares": Simulated(
        "T3: one certificate takes all connections",
        "test_shares.ConnectionTests"
        ".test_regression_one_certificate_does_not_take_the_connections_of_all",
        "of 20 connections", 15,
    ),
    "held": Simulated(
        "T3: sessions of one agent that read nothing",
        "test_streams.MemoryTests.test_regression_several_sessions_hold_what_one_may",
        "bytes held for the agent",
    ),
    "storm": Simulated(
        "T5: 300 nodes behind one address come back",
        "test_storm.StormTests.test_regression_nodes_behind_one_address_are_back_soon",
        "s until all are back", SOON * NODES * HANDSHAKE / SHARE,
    ),
    "log": Simulated(
        "T6: a member opens and closes sessions",
        "test_texts.FloodTests.test_regression_messages_made_logs_of_twenty_times_their_size",
        "bytes of log in 2 min",
    ),
    "slow": Simulated(
        "T7: a flood through a slow Connector",
        "test_slow_victims.FloodTests"
        ".test_regression_a_slow_connector_is_not_cut_off_for_the_flood_of_an_agent",
        "offers unanswered", MAX_OFFERS,
    ),
    "forged": Simulated(
        "T8: offers that an Intermediate forges",
        "test_shares.IntermediateTests.test_regression_forged_offers_do_not_fill_a_connector",
        "s until another Intermediate's agents are served", 2.0,
    ),
    "blackhole": Simulated(
        "T9: a Connector that never shakes hands",
        "test_connectors.BlackHoleTests"
        ".test_regression_a_connector_that_never_shakes_hands_costs_one_second",
        "s until the stream is answered", FIRST,
    ),
    "requests": Simulated(
        "T10: 2400 requests in 6 s, of an agent that may not",
        "test_shares.RequestTests.test_regression_a_flood_of_requests_ends_at_the_intermediate",
        "requests at the Connector",
    ),
}  # fmt: skip
"""By the names of the command line."""
