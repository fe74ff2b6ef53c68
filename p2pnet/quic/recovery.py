"""aioquic's loss recovery on paths that change, and with what BBR needs to know.

Made of aioquic's own object by adopt(), for nobody asks us for one.
"""

import math
from collections.abc import Hashable, Iterable
from typing import Any

from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.recovery import QuicPacketRecovery

from p2pnet.quic.bbr.controller import Bbr
from p2pnet.quic.bbr.model import Memory
from p2pnet.quic.bbr.pacer import Pacer
from p2pnet.quic.pacer import BurstPacer
from p2pnet.wire.packet_size import BASE

MAX_PATHS = 16  # that a connection remembers
MEMORY = 600.0  # seconds; as long as a session tries a path that was given up
GONE = 3  # losses of large packets in a row, such as three probe timeouts: they do not arrive


class LargePackets:
    """Whether packets of more than BASE bytes arrive (RFC 8899 section 4.3).

    What is lost by chance or in a full queue is soon followed by one that is not. In a black hole
    they all are, while acknowledgements and other small packets keep the path alive. A mistake
    costs little: the path is asked whether it carries them, and says so.
    """

    def __init__(self) -> None:
        self._losses = 0
        self._first = 0  # number of the first packet that counts

    def lost(self, packets: Iterable[Any]) -> None:
        """Packets were given up at once."""
        if any(p.sent_bytes > BASE and p.packet_number >= self._first for p in packets):
            self._losses += 1

    def acked(self, ack_rangeset: Any, sent_packets: dict[int, Any]) -> None:
        """These of the packets that were sent were acknowledged."""
        if self._losses and any(
            packet.sent_bytes > BASE and number in ack_rangeset
            for number, packet in sent_packets.items()
        ):
            self._losses = 0

    def are_gone(self, next_number: int) -> bool:
        """Whether none arrives any more; said once of what was sent before `next_number`."""
        if self._losses < GONE:
            return False
        self._losses, self._first = 0, next_number
        return True


class PathAwareRecovery(QuicPacketRecovery):
    """Recovery that takes no RTT sample from packets sent before the last change of path."""

    path_changed_at = -math.inf
    large: LargePackets

    def install(self) -> None:
        """Add the fields and the pacer that this class has beyond aioquic's recovery."""
        self.large = LargePackets()
        self._install_pacer()

    def _install_pacer(self) -> None:
        controller: Any = self._cc
        self._pacer: Any = BurstPacer(max_datagram_size=controller._max_datagram_size)

    def on_ack_received(
        self, *, ack_rangeset: Any, ack_delay: float, now: float, space: Any
    ) -> None:
        self.large.acked(ack_rangeset, space.sent_packets)
        packet = space.sent_packets.get(ack_rangeset.bounds().stop - 1)
        if packet is None or packet.sent_time > self.path_changed_at:
            super().on_ack_received(
                ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space
            )
            return
        before = {name: value for name, value in vars(self).items() if name.startswith("_rtt_")}
        self._cc.on_rtt_measurement = lambda **_: None  # type: ignore[method-assign]
        super().on_ack_received(
            ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space
        )
        vars(self).update(before)
        del self._cc.on_rtt_measurement
        if not self._rtt_initialized:
            self._pacer.packet_time = None

    def _detect_loss(self, *, now: float, space: Any) -> None:
        oldest = next(iter(space.sent_packets), math.inf)
        if oldest > space.largest_acked_packet:  # nothing was sent before: RFC 9002 section 6.1
            space.loss_time = None
        else:
            super()._detect_loss(now=now, space=space)

    def _on_packets_lost(self, *, packets: Iterable[Any], **options: Any) -> None:
        packets = tuple(packets)
        self.large.lost(packets)
        super()._on_packets_lost(packets=packets, **options)

    def on_row_sent(self, packets: list[Any], space: Any, now: float) -> None:
        """Packets of application data were sent, all of the full size and all ack-eliciting."""
        controller = self._cc
        for packet in packets:
            space.sent_packets[packet.packet_number] = packet
            controller.on_packet_sent(packet=packet)
        space.ack_eliciting_in_flight += len(packets)
        self._time_of_last_sent_ack_eliciting_packet = now
        self._pacer.update_after_row(len(packets))

    def set_max_datagram_size(self, size: int) -> None:
        """Packets have up to `size` bytes from now on. See Engine.set_max_datagram_size()."""
        self._resize_controller(size)
        self._install_pacer()
        if self._rtt_initialized:
            self._pacer.update_rate(
                congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed
            )

    def _resize_controller(self, size: int) -> None:
        controller: Any = self._cc
        controller._max_datagram_size = size
        if isinstance(controller, CubicCongestionControl):
            controller.additive_increase_factor = size
        # RFC 9002 section 7.2: the window never is less than two packets.
        controller.congestion_window = max(controller.congestion_window, 2 * size)

    def name_path(self, path: Hashable) -> None:
        """Say which path packets take."""

    def change_path(self, now: float, *, path: Hashable, lost: bool) -> None:
        """Start afresh on another path (RFC 9000 section 9.4). See Engine.path_changed()."""
        for space in self.spaces if lost else ():
            packets = [p for p in space.sent_packets.values() if p.is_ack_eliciting]
            self._on_packets_lost(congestion_event=False, now=now, packets=packets, space=space)
        self._replace_controller(now, path)
        self._rtt_initialized = False
        self._rtt_min = math.inf
        self._rtt_latest = self._rtt_smoothed = self._rtt_variance = 0.0
        self._pto_count = 0
        for space in self.spaces:
            space.loss_time = None
        self.path_changed_at = now
        self.large = LargePackets()

    def _replace_controller(self, now: float, path: Hashable) -> None:
        old: Any = self._cc
        size = old._max_datagram_size
        new: Any = type(old)(max_datagram_size=size)
        new.bytes_in_flight = old.bytes_in_flight
        new._congestion_recovery_start_time = now
        self._cc = new
        self._install_pacer()

    def on_app_limited(self) -> None:
        """There was nothing more to send. Cubic and Reno do not care."""


class BbrRecovery(PathAwareRecovery):
    """The same with BBR, which learns of the end of each ACK frame, and has its own pacer.

    It remembers paths by name, so that a session that comes back to one starts with what it knew.
    """

    _cc: Bbr
    _path: Hashable
    _known: dict[Hashable, Memory]

    def install(self) -> None:
        """Add the fields and the pacer that this class has beyond aioquic's recovery."""
        super().install()
        self._path = None
        self._known = {}

    def _install_pacer(self) -> None:
        controller = self._cc
        self._pacer = Pacer(
            lambda: controller.pacing_rate, max_datagram_size=controller.max_datagram_size
        )

    def on_ack_received(
        self, *, ack_rangeset: Any, ack_delay: float, now: float, space: Any
    ) -> None:
        super().on_ack_received(
            ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space
        )
        self._cc.on_ack_done(now)

    def _resize_controller(self, size: int) -> None:
        self._cc.set_max_datagram_size(size)

    def on_packet_sent(self, *, packet: Any, space: Any) -> None:
        super().on_packet_sent(packet=packet, space=space)
        if space.is_application_data:  # aioquic paces these alone
            self._pacer.refund(packet.sent_bytes)

    def on_app_limited(self) -> None:
        """There was nothing more to send, unless the window is what ended it."""
        if self._cc.congestion_window - self._cc.bytes_in_flight >= self._cc.max_datagram_size:
            self._cc.on_app_limited()

    def name_path(self, path: Hashable) -> None:
        """Say which path packets take, and always took."""
        self._path = path

    def _replace_controller(self, now: float, path: Hashable) -> None:
        memory = self._cc.remember(now)
        if memory is not None and self._path is not None:
            self._known.pop(self._path, None)  # so that the last is the newest
            self._known[self._path] = memory
            if len(self._known) > MAX_PATHS:
                del self._known[next(iter(self._known))]
        old, size = self._cc, self._cc.max_datagram_size
        self._cc = Bbr(max_datagram_size=size)
        self._cc.bytes_in_flight = old.bytes_in_flight
        self._path = path
        known = self._known.get(path)
        if known is not None and now - known.at <= MEMORY:
            self._cc.resume(known, now)
        self._install_pacer()


def adopt(recovery: QuicPacketRecovery) -> PathAwareRecovery:
    """Give aioquic's recovery, just made, the class for its congestion controller."""
    adopted: Any = recovery
    adopted.__class__ = BbrRecovery if isinstance(recovery._cc, Bbr) else PathAwareRecovery
    adopted.install()
    result: PathAwareRecovery = adopted
    return result
