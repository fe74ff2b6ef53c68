"""What the paths of a session ask for: values, which nobody changes on the way."""

import dataclasses
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal import path_events
from p2pnet.traversal.path_events import (
    AskRelay,
    PacketSizeChanged,
    PeerGone,
    Signal,
    WaysChanged,
)
from p2pnet.traversal.way import relayed_way
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.path_messages import CandidateUpdate

RELAY = ("192.0.2.1", 4433)


class EventTests(SynchronousTestCase):
    """Each event, made as `Paths` makes it."""

    def test_ways_carry_data_and_are_not_planned_unless_the_event_says_so(self) -> None:
        """As most changes are."""
        way = relayed_way(RELAY, bytes(8))
        self.assertEqual(
            WaysChanged((way,), True, planned=False, carry_data=True), WaysChanged((way,), True)
        )
        self.assertNotEqual(WaysChanged((), True), WaysChanged((), True, carry_data=False))

    def test_no_event_can_be_changed(self) -> None:
        """The node and a test may keep one."""
        events: list[Any] = [
            WaysChanged((), lost=False),
            PacketSizeChanged(1200),
            Signal(CandidateUpdate(())),
            AskRelay(RELAY),
            PeerGone(ErrorCode.SHUTDOWN, "stopped"),
        ]
        for event in events:
            name = dataclasses.fields(event)[0].name
            with self.assertRaises(dataclasses.FrozenInstanceError):
                setattr(event, name, None)

    def test_a_status_has_every_field_that_people_ask_for(self) -> None:
        """Of the policy, the ways, the relays and the direct way."""
        fields = [field.name for field in dataclasses.fields(path_events.PathsStatus)]
        asked = ["session", "policy", "using", "packet_size", "relays", "relay_rtt", "direct"]
        self.assertEqual(asked, fields)
