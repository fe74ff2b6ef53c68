"""How large packets may be on a path: DPLPMTUD (RFC 8899).

A probe is a check with padding. If it is answered, packets of its size get through; if it is lost,
nothing is lost with it. Sizes are bytes of UDP payload, times seconds of the caller's clock.
"""

import enum
import ipaddress
import math

from p2pnet.wire.address import Address
from p2pnet.wire.packet_size import BASE

USUAL = 1452  # Ethernet's 1500 without the headers of IPv6 and UDP: what most paths carry

# Likewise: the least of IPv6 (1280), WireGuard (1420), clouds (1460), PPPoE (1492).
SIZES = (1232, 1372, 1412, 1444, USUAL)
# Of a local network with jumbo frames (9000), and of the loopback interface: four of the latter
# are one system call, and a STREAM frame's length still has two bytes.
LOCAL_SIZES = (*SIZES, 8952, 16000)
LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip

# The constants of RFC 8899 section 5.1; a path that is checked all the time needs no 15 s.
MAX_PROBES = 3  # unanswered, then the size is too large
PROBE_TIMER = 1.0  # seconds from one to the next
# A path without BASE is given up, so on one that loses packets that takes more than chance.
BASE_PROBES, BASE_TIMER = 6, 0.5
RAISE_TIMER = 600.0  # seconds after which larger sizes are tried again
ERROR_TIMER = 30.0  # seconds after which a path is tried again that does not even carry BASE
FIRST_PAUSE = 1.0  # seconds without probes after a black hole, doubled by each up to RAISE_TIMER


class Phase(enum.Enum):
    """The phases of the search (RFC 8899 section 5.2)."""

    BASE = enum.auto()
    SEARCHING = enum.auto()
    SEARCH_COMPLETE = enum.auto()
    ERROR = enum.auto()


TRANSITIONS = {
    Phase.BASE: {Phase.SEARCHING, Phase.ERROR},
    Phase.SEARCHING: {Phase.BASE, Phase.SEARCH_COMPLETE},
    Phase.SEARCH_COMPLETE: {Phase.BASE, Phase.SEARCHING},
    Phase.ERROR: {Phase.SEARCHING},
}


def sizes_of(address: Address) -> tuple[int, ...]:
    """Return the sizes to try on the path to `address`, the smallest first."""
    ip = ipaddress.ip_address(address[0])
    return LOCAL_SIZES if any(ip in network for network in LOCAL_NETWORKS) else SIZES


class PathMtu:
    """The packet size of one direction of a path, and the search for a larger one.

    It begins with the size that the path had before, or that most have, and goes on upwards from
    what got through: a few sizes that networks have, rather than a bisection.

    :ivar size: of the packets that get through, as far as is known.
    :ivar phase: Phase.
    :ivar next_at: when a probe is due, math.inf for never.
    """

    def __init__(self, address: Address) -> None:
        self.phase = Phase.BASE
        self.size = BASE
        self._sizes = sizes_of(address)
        self._likely = USUAL
        self._too_large = math.inf
        self._probe = BASE  # the size that is being tried
        self._probes = 0  # of that size
        self.next_at = math.inf
        self._rests_until = -math.inf
        self._pause = FIRST_PAUSE

    def restart(self, now: float) -> None:
        """Begin with BASE: packets take this path from now on, or again."""
        self.size = BASE
        self._too_large = math.inf
        if self.phase is not Phase.ERROR:
            self._try(BASE, now)
            self._advance(Phase.BASE)

    def black_hole(self, now: float) -> None:
        """Begin with BASE after a pause: larger packets get lost (RFC 8899 section 4.3)."""
        if now - self._rests_until > RAISE_TIMER:
            self._pause = FIRST_PAUSE
        self._rests_until = now + self._pause
        self._pause = min(2 * self._pause, RAISE_TIMER)
        self.restart(now)

    def next_probe(self, now: float) -> int | None:
        """Return the size of the probe to send now, None if none is due."""
        if now < self.next_at:
            return None
        if self.phase is Phase.SEARCH_COMPLETE:
            self._too_large = math.inf
            self._search(now)
        elif self._probes >= (BASE_PROBES if self._probe == BASE else MAX_PROBES):
            self._failed(now)
        if now < self.next_at:
            return None
        self._probes += 1
        self.next_at = now + (BASE_TIMER if self._probe == BASE else PROBE_TIMER)
        return self._probe

    def answered(self, size: int, now: float) -> None:
        """Note an answered probe of `size` bytes. Answers to earlier sizes are ignored."""
        if size == self._probe and self.phase is not Phase.SEARCH_COMPLETE:
            self.size = size
            if size > BASE:
                self._likely = size
            self._search(max(now, self._rests_until))

    def _failed(self, now: float) -> None:
        if self.phase is Phase.SEARCHING:
            self._too_large = min(self._too_large, self._probe)
            self._search(now)
        else:
            self._advance(Phase.ERROR)
            self._try(BASE, now + ERROR_TIMER)

    def _search(self, now: float) -> None:
        """Try the next size, from `now` on, or complete the search."""
        self._advance(Phase.SEARCHING)
        larger = [size for size in self._sizes if self.size < size < self._too_large]
        if larger:
            self._try(self._likely if self._likely in larger else larger[0], now)
            return
        self._advance(Phase.SEARCH_COMPLETE)
        self.next_at = math.inf if self.size == self._sizes[-1] else now + RAISE_TIMER

    def _try(self, size: int, now: float) -> None:
        self._probe, self._probes, self.next_at = size, 0, now

    def _advance(self, phase: Phase) -> None:
        assert phase is self.phase or phase in TRANSITIONS[self.phase], (self.phase, phase)
        self.phase = phase
