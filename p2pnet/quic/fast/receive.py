"""Taking 1-RTT packets with frames of the usual kinds."""

import math
from collections.abc import Hashable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnectionError, QuicConnectionState, QuicReceiveContext
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import FinalSizeError, QuicStream

from p2pnet.quic.engine import MAX_GAPS, Engine, peek_stream_id
from p2pnet.quic.fast import frames
from p2pnet.quic.fast.protect import SAMPLE, SAMPLE_AT, OneRtt, OtherKeys, PacketProtection
from p2pnet.quic.fast.ranges import add_last
from p2pnet.quic.fast.streams import Chunks, Streams
from p2pnet.quic.flow_control import STREAM_WINDOW
from p2pnet.quic.memory import check_gaps

ONE_RTT = tls.Epoch.ONE_RTT
CONNECTED = QuicConnectionState.CONNECTED
ACK_ALONE = 0.003  # seconds that the acknowledgement of one packet waits for something to go with
SMALL = 256  # bytes; a packet of more is part of a flow, whose sender waits for acknowledgements
MAX_WAITING = 8  # ACK frames in order that are processed together


class FastReceiver(Engine):
    """An Engine that takes usual packets by itself, and leaves the others to aioquic."""

    _streams: Streams

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._streams = Streams()
        self._gathering: dict[int, Chunks] = {}  # those among the events that may yet grow
        self._acks: list[tuple[frames.AckFrame, float]] = []  # taken, and when
        self._is_due = True  # whether datagrams_to_send() must follow what was received at once
        self._one_rtt: Any = None  # OneRtt, once usual packets may come
        self._idle: tuple[Any, float] = None, 0.0  # the idle timeout, and the RTT that it follows
        self._acked_at = 0.0  # when the last acknowledgement went out

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take a datagram from the network, at `now` seconds of the caller's clock."""
        if self._one_rtt is not None:
            if not self._receive(data, addr, now):
                self._leave()
                super().receive_datagram(data, addr, now)
            return
        self._is_due = True
        super().receive_datagram(data, addr, now)
        # Keys and spaces stay the same objects from here on; until then a Retry replaces them.
        if self._handshake_confirmed and not self._cryptos[tls.Epoch.ZERO_RTT].recv.is_valid():
            self._begin_usual()

    def _begin_usual(self) -> None:
        if self._quic_logger is None:
            space = self._spaces[ONE_RTT]
            before = super().newest_packet - space.largest_received_packet
            self._one_rtt = OneRtt(
                space, PacketProtection(self._cryptos[ONE_RTT]), self._crypto_streams[ONE_RTT],
                1 + len(self.host_cid), before,
            )  # fmt: skip
            self._idle = None, 0.0

    def _leave(self) -> None:
        """Finish with what came before, for what aioquic does stands behind it."""
        self._is_due = True
        self._gathering.clear()
        self._settle_acks()

    def _receive(self, data: bytes, addr: Any, now: float) -> bool:
        """Take a datagram if it is a usual one: on our path, with our id, under the same keys."""
        paths, one_rtt = self._network_paths, self._one_rtt
        path, space, at = paths[0], one_rtt.space, one_rtt.number_at
        if (
            len(data) < at + SAMPLE_AT + SAMPLE
            or data[0] & 0xC0 != 0x40
            or data[1:at] != self.host_cid
            or path.addr != addr
            or not path.is_validated
            or len(paths) > 1  # another one is being validated
            or self._state is not CONNECTED
            or self._close_pending
        ):
            return False
        try:
            opened = one_rtt.protection.open(data, at, space.expected_packet_number)
        except OtherKeys:
            return False
        if opened is not None:
            plain, number, spin = opened
            if number not in space.received_packets:
                self._opened(plain, number, spin, now)
        return True

    def _opened(self, plain: bytes, number: int, spin: bool, now: float) -> None:
        """Handle an authentic packet, and note that it came, in aioquic's order."""
        space = self._one_rtt.space
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if self._budget.idle:
            self._budget.begin_packet()
        if number > self._spin_highest_pn:
            self._spin_bit = spin != self._is_client
            self._spin_highest_pn = number
        try:
            elicits = self._take_frames(plain, now)
        except QuicConnectionError as error:
            self._logger.warning(error)
            self.close(
                error_code=error.error_code,
                frame_type=error.frame_type,
                reason_phrase=error.reason_phrase,
            )
        if self._state is not CONNECTED or self._close_pending:
            return
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        add_last(space.ack_queue, number)
        space.received_packets.add(number)
        if not elicits:
            self._is_due = True  # nothing will be sent that the ACK frame could wait for
        else:
            # RFC 9000 section 13.2: what comes singly is acknowledged with the answer to it, as are
            # small packets, which may be a question in parts; the second large one or one behind a
            # gap at once, but not each two of a burst. A mere PING has no other answer.
            if plain[:1] == frames.PING and not plain[1:].strip(b"\0"):
                space.ack_at = now
            elif space.ack_at is None:
                space.ack_at = now + ACK_ALONE
            elif len(plain) > SMALL or len(space.ack_queue) > 1:
                space.ack_at = min(space.ack_at, max(now, self._acked_at + self._ack_delay))

    def _idle_timeout(self) -> float:
        loss = self._loss
        rtt = loss._rtt_initialized, loss._rtt_smoothed, loss._rtt_variance
        known, timeout = self._idle
        if rtt != known or self._one_rtt is None:
            timeout = super()._idle_timeout()
            self._idle = rtt, timeout
        return timeout

    @property
    def newest_packet(self) -> int:
        """Grows with each authentic packet that is newer than all before; replays do not count."""
        one_rtt = self._one_rtt
        if one_rtt is None:
            return super().newest_packet
        newest: int = one_rtt.newest_before + one_rtt.space.largest_received_packet
        return newest

    # -- frames ----------------------------------------------------------------------------------

    def _take_frames(self, plain: bytes, now: float) -> bool:
        """Handle a packet's frames. Returns whether they elicit an acknowledgement.

        From the first one on that is not usual, or not right, they are aioquic's to judge.
        Raises QuicConnectionError.
        """
        at, size, elicits, acked = 0, len(plain), False, False
        while at < size:
            kind = plain[at]
            if kind & 0xF8 == frames.STREAM:
                end = self._take_stream(plain, at)
                elicits = elicits or end > 0
            elif kind == frames.DATAGRAM_WITH_LENGTH:
                end = self._take_datagram(plain, at)
                elicits = elicits or end > 0
            elif kind == frames.ACK:
                end = 0 if acked else self._take_ack(plain, at, now)
                acked = True
            elif kind == frames.PING[0]:
                end, elicits = at + 1, True
                self._budget.count(kind)
            elif kind == frames.PADDING:
                end = size - len(plain[at:].lstrip(b"\0"))
            else:
                end = 0
            if not end:
                return self._leave_frames(plain[at:], now) or elicits
            at = end
        return elicits if size else self._leave_frames(plain, now)

    def _leave_frames(self, plain: bytes, now: float) -> bool:
        self._leave()
        context = QuicReceiveContext(
            epoch=ONE_RTT,
            host_cid=self.host_cid,
            network_path=self._network_paths[0],
            quic_logger_frames=None,
            time=now,
            version=None,
        )
        return self._payload_received(context, plain)[0]

    def _take_datagram(self, plain: bytes, at: int) -> int:
        """Where the frame ends, 0 if it is aioquic's to judge."""
        found = frames.read_datagram(plain, at)
        limit = self._configuration.max_datagram_frame_size
        start, end = found or (0, 0)
        if start == end or limit is None or end - at > limit:
            return 0
        self._events.append(DatagramFrameReceived(data=plain[start:end]))
        return end

    def _take_stream(self, plain: bytes, at: int) -> int:
        """Where the frame ends, 0 if it is aioquic's to judge."""
        frame = frames.read_stream(plain, at)
        if frame is None:
            return 0
        stream_id, offset, start, end = frame
        stream = self._streams.get(stream_id) or self._next_stream(stream_id, plain[at])
        stop = offset + end - start
        if stream is None or stream_id & 2 or stop > stream.max_stream_data_local:
            return 0
        receiver, limit, kind = stream.receiver, self._local_max_data, plain[at]
        new = max(0, stop - receiver.highest_offset)
        if limit.used + new > limit.value:
            return 0
        if (
            offset == receiver.highest_offset == receiver._buffer_start
            and new
            and not receiver.is_finished
            and not kind & frames.STREAM_FIN
        ):
            receiver.highest_offset = receiver._buffer_start = stop
            self._gather(stream_id, plain[start:end])
        else:
            content = QuicStreamFrame(plain[start:end], bool(kind & frames.STREAM_FIN), offset)
            try:
                event = receiver.handle_frame(content)
            except FinalSizeError:
                return 0  # and nothing was changed
            if event is not None:
                self._gathering.pop(stream_id, None)  # what comes later stands behind this
                self._events.append(event)
            elif not new:
                self._budget.count(kind)
        if new and self._budget.idle:
            self._budget.pay()
        limit.used += new
        delivered = receiver.starting_offset()
        if receiver.highest_offset != delivered or receiver.is_finished or self._undelivered:
            self._received(stream)
            check_gaps(stream, MAX_GAPS, kind)
        # Whether the window is due depends on what is held of this, which is known by the next
        # packet.
        if delivered + STREAM_WINDOW * 3 // 4 >= stream.max_stream_data_local:
            self._streams.signaling[stream_id] = None
        return end

    def _next_stream(self, stream_id: int, kind: int) -> QuicStream | None:
        """The stream, if it is the next bidirectional one that the peer may open."""
        number, limit = stream_id // 4, self._local_max_streams_bidi
        if stream_id % 4 != int(self._is_client) or number != limit.used or number >= limit.value:
            return None
        stream: QuicStream = self._get_or_create_stream(kind, stream_id)
        return stream

    def _gather(self, stream_id: int, data: bytes) -> None:
        """Have bytes delivered, with those before them if nobody took these yet."""
        gathered = self._gathering.get(stream_id)
        if gathered is None:
            gathered = self._gathering[stream_id] = Chunks(stream_id)
            self._events.append(gathered)
        gathered.chunks.append(data)

    def next_event(self) -> QuicEvent | None:
        """What happened next, None if nothing did."""
        if not self._events:
            return None
        event: QuicEvent = self._events.popleft()
        if isinstance(event, Chunks):
            self._gathering.pop(event.stream_id, None)
            return StreamDataReceived(b"".join(event.chunks), False, event.stream_id)
        return event

    def _take_ack(self, plain: bytes, at: int, now: float) -> int:
        """Where the frame ends, 0 if it is aioquic's to judge."""
        frame = frames.read_ack(plain, at)
        if frame is None or not self._numbers.were_sent(frame.ranges, self._packet_number):
            return 0
        self._acks.append((frame, now))
        if not self._is_in_order(frame) or len(self._acks) > MAX_WAITING:
            self._is_due = True
        return frame.end

    def _is_in_order(self, frame: frames.AckFrame) -> bool:
        """Whether the frame acknowledges the oldest packet and all after it: none can be lost."""
        return next(iter(self._one_rtt.space.sent_packets), math.inf) >= frame.ranges[0].start

    def answer_at(self, now: float) -> float | None:
        """When to send for what was received. See Engine.answer_at()."""
        streams = self._streams
        if (
            self._is_due
            or streams.awake
            or streams.signaling
            or self._datagrams_pending
            or self._close_pending
            or self._events
        ):
            return now
        at: float | None = self._one_rtt.space.ack_at
        return at

    def _settle_acks(self) -> None:
        """Process the ACK frames that wait: after what came with them was delivered, and after a
        small answer was sent, because somebody waits for both. Before anything else."""
        if not self._acks:
            return
        acks, self._acks = self._acks, []
        if self._is_in_order(acks[-1][0]):
            del acks[:-1]  # it acknowledges what the others did
        for frame, now in acks:
            acked = RangeSet()
            for numbers in frame.ranges:
                acked.add(numbers.start, numbers.stop)
            self._loss.peer_completed_address_validation = True
            self._loss.on_ack_received(
                ack_rangeset=acked,
                ack_delay=(frame.delay << self._remote_ack_delay_exponent) / 1_000_000,
                now=now,
                space=self._one_rtt.space,
            )

    def get_timer(self) -> float | None:
        """When to call handle_timer(); at once if ACK frames that waited give something to do.

        As long as requests follow each other closely, their ACK frames are processed together: a
        probe timeout counts from the last packet sent, whatever was acknowledged before.
        """
        if len(self._acks) < MAX_WAITING:
            return super().get_timer()
        received_at = self._acks[-1][1]
        self._settle_acks()
        timer = super().get_timer()
        return received_at if self.answer_at(received_at) == received_at else timer

    def handle_timer(self, now: float) -> None:
        """Do what is due. See Engine.handle_timer()."""
        self._settle_acks()
        super().get_timer()  # aioquic would go by the loss detection time of before
        super().handle_timer(now)

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = False) -> None:
        """Forget what was learnt about the old path. See Engine.path_changed()."""
        self._settle_acks()
        super().path_changed(now, path=path, lost=lost)

    # -- what wakes a stream, apart from its own parts -------------------------------------------

    def consume(self, stream_id: int, size: int) -> bool:
        """Give credit for `size` held bytes. Returns whether a window is due to be announced."""
        due = super().consume(stream_id, size)
        if due:
            self._streams.signaling[stream_id] = None
        return due

    def _window_grew(self, stream_id: int) -> None:
        self._streams.signaling[stream_id] = None

    def _received(self, stream: QuicStream) -> None:
        super()._received(stream)
        stream_id = stream.stream_id or 0
        self._streams.signaling[stream_id] = None
        if stream.receiver.is_finished:
            self._streams.awake[stream_id] = None

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        if delivery is not QuicDeliveryState.ACKED:
            self._streams.signaling[stream.stream_id or 0] = None

    def _handle_max_data_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        super()._handle_max_data_frame(context, frame_type, buf)
        self._streams.wake_stalled()

    def _handle_max_stream_data_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        stream_id = peek_stream_id(buf)
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        self._streams.wake_if_stalled(stream_id)

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        self._streams.wake_stalled()
