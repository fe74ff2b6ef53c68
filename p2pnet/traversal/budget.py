"""What a node may send to addresses that proved nothing: one budget for all of its sessions.

A peer names addresses, and may lie. The budget bounds the packets that such a peer, or many of
them, can have the node send to anybody: per second (RFC 8445 section 14), and to one host.
"""

import collections
import dataclasses
import enum
import ipaddress
import math

from p2pnet.timing import TOLERANCE, TokenBucket
from p2pnet.wire.address import Address

PACING = 0.02  # seconds between checks, Ta (RFC 8445 section 14.2 asks for 50 ms; we have few)
BURST = 32  # packets at once: both openers to each candidate of a peer
MEMORY = 600.0  # seconds
MAX_UNPROVEN = 200  # packets within MEMORY to a host that never answered
MAX_PORTS = 4  # ports that peers named of such a host and that are checked within MEMORY
MAX_HOSTS = 4096  # that have a count of their own
EVICTIONS = 16  # hosts tried for one that may be forgotten
PATIENCE = 1.0  # seconds for which a session that lets its turn pass counts as waiting


class Cause(enum.Enum):
    """Why a packet goes to an unproven address; a host has a count for each cause.

    So nobody who only names a host can use up what its own requests need. Attempts on which both
    ends agreed, towards a host that answered or that an Intermediate observed, would be another.
    """

    NAMED = enum.auto()  # a peer named it: openers and checks
    ASKED = enum.auto()  # an authentic request came from it: the answer and the triggered check


SHARES = {Cause.NAMED: 150, Cause.ASKED: 50}  # of MAX_UNPROVEN


def _bucket(share: int) -> TokenBucket:
    """Return a bucket that gives `share` tokens at most in any MEMORY seconds."""
    burst = share // 2
    return TokenBucket(MEMORY / (share - burst), burst)


@dataclasses.dataclass(slots=True)
class _Host:
    """What was sent to a host.

    :ivar ports: the named addresses that got packets, and when the last.
    :ivar answered_at: when it last answered a check.
    """

    buckets: dict[Cause, TokenBucket] = dataclasses.field(
        default_factory=lambda: {cause: _bucket(share) for cause, share in SHARES.items()}
    )
    ports: dict[Address, float] = dataclasses.field(default_factory=dict)
    answered_at: float = -math.inf

    def take(self, address: Address, cause: Cause, now: float) -> bool:
        """Count a packet. Returns False for one too many."""
        if now - self.answered_at < MEMORY:
            return True
        if cause is Cause.NAMED and address not in self.ports and len(self.ports) >= MAX_PORTS:
            self.ports = {port: at for port, at in self.ports.items() if now - at < MEMORY}
            if len(self.ports) >= MAX_PORTS:
                return False
        if not self.buckets[cause].take(now):
            return False
        if cause is Cause.NAMED:
            self.ports[address] = now
        return True

    def is_idle(self, now: float) -> bool:
        """Whether no count would be lost with it."""
        return all(bucket.is_full(now) for bucket in self.buckets.values())


class SendBudget:
    """The packets that one node sends to unproven addresses, whatever its sessions.

    All times are seconds of the caller's clock.
    """

    def __init__(self) -> None:
        self._pace = TokenBucket(PACING, BURST)
        self._turns: dict[bytes, float] = {}  # of the sessions that wait, in order
        self._hosts: collections.OrderedDict[str, _Host] = collections.OrderedDict()
        self._others = _Host()  # all for which there is no room

    # -- how many a second -----------------------------------------------------------------------

    def turn(self, session: bytes, now: float) -> float:
        """Return `now` if the session may send a packet, which counts as sent; else when to ask
        again. Sessions that wait have their turns in the order in which they asked."""
        self._forget_passed(now)
        free_at, turn = max(now, self._pace.ready_at()), self._turns.get(session, now)
        if session not in self._turns and (self._turns or free_at > now + TOLERANCE):
            turn = self._turns[session] = free_at + PACING * len(self._turns)
        at = max(free_at, turn)
        if at > now + TOLERANCE:
            return at
        self.leave(session)
        self._pace.take(now)
        return now

    def take_spare(self, now: float) -> bool:
        """Count a packet that is of no use later. Returns False if it would have to wait."""
        self._forget_passed(now)
        return not self._turns and self._pace.take(now)

    def leave(self, session: bytes) -> None:
        """The session, which may be over, waits no more."""
        self._turns.pop(session, None)

    def _forget_passed(self, now: float) -> None:
        """Forget the sessions that let their turns pass, as they have nothing to send any more."""
        while self._turns:
            session = next(iter(self._turns))
            if self._turns[session] >= now - PATIENCE:
                break
            del self._turns[session]

    # -- how many to a host ----------------------------------------------------------------------

    def allows(self, address: Address, cause: Cause, now: float) -> bool:
        """Whether a packet may go to `address`; if so, it counts as sent."""
        return self._host(host_of(address), now).take(address, cause, now)

    def answered(self, address: Address, at: float) -> None:
        """A check was answered from `address` at that time: for a while its host is no third
        party."""
        host = self._hosts.get(host_of(address))
        if host is not None:
            host.answered_at = max(host.answered_at, at)

    def _host(self, name: str, now: float) -> _Host:
        if name in self._hosts:
            self._hosts.move_to_end(name)
        elif len(self._hosts) < MAX_HOSTS or self._make_room(now):
            self._hosts[name] = _Host()
        else:
            return self._others
        return self._hosts[name]

    def _make_room(self, now: float) -> bool:
        """Forget a host that was used long ago and whose counts are void. Returns False without
        such a host."""
        for _ in range(EVICTIONS):
            name, host = self._hosts.popitem(last=False)
            if host.is_idle(now):
                return True
            self._hosts[name] = host
        return False


def host_of(address: Address) -> str:
    """Return the host of `address`; one host has all addresses of an IPv6 /64."""
    if ":" not in address[0]:
        return address[0]
    return str(ipaddress.IPv6Network((address[0], 64), strict=False))
