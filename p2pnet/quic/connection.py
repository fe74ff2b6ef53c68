"""One QUIC connection as the layers above see it."""

from collections.abc import Callable, Hashable
from typing import Any

from aioquic.quic import events as quic_events

from p2pnet.identity import Identity
from p2pnet.quic import events
from p2pnet.quic.engine import Engine
from p2pnet.quic.flow_control import SharedCredit
from p2pnet.wire.text import printable

HIGH_WATER = 256 * 1024  # unsent bytes of a stream at which its producer should pause
LOW_WATER = 64 * 1024  # and at which it may go on
MAX_QUEUED_DATAGRAMS = 256  # DATAGRAM frames waiting; newer ones are dropped, as UDP would
NO_ERROR = 0


class Connection:
    """A QUIC connection: streams with backpressure both ways, datagrams, and who the peer is.

    A Multiplexer makes connections and delivers their events. No call raises because of the peer:
    data for a stream that is gone is dropped, and an event reported that end before.

    :ivar owner: belongs to the layer above, which finds there the user of the connection.
    :ivar was_news: whether the last datagram was authentic, and newer than all before.
    """

    def __init__(self, engine: Engine, *, touch: Callable[["Connection"], None]) -> None:
        self.engine = engine
        self.owner: Any = None
        self.connection_ids: set[bytes] = set()
        self.was_news = True
        self.timer: float | None = None  # when the engine wants to be called
        self.check_ins: list[float] = []  # see ConnectionTimers
        self._touch = touch
        self._blocked: set[int] = set()
        self._stopped: set[int] = set()
        self._established = False
        self._closed = False

    @property
    def peer(self) -> Identity | None:
        """Who the peer is, None until the handshake proved it."""
        return self.engine.peer if self._established else None

    @property
    def peer_address(self) -> Any:
        """The address that packets go to: a PeerAddress, or the address that the peer proved."""
        return self.engine.get_peer_address()

    @property
    def is_open(self) -> bool:
        """Whether nothing closed the connection yet."""
        return self.engine.closing is None

    @property
    def is_established(self) -> bool:
        """Whether the handshake completed and nothing closed the connection since."""
        return self._established and self.is_open

    @property
    def is_answered(self) -> bool:
        """Whether the server of this client sent anything, if only a Retry."""
        return self.engine.is_answered

    @property
    def smoothed_rtt(self) -> float | None:
        """Round-trip time in seconds (RFC 9002 section 5.3), None before the first sample."""
        return self.engine.smoothed_rtt

    @property
    def is_answer_due(self) -> bool:
        """Whether the peer owes an acknowledgement: something that elicits one is in flight."""
        return self.engine.bytes_in_flight > 0

    @property
    def datagram_limit(self) -> int:
        """Largest payload in bytes that send_datagram() takes now."""
        return self.engine.datagram_limit

    def open_stream(self) -> int:
        """The id of a new bidirectional stream; it exists for the peer with its first bytes."""
        return int(self.engine.get_next_available_stream_id())

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> bool:
        """Queue bytes, and the end of the stream with them.

        False asks the caller to wait for StreamWritable before it sends more.
        """
        if not self.is_open:
            return True
        try:
            self.engine.send_stream_data(stream_id, data, end)
        except (RuntimeError, ValueError):
            return True  # reset or finished meanwhile
        self._touch(self)
        if self.engine.unsent(stream_id) <= HIGH_WATER:
            return True
        self._blocked.add(stream_id)
        return False

    def watch(self, stream_id: int) -> None:
        """Ask for StreamWritable as soon as little of the stream is unsent."""
        self._blocked.add(stream_id)
        self._touch(self)

    def reset(self, stream_id: int, code: int) -> None:
        """Give the stream up in both directions, with an application error code."""
        if not self.is_open:
            return
        self.engine.forget(stream_id)
        self._blocked.discard(stream_id)
        try:
            self.engine.reset_stream(stream_id, code)
        except ValueError:
            pass  # a stream of the peer's that we never heard of
        self.stop(stream_id, code)
        self._touch(self)

    def stop(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING for the stream with `code`, and drop the bytes that still arrive."""
        if self.is_open and stream_id not in self._stopped and self.engine.receives(stream_id):
            self.engine.forget(stream_id)
            self.engine.stop_stream(stream_id, code)
            self._stopped.add(stream_id)
            self._touch(self)

    def takes(self, stream_id: int) -> bool:
        """Whether more can be sent on the stream: nobody ended, reset or stopped it."""
        try:
            self.engine.send_stream_data(stream_id, b"")
        except (RuntimeError, ValueError):
            return False
        return True

    def consume(self, stream_id: int, size: int) -> bool:
        """Give the peer credit for `size` received bytes, which the application has read.

        Returns whether a window is due to be announced.
        """
        is_due = self.engine.consume(stream_id, size)
        if is_due:
            self._touch(self)
        return is_due

    def share_credit(self, shared: SharedCredit | None) -> None:
        """Count the unread bytes of the peer together with those of other connections.

        :param shared: None to count those of this connection alone again.
        """
        self.engine.windows.share(shared or SharedCredit())

    def unsent(self, stream_id: int) -> int:
        """Bytes of the stream that were never sent so far."""
        return self.engine.unsent(stream_id)

    def send_datagram(self, data: bytes) -> bool:
        """Queue a DATAGRAM frame.

        False if the frame is too large, the queue is full or send_only() excludes it: it is
        dropped.
        """
        if (
            not self.is_established
            or self.engine.only_stream is not None
            or len(data) > self.engine.datagram_limit
            or self.engine.queued_datagrams >= MAX_QUEUED_DATAGRAMS
        ):
            return False
        self.engine.send_datagram_frame(data)
        self._touch(self)
        return True

    def ping(self) -> None:
        """Send a PING frame, which keeps NAT mappings and the connection alive."""
        if self.is_open:
            self.engine.send_ping(0)
            self._touch(self)

    def name_path(self, path: Hashable) -> None:
        """Name the path that packets take from the beginning; path_changed() names later ones."""
        self.engine.name_path(path)

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = False) -> None:
        """Note that packets take another path from now on; see Engine.path_changed().

        :param path: the name of the new path.
        :param lost: whether the old path was silent.
        """
        if self.is_open:
            self.engine.path_changed(now, path=path, lost=lost)
            self._touch(self)

    def set_max_datagram_size(self, size: int) -> None:
        """Make packets of up to `size` bytes from now on; see Engine.set_max_datagram_size()."""
        self.engine.set_max_datagram_size(size)

    def send_only(self, stream_id: int | None) -> None:
        """Send no frames of other streams and no DATAGRAM frames; None lifts the restriction.

        Bytes of other streams wait, also bytes that were lost.
        """
        if self.engine.only_stream != stream_id:
            self.engine.only_stream = stream_id
            self._touch(self)

    def close(self, code: int, reason: str) -> None:
        """Close the connection with an application error code and a reason for people."""
        if self.is_open:
            self.engine.close(error_code=code, reason_phrase=printable(reason))
            self._touch(self)

    # -- for the multiplexer ---------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether take_events() may return events after a send pass."""
        engine = self.engine
        return engine.has_events or bool(self._blocked) or engine.closing is not None

    def take_events(self) -> list[events.Event | quic_events.QuicEvent]:
        """The events since the last call; aioquic's connection-id events come unchanged."""
        found: list[events.Event | quic_events.QuicEvent] = []
        engine = self.engine
        while (event := engine.next_event()) is not None:
            translated = self._translate(event)
            # Datagrams are still taken in between close() and the datagram that says so.
            if translated is not None and not (
                self._closed and isinstance(translated, events.Event)
            ):
                found.append(translated)
        if self._closed:
            return found
        if engine.has_black_hole():
            found.append(events.BlackHoleDetected())
        for stream_id in [s for s in self._blocked if engine.unsent(s) <= LOW_WATER]:
            self._blocked.discard(stream_id)
            found.append(events.StreamWritable(stream_id))
        closing = engine.closing
        if closing is not None:
            self._closed = True
            found.append(
                events.ConnectionClosed(
                    closing.error_code, printable(closing.reason_phrase), closing.frame_type is None
                )
            )
        return found

    def _translate(
        self, event: quic_events.QuicEvent
    ) -> events.Event | quic_events.QuicEvent | None:
        if isinstance(event, quic_events.StreamDataReceived):
            return self._stream_data(event)
        if isinstance(event, quic_events.DatagramFrameReceived):
            return events.DatagramReceived(event.data)
        if isinstance(event, quic_events.HandshakeCompleted):
            peer = self.engine.peer
            if peer is None:  # cannot happen while the strict context is in place
                self.engine.close(error_code=NO_ERROR, reason_phrase="peer was not verified")
                return None
            self._established = True
            return events.HandshakeCompleted(peer)
        if isinstance(event, quic_events.PingAcknowledged):
            return events.PingAnswered()
        if isinstance(event, quic_events.StreamReset):
            self.engine.forget(event.stream_id)
            if event.stream_id in self._stopped:
                self._stopped.discard(event.stream_id)
                return None
            return events.StreamReset(event.stream_id, event.error_code)
        if isinstance(event, quic_events.StopSendingReceived):
            self._blocked.discard(event.stream_id)
            return events.StreamStopped(event.stream_id, event.error_code)
        if isinstance(event, quic_events.ConnectionIdIssued | quic_events.ConnectionIdRetired):
            return event
        return None

    def _stream_data(
        self, event: quic_events.StreamDataReceived
    ) -> events.StreamDataReceived | None:
        if event.stream_id in self._stopped:  # sent before our STOP_SENDING arrived
            if event.end_stream:
                self._stopped.discard(event.stream_id)
            return None
        self.engine.hold(event.stream_id, len(event.data))
        return events.StreamDataReceived(event.stream_id, event.data, event.end_stream)
