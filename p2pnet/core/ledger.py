"""The ledger of a node: what each verified name holds of shared resources, and how often it asks.

As long as a shared cap has room, anybody gets it. Once the cap is reached, a name below a quarter
of it gets the newest thing of the name that holds the most, if that name keeps at least as much. So
neither a name nor a group of names locks the others out. Rates are token buckets.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import weakref
from collections.abc import Collection, Hashable, Mapping
from typing import Any

from p2pnet.quic.flow_control import SharedCredit
from p2pnet.timing import TokenBucket

SHARES = 4  # a name gets things of others up to one part in so many of a shared cap
SWEEP = 1024  # token buckets from which on the full ones are dropped


class Kind(enum.StrEnum):
    """What is counted, in the words of a refusal."""

    CONNECTION = "connections"
    SESSION = "sessions"
    CONNECTOR_SESSION = "sessions with the connector"
    UNPROVEN = "sessions without handshake"
    OFFER = "unanswered offers"
    REQUEST = "session requests"
    UNNAMED = "streams without header"
    STREAM = "streams"
    FLOW = "flows"
    DESCRIPTOR = "descriptors"


@dataclasses.dataclass(frozen=True, slots=True)
class Cap:
    """How many things of a kind there may be.

    :ivar shared: of all names together.
    :ivar own: of one name, whatever is free.
    """

    shared: float = math.inf
    own: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """How often a name may do something: `burst` times at once, then `per_second` a second."""

    per_second: float
    burst: float


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a name may have one thing more.

    :ivar refusal: the reason not to admit the thing, None for a thing that is admitted.
    :ivar evicted: the thing of another name that has to end for the admitted one, None for none.
    """

    refusal: str | None = None
    evicted: Any = None


ADMITTED = Verdict()


class Pool:
    """The things that names hold of one shared cap, the newest of a name last."""

    def __init__(self) -> None:
        self.holders: dict[Hashable, str] = {}
        self._things: dict[str, dict[Hashable, None]] = {}

    def things(self, name: str) -> Collection[Any]:
        """The things of a name."""
        return self._things.get(name, ())

    def add(self, name: str, thing: Hashable) -> None:
        """Let the name hold the thing, which nobody holds."""
        self.holders[thing] = name
        self._things.setdefault(name, {})[thing] = None

    def remove(self, thing: Hashable) -> None:
        """Forget the thing, which somebody holds."""
        name = self.holders.pop(thing)
        del self._things[name][thing]
        if not self._things[name]:
            del self._things[name]

    def newest_of_fullest(self, more_than: int) -> Hashable | None:
        """The newest thing of the name with the most; None if no name has `more_than` and one."""
        fullest = max(self._things.values(), key=len, default={})
        return next(reversed(fullest)) if len(fullest) > more_than else None


EMPTY = Pool()


class Ledger:
    """What names hold, by kind, and the rates of what they do. Its length: things that are held.

    :param caps: of each kind that is held.
    :param rates: of each kind that is charged.
    """

    def __init__(self, caps: Mapping[Kind, Cap], rates: Mapping[Kind, Rate] | None = None) -> None:
        self._caps = dict(caps)
        self._rates = dict(rates or {})
        self._pools: dict[tuple[Kind, Hashable], Pool] = {}
        self._buckets: dict[tuple[Kind, str], TokenBucket] = {}
        self._sweep_above = SWEEP
        self._credits = weakref.WeakValueDictionary[str, SharedCredit]()

    def __len__(self) -> int:
        return sum(len(pool.holders) for pool in self._pools.values())

    # -- what names hold -------------------------------------------------------------------------

    def things(self, kind: Kind, name: str, of: Hashable = None) -> Collection[Any]:
        """The things of a kind that a name holds, the newest last."""
        return self._pools.get((kind, of), EMPTY).things(name)

    def judge(self, kind: Kind, name: str, of: Hashable = None) -> Verdict:
        """Whether a name may hold one thing more, and which thing of another name must end for it.

        :param of: whose cap it is, for a kind with a cap for each of several owners.
        """
        cap, pool = self._caps[kind], self._pools.get((kind, of), EMPTY)
        held = len(pool.things(name))
        if held >= cap.own:
            return Verdict(f"{name} has {held} {kind}")
        if len(pool.holders) < cap.shared:
            return ADMITTED
        share = max(1, cap.shared // SHARES)
        evicted = pool.newest_of_fullest(held + 1) if held < share else None
        if evicted is None:
            return Verdict(f"all {len(pool.holders)} {kind} are in use")
        return Verdict(evicted=evicted)

    def enter(self, kind: Kind, name: str, thing: Hashable, of: Hashable = None) -> None:
        """Note that a name holds a thing. judge() admitted the thing, and the evicted one ended."""
        pool = self._pools.get((kind, of))
        if pool is None:
            pool = self._pools[kind, of] = Pool()
        pool.add(name, thing)

    def admit(self, kind: Kind, name: str, thing: Hashable, of: Hashable = None) -> Verdict:
        """judge() and enter() in one. The caller ends the evicted thing, which counts no more."""
        verdict = self.judge(kind, name, of)
        if verdict.refusal is None:
            if verdict.evicted is not None:
                self._pools[kind, of].remove(verdict.evicted)
            self.enter(kind, name, thing, of)
        return verdict

    def holds(self, kind: Kind, thing: Hashable, of: Hashable = None) -> bool:
        """Whether any name holds the thing."""
        return thing in self._pools.get((kind, of), EMPTY).holders

    def release(self, kind: Kind, thing: Hashable, of: Hashable = None) -> bool:
        """Note that a thing ended. Returns False for a thing that nobody holds."""
        if not self.holds(kind, thing, of):
            return False
        pool = self._pools[kind, of]
        pool.remove(thing)
        if not pool.holders:
            del self._pools[kind, of]
        return True

    def forget(self, kind: Kind, of: Hashable) -> None:
        """Note that all things of a kind ended that belonged to one owner."""
        self._pools.pop((kind, of), None)

    def credit(self, name: str) -> SharedCredit:
        """The account of the bytes that the connections of a name may have unread."""
        return self._credits.setdefault(name, SharedCredit())

    # -- how often names do something ------------------------------------------------------------

    def charge(self, kind: Kind, name: str, now: float) -> bool:
        """Take a token from a name's bucket. Returns False if there is none.

        :param now: in seconds of the caller's clock.
        """
        bucket = self._buckets.get((kind, name))
        if bucket is None:
            rate = self._rates[kind]
            bucket = self._buckets[kind, name] = TokenBucket(1 / rate.per_second, rate.burst)
        is_taken = bucket.take(now)
        if len(self._buckets) > self._sweep_above:
            self._sweep(now)
        return is_taken

    def _sweep(self, now: float) -> None:
        """Drop the buckets that are full again: a new one begins full."""
        self._buckets = {key: each for key, each in self._buckets.items() if not each.is_full(now)}
        self._sweep_above = max(SWEEP, 2 * len(self._buckets))
