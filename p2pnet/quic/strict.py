"""aioquic's connection with bounds for what an authenticated peer may send."""

from collections.abc import Callable
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, pull_ack_frame
from aioquic.quic.recovery import MAX_ACK_RANGES

from p2pnet.quic.frame_budget import FrameBudget
from p2pnet.quic.packet_numbers import PacketNumbers


class StrictConnection(QuicConnection):
    """A connection that closes when its peer acknowledges what was never sent, or wastes time.

    :param entropy: returns that many random bytes, for the packet numbers that are skipped.
    """

    def __init__(self, *, entropy: Callable[[int], bytes], **options: Any) -> None:
        super().__init__(**options)
        self._numbers = PacketNumbers(entropy)
        self._budget = FrameBudget()

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._budget.begin_packet()
        result: tuple[bool, bool] = super()._payload_received(context, plain, crypto_frame_required)
        return result

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        for _ in range(2):
            buf.pull_uint_var()
        is_usual = buf.pull_uint_var() < MAX_ACK_RANGES  # a receiver keeps no more of them
        buf.seek(start)
        if is_usual:
            try:
                acked = pull_ack_frame(buf)[0]
                is_usual = self._numbers.were_sent(acked, self._packet_number)
            except ValueError:
                pass  # a negative number: aioquic says so
            buf.seek(start)
        if not is_usual:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="acknowledgement of packets that were not sent, or in many pieces",
            )
        super()._handle_ack_frame(context, frame_type, buf)

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        events, used = len(self._events), self._local_max_data.used
        super()._handle_stream_frame(context, frame_type, buf)
        if len(self._events) > events or self._local_max_data.used > used:
            self._budget.pay()

    def _handle_datagram_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        super()._handle_datagram_frame(context, frame_type, buf)
        event: Any = self._events[-1]
        if event.data:
            self._budget.pay()
