"""The fast and the stock engine against each other: whatever happens, all four pairings agree.

One script of actions and mishaps is played to a connection of every two engines, on the same
seeds. What arrived, what is finished and what credit there is must be the same in the end, and
nothing may be left in flight.
"""

import itertools
from typing import Any

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events, flow_control
from p2pnet.quic.connection import Connection
from p2pnet.quic.fast import FastEngine
from p2pnet.quic.flow_control import CONNECTION_WINDOW, STREAM_WINDOW
from p2pnet.quic.profile import ENGINES
from tests.quic.harness import Pair, client_settings, server_settings

STREAMS = 5
CODE = 0x16

ends = st.integers(0, 1)
streams = st.integers(0, STREAMS - 1)
sizes = st.sampled_from([0, 1, 100, 1100, 5000, 70_000, 600_000])
actions = (
    st.tuples(st.just("write"), ends, streams, sizes)
    | st.tuples(st.just("write"), ends, streams, sizes)
    | st.tuples(st.just("end"), ends, streams)
    | st.tuples(st.just("reset"), ends, streams)
    | st.tuples(st.just("stop"), ends, streams)
    | st.tuples(st.just("datagram"), ends, st.integers(1, 1170))
    | st.tuples(st.just("ping"), ends)
    | st.tuples(st.just("consume"), ends, st.booleans())
    | st.tuples(st.just("update_keys"), ends)
    | st.tuples(st.just("path_changed"), ends, st.booleans())
    | st.tuples(st.just("change_id"), ends)
    | st.tuples(st.just("rebound"), st.integers(1, 3))
    | st.tuples(st.just("loss"), st.sampled_from([0.0, 0.02, 0.2]))
    | st.tuples(st.just("delay"), st.sampled_from([0.001, 0.03]))
    | st.tuples(st.just("jitter"), st.sampled_from([0.0, 0.0005, 0.02]))
    | st.tuples(st.just("copies"), st.sampled_from([0.0, 0.1]))
    | st.tuples(st.just("run"), st.sampled_from([0.0, 0.002, 0.1, 1.0]))
)
scripts = st.lists(actions, max_size=25)
lossy = [("loss", 0.2)] + [("write", 0, 0, 5000), ("run", 0.0)] * 12
stalled = [
    ("consume", 1, False),
    *[("write", 0, n, 600_000) for n in range(3)],
    ("run", 1.0),
    ("write", 0, 3, 5000),
    ("run", 0.1),
    ("consume", 1, True),
    ("run", 0.1),
]
ahead = [
    ("delay", 0.03),
    *[("write", 0, 0, 600_000), ("run", 1.0)] * 2,
    *[("write", 0, 0, 600_000), ("write", 0, 0, 600_000)],
    *[("run", 0.0)] * 8,
]


def sleepers(fast: Any) -> list[int]:
    """Streams that have something to do which the engine does not know of; there must be none."""
    streams = fast._streams
    credit = fast._remote_max_data - fast._remote_max_data_used
    found = []
    for stream_id, stream in streams.items():
        receiver, sender = stream.receiver, stream.sender
        window = fast._stream_window_end(stream) - stream.max_stream_data_local
        if stream.is_finished and stream_id not in streams.awake:
            found.append(stream_id)
        has_window = not receiver.is_finished and (
            window >= STREAM_WINDOW // 4
            or stream.max_stream_data_local != stream.max_stream_data_local_sent
        )
        has_signal = receiver.stop_pending or sender.reset_pending or has_window
        if has_signal and stream_id not in streams.signaling:
            found.append(stream_id)
        has_bytes = len(sender._pending) or sender._pending_eof
        if sender.buffer_is_empty or not has_bytes or stream_id in streams.awake:
            continue
        allowed = min(sender.highest_offset + credit, stream.max_stream_data_remote)
        has_credit = not stream.is_blocked and sender.next_offset < allowed
        if has_credit or stream_id not in streams.stalled:
            found.append(stream_id)
    return found


class Play:
    """A script played to a connection of two engines."""

    def __init__(self, engines: tuple[str, str], script: list[Any], seed: int) -> None:
        patient = {"idle_timeout": 120.0}  # a script can pause a reader for long
        self.pair = Pair(
            client=client_settings(engine=engines[0], **patient),
            server=server_settings(engine=engines[1], **patient),
            seed=seed,
        )
        self.ends: tuple[Connection, Connection] = self.pair.connect()
        self.written = {(end, 4 * n): bytearray() for end in (0, 1) for n in range(STREAMS)}
        self.ended: set[tuple[int, int]] = set()
        self.given_up: set[int] = set()
        self.datagrams: list[list[bytes]] = [[], []]
        self.pings = [0, 0]
        self._paused_at = [0, 0]
        self._updated = False
        for n in range(STREAMS):  # the server has to know them before it can write
            self.write(0, n, 1)
        self.pair.run_until_quiet()
        for name, *arguments in script:
            if hasattr(self.pair, name) and name != "run":
                setattr(self.pair, name, *arguments)
            else:
                getattr(self, name)(*arguments)
            for _ in range(20):
                self.pair.run(0.001)
                for end in self.ends:
                    if isinstance(end.engine, FastEngine):
                        assert sleepers(end.engine) == []
        self.finish()

    def write(self, end: int, n: int, size: int) -> None:
        """Bytes that are different everywhere, unless the stream is over."""
        if (end, 4 * n) not in self.ended and n not in self.given_up:
            written = self.written[end, 4 * n]
            data = b"".join(
                i.to_bytes(4, "big") for i in range(len(written), len(written) + size, 4)
            )
            written += data[:size]
            self.ends[end].send(4 * n, data[:size])

    def end(self, end: int, n: int) -> None:
        """The end of the stream in this direction."""
        if n not in self.given_up and (end, 4 * n) not in self.ended:
            self.ended.add((end, 4 * n))
            self.ends[end].send(4 * n, b"", end=True)

    def reset(self, end: int, n: int) -> None:
        """Both directions."""
        self.given_up.add(n)
        self.ends[end].reset(4 * n, CODE)

    def stop(self, end: int, n: int) -> None:
        """What the other end sends."""
        self.given_up.add(n)
        self.ends[end].stop(4 * n, CODE)

    def datagram(self, end: int, size: int) -> None:
        """One that is different from all before."""
        number = len(self.datagrams[end]).to_bytes(2, "big")
        if self.ends[end].send_datagram(number + bytes(max(0, size - 2))):
            self.datagrams[end].append(number + bytes(max(0, size - 2)))

    def ping(self, end: int) -> None:
        """To be answered once."""
        self.pings[end] += 1
        self.ends[end].ping()

    def consume(self, end: int, resume: bool) -> None:
        """Pause or resume the reader."""
        endpoint = self.pair.endpoints[end]
        if resume and not endpoint.consumes:
            for _, event in endpoint.events[self._paused_at[end] :]:
                if isinstance(event, events.StreamDataReceived):
                    self.ends[end].consume(event.stream_id, len(event.data))
        elif not resume and endpoint.consumes:
            self._paused_at[end] = len(endpoint.events)
        endpoint.consumes = resume

    def update_keys(self, end: int) -> None:
        """Once; another one before the first is acknowledged is against RFC 9001 section 6.1.

        Not while the server still sends to where the client was: aioquic keeps no old keys, so that
        each end would wait for a packet that the other one does not send any more.
        """
        if not self._updated:
            self._updated = True
            self.pair.run_until_quiet(20.0)
            for _ in range(8):
                if self.ends[1].engine.get_peer_address() == self.pair.client.address:
                    break
                self.ping(0)  # the one of rebound() was lost too often
                self.pair.run_until_quiet(20.0)
            self.ends[end].engine.request_key_update()
            self.ends[end].ping()
            self.pings[end] += 1

    def path_changed(self, end: int, lost: bool) -> None:
        """Of what this end sends."""
        self.ends[end].path_changed(self.pair.now, lost=lost)

    def change_id(self, end: int) -> None:
        """Use another of the peer's connection ids."""
        self.ends[end].engine.change_connection_id()
        self.ping(end)

    def rebound(self, number: int) -> None:
        """The client gets another port from its NAT."""
        self.pair.run_until_quiet(20.0)
        self.pair.client.address = (self.pair.client.address[0], 50_000 + number)
        self.ping(0)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.pair.run(seconds)

    def finish(self) -> None:
        """Let all arrive."""
        self.pair.loss = self.pair.jitter = 0.0
        for end in (0, 1):
            self.consume(end, True)
        for _ in range(8):
            # A server must not lose a client that only listens, and an acknowledgement may be lost.
            self.ping(0)
            self.ping(1)
            self.pair.run_until_quiet(20.0)

    def outcome(self) -> dict[str, Any]:
        """What has to be the same whichever engines there are."""
        untouched = [4 * n for n in range(STREAMS) if n not in self.given_up]
        arrived = {
            (end, stream): self.pair.endpoints[1 - end].received(self.ends[1 - end], stream)
            for end in (0, 1)
            for stream in untouched
        }
        return {
            "arrived": arrived,
            "limits": [end.engine._local_max_streams_bidi.value for end in self.ends],
            "streams": [sorted(end.engine._streams) for end in self.ends],
            "answers": [
                len(endpoint.happened(events.PingAnswered)) for endpoint in self.pair.endpoints
            ],
            "phases": [
                end.engine._cryptos[list(end.engine._cryptos)[-1]].key_phase for end in self.ends
            ],
        }


class EnginesTests(SynchronousTestCase):
    """Four pairings of two engines."""

    def setUp(self) -> None:
        # So that the connection can stall, too.
        self.patch(flow_control, "MAX_HELD", 3 * STREAM_WINDOW)

    @given(scripts, st.integers(0, 2**16))
    @example(lossy, 1)
    @example(lossy, 2)
    @example(stalled, 1)
    @example([("end", 0, 0), ("end", 1, 0)], 1)
    @example(ahead, 1)
    @hypothesis_settings(max_examples=40)
    def test_all_pairings_come_to_the_same(self, script: list[Any], seed: int) -> None:
        """And each of them to what was done."""
        plays = [
            Play((client, server), script, seed)
            for client, server in itertools.product(ENGINES, repeat=2)
        ]
        for play in plays:
            self.check_bytes(play)
            for one, other in (play.ends, play.ends[::-1]):
                self.check_state(one.engine, other.engine)
        first, *others = [play.outcome() for play in plays]
        for outcome in others:
            self.assertEqual(first, outcome)

    def check_bytes(self, play: Play) -> None:
        """What arrived is what was sent."""
        for end, endpoint in enumerate(play.pair.endpoints):
            self.assertEqual([], endpoint.happened(events.ConnectionClosed))
            self.assertEqual(play.pings[end], len(endpoint.happened(events.PingAnswered)))
            arrived = [event.data for event in endpoint.happened(events.DatagramReceived)]
            self.assertEqual(len(arrived), len(set(arrived)), "a datagram came twice")
            self.assertLessEqual(set(arrived), set(play.datagrams[1 - end]))
            for stream in range(0, 4 * STREAMS, 4):
                received = endpoint.received(play.ends[end], stream)
                written = bytes(play.written[1 - end, stream])
                if stream // 4 in play.given_up:
                    self.assertTrue(written.startswith(received))
                    continue
                self.assertTrue(received == written, (len(received), len(written)))
                ends = [
                    event.end
                    for event in endpoint.happened(events.StreamDataReceived)
                    if event.stream_id == stream
                ]
                self.assertEqual((1 - end, stream) in play.ended, any(ends))

    def check_state(self, one: Any, other: Any) -> None:
        """Nothing is left in flight, and the two agree on the credit."""
        space = one._loss.spaces[-1]
        self.assertEqual((0, 0), (one.bytes_in_flight, space.ack_eliciting_in_flight))
        left = [packet for packet in space.sent_packets.values() if packet.in_flight]
        self.assertEqual([], left)
        self.assertLess(len(space.sent_packets), 100)
        self.assertEqual(one._remote_max_data_used, other._local_max_data.used)
        self.assertEqual(one._remote_max_data, other._local_max_data.sent)
        self.assertEqual((0, {}), (other._held_total, other._held))
        due = other._connection_window_end() - other._local_max_data.value
        self.assertLess(due, CONNECTION_WINDOW // 4)
        self.assertEqual(sum(other._undelivered_of.values()), other._undelivered)
        self.assertEqual(0, other._undelivered)
        for stream_id, stream in one._streams.items():
            receiving = other._streams.get(stream_id)
            if receiving is not None and not receiving.receiver.is_finished:
                limit = receiving.max_stream_data_local_sent
                self.assertEqual(limit, stream.max_stream_data_remote)
                self.assertFalse(other._stream_limit_due(receiving))
            self.assertTrue(stream.sender.buffer_is_empty or not len(stream.sender._pending))
        if isinstance(one, FastEngine):
            streams = one._streams
            self.assertFalse(streams.awake or streams.signaling or streams.stalled)
