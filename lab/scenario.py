"""What happens in a run on the simulated network: who is there, over which links, and what breaks.

A scenario is a frozen value, drawn from a seed by `generate`. `simpler` takes it apart, so that
of a run that fails only what matters is left.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Collection, Iterator
from typing import Any

from lab.expectations import Outcome, expected_outcome
from lab.nat import BEHAVIORS
from p2pnet.testing.network import Link

INTERMEDIATES = ("relay1", "relay2", "relay3")
CONNECTORS = ("office", "annex", "attic")
AGENTS = ("alice", "bob", "carol", "dave")
NATS = ("open", "full-cone", "address-restricted", "port-restricted", "cgnat", "symmetric")
POLICIES = ("prefer-direct",) * 6 + ("lowest-rtt", "relay-only")
PLAIN = Link()
BEGINNING = 5.0  # seconds in which all find together, before the first fault
FAULTS_WITHIN = 30.0  # seconds after that in which they begin
HOSTILE_SHARE = 1 / 3  # of the seeds
DRAINING = 10.0  # seconds that an Intermediate may take to stop


class FaultKind(enum.StrEnum):
    """What can happen."""

    CUT = "cut"  # no packet passes between `who` and `other`
    PARTITION = "partition"  # nor between `who` and anybody
    LOSS = "loss"  # half of all packets are lost, everywhere
    NARROW = "narrow"  # all packets of more than 1232 bytes are, without a word, everywhere
    REBIND = "rebind"  # the NAT of `who` forgets its mappings
    MOVE = "move"  # `who` has another address from now on
    CRASH = "crash"  # `who` vanishes without a word, and is started again
    STOP = "stop"  # `who` is stopped in order, and started again

    def __repr__(self) -> str:
        return f"FaultKind.{self.name}"  # which can be pasted into a test


INSTANT = (FaultKind.REBIND, FaultKind.MOVE)
EVERYWHERE = (FaultKind.LOSS, FaultKind.NARROW)


class HostileKind(enum.StrEnum):
    """Who may attack the others; lab.hostile says how."""

    STRANGER = "stranger"
    OUTSIDER = "outsider"
    INSIDER = "insider"
    BLACK_HOLE = "black-hole"
    FLAPPER = "flapper"
    FORGER = "forger"

    def __repr__(self) -> str:
        return f"HostileKind.{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens at a time, and is undone `seconds` later."""

    at: float
    kind: FaultKind
    who: str = ""
    other: str = ""
    seconds: float = 0.0

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + self.seconds

    def touches(self, names: Collection[str]) -> bool:
        """Whether it concerns what these nodes have to do with each other."""
        if self.kind in EVERYWHERE:
            return True
        return self.who in names and (self.kind is not FaultKind.CUT or self.other in names)

    def __str__(self) -> str:
        whom = "|".join(filter(None, (self.who, self.other))) or "all"
        lasting = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{self.at:g} s: {self.kind} {whom}{lasting}"


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """Where an Agent or a Connector runs.

    :ivar behavior: the name of what it is behind, see lab.nat.
    :ivar services: what the Connector serves, or the Agent uses.
    """

    name: str
    behavior: str = "open"
    services: tuple[str, ...] = ("web",)


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """A run. `seed` is that of everything that is not written here, such as what gets lost.

    :ivar talkative: whether all speak without a lull.
    :ivar hostile: who attacks the others, None for nobody.
    """

    seed: int
    intermediates: tuple[str, ...] = INTERMEDIATES[:1]
    connectors: tuple[Peer, ...] = (Peer(CONNECTORS[0]),)
    agents: tuple[Peer, ...] = (Peer(AGENTS[0]),)
    link: Link = PLAIN
    policy: str = "prefer-direct"
    faults: tuple[Fault, ...] = ()
    talkative: bool = False
    hostile: HostileKind | None = None

    @property
    def last(self) -> float:
        """When the last fault is over."""
        return max((fault.end for fault in self.faults), default=BEGINNING)

    def calm_since(self, now: float, names: Collection[str]) -> float:
        """Since when nothing has disturbed these nodes; `now` if something does."""
        ends = (f.end for f in self.faults if f.at <= now and f.touches(names))
        return min(now, max(ends, default=0.0))

    def can_be_direct(self, agent: str, connector: str) -> bool:
        """Whether the NATs of the two, and the policy, let a session between them be direct."""
        behaviors = {peer.name: peer.behavior for peer in (*self.agents, *self.connectors)}
        ends = BEHAVIORS[behaviors[agent]], BEHAVIORS[behaviors[connector]]
        return self.policy == "prefer-direct" and expected_outcome(*ends) is Outcome.DIRECT

    def __str__(self) -> str:
        sides = [
            f"{title}: "
            + ", ".join(f"{p.name} ({p.behavior}; {' '.join(p.services)})" for p in peers)
            for title, peers in (("Connectors", self.connectors), ("Agents", self.agents))
        ]
        lines = [
            f"seed {self.seed}, {self.policy}" + ", talkative" * self.talkative,
            f"Intermediates: {', '.join(self.intermediates)}",
            *sides, *([f"hostile: {self.hostile}"] if self.hostile else []),
            str(self.link), *map(str, self.faults),
        ]  # fmt: skip
        return "\n".join(lines)


# -- drawing one ---------------------------------------------------------------------------------


def generate(seed: int) -> Scenario:
    """The scenario of a seed. Small ones are more likely, for they take less time."""
    draw = random.Random(seed)
    intermediates = INTERMEDIATES[: draw.choice((1, 1, 2, 2, 3))]
    names = CONNECTORS[: draw.choice((1,) * 8 + (2, 2, 3))]
    shared = draw.random() < 0.4  # they are replicas
    connectors = tuple(
        Peer(name, draw.choice(NATS), ("web",) if shared else (name,)) for name in names
    )
    services = sorted({service for peer in connectors for service in peer.services})
    agents = tuple(
        Peer(
            name,
            draw.choice(NATS),
            tuple(draw.sample(services, draw.choice((1, 1, 1, len(services))))),
        )
        for name in AGENTS[: draw.choice((1,) * 12 + (2, 2, 2, 3, 4))]
    )
    scenario = Scenario(seed, intermediates, connectors, agents, _link(draw), draw.choice(POLICIES))
    faults = [_fault(draw, scenario) for _ in range(draw.choice((1, 1, 2, 2, 3, 4, 6)))]
    talkative = draw.random() < 0.06 and scenario.link.loss < 0.03  # else they cannot keep up
    return dataclasses.replace(
        scenario,
        faults=tuple(sorted(faults, key=lambda f: f.at)),
        talkative=talkative,
        hostile=_hostile(random.Random(f"hostile {seed}")),
    )


def _hostile(draw: random.Random) -> HostileKind | None:
    """Who attacks, if anybody: with draws of its own, so that the rest of a seed stays."""
    return draw.choice(list(HostileKind)) if draw.random() < HOSTILE_SHARE else None


def _link(draw: random.Random) -> Link:
    return Link(
        delay=draw.choice((0.002, 0.01, 0.025, 0.05, 0.12)),
        jitter=draw.choice((0.0, 0.0, 0.005, 0.03)),
        loss=draw.choice((0.0, 0.0, 0.01, 0.03, 0.08)),
        duplication=draw.choice((0.0, 0.0, 0.0, 0.1)),
        rate=draw.choice((0, 0, 0, 60_000, 250_000)),
        mtu=draw.choice((1472, 1400, 1232)),
    )


def _fault(draw: random.Random, scenario: Scenario) -> Fault:
    agents, connectors = ([p.name for p in side] for side in (scenario.agents, scenario.connectors))
    nodes, everybody = agents + connectors, [*agents, *connectors, *scenario.intermediates]
    kind = draw.choice(list(FaultKind))
    at = round(BEGINNING + draw.random() * FAULTS_WITHIN, 2)
    seconds = (
        0.0
        if kind in INSTANT
        else round(draw.choice((0.3, 1, 3, 8, 20)) * (0.5 + draw.random()), 2)
    )
    match kind:
        case FaultKind.CUT:
            one = draw.choice(nodes)
            others = scenario.intermediates + tuple(connectors if one in agents else agents)
            return Fault(at, kind, one, draw.choice(others), seconds)
        case FaultKind.LOSS | FaultKind.NARROW:
            return Fault(at, kind, seconds=seconds)
        case FaultKind.REBIND | FaultKind.MOVE:
            return Fault(at, kind, draw.choice(nodes))
        case FaultKind.STOP:
            return Fault(at, kind, draw.choice(everybody), seconds=seconds + DRAINING)
    return Fault(at, kind, draw.choice(everybody), seconds=seconds)


# -- taking one apart ----------------------------------------------------------------------------


def simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios that lack one thing of this one, or have a plainer one in its place."""

    def change(**changes: Any) -> Scenario:
        return dataclasses.replace(scenario, **changes)

    yield change(hostile=None)
    for fault in scenario.faults:
        yield change(faults=tuple(f for f in scenario.faults if f is not fault))
    nodes = [peer.name for peer in (*scenario.agents, *scenario.connectors)]
    for name in (*nodes, *scenario.intermediates):
        yield from _without(scenario, name)
    yield change(link=PLAIN)
    for name in ("delay", "jitter", "loss", "duplication", "rate", "mtu"):
        plain: dict[str, Any] = {name: getattr(PLAIN, name)}
        yield change(link=dataclasses.replace(scenario.link, **plain))
    yield change(policy="prefer-direct")
    yield change(talkative=False)
    for side in ("agents", "connectors"):
        peers: tuple[Peer, ...] = getattr(scenario, side)
        for peer in peers:
            opened = dataclasses.replace(peer, behavior="open")
            yield change(**{side: tuple(opened if p is peer else p for p in peers)})
    for agent in scenario.agents:
        for service in agent.services:
            fewer = dataclasses.replace(
                agent, services=tuple(s for s in agent.services if s != service)
            )
            if fewer.services:
                yield change(agents=tuple(fewer if a is agent else a for a in scenario.agents))


def _without(scenario: Scenario, name: str) -> Iterator[Scenario]:
    """The scenario without a node, and without agents that have nothing to talk to then."""
    connectors = tuple(peer for peer in scenario.connectors if peer.name != name)
    served = {service for peer in connectors for service in peer.services}
    agents = tuple(
        dataclasses.replace(agent, services=services)
        for agent in scenario.agents
        if agent.name != name and (services := tuple(s for s in agent.services if s in served))
    )
    intermediates = tuple(i for i in scenario.intermediates if i != name)
    names = {"", *intermediates, *(peer.name for peer in (*agents, *connectors))}
    if intermediates and agents:
        yield dataclasses.replace(
            scenario,
            intermediates=intermediates,
            connectors=connectors,
            agents=agents,
            faults=tuple(f for f in scenario.faults if {f.who, f.other} <= names),
        )
