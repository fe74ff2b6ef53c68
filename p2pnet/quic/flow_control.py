"""How large receive windows are: enough for what the path holds, and no larger."""

from collections.abc import Container

STREAM_WINDOW = 512 * 1024  # bytes; what a stream may send first, and a stalled reader may hold
CONNECTION_WINDOW = 3 * STREAM_WINDOW  # bytes; bounds what sparse frames can make us allocate
MAX_STREAM_WINDOW = 16 * STREAM_WINDOW  # of one that is read fast: 330 Mbit/s at 200 ms
MAX_CONNECTION_WINDOW = 24 * STREAM_WINDOW
MAX_HELD = 64 * STREAM_WINDOW  # bytes of credit that the connections of one peer share
MAX_GROWTH = 32 * STREAM_WINDOW  # bytes beyond STREAM_WINDOW, over all streams of a connection
# A window holds four round trips of reading: one in flight, two for retransmission, one to grow.
ROUND_TRIPS = 4.0
SHORTEST_ROUND = 0.05  # seconds of measuring; a busy process reads in gulps
IDLE = 10.0  # seconds without reading, after which a stream gets the first window again


class SharedCredit:
    """The credit of several connections together: bytes that their peers sent, or may send, before
    anybody here reads.

    :ivar total: the sum of the credit of the connections.
    """

    def __init__(self) -> None:
        self.total = 0


class ReceiveWindows:
    """The sizes of the windows of a connection and its streams.

    A window grows with the bytes read in a round trip, never with the bytes that arrive: a peer
    wins no memory by sending, and a stalled reader holds no more than its former speed earned.
    RFC 9000 section 4.2 leaves that choice to the receiver.

    :ivar credit: bytes that the peer sent, or may send, before anybody here reads.
    """

    def __init__(self) -> None:
        self.connection = CONNECTION_WINDOW
        self.credit = CONNECTION_WINDOW
        self._shared = SharedCredit()
        self._shared.total = self.credit
        self._streams: dict[int, int] = {}  # windows in bytes that are larger than the first
        self._used_at: dict[int, float] = {}
        self._read: dict[int, int] = {}  # bytes in this round
        self._since = 0.0

    def stream(self, stream_id: int) -> int:
        """The stream's window: bytes that the peer may send beyond those that were read."""
        return self._streams.get(stream_id, STREAM_WINDOW)

    def of_connection(self, held: int) -> int:
        """The connection's window: bytes that the peer may send beyond `held` unread ones.

        Held bytes do not count until there are very many, so that a few stalled readers cannot
        starve the other streams of the connection. However much credit the peer's other connections
        have, this one keeps its first window.
        """
        room = MAX_HELD - self._shared.total + self.credit - held
        if room >= self.connection:
            return self.connection
        return max(0, min(self.connection, max(room, CONNECTION_WINDOW - held)))

    def promise(self, credit: int) -> None:
        """Note that the peer has so much credit now, in bytes."""
        self._shared.total += credit - self.credit
        self.credit = credit

    def share(self, shared: SharedCredit) -> None:
        """Count the credit in `shared` from now on, together with that of other connections."""
        self._shared.total -= self.credit
        self._shared = shared
        shared.total += self.credit

    def read(self, stream_id: int, size: int) -> None:
        """Note that the application read `size` bytes of the stream."""
        self._read[stream_id] = self._read.get(stream_id, 0) + size

    def measure(self, now: float, rtt: float | None, streams: Container[int]) -> list[int]:
        """Grow the windows of streams that were read fast, once a round; call it often.

        Returns the ids of the streams whose windows grew.

        :param rtt: seconds; None as long as there is no sample.
        :param streams: the ids of those that still exist.
        """
        if not self._read:
            self._since = now  # a pause is not part of a round
            return []
        elapsed = now - self._since
        if rtt is None or elapsed < max(rtt, SHORTEST_ROUND):
            return []
        read, self._read, self._since = self._read, {}, now
        scale = ROUND_TRIPS * rtt / elapsed
        for stream_id in list(self._streams):
            if stream_id not in streams or now - self._used_at[stream_id] > IDLE:
                del self._streams[stream_id], self._used_at[stream_id]
        living = {stream_id: size for stream_id, size in read.items() if stream_id in streams}
        grown = [s for s, size in living.items() if self._grow(s, int(size * scale), now)]
        self.connection = max(
            self.connection, min(int(sum(read.values()) * scale), MAX_CONNECTION_WINDOW)
        )
        return grown

    def _grow(self, stream_id: int, wanted: int, now: float) -> bool:
        window = self.stream(stream_id)
        room = MAX_GROWTH - sum(self._streams.values()) + len(self._streams) * STREAM_WINDOW
        wanted = min(wanted, MAX_STREAM_WINDOW, window + room)
        # By steps, so that few streams can share the room, and not each round has one.
        grows = wanted >= window + STREAM_WINDOW // 4
        if grows:
            self._streams[stream_id] = wanted
        if stream_id in self._streams:
            self._used_at[stream_id] = now
        return grows
