"""Many QUIC connections, of both roles, on one socket. Sans-IO, with aioquic's five verbs.

Datagrams find their connection by destination connection id. A connection to a peer has a
PeerAddress for life; its packets may arrive under it (relayed) or from any real address (directly),
and never under the PeerAddress of another session. A connection to a real address may migrate once
the path is validated (migration.py).
"""

import collections
import heapq
import itertools
import math
import os
from collections.abc import Callable, Container
from typing import Any

from aioquic.quic import events as quic_events

from p2pnet.quic import events
from p2pnet.quic.admission import NO_CONNECTIONS, Admission, Answer, Limits
from p2pnet.quic.connection import Connection
from p2pnet.quic.engine import Engine
from p2pnet.quic.memory import dismantle
from p2pnet.quic.newcomers import Newcomer
from p2pnet.quic.packet import destination_connection_id, parse_initial, version_negotiation
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.wire.address import Address, PeerAddress

INTERNAL_ERROR = 0x01  # RFC 9000 section 20.1
FAR = 4.0  # seconds; a timer that far away may fire a little late
TOGETHER = 0.25  # seconds; far timers of idle connections fire together, at multiples of this

AnyAddress = Address | PeerAddress


def prepare(profile: ConnectionProfile, address: AnyAddress, now: float) -> Engine:
    """Make a connection that can be begun, or dropped: keys and a ClientHello take their time."""
    engine = profile.make_engine(is_client=True)
    engine.connect(address, now)
    return engine


class ConnectionTimers:
    """The timers of all connections, in one heap.

    A timer that moves later leaves its entry in the heap, so that the heap does not grow with every
    packet that moves an idle or loss timer: the entry that comes up too early is replaced then.
    `Connection.check_ins` has the times of a connection's entries, the earliest last.

    :param connections: the connections that exist; entries of others are dropped.
    :ivar unarmed: connections that sent something since their engine was asked for its timer.
    """

    def __init__(self, connections: Container[Connection]) -> None:
        self.unarmed: dict[Connection, None] = {}
        self._connections = connections
        self._heap: list[tuple[float, int, Connection]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def get_timer(self) -> float | None:
        """The earliest time at which next_due() may give a connection (s), None without any."""
        unarmed, self.unarmed = self.unarmed, {}
        for connection in unarmed:  # only now: the datagrams have left, nobody waits
            if connection in self._connections:
                timer = connection.timer = connection.engine.get_timer()
                if timer is not None:
                    self.check_in(connection, timer)
        while self._heap:
            deadline, _, connection = self._heap[0]
            if connection in self._connections:
                return deadline
            heapq.heappop(self._heap)
        return None

    def next_due(self, now: float) -> Connection | None:
        """The next connection whose timer is `now` or earlier, None without any.

        The connection has no timer after this, until it is in `unarmed` again.
        """
        while (deadline := self.get_timer()) is not None and deadline <= now:
            connection = heapq.heappop(self._heap)[2]
            connection.check_ins.pop()
            timer = connection.timer
            if timer is None:
                continue
            if timer <= now:
                connection.timer = None
                return connection
            if timer - now > FAR:
                timer = math.ceil(timer / TOGETHER) * TOGETHER
            self.check_in(connection, timer)
        return None

    def check_in(self, connection: Connection, at: float) -> None:
        """Have next_due() examine the connection at the time `at`, or earlier."""
        check_ins = connection.check_ins
        if not check_ins or at < check_ins[-1]:
            check_ins.append(at)
            heapq.heappush(self._heap, (at, next(self._count), connection))


class Multiplexer:
    """All QUIC connections of one node.

    The parameters are those of Admission, which decides about first packets.

    :ivar failures: connections that ended because a datagram of the peer made the engine raise.
    :ivar is_idle: whether nothing arrived and no connection was used since datagrams_to_send()
        left nothing to do: then there are neither datagrams nor events.
    """

    def __init__(
        self,
        *,
        server: ConnectionProfile | None = None,
        limits: Limits = NO_CONNECTIONS,
        accept_peer: Callable[[PeerAddress], ConnectionProfile | None] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.admission = Admission(
            server=server, limits=limits, accept_peer=accept_peer or (lambda _: None),
            give_up=self._give_up, entropy=entropy,
        )  # fmt: skip
        self.failures = 0
        self.is_idle = True
        self._dropped = 0
        self._by_id: dict[bytes, Connection] = {}
        self._connections: set[Connection] = set()
        self._dirty: dict[Connection, None] = {}  # may have something to send, oldest first
        self._received: dict[Connection, None] = {}  # took datagrams, and may have an answer
        self._fresh: dict[Connection, None] = {}  # may have events to collect
        self._answers: list[tuple[bytes, Any]] = []
        self._events: collections.deque[tuple[Connection, events.Event]] = collections.deque()
        self._timers = ConnectionTimers(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def dropped(self) -> int:
        """The number of datagrams that belonged to no connection and began none."""
        return self._dropped + self.admission.dropped

    def connect(self, profile: ConnectionProfile, address: AnyAddress, now: float) -> Connection:
        """Start a connection to `address`; HandshakeCompleted or ConnectionClosed follows."""
        return self.begin(prepare(profile, address, now))

    def begin(self, engine: Engine) -> Connection:
        """Start a connection that prepare() made; its events follow as those of connect()."""
        connection = Connection(engine, touch=self._touch)
        self._connections.add(connection)
        self._by_id[engine.host_cid] = connection
        connection.connection_ids.add(engine.host_cid)
        self._touch(connection)
        return connection

    # -- the five verbs --------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: AnyAddress, now: float) -> Connection | None:
        """Take one QUIC datagram. Returns the connection that it was for, None if there is none:
        a client of the open network gets one in its turn, in datagrams_to_send()."""
        self.is_idle = False
        connection_id = destination_connection_id(data)
        if connection_id is None:
            self._dropped += 1
            return None
        connection = self._by_id.get(connection_id)
        if connection is None:
            return self._first_packet(data, address, now)
        if self.admission.turns.are_wanted:
            self.admission.turns.begin(now)
        expected = connection.peer_address
        if isinstance(expected, PeerAddress) and not isinstance(address, PeerAddress):
            # A packet of a peer's that came directly, by whatever way: its own protection tells
            # whether it is genuine, and where to send is decided above.
            address = expected
        elif expected != address and isinstance(address, PeerAddress):
            self._dropped += 1
            return None
        engine = connection.engine
        newest = engine.newest_packet
        self._feed(engine, data, address, now)
        connection.was_news = engine.newest_packet > newest
        self._fresh[connection] = self._received[connection] = None
        return connection

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Datagrams with their addresses: real ones, or a PeerAddress for the layer above.

        All that are due, but the events that this causes may give more to send: see may_send.
        """
        self._collect_fresh()
        if self.admission.turns.is_open:
            self._serve_newcomers(now)
        datagrams, self._answers = self._answers, []
        self._find_due(now)
        dirty, self._dirty = self._dirty, {}
        for connection in dirty:
            engine = connection.engine
            engine.update_keys_if_due()
            if engine.can_transmit:
                datagrams += engine.datagrams_to_send(now)
            if connection.has_news:  # sending issues connection ids
                self._collect(connection)
        self._timers.unarmed |= dirty
        self.is_idle = not (self.may_send or self.has_events)
        return datagrams

    @property
    def may_send(self) -> bool:
        """Whether datagrams_to_send() may have some."""
        return bool(self._dirty or self._received or self._answers or self.admission.turns.is_open)

    @property
    def has_events(self) -> bool:
        """Whether next_event() may have one."""
        return bool(self._events or self._fresh)

    def next_event(self) -> tuple[Connection, events.Event] | None:
        """The next event with its connection, None when there is none."""
        if self._fresh:
            self._collect_fresh()
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """When handle_timer() is to be called, in seconds of the caller's clock, or None."""
        timer = self._timers.get_timer()
        if self.admission.server is None:
            return timer
        other = self.admission.get_timer()
        return other if timer is None or (other is not None and other < timer) else timer

    def handle_timer(self, now: float) -> None:
        """Let every connection act whose time has come."""
        if self.admission.server is not None:
            self.admission.handle_timer(now)
            self.is_idle = self.is_idle and not self.admission.turns.is_open
        while (connection := self._timers.next_due(now)) is not None:
            connection.engine.handle_timer(now)
            self.is_idle = False
            self._fresh[connection] = self._dirty[connection] = None

    # -- inside ----------------------------------------------------------------------------------

    def _first_packet(self, data: bytes, address: AnyAddress, now: float) -> Connection | None:
        header = parse_initial(data)
        if isinstance(address, PeerAddress):
            profile = self.admission.accept_peer(address) if header is not None else None
            if header is not None and profile is not None:
                return self._accept(profile, data, address, now, header.destination_connection_id)
        elif self.admission.server is not None:
            if header is not None:
                self.admission.arrived(data, header, address, now)
                return None
            answer = version_negotiation(data)
            if answer is not None:
                self._answers.append((answer, address))
        self._dropped += 1
        return None

    def _serve_newcomers(self, now: float) -> None:
        for served in self.admission.serve(now, len(self._connections)):
            if isinstance(served, Answer):
                self._answers.append((served.datagram, served.address))
            else:
                self._begin_handshake(served, now)

    def _begin_handshake(self, newcomer: Newcomer, now: float) -> None:
        profile = self.admission.server
        assert profile is not None
        if newcomer.destination_connection_id in self._by_id:
            return  # the client repeated its Initial, and that one came first
        connection = self._accept(
            profile, newcomer.datagram, newcomer.address, now,
            newcomer.original_destination_connection_id, newcomer.retry_source_connection_id,
        )  # fmt: skip
        if connection is not None:
            self.admission.began(connection, newcomer, now)

    def _accept(
        self,
        profile: ConnectionProfile,
        data: bytes,
        address: AnyAddress,
        now: float,
        original_destination: bytes,
        retry_source: bytes | None = None,
    ) -> Connection | None:
        """Make a connection of a client's first datagram, None if the datagram is not authentic."""
        engine = profile.make_engine(
            is_client=False,
            original_destination_connection_id=original_destination,
            retry_source_connection_id=retry_source,
        )
        self._feed(engine, data, address, now)
        if engine.is_first_flight:  # nothing in it could be decrypted: forget it at once
            self._dropped += 1
            return None
        connection = self.begin(engine)
        first_id = destination_connection_id(data)
        assert first_id is not None
        self._by_id[first_id] = connection
        connection.connection_ids.add(first_id)
        self._fresh[connection] = None
        return connection

    def _give_up(self, connection: Connection) -> None:
        """Forget a connection whose user does not know it, without a word to the client."""
        self._forget(connection)
        for queue in (self._dirty, self._received, self._fresh):
            queue.pop(connection, None)
        dismantle(connection.engine)

    def _feed(self, engine: Engine, data: bytes, address: AnyAddress, now: float) -> None:
        try:
            engine.receive_datagram(data, address, now)
        except Exception as error:  # a peer found a hole in the parsing: only its own connection
            self.failures += 1
            engine.close(error_code=INTERNAL_ERROR, frame_type=0, reason_phrase=repr(error)[:80])

    def _touch(self, connection: Connection) -> None:
        self._dirty[connection] = None
        self.is_idle = False

    def _find_due(self, now: float) -> None:
        """Find out which connections answer at once. A request is answered by the application,
        and the acknowledgement goes with its answer: a send pass before that would find nothing.

        They come first: a message that answers one must not queue behind the bulk of another.
        """
        received, self._received = self._received, {}
        first: dict[Connection, None] = {}
        for connection in received:
            due = now if connection in self._dirty else connection.engine.answer_at(now)
            if due is None:
                continue
            if due <= now or connection.timer is None:
                first[connection] = None
            elif due < connection.timer:
                connection.timer = due
                self._timers.check_in(connection, due)
        if first:
            self._dirty = first | self._dirty

    def _collect_fresh(self) -> None:
        """Collect the events of all that datagrams and timers did: once for a batch of them."""
        fresh, self._fresh = self._fresh, {}
        for connection in fresh:
            self._collect(connection)

    def _collect(self, connection: Connection) -> None:
        for event in connection.take_events():
            if isinstance(event, quic_events.ConnectionIdIssued):
                self._by_id[event.connection_id] = connection
                connection.connection_ids.add(event.connection_id)
            elif isinstance(event, quic_events.ConnectionIdRetired):
                self._by_id.pop(event.connection_id, None)
                connection.connection_ids.discard(event.connection_id)
            elif not isinstance(event, quic_events.QuicEvent):
                if isinstance(event, events.HandshakeCompleted):
                    self.admission.ended(connection, finished=True)
                self._events.append((connection, event))
        if connection.engine.is_terminated:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self.admission.ended(connection, finished=False)
        self._connections.discard(connection)
        for connection_id in connection.connection_ids:
            self._by_id.pop(connection_id, None)
        connection.connection_ids.clear()
        connection.timer = None
