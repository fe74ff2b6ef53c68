"""What is kept of the samples: the largest, the smallest, and counts of rounds."""

import math

from p2pnet.quic.bbr.rate import RateSample

MIN_RTT_WINDOW = 10.0  # seconds that a minimum RTT is believed
PROBE_RTT_INTERVAL = 5.0  # seconds without a new one after which it is to be looked for
FULL_GROWTH = 1.25  # by which the bandwidth grows in a round, as long as the pipe is not full
FULL_ROUNDS = 3  # without that growth: it is
AGGREGATION_ROUNDS = 10  # that excess acknowledgements are remembered


class Rounds:
    """Packet-timed round trips: one ends when a packet sent after its start is acknowledged.

    :ivar count: rounds so far.
    :ivar started: whether the last acknowledgement began one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.started = False
        self._next = 0  # bytes delivered

    def restart(self, delivered: int) -> None:
        """Begin a round at `delivered` bytes, the delivery count of the connection."""
        self._next = delivered

    def update(self, prior: int, delivered: int) -> None:
        """A packet is acknowledged: `prior` bytes were delivered when it was sent."""
        self.started = prior >= self._next
        if self.started:
            self._next = delivered
            self.count += 1


class BestOfRound(Rounds):
    """Rounds with the best sample of the present one.

    :ivar rate: the largest delivery rate in bytes/s, `delivered`: the most bytes of a sample.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0
        self.delivered = 0

    def take(self, sample: RateSample, delivered: int) -> None:
        """Count a sample in; `delivered` bytes arrived since the connection began."""
        self.rate = max(self.rate, sample.rate)
        self.delivered = max(self.delivered, sample.delivered)
        self.update(sample.prior.delivered, delivered)

    def end(self, sample: RateSample) -> None:
        """Begin the next round's best with this sample, if a round began with it."""
        if self.started:
            self.rate, self.delivered = sample.rate, sample.delivered


class MaxBandwidth:
    """The largest delivery rate of this ProbeBW cycle and the one before."""

    def __init__(self) -> None:
        self.value = 0.0
        self._cycles = [0.0, 0.0]

    def update(self, sample: RateSample) -> None:
        """Take a sample, unless it is low only because there was little to send."""
        if sample.rate and (sample.rate >= self.value or not sample.app_limited):
            self._cycles[0] = max(self._cycles[0], sample.rate)
            self.value = max(self._cycles)

    def set(self, rate: float) -> None:
        """Start with a rate that is known from before."""
        self._cycles = [rate, rate]
        self.value = rate

    def advance(self) -> None:
        """A cycle ends: forget the one before it. Without a sample it leaves no trace."""
        newest, before = self._cycles
        self._cycles = [0.0, newest or before]
        self.value = max(self._cycles)


class MinRtt:
    """The smallest round-trip time of MIN_RTT_WINDOW, and when to look for a smaller one."""

    def __init__(self, now: float = -math.inf) -> None:
        self.value = math.inf
        self.at = now
        self.probed_at = now
        self.is_due = False  # the path has not been seen empty for PROBE_RTT_INTERVAL
        self._probed = math.inf

    def update(self, now: float, rtt: float | None) -> None:
        """Take the sample of an acknowledgement, if it brought one."""
        self.is_due = now > self.probed_at + PROBE_RTT_INTERVAL
        if rtt is not None and (rtt < self._probed or self.is_due):
            self._probed, self.probed_at = rtt, now
        if self._probed < self.value or now > self.at + MIN_RTT_WINDOW:
            self.value, self.at = self._probed, self.probed_at

    def set(self, value: float, at: float, now: float) -> None:
        """Start with a value that was measured at `at`."""
        self.value, self.at, self.probed_at = value, at, now


class ExtraAcked:
    """How much more is acknowledged at once than the bandwidth explains: Wi-Fi, offloading.

    The flight must be larger by that, or the path runs dry between two bursts of ACKs
    (draft-ietf-ccwg-bbr-03 section 5.5.9).
    """

    def __init__(self) -> None:
        self._recent = [0.0, 0.0]
        self._rounds = 0
        self._since = -math.inf
        self._acked = 0.0

    @property
    def value(self) -> float:
        """Most bytes of late that were acknowledged beyond what the bandwidth explains."""
        return max(self._recent)

    def restart(self, now: float) -> None:
        """Begin a new interval of aggregation at `now`: nothing was in flight until then."""
        self._since, self._acked = now, 0.0

    def count_round(self, kept: int) -> None:
        """A round ended; what is older than `kept` to twice as many rounds is forgotten."""
        self._rounds += 1
        if self._rounds >= kept:
            self._recent = [0.0, self._recent[0]]
            self._rounds = 0

    def update(self, now: float, acked: int, bandwidth: float, window: int) -> None:
        """`acked` bytes were acknowledged; `window` bounds what can be excess."""
        expected = bandwidth * (now - self._since) if self._acked else 0.0
        if self._acked <= expected:
            self.restart(now)
            expected = 0.0
        self._acked += acked
        self._recent[0] = max(self._recent[0], min(self._acked - expected, window))


class FullPipe:
    """Whether sending faster brings more: three rounds in which it did not.

    :ivar now: that it is so since the last reset(); `ever`: that it once was.
    """

    def __init__(self) -> None:
        self.now = False
        self.ever = False
        self.best = 0.0
        self._rounds = 0

    def reset(self, rate: float = 0.0) -> None:
        """Look again, from this rate on."""
        self.now = False
        self.best = rate
        self._rounds = 0

    def found(self) -> None:
        """It is full, for a reason that is known elsewhere."""
        self.now = self.ever = True

    def update(self, rate: float, *, is_lossy: bool = False) -> None:
        """A round ended with this delivery rate, and there was enough to send.

        :param is_lossy: it lost much, so that it counts twice if nothing grew.
        """
        if self.now:
            return
        if rate >= self.best * FULL_GROWTH:
            self.reset(rate)
            return
        self._rounds += 2 if is_lossy else 1
        if self._rounds >= FULL_ROUNDS:
            self.found()
