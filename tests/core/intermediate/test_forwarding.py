"""Tests of p2pnet.core.intermediate.forwarding: a channel's quota, what is forwarded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.intermediate.forwarding import (
    BURST_SECONDS,
    LEAST_BURST,
    Channel,
    Circuit,
    Forwarder,
    Traffic,
)
from p2pnet.wire.address import Address
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, encode_relay_frame

AGENT = ("203.0.113.1", 50001)
CONNECTOR = ("198.51.100.1", 50002)
UPWARD, DOWNWARD = bytes(range(8)), bytes(range(8, 16))
FRAMES = st.lists(
    st.tuples(st.floats(min_value=0, max_value=5), st.integers(min_value=10, max_value=1500)),
    max_size=60,
)


def channel(rate: int, now: float = 0.0) -> Channel:
    """From the agent to the connector."""
    return Channel(AGENT, CONNECTOR, rate, now)


class ChannelTests(SynchronousTestCase):
    """A token bucket."""

    @given(st.integers(min_value=1, max_value=100_000), FRAMES)
    def test_no_interval_sees_more_than_the_rate_and_one_burst(
        self, rate: int, frames: list[tuple[float, int]]
    ) -> None:
        """From any frame to any later one, both included; and the counts are right."""
        tested, now = channel(rate), 0.0
        admitted: list[tuple[float, int]] = []
        for pause, size in frames:
            now += pause
            if tested.admit(size, now):
                admitted.append((now, size))
        for first, (start, _) in enumerate(admitted):
            total = 0
            for time, size in admitted[first:]:
                total += size
                burst = max(rate * BURST_SECONDS, LEAST_BURST)
                self.assertLessEqual(total, rate * (time - start) + burst + 1e-3)
        self.assertEqual(len(admitted), tested.frames)
        self.assertEqual(sum(size for _, size in admitted), tested.bytes)

    @given(st.integers(min_value=6000, max_value=100_000), FRAMES)
    def test_who_keeps_to_the_rate_loses_nothing(
        self, rate: int, frames: list[tuple[float, int]]
    ) -> None:
        """Each frame is sent when the one before has been paid for."""
        tested, now = channel(rate), 0.0
        for pause, size in frames:
            self.assertTrue(tested.admit(size, now))
            now += pause + (size + 1e-6) / rate

    @given(FRAMES)
    def test_without_a_rate_everything_is_forwarded(self, frames: list[tuple[float, int]]) -> None:
        """And counted."""
        tested = channel(0)
        self.assertTrue(all(tested.admit(size, 0.0) for _, size in frames))
        self.assertEqual(len(frames), tested.frames)

    def test_a_dropped_frame_costs_nothing(self) -> None:
        """The credit that it would have needed is there for a smaller one."""
        tested = channel(1000)
        sizes = (LEAST_BURST + 1, LEAST_BURST)
        self.assertEqual([False, True], [tested.admit(size, 0.0) for size in sizes])
        self.assertFalse(tested.admit(1, 0.0))
        self.assertTrue(tested.admit(100, 0.1))

    def test_regression_a_low_rate_lets_whole_frames_through(self) -> None:
        """A burst of less than one frame would let nothing pass for ever."""
        tested = channel(100)
        self.assertTrue(tested.admit(1209, 0.0))

    def test_the_last_use_is_known_also_of_what_was_dropped(self) -> None:
        """A drain waits for a session that is trying to send."""
        tested = channel(1)
        tested.admit(1000, 7.0)
        self.assertEqual(7.0, tested.used_at)


class ForwarderTests(SynchronousTestCase):
    """Frames find the other end, or nobody."""

    def setUp(self) -> None:
        """One circuit."""
        self.forwarder = Forwarder()
        self.circuit = Circuit(UPWARD, DOWNWARD, AGENT, CONNECTOR, 0, 0.0)
        self.forwarder.open(self.circuit)
        self.frame = encode_relay_frame(UPWARD, b"payload")

    def test_a_frame_goes_from_either_end_to_the_other(self) -> None:
        """Each by its own channel, and both are counted."""
        answer = encode_relay_frame(DOWNWARD, b"answer")
        self.assertEqual(CONNECTOR, self.forwarder.forward(self.frame, AGENT, 1.0))
        self.assertEqual(AGENT, self.forwarder.forward(answer, CONNECTOR, 2.0))
        self.assertEqual(Traffic(2, len(self.frame + answer), 0), self.circuit.traffic)
        self.assertEqual(2.0, self.circuit.used_at)

    def test_an_end_that_moves_takes_its_channels_along(self) -> None:
        """Frames come from its new address only, and go to it."""
        moved = ("203.0.113.9", 50009)
        self.circuit.move(moved, CONNECTOR)
        answer = encode_relay_frame(DOWNWARD, b"answer")
        self.assertEqual(CONNECTOR, self.forwarder.forward(self.frame, moved, 0.0))
        self.assertEqual(moved, self.forwarder.forward(answer, CONNECTOR, 0.0))
        self.assertIsNone(self.forwarder.forward(self.frame, AGENT, 0.0))

    def test_everything_else_is_dropped_and_counted(self) -> None:
        """Another source, the wrong direction, no such channel, another version, too short."""
        frame = self.frame
        wrong = [
            (frame, ("203.0.113.1", 50009)),
            (frame, CONNECTOR),
            (encode_relay_frame(bytes(8), b"payload"), AGENT),
            (b"\x21" + frame[1:], AGENT),
            (frame[:8], AGENT),
            (frame[:1], AGENT),
        ]
        for datagram, source in wrong:
            self.assertIsNone(self.forwarder.forward(datagram, source, 0.0))
        self.assertEqual(len(wrong), self.forwarder.dropped)

    def test_a_removed_circuit_is_no_circuit(self) -> None:
        """Removing it twice is harmless."""
        self.assertIs(self.circuit, self.forwarder.remove(UPWARD))
        self.assertIsNone(self.forwarder.remove(UPWARD))
        self.assertIsNone(self.forwarder.forward(self.frame, AGENT, 0.0))
        self.assertEqual(0, len(self.forwarder))

    def test_traffic_is_taken_once(self) -> None:
        """What one process took, another one adds to its own."""
        self.forwarder.forward(self.frame, AGENT, 0.0)
        taken = self.circuit.take_traffic()
        self.assertEqual(Traffic(), self.circuit.take_traffic())
        self.circuit.count(taken, 5.0)
        self.assertEqual(taken, self.circuit.traffic)
        self.assertEqual(5.0, self.circuit.used_at)

    def test_frames_over_the_quota_are_dropped_and_counted(self) -> None:
        """With those of the other direction, which has a quota of its own."""
        limited = Circuit(UPWARD, DOWNWARD, AGENT, CONNECTOR, 1, 0.0)
        self.forwarder.open(limited)
        frame = encode_relay_frame(UPWARD, bytes(LEAST_BURST - RELAY_OVERHEAD))
        targets = [self.forwarder.forward(frame, AGENT, 0.0) for _ in range(3)]
        self.assertEqual([CONNECTOR, None, None], targets)
        self.assertEqual(Traffic(1, LEAST_BURST, 2), limited.traffic)


CHANNELS = st.sampled_from([UPWARD] * 30 + [DOWNWARD, bytes(8)])


class JoinedTests(SynchronousTestCase):
    """Several frames at once, as the kernel joins them."""

    def make(self, rate: int) -> tuple[Forwarder, Circuit]:
        """A forwarder with one circuit."""
        forwarder, circuit = Forwarder(), Circuit(UPWARD, DOWNWARD, AGENT, CONNECTOR, rate, 0.0)
        forwarder.open(circuit)
        return forwarder, circuit

    @given(
        st.integers(1, 60), st.integers(2, 64), st.integers(1, 60), CHANNELS, st.integers(0, 63),
        st.sampled_from([AGENT, CONNECTOR]), st.integers(0, 1200), st.sampled_from([0, 1]),
    )  # fmt: skip
    def test_they_are_forwarded_as_each_would_be_or_not_at_all(
        self, size: int, count: int, last: int, other: bytes, place: int, source: Address,
        used: int, rate: int,
    ) -> None:  # fmt: skip
        """Whatever is in one of them, however long the last one is, whatever is left of the quota:
        the same is counted, or nothing, and then each is looked at by itself."""
        size += RELAY_OVERHEAD
        frames = [encode_relay_frame(UPWARD, bytes(size - RELAY_OVERHEAD))] * count
        frames[place % count] = encode_relay_frame(other, bytes(size - RELAY_OVERHEAD))
        frames[-1] = frames[-1][: min(last, size)]
        one_by_one, joined = self.make(rate), self.make(rate)
        for _, circuit in (one_by_one, joined):
            for _ in range(used):
                circuit.channels[0].admit(16, 0.0)
        before = joined[1].traffic
        target = joined[0].forward_joined(b"".join(frames), size, source, 0.0)
        if target is None:
            self.assertEqual((before, 0), (joined[1].traffic, joined[0].dropped))
        else:
            each = {one_by_one[0].forward(frame, source, 0.0) for frame in frames}
            self.assertEqual({target}, each)
            self.assertEqual(one_by_one[1].traffic, joined[1].traffic)

    def test_frames_of_one_channel_are_forwarded(self) -> None:
        """As many as there are, with a shorter one at the end."""
        forwarder, circuit = self.make(0)
        frames = encode_relay_frame(UPWARD, bytes(91)) * 63 + encode_relay_frame(UPWARD, b"end")
        self.assertEqual(CONNECTOR, forwarder.forward_joined(frames, 100, AGENT, 0.0))
        self.assertEqual(Traffic(64, len(frames), 0), circuit.traffic)
