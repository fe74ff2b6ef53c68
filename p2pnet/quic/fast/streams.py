"""The streams of a connection, which say themselves when there is something to do for them."""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from aioquic.quic.events import QuicEvent
from aioquic.quic.packet import QuicErrorCode, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from p2pnet.quic.fast.ranges import ranges_of

ACKED = QuicDeliveryState.ACKED


class WatchedSender(QuicStreamSender):
    """The sending part of a stream; wakes it when there are bytes to send, or when it finished.

    :ivar wake: notes that there are bytes, or the end of all.
    :ivar signal: notes that there is a frame about the stream itself.
    """

    wake: Callable[[], None]
    signal: Callable[[], None]

    def write(self, data: bytes, end_stream: bool = False) -> None:
        """Take bytes to be sent. Raises RuntimeError after the end or a reset."""
        if self.buffer_is_empty and data and not end_stream and self._is_writable:
            start = self._buffer_stop
            self._buffer += data
            self._buffer_stop = stop = start + len(data)
            self._waiting.append(range(start, stop))
            self.buffer_is_empty = False
        else:
            super().write(data, end_stream)
        self.wake()

    def reset(self, error_code: int) -> None:
        """Stop sending and signal a RESET_STREAM frame with the code (RFC 9000 section 3.1)."""
        super().reset(error_code)
        self.signal()

    @property
    def _is_writable(self) -> bool:
        """Whether there was neither an end nor a reset."""
        return self._buffer_fin is None and self._reset_error_code is None

    @property
    def _waiting(self) -> list[range]:
        """Offsets of the bytes that wait to be sent: the list itself, to be changed."""
        return ranges_of(self._pending)

    @property
    def new_bytes(self) -> range:
        """Offsets of the bytes that wait to be sent, if they all wait for the first time."""
        ranges = self._waiting
        if (
            len(ranges) == 1
            and ranges[0].start == self.highest_offset
            and self._reset_error_code is None
        ):
            return ranges[0]
        return range(0)

    def took(self, stop: int) -> None:
        """New bytes up to `stop` were sent, and there are more."""
        ranges = self._waiting
        ranges[0] = range(stop, ranges[0].stop)
        self.highest_offset = stop

    def _take(self, waiting: range, stop: int) -> bool:
        """The only range that waits is sent up to `stop`. Returns whether that is the end."""
        fin = stop == self._buffer_fin
        if fin:
            self._pending_eof = False
        if stop < waiting.stop:
            self._waiting[0] = range(stop, waiting.stop)
        else:
            self._waiting.clear()
            self.buffer_is_empty = not self._pending_eof
        self.highest_offset = max(self.highest_offset, stop)
        return fin

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        """The next bytes to send, at most `max_size` and up to `max_offset`, None without any."""
        ranges = self._waiting
        if len(ranges) == 1 and max_offset is not None and self._reset_error_code is None:
            waiting = ranges[0]
            start = waiting.start
            stop = min(start + max_size, max_offset, waiting.stop)
            if start < stop:
                fin = self._take(waiting, stop)
                at = start - self._buffer_start
                return QuicStreamFrame(bytes(self._buffer[at : at + stop - start]), fin, start)
        frame = super().get_frame(max_size, max_offset)
        if not ranges and not self._pending_eof:  # aioquic says so when it is asked for one more
            self.buffer_is_empty = True
        return frame

    def on_data_delivery(
        self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool
    ) -> None:
        """Forget what was acknowledged, or send again what was lost."""
        if (
            start == self._buffer_start
            and delivery is ACKED
            and self._buffer_fin is None
            and self._reset_error_code is None
            and not len(self._acked)
        ):  # in order and not at the end: nothing to keep book of
            del self._buffer[: stop - start]
            self._buffer_start = stop
            return
        super().on_data_delivery(delivery, start, stop, fin)
        if delivery is not ACKED or self.is_finished:
            self.wake()

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        """The reset was acknowledged or lost."""
        super().on_reset_delivery(delivery)
        self.wake() if self.is_finished else self.signal()


class WatchedReceiver(QuicStreamReceiver):
    """The receiving part of a stream; signals that it is to stop.

    What comes in is watched by FastReceiver, which has it in hand.
    """

    signal: Callable[[], None]

    def stop(self, error_code: int = QuicErrorCode.NO_ERROR) -> None:
        """Ask the peer to stop."""
        super().stop(error_code)
        self.signal()

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        """The request to stop was acknowledged or lost."""
        super().on_stop_sending_delivery(delivery)
        if self.stop_pending:
            self.signal()


class Chunks(QuicEvent):
    """Bytes of a stream that came in order, in a row of packets: one event for all of them."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.chunks: list[bytes] = []


class Streams(dict[int, QuicStream]):
    """Streams by id, as aioquic keeps them, so that each is watched from its beginning.

    :ivar awake: ids of those that may have bytes to send or may be finished, in the order in which
        they are served. One that is not in here has nothing, and is never looked at.
    :ivar signaling: ids of those that may have a window, a reset or a request to stop to send.
    :ivar stalled: ids of those that have bytes, and no credit of the peer's to send them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.awake: collections.OrderedDict[int, None] = collections.OrderedDict()
        self.signaling: dict[int, None] = {}
        self.stalled: set[int] = set()

    def __setitem__(self, stream_id: int, stream: QuicStream) -> None:
        super().__setitem__(stream_id, stream)
        sender: Any = stream.sender
        receiver: Any = stream.receiver
        sender.__class__, receiver.__class__ = WatchedSender, WatchedReceiver
        sender.wake = functools.partial(self.awake.__setitem__, stream_id, None)
        signal = functools.partial(self.signaling.__setitem__, stream_id, None)
        sender.signal = receiver.signal = signal

    def wake_stalled(self) -> None:
        """There may be credit for those that had none."""
        for stream_id in self.stalled:
            self.awake[stream_id] = None
        self.stalled.clear()

    def wake_if_stalled(self, stream_id: int) -> None:
        """There may be credit for this one."""
        if stream_id in self.stalled:
            self.stalled.discard(stream_id)
            self.awake[stream_id] = None

    @contextlib.contextmanager
    def only(self, stream_id: int) -> Iterator[None]:
        """Let no other stream be awake or signaling meanwhile."""
        others = [
            (ids, [each for each in ids if each != stream_id])
            for ids in (self.awake, self.signaling)
        ]
        for ids, waiting in others:
            for each in waiting:
                del ids[each]
        try:
            yield
        finally:
            for ids, waiting in others:
                ids.update(dict.fromkeys(waiting))

    def drop(self, stream: QuicStream) -> None:
        """The stream is over in both directions."""
        stream_id = stream.stream_id or 0
        del self[stream_id]
        self.awake.pop(stream_id, None)
        self.signaling.pop(stream_id, None)
        self.stalled.discard(stream_id)
