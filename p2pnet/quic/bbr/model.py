"""What is known of the path: how fast, how far, and how much may be under way."""

import math
from typing import NamedTuple

from p2pnet.quic.bbr.filters import (
    AGGREGATION_ROUNDS,
    BestOfRound,
    ExtraAcked,
    FullPipe,
    MaxBandwidth,
    MinRtt,
    Rounds,
)
from p2pnet.quic.bbr.loss import LossMeter
from p2pnet.quic.bbr.pacer import send_quantum
from p2pnet.quic.bbr.rate import RateSample

INITIAL_WINDOW = 10  # packets (RFC 9002 section 7.2)
MIN_WINDOW = 4  # packets: enough to keep ACKs coming with delayed ones
BETA = 0.7  # a bound that proved too high falls to this share at most
HEADROOM = 0.15  # share of the long-term bound that is left to others
COLLAPSE = 0.5  # share of the bandwidth that is less than a competitor or chance explains
QUEUED = 1.5  # times the minimum RTT that is a queue
COLLAPSE_ROUNDS = 3
QUANTA = 3  # bursts that are under way besides the BDP: at the sender, the receiver and between


class Ack(NamedTuple):
    """An acknowledgement, all of its packets and losses counted.

    :ivar rtt: of its newest packet, in seconds; None if it brought none.
    :ivar in_flight: bytes that are still under way, `window`: that may be.
    :ivar cwnd_limited: whether the window is what held us back in this round.
    """

    now: float
    rtt: float | None
    sample: RateSample
    in_flight: int
    window: int
    cwnd_limited: bool


class Memory(NamedTuple):
    """What is remembered of a path while packets take another one."""

    bandwidth: float
    min_rtt: float
    min_rtt_at: float
    at: float


class Model:
    """The path model (draft-ietf-ccwg-bbr-03 section 5.5).

    Long-term bounds stand until a probe finds more: `inflight_hi`. Short-term ones, `bandwidth_lo`
    and `inflight_lo`, follow loss between two probes and end with the next.
    """

    def __init__(self, max_datagram_size: int, now: float = -math.inf) -> None:
        self.max_datagram_size = max_datagram_size
        self.max_bandwidth = MaxBandwidth()
        self.min_rtt = MinRtt(now)
        self.extra_acked = ExtraAcked()
        self.rounds = Rounds()
        self.loss = LossMeter(max_datagram_size)
        self.pipe = FullPipe()
        self.inflight_hi = math.inf
        self.bandwidth_lo = math.inf
        self.inflight_lo = math.inf
        self._loss_rounds = BestOfRound()
        self._slow_rounds = 0

    # -- sizes -----------------------------------------------------------------------------------

    def set_max_datagram_size(self, size: int) -> None:
        """Packets have up to `size` bytes from now on."""
        self.max_datagram_size = self.loss.max_datagram_size = size

    @property
    def bandwidth(self) -> float:
        """Bytes/s that the path is taken to deliver now."""
        return min(self.max_bandwidth.value, self.bandwidth_lo)

    @property
    def min_window(self) -> int:
        """Bytes that may always be in flight."""
        return MIN_WINDOW * self.max_datagram_size

    def bdp(self, bandwidth: float | None = None) -> float:
        """The bandwidth-delay product in bytes, at the present bandwidth unless given."""
        if math.isinf(self.min_rtt.value):
            return INITIAL_WINDOW * self.max_datagram_size
        return (self.bandwidth if bandwidth is None else bandwidth) * self.min_rtt.value

    def inflight(self, gain: float) -> float:
        """Bytes in flight for that many BDPs, and for what waits to be sent or acknowledged."""
        quanta = QUANTA * send_quantum(self.bandwidth, self.max_datagram_size)
        return max(gain * self.bdp() + quanta, self.min_window)

    @property
    def inflight_with_headroom(self) -> float:
        """The long-term bound, less what newcomers need to find room."""
        return max(self.inflight_hi * (1 - HEADROOM), self.min_window)

    # -- samples ---------------------------------------------------------------------------------

    def update(self, ack: Ack, *, calm: bool, delivered: int) -> None:
        """Take an acknowledgement.

        :param calm: nothing is being probed for.
        :param delivered: bytes since the connection began.
        """
        sample = ack.sample
        self.rounds.update(sample.prior.delivered, delivered)
        if self.rounds.started:
            self.loss.end_round(delivered, calm=calm)
            self.extra_acked.count_round(AGGREGATION_ROUNDS if self.pipe.ever else 1)
        self.max_bandwidth.update(sample)
        self._loss_rounds.take(sample, delivered)
        self.extra_acked.update(ack.now, sample.acked, self.bandwidth, ack.window)

    def adapt_to_loss(self, window: int) -> None:
        """Once a round, while nothing is probed for: lower the short-term bounds if it is due."""
        best = self._loss_rounds
        if best.started and self.loss.is_high:
            if math.isinf(self.bandwidth_lo):
                self.bandwidth_lo = self.max_bandwidth.value
            if math.isinf(self.inflight_lo):
                self.inflight_lo = window
            self.bandwidth_lo = max(best.rate, BETA * self.bandwidth_lo)
            self.inflight_lo = max(best.delivered, BETA * self.inflight_lo)

    def has_collapsed(self, ack: Ack) -> bool:
        """Whether the path delivers far less than it did, through a queue: a deviation.

        The draft believes the old bandwidth for two cycles, several seconds, and fills the buffer
        over and over for so long. Here a few rounds are enough to start from what there is now.
        """
        if self._loss_rounds.started:
            slow = (
                self._loss_rounds.rate < COLLAPSE * self.max_bandwidth.value
                and not ack.sample.app_limited
                and ack.rtt is not None
                and ack.rtt > QUEUED * self.min_rtt.value
            )
            self._slow_rounds = self._slow_rounds + 1 if slow else 0
        if self._slow_rounds < COLLAPSE_ROUNDS:
            return False
        self._slow_rounds = 0
        self.max_bandwidth.set(self._loss_rounds.rate)
        self.inflight_hi = math.inf
        self.forget_short_term()
        return True

    def end_loss_round(self, sample: RateSample) -> None:
        """Start the next round's largest rate with this sample, if a round began with it."""
        self._loss_rounds.end(sample)

    def forget_short_term(self) -> None:
        """Loss of before is no bound any more."""
        self.bandwidth_lo = self.inflight_lo = math.inf

    # -- between paths ---------------------------------------------------------------------------

    def remember(self, now: float) -> Memory | None:
        """What to start with when packets take this path again; None if it was never filled."""
        if not self.pipe.ever or not self.max_bandwidth.value or math.isinf(self.min_rtt.value):
            return None
        return Memory(self.max_bandwidth.value, self.min_rtt.value, self.min_rtt.at, now)

    def recall(self, memory: Memory, now: float) -> None:
        """Start with what was known of the path. A minimum RTT that is too old goes with the
        first sample."""
        self.max_bandwidth.set(memory.bandwidth)
        self.min_rtt.set(memory.min_rtt, memory.min_rtt_at, now)
        self.pipe.found()
