"""BBR as aioquic's congestion controller: what it is told, and the window and rate it sets."""

import math
from collections.abc import Iterable
from typing import Any

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control

from p2pnet.quic.bbr.model import INITIAL_WINDOW, Ack, Memory, Model
from p2pnet.quic.bbr.phases import GAINS, PROBE_BW, STEADY, Phase, PhaseMachine
from p2pnet.quic.bbr.rate import RateSampler

MARGIN = 0.99  # of the bandwidth to send at, so that a queue of some rounding errors empties
SHORTEST_RTT = 0.001  # seconds; to derive a first rate from
RTT_SLACK = 0.999  # of an RTT that is as long as one, in spite of rounding
EXPECTED = 5e5  # bytes/s that a path is thought to carry, so that a long one starts with more
MAX_INITIAL_WINDOW = 20  # packets; the queue of a link of 20 kB/s takes long to empty already
UNCONDITIONAL = 2 * INITIAL_WINDOW  # packets delivered before the first rate counts for anything
NEARLY = 3  # packets of room in a window that counts as full


class Bbr(QuicCongestionControl):
    """The congestion controller `bbr` (draft-ietf-ccwg-bbr-03).

    aioquic tells of each packet; on_ack_done() and on_app_limited(), which it does not know, come
    from p2pnet.quic.recovery.

    :ivar pacing_rate: bytes/s; None before the first round trip was measured.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.pacing_rate: float | None = None
        self.sampler = RateSampler()
        self.model = Model(max_datagram_size)
        self.machine = PhaseMachine(self.model)
        self.max_datagram_size = max_datagram_size
        self._rtt: float | None = None
        self._cwnd_limited = False
        self._has_restarted = False
        self._saved_window = 0  # of before ProbeRTT

    # -- what aioquic tells ----------------------------------------------------------------------

    def on_packet_sent(self, *, packet: Any) -> None:
        """A packet leaves that counts as in flight."""
        if self.bytes_in_flight <= 0 and self.sampler.is_app_limited and self.model.pipe.ever:
            self._restart(packet.sent_time)
        self.sampler.sent(packet, self.bytes_in_flight)
        self.bytes_in_flight += packet.sent_bytes
        if self.bytes_in_flight + self.max_datagram_size > self.congestion_window:
            self._cwnd_limited = True

    def on_packet_acked(self, *, now: float, packet: Any) -> None:
        """A packet is acknowledged; more of the same ACK frame may follow."""
        self.bytes_in_flight -= packet.sent_bytes
        self.sampler.acked(packet, now)

    def on_packets_expired(self, *, packets: Iterable[Any]) -> None:
        """Packets are given up for another reason than loss: a probe timeout, a discarded key."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[Any]) -> None:
        """Packets are lost: after the acknowledged ones of an ACK frame, or by a timer alone."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            prior = self.sampler.lost_one(packet)
            if prior is not None:
                self.model.loss.lost_one(prior.delivered, packet.sent_bytes)
                lost = self.sampler.lost - prior.lost
                self.machine.lost(prior, lost, now, self.congestion_window, self.sampler.delivered)

    def on_persistent_congestion(self) -> None:
        """All was lost for several probe timeouts (RFC 9002 section 7.6).

        The window grows again with each acknowledgement. What is known of the path stands: outages
        end, and if it is another path now, loss and two cycles say so.
        """
        self.congestion_window = self.model.min_window

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """The round-trip time of the newest acknowledged packet, in seconds."""
        self._rtt = rtt
        if self.pacing_rate is None:
            most = MAX_INITIAL_WINDOW * self.max_datagram_size
            self.congestion_window = max(self.congestion_window, int(min(EXPECTED * rtt, most)))
            gain = GAINS[Phase.STARTUP].pacing
            self.pacing_rate = gain * self.congestion_window / max(rtt, SHORTEST_RTT)

    # -- what it does not ------------------------------------------------------------------------

    def on_ack_done(self, now: float) -> None:
        """All packets of an ACK frame and all losses that it showed were told."""
        rtt, self._rtt = self._rtt, None
        shortest = min(self.model.min_rtt.value, math.inf if rtt is None else rtt) * RTT_SLACK
        sample = self.sampler.sample(0.0 if math.isinf(shortest) else shortest)
        if sample is None:
            return
        model, machine = self.model, self.machine
        ack = Ack(
            now, rtt, sample, self.bytes_in_flight, self.congestion_window, self._cwnd_limited
        )
        model.update(ack, calm=machine.is_calm, delivered=self.sampler.delivered)
        if machine.phase in STEADY:
            model.adapt_to_loss(self.congestion_window)
        before = machine.phase
        machine.update(ack, self.sampler.delivered, restarted=self._has_restarted)
        self._has_restarted = False
        self._keep_window(before)
        model.end_loss_round(sample)
        self._set_pacing_rate()
        self._set_window(sample.acked)

    def on_app_limited(self) -> None:
        """Neither the window nor the pacer held us back: there was nothing more to send."""
        self.sampler.app_limited(max(self.bytes_in_flight, 0))

    def set_max_datagram_size(self, size: int) -> None:
        """Packets have up to `size` bytes from now on."""
        self.max_datagram_size = size
        self.model.set_max_datagram_size(size)
        self.congestion_window = max(self.congestion_window, self.model.min_window)

    def remember(self, now: float) -> Memory | None:
        """What to know when packets take this path again; None if there is too little."""
        return self.model.remember(now)

    def resume(self, memory: Memory, now: float) -> None:
        """Begin on a path that is known, as after a time without anything in flight.

        At the rate it had, but with one BDP for the first round: others may use it by now.
        """
        self.model.recall(memory, now)
        self.machine.resume(self.sampler.delivered)
        self.pacing_rate = max(memory.bandwidth * MARGIN, self.max_datagram_size)
        self.congestion_window = max(self.congestion_window, int(self.model.inflight(1.0)))

    def get_log_data(self) -> dict[str, Any]:
        """The fields that qlog records of the controller: window, phase, bandwidth in bytes/s."""
        return {
            **super().get_log_data(),
            "bbr-phase": self.machine.phase.name,
            "bbr-bandwidth": int(self.model.bandwidth),
        }

    # -- inside ----------------------------------------------------------------------------------

    def _restart(self, now: float) -> None:
        """The first packet after nothing was in flight (section 5.4 of the draft)."""
        self._has_restarted = True
        self.model.extra_acked.restart(now)
        before = self.machine.phase
        self.machine.end_probe_rtt(now, self.sampler.delivered)
        self._keep_window(before)
        if self.machine.phase in PROBE_BW:
            self.pacing_rate = max(self.model.bandwidth * MARGIN, self.max_datagram_size)

    def _keep_window(self, before: Phase) -> None:
        """ProbeRTT makes the window small, and it is as large as before afterwards."""
        after = self.machine.phase
        if after is Phase.PROBE_RTT:
            self.on_app_limited()  # or its low rate would be taken for the path's
            if before is not after:
                self._saved_window = self.congestion_window
        elif before is Phase.PROBE_RTT:
            self.congestion_window = max(self.congestion_window, self._saved_window)

    def _set_pacing_rate(self) -> None:
        rate = self.machine.gains.pacing * self.model.bandwidth * MARGIN
        if rate and (self.model.pipe.ever or rate > (self.pacing_rate or 0.0)):
            self.pacing_rate = max(rate, self.max_datagram_size)

    def _set_window(self, acked: int) -> None:
        model, machine = self.model, self.machine
        target = model.inflight(machine.gains.window) + model.extra_acked.value
        if machine.phase is Phase.UP:
            target += 2 * self.max_datagram_size  # or a window of few packets could not grow
        window = self.congestion_window
        if model.pipe.ever:
            window = min(window + acked, int(target))
        elif window < target or self.sampler.delivered < UNCONDITIONAL * self.max_datagram_size:
            window += acked
        window = max(window, model.min_window)
        self.congestion_window = int(min(window, machine.bound))
        if model.rounds.started:
            room = NEARLY * self.max_datagram_size
            self._cwnd_limited = self.bytes_in_flight + room >= self.congestion_window


register_congestion_control("bbr", Bbr)
