"""The phases of BBR and what leads from one to the next (draft-ietf-ccwg-bbr-03 section 5.3)."""

import enum
import math
from typing import NamedTuple

from p2pnet.quic.bbr.model import BETA, Ack, Model
from p2pnet.quic.bbr.rate import Snapshot

STARTUP_LOSSES = 6  # packets lost in a round of Startup before that can end it
PROBE_WAIT = 2.0  # seconds between two probes for bandwidth, and up to one more
MAX_PROBE_ROUNDS = 63  # between them: as often as a Reno flow of that window would fill the pipe
MIN_CYCLE = 0.2  # seconds; rounds in a LAN are over before a busy process gets to run again
CALM_ROUNDS = 3  # of a cycle, after which what the last probe lost is accounted for
PROBE_RTT_SECONDS = 0.2  # with little in flight
MAX_UP_ROUNDS = 30  # that the growth of a probe doubles


class Phase(enum.Enum):
    """The phases of the draft, ProbeBW in its four parts."""

    STARTUP = enum.auto()  # double the rate each round until the path delivers no more
    DRAIN = enum.auto()  # drain the queue that Startup built
    DOWN = enum.auto()  # ProbeBW: send less than the path delivers
    CRUISE = enum.auto()  # ProbeBW: send as much as the path delivers
    REFILL = enum.auto()  # ProbeBW: fill the pipe without a queue
    UP = enum.auto()  # ProbeBW: send more than the path delivered
    PROBE_RTT = enum.auto()  # keep the path nearly empty to measure its minimum RTT


class Gains(NamedTuple):
    """Shares of the bandwidth to send at, and of the BDP to have in flight."""

    pacing: float
    window: float


GAINS = {
    Phase.STARTUP: Gains(2.773, 2.0),
    Phase.DRAIN: Gains(0.5, 2.0),
    Phase.DOWN: Gains(0.9, 2.0),
    Phase.CRUISE: Gains(1.0, 2.0),
    Phase.REFILL: Gains(1.0, 2.0),
    Phase.UP: Gains(1.25, 2.25),
    Phase.PROBE_RTT: Gains(1.0, 0.5),
}

TRANSITIONS = {
    Phase.STARTUP: {Phase.DRAIN, Phase.REFILL},  # the latter on a path that is known
    Phase.DRAIN: {Phase.DOWN, Phase.PROBE_RTT},
    Phase.DOWN: {Phase.CRUISE, Phase.REFILL, Phase.PROBE_RTT, Phase.DRAIN},
    Phase.CRUISE: {Phase.REFILL, Phase.PROBE_RTT, Phase.DRAIN},
    Phase.REFILL: {Phase.UP, Phase.PROBE_RTT, Phase.DRAIN},
    Phase.UP: {Phase.DOWN, Phase.PROBE_RTT, Phase.DRAIN},
    Phase.PROBE_RTT: {Phase.DOWN},
}

PROBE_BW = {Phase.DOWN, Phase.CRUISE, Phase.REFILL, Phase.UP}
STEADY = {Phase.DOWN, Phase.CRUISE, Phase.PROBE_RTT}
"""In these loss lowers the short-term bounds. Others look for more, or drain what that left."""


class PhaseMachine:
    """Decides on the phase after each acknowledgement, and moves the model's long-term bound.

    :ivar phase: the present one.
    :ivar blames_probe: whether loss now is the doing of a probe's flight.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.phase = Phase.STARTUP
        self.blames_probe = False
        self._is_stopping = False  # samples of the last probe still come
        self._cycle_at = 0.0
        self._wait = PROBE_WAIT
        self._rounds = 0  # in this cycle
        self._up_rounds = 0
        self._up_acked = 0
        self._up_step = math.inf  # bytes to be acknowledged for one packet more
        self._rtt_done_at = math.inf
        self._has_seen_round = False

    @property
    def gains(self) -> Gains:
        """Gains of the present phase: factors of the bandwidth and of the BDP."""
        return GAINS[self.phase]

    @property
    def is_calm(self) -> bool:
        """Whether what is lost now is not of our doing."""
        return self.phase is Phase.CRUISE and self._rounds > CALM_ROUNDS

    @property
    def bound(self) -> float:
        """Bytes that may be in flight at most."""
        model = self.model
        bound = model.inflight_lo
        if self.phase in (Phase.CRUISE, Phase.PROBE_RTT):
            bound = min(bound, model.inflight_with_headroom)
        elif self.phase in PROBE_BW:
            bound = min(bound, model.inflight_hi)
        if self.phase is Phase.PROBE_RTT:
            bound = min(bound, self.gains.window * model.bdp())
        return max(bound, model.min_window)

    def advance(self, phase: Phase) -> None:
        """Go to `phase`, which must be one of TRANSITIONS from here."""
        assert phase in TRANSITIONS[self.phase], (self.phase, phase)
        self.phase = phase

    def update(self, ack: Ack, delivered: int, *, restarted: bool) -> None:
        """Take an acknowledgement that the model knows already.

        :param delivered: bytes since the connection began.
        :param restarted: it is the first one after a time without anything in flight.
        """
        model = self.model
        if model.rounds.started:
            self._check_full(ack)
        if self.phase is Phase.STARTUP and model.pipe.ever:
            self.advance(Phase.DRAIN)
        if self.phase is Phase.DRAIN and ack.in_flight <= model.inflight(1.0):
            self._down(ack.now, delivered)
        if self.phase in PROBE_BW:
            if model.has_collapsed(ack):
                self.advance(Phase.DRAIN)
            else:
                self._probe_bandwidth(ack, delivered)
        model.min_rtt.update(ack.now, ack.rtt)
        if (
            model.min_rtt.is_due
            and not restarted
            and self.phase not in (Phase.STARTUP, Phase.PROBE_RTT)
        ):
            self.advance(Phase.PROBE_RTT)
            self._rtt_done_at = math.inf
        if self.phase is Phase.PROBE_RTT:
            self._probe_rtt(ack, delivered)

    def _check_full(self, ack: Ack) -> None:
        # The draft leaves Startup for loss alone. Here the bandwidth has to stop growing, too,
        # though not for as many rounds; or a path that always loses would never be filled.
        loss = self.model.loss
        is_lossy = self.phase is Phase.STARTUP and loss.is_high and loss.events >= STARTUP_LOSSES
        if is_lossy or not ack.sample.app_limited:
            self.model.pipe.update(ack.sample.rate, is_lossy=is_lossy)

    # -- ProbeBW ---------------------------------------------------------------------------------

    def _down(self, now: float, delivered: int) -> None:
        """Begin a cycle."""
        self.advance(Phase.DOWN)
        self._up_step = math.inf
        self._is_stopping = True
        self._cycle_at = now
        # Flows that share a queue should not probe in step. What each delivered differs.
        chance = delivered * 0x9E3779B1 % 2**32 / 2**32
        self._wait = PROBE_WAIT + chance
        self._rounds = int(chance < 0.5)
        self.model.pipe.found()
        self.model.rounds.restart(delivered)
        self.model.loss.restart(delivered)

    def resume(self, delivered: int) -> None:
        """Begin on a path that is known: fill it, then look whether it has more than it had."""
        self._refill(delivered)

    def _refill(self, delivered: int) -> None:
        self.advance(Phase.REFILL)
        self.model.forget_short_term()
        self._is_stopping = False
        self._up_rounds = self._up_acked = 0
        self.model.rounds.restart(delivered)

    def _up(self, ack: Ack, delivered: int) -> None:
        self.advance(Phase.UP)
        self.blames_probe = True
        self.model.pipe.reset(ack.sample.rate)
        self.model.rounds.restart(delivered)
        self._steepen(ack.window)

    def _probe_bandwidth(self, ack: Ack, delivered: int) -> None:
        model = self.model
        if model.rounds.started:
            self._rounds += 1
            if self._is_stopping:
                self._is_stopping = self.blames_probe = False
                if not ack.sample.app_limited:
                    model.max_bandwidth.advance()
        self._raise_inflight_hi(ack)
        if self.phase in (Phase.DOWN, Phase.CRUISE) and self._is_time_to_probe(ack.now):
            self._refill(delivered)
        elif self.phase is Phase.DOWN:
            if ack.in_flight <= min(model.inflight_with_headroom, model.inflight(1.0)):
                self.advance(Phase.CRUISE)
        elif self.phase is Phase.REFILL:
            if model.rounds.started:
                self._up(ack, delivered)
        elif self.phase is Phase.UP:
            if ack.cwnd_limited and ack.window >= model.inflight_hi:
                model.pipe.reset(ack.sample.rate)  # the bound is what held us back, not the path
            elif model.pipe.now:
                self._down(ack.now, delivered)

    def _is_time_to_probe(self, now: float) -> bool:
        waited = now - self._cycle_at
        rounds = min(self.model.bdp() / self.model.max_datagram_size, MAX_PROBE_ROUNDS)
        return waited > self._wait or (waited > MIN_CYCLE and self._rounds >= rounds)

    def _raise_inflight_hi(self, ack: Ack) -> None:
        """The flight of a probe proved well: allow more, by twice as much each round."""
        model = self.model
        if math.isinf(model.inflight_hi) or self._is_too_high(ack.sample.prior, ack.sample.lost):
            return
        model.inflight_hi = max(model.inflight_hi, ack.sample.prior.in_flight)
        if self.phase is Phase.UP:
            if ack.cwnd_limited and ack.window >= model.inflight_hi:
                self._up_acked += ack.sample.acked
                packets, self._up_acked = divmod(self._up_acked, int(self._up_step))
                model.inflight_hi += packets * model.max_datagram_size
            if model.rounds.started:
                self._steepen(ack.window)

    def _steepen(self, window: int) -> None:
        self._up_step = max(window >> self._up_rounds, self.model.max_datagram_size)
        self._up_rounds = min(self._up_rounds + 1, MAX_UP_ROUNDS)

    def _is_too_high(self, prior: Snapshot, lost: int) -> bool:
        return lost > prior.in_flight * self.model.loss.threshold(prior.in_flight)

    def lost(self, prior: Snapshot, lost: int, now: float, window: int, delivered: int) -> None:
        """A packet is lost, and `lost` bytes are since it was sent: it may have been too much."""
        if not self.blames_probe or not self._is_too_high(prior, lost):
            return
        self.blames_probe = False
        if not prior.app_limited:
            floor = BETA * min(self.model.bdp(), window)
            self.model.inflight_hi = max(float(prior.in_flight), floor)
        if self.phase is Phase.UP:
            self._down(now, delivered)

    # -- ProbeRTT --------------------------------------------------------------------------------

    def _probe_rtt(self, ack: Ack, delivered: int) -> None:
        if math.isinf(self._rtt_done_at):
            if ack.in_flight <= self.bound:
                self._rtt_done_at = ack.now + PROBE_RTT_SECONDS
                self._has_seen_round = False
                self.model.rounds.restart(delivered)
        else:
            self._has_seen_round |= self.model.rounds.started
            if self._has_seen_round:
                self.end_probe_rtt(ack.now, delivered)

    def end_probe_rtt(self, now: float, delivered: int) -> None:
        """Leave ProbeRTT if it lasted long enough."""
        if self.phase is Phase.PROBE_RTT and now > self._rtt_done_at:
            self.model.min_rtt.probed_at = now
            self.model.forget_short_term()
            self._down(now, delivered)
            self.advance(Phase.CRUISE)
