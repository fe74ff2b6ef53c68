"""Which clients of the open network get a connection, and when."""

import dataclasses
import math
from collections.abc import Callable, Iterator

from p2pnet.quic.connection import Connection
from p2pnet.quic.half_open import HalfOpen, HalfOpenTable
from p2pnet.quic.initial import Opening, read_opening
from p2pnet.quic.newcomers import MAX_WAIT, Newcomer, Turns, Unread, WaitingRoom
from p2pnet.quic.packet import InitialHeader
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.quic.retry import Retry
from p2pnet.quic.sources import prefixes
from p2pnet.timing import TokenBucket
from p2pnet.wire.address import Address, PeerAddress

READ_A_TURN = 64  # Initials of some 0.05 ms each
ASKED_A_TURN = 16  # newcomers for whom the table may make room
BEGUN_A_TURN = 6  # handshakes of some 1.3 ms each


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a public server takes.

    :ivar connections: altogether.
    :ivar retry_above: half-open connections, and unproven handshakes a second that do not complete,
        from which on a client must prove its address first (RFC 9000 section 8.1.2); 0 demands that
        always.
    """

    connections: int
    retry_above: int


NO_CONNECTIONS = Limits(connections=0, retry_above=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A Retry for a client, which has no connection."""

    datagram: bytes
    address: Address


class Admission:
    """Decides about the Initials of clients that have no connection.

    An Initial is decrypted before anything is made for it. A client that must prove its address
    gets a Retry. Any other waits for its turn, which comes at once without load.

    :param server: profile of the connections, None to accept none.
    :param limits: how many of those; must be given with `server`.
    :param accept_peer: gives the profile for an Initial under a PeerAddress, None to drop it.
    :param give_up: called with each half-open connection that takes too long or makes way.
    :param entropy: the source of random bytes.
    :ivar server: see above; may be replaced at any time.
    :ivar accept_peer: see above.
    :ivar half_open: the connections in handshake.
    :ivar retry: makes the Retry packets.
    :ivar turns: when newcomers are served.
    :ivar dropped: Initials that began no handshake.
    :ivar refused: those of them that were dropped for a limit or a bad token.
    """

    def __init__(
        self,
        *,
        server: ConnectionProfile | None,
        limits: Limits,
        accept_peer: Callable[[PeerAddress], ConnectionProfile | None],
        give_up: Callable[[Connection], None],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.server = server
        self.accept_peer = accept_peer
        self.half_open = HalfOpenTable()
        self.retry = Retry(entropy)
        self.turns = Turns()
        self.dropped = self.refused = 0
        self._limits = limits
        self._give_up = give_up
        # Handshakes with unproven addresses; one that completes proves its address, and is free.
        self._unproven = TokenBucket(1 / max(1, limits.retry_above), limits.retry_above)
        self._unread = Unread()
        self._waiting = WaitingRoom()

    def arrived(self, datagram: bytes, header: InitialHeader, address: Address, now: float) -> None:
        """Take an Initial that belongs to no connection."""
        if not self._unread.add((datagram, header, address)):
            self._refuse()
        self.turns.are_wanted = True
        self.turns.begin(now)

    def serve(self, now: float, connections: int) -> Iterator[Newcomer | Answer]:
        """Serve newcomers for a turn: whom to begin a handshake with, or what to answer.

        The caller calls began() for each handshake before it asks for more.

        :param connections: number of all connections that exist.
        """
        if self.turns.seconds is not None:
            self.half_open.measured(self.turns.seconds)
            self.turns.seconds = None
        for datagram, header, address in self._unread.take(READ_A_TURN):
            answer = self._read(datagram, header, address, now)
            if answer is not None:
                yield answer
        begun = 0
        while begun < BEGUN_A_TURN and (newcomer := self._next(now)) is not None:
            if connections + begun >= self._limits.connections:
                self._refuse()
            else:
                begun += 1
                yield newcomer
        self.turns.are_wanted = bool(self._unread or self._waiting)
        self.turns.end(now, begun, is_cut=bool(self._unread) or begun == BEGUN_A_TURN)

    def began(self, connection: Connection, newcomer: Newcomer, now: float) -> None:
        """Count the handshake that began with a newcomer."""
        is_proven = newcomer.retry_source_connection_id is not None
        self.half_open.begin(HalfOpen(connection, newcomer.source, is_proven, began_at=now))

    def ended(self, connection: Connection, *, finished: bool) -> None:
        """Count off a handshake that completed or failed; any other connection is no matter."""
        entry = self.half_open.end(connection)
        if finished and entry is not None and not entry.is_proven:
            self._unproven.give_back()

    def get_timer(self) -> float | None:
        """When handle_timer() is to be called (s), None for never."""
        if not (self.turns.are_wanted or len(self.half_open)):
            return None
        timer = self.half_open.expires_at
        if self._unread:
            timer = min(timer, self.turns.resumes_at)
        elif self._waiting:
            timer = min(timer, max(self.turns.resumes_at, self.half_open.has_room_at))
        return None if timer == math.inf else timer

    def handle_timer(self, now: float) -> None:
        """Give up the handshakes that took too long, and let newcomers have a turn."""
        for connection in self.half_open.expired(now):
            self._give_up(connection)
        self.turns.begin(now)

    # -- inside ----------------------------------------------------------------------------------

    def _refuse(self) -> None:
        self.refused += 1
        self.dropped += 1

    def _read(
        self, datagram: bytes, header: InitialHeader, address: Address, now: float
    ) -> Answer | None:
        original = None
        if header.token:
            try:
                original = self.retry.check(header, address, now)
            except ValueError:
                self._refuse()
                return None
        opening = read_opening(datagram, header)
        known = self._waiting.find(header.destination_connection_id, address)
        if opening is not Opening.HELLO:
            self.dropped += 1
            if known is not None and opening is Opening.CLOSE:
                self._waiting.leave(known)
            return None
        if known is not None:
            return None  # the client repeats its Initial
        if original is None and self._must_prove(now):
            return Answer(self.retry.make(header, address, now), address)
        self._enter(datagram, header, address, now, original)
        return None

    def _must_prove(self, now: float) -> bool:
        handshakes = len(self.half_open) + len(self._waiting)
        return handshakes >= self._limits.retry_above or not self._unproven.take(now)

    def _next(self, now: float) -> Newcomer | None:
        """The newcomer to begin with, None if the table has no room for those asked."""
        asked = 0
        while self._waiting and asked < ASKED_A_TURN:
            newcomer = self._waiting.first()
            if newcomer.arrived_at + MAX_WAIT <= now:
                self._waiting.leave(newcomer)
                self._refuse()
                continue
            if self.half_open.is_full:
                other = self.half_open.makes_way(newcomer.source, now)
                if other is None:
                    asked += 1
                    continue
                self._give_up(other)
            self._waiting.leave(newcomer)
            return newcomer
        return None

    def _enter(
        self,
        datagram: bytes,
        header: InitialHeader,
        address: Address,
        now: float,
        original: bytes | None,
    ) -> None:
        destination = header.destination_connection_id
        newcomer = Newcomer(
            datagram=datagram,
            address=address,
            source=prefixes(address),
            destination_connection_id=destination,
            original_destination_connection_id=original or destination,
            retry_source_connection_id=None if original is None else destination,
            arrived_at=now,
        )
        self._waiting.enter(newcomer)
        surplus = self._waiting.surplus()
        if surplus is not None:
            self._waiting.leave(surplus)
            self._refuse()
