"""Runs a scenario on the simulated network, and says what should not have been.

::

    outcome = run(generate(123))
    assert not outcome.problems

The nodes are the real ones. Agents talk to services all the time, both ways; faults happen as the
scenario says; lab.invariants looks on. In the end all is repaired, every stream must end
well, and when the agents have left nothing of them may remain.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from lab.hostile import hostile_of
from lab.invariants import Watch, sizes
from lab.scenario import Fault, FaultKind, Scenario
from lab.site import FrugalRealm, ProcessSimulation, SimulatedSite, Weather, build
from lab.talker import Talker
from p2pnet import reports
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.packet_size import BASE
from p2pnet.wire.relay_frame import encode_relay_frame

REGISTERED_WITHIN = 20.0  # seconds, on links that may lose every tenth packet
SETTLED_WITHIN = 100.0  # seconds after the last fault; more than any invariant allows
FINISHED_WITHIN = 40.0  # seconds for the last bytes and the ends of all streams
# Seconds after the agents left: their relays are lost within 30, then QUIC asks for a last time and
# has 30 more, and last words may be repeated for 3.
FORGOTTEN_WITHIN = 65.0
GONE_WITHIN = 15.0  # seconds for Intermediates to stop
LARGEST_RELAYED = len(encode_relay_frame(bytes(8), bytes(BASE)))  # bytes; what every path carries

_realm = functools.cache(FrugalRealm)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a run went.

    :ivar problems: what should not have been, [] if it went well.
    :ivar seconds: of virtual time; `cpu`: of the processor's.
    :ivar packets: how many were sent.
    """

    seed: int
    problems: tuple[str, ...]
    seconds: float
    packets: int
    cpu: float


@contextlib.contextmanager
def logged_errors() -> Iterator[list[str]]:
    """What is logged as an error meanwhile, with where it was."""
    errors: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            errors.append(f"logged: {failure.getErrorMessage()}\n{failure.getTraceback()}")
        elif event.get("log_level", LogLevel.info) >= LogLevel.error:
            errors.append(f"logged: {event.get('log_format')}")

    globalLogPublisher.addObserver(observe)
    try:
        yield errors
    finally:
        globalLogPublisher.removeObserver(observe)


def run(scenario: Scenario) -> Verdict:
    """Run a scenario to its end, or to the first problem."""
    began = time.process_time()
    with logged_errors() as errors:
        chaos = Chaos(scenario)
        try:
            chaos.run()
        except Exception as error:  # of the laboratory, or of what it calls
            chaos.watch.problem(f"raised {error!r}")
            raise
    problems = (*chaos.watch.problems, *errors)
    return Verdict(scenario.seed, problems, chaos.now, chaos.packets, time.process_time() - began)


class Chaos:
    """One run.

    :ivar packets: how many were sent.
    :ivar hostile: who attacks, None for nobody.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        link = scenario.link
        self.network = Weather(scenario.seed, link)
        self.network.tap = self._see
        self.packets = 0
        self._simulation = ProcessSimulation(self.network, _realm())
        self.relays, self.connectors, self.agents = build(scenario, self._simulation)
        self._sites: dict[str, SimulatedSite] = {
            site.name: site for site in (*self.relays, *self.connectors, *self.agents)
        }
        self.watch = Watch(scenario, self.network, self._sites)
        self.conversations = self.watch.conversations
        self.hostile = hostile_of(scenario, self._simulation)
        self.watch.talkers += [
            Talker(agent, service, self.conversations, self.watch.broke, self.network.random)
            for agent in self.agents
            for service in agent.peer.services
        ]
        for site in self.connectors:
            site.joined = self._joined

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.network.clock.seconds()

    def _see(self, data: bytes, *_: Any) -> None:
        self.packets += 1
        if len(data) > LARGEST_RELAYED and classify(data) is Kind.RELAY:
            self.watch.problem(f"{len(data)} bytes are too much for a relayed path")

    def _joined(self, listener: Any, site: Any) -> None:
        known = listener.number < len(self.conversations)
        if not known or not self.conversations[listener.number].join(listener, site):
            self.watch.problem(f"stream {listener.number} arrived at {site.name} once more")

    # -- the course of a run ---------------------------------------------------------------------

    def run(self) -> None:
        """All of it, or up to the first problem."""
        for phase in (self._begin, self._suffer, self._finish, self._leave, self._end):
            phase()
            if self.watch.problems:
                return

    def _begin(self) -> None:
        if self.hostile is not None:
            self.hostile.appear()
        for site in (*self.relays, *self.connectors):
            site.start()
        self._until(self._is_registered, REGISTERED_WITHIN, "not registered")
        self._sizes = {
            site.name: sizes(site.node.core)
            for site in (*self.relays, *self.connectors)
            if site.node is not None
        }
        for agent in self.agents:
            agent.start()
        if self.hostile is not None:
            self.hostile.start()
        for fault in self.scenario.faults:
            self.network.clock.callLater(max(0.0, fault.at - self.now), self._strike, fault)
        for talker in self.watch.talkers:
            talker.start()
        self.watch.start()

    def _is_registered(self) -> bool:
        """Whether every Connector is known to every Intermediate."""
        return all(
            len(self._simulation.reported(site.node, reports.Registered)) == len(site.intermediates)
            for site in self.connectors
            if site.node is not None
        )

    def _suffer(self) -> None:
        last = self.scenario.last
        self._until(
            lambda: self.now > last and self.watch.is_settled(last),
            last - self.now + SETTLED_WITHIN,
            "not settled",
        )

    def _until(self, done: Any, seconds: float, otherwise: str) -> None:
        if not self.network.run_until(lambda: self.watch.problems or done(), seconds):
            self.watch.problem(f"{otherwise} within {seconds:.0f} s")

    def _finish(self) -> None:
        for talker in self.watch.talkers:
            talker.finish()
        self._until(
            lambda: all(t.is_over for t in self.watch.talkers),
            FINISHED_WITHIN,
            "streams did not end",
        )
        self.watch.stop()

    def _leave(self) -> None:
        if self.hostile is not None:
            self.hostile.stop()
        for number, agent in enumerate(self.agents):
            if (number + self.scenario.seed) % 2:
                agent.crash()
            else:
                agent.stop()
        self.network.run(FORGOTTEN_WITHIN)
        for name, before in self._sizes.items():
            node = self._sites[name].node
            after = sizes(node.core) if node is not None else before
            for table, size in after.items():
                if size > before.get(table, 0):
                    what = f"{before.get(table, 0)} before, {size} after"
                    self.watch.problem(f"{name}: {table} has leaked: {what}")
        for conversation in self.conversations:
            if conversation.lingers:
                self.watch.problem(
                    f"stream {conversation.speaker.number} never ended at its connector"
                )

    def _end(self) -> None:
        for site in (*self.connectors, *self.relays):
            site.stop()
        if self.hostile is not None and self.hostile.site is not None:
            self.hostile.site.stop()
        self.network.run(GONE_WITHIN)
        calls = self.network.clock.getDelayedCalls()
        if calls:
            self.watch.problem(f"timers have leaked: {', '.join(map(str, calls))}")
        for node in self._simulation.nodes:
            failures = {**node.driver.errors, "quic": node.core.dropped["failures"]}
            if any(failures.values()):
                self.watch.problem(f"{node.core.credentials.identity} failed inside: {failures}")

    # -- faults ----------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        site: Any = self._sites.get(fault.who)
        network = self.network
        cut = frozenset((fault.who, fault.other))
        undo: Any = None
        match fault.kind:
            case FaultKind.CUT | FaultKind.PARTITION:
                network.cuts.append(cut)
                undo = functools.partial(network.cuts.remove, cut)
            case FaultKind.LOSS:
                network.storms += 1
                undo = self._calm
            case FaultKind.NARROW:
                network.bottlenecks += 1
                undo = self._widen
            case FaultKind.REBIND:
                site.rebind()
            case FaultKind.MOVE:
                site.move()
            case FaultKind.CRASH | FaultKind.STOP:
                site.downs += 1
                end = site.crash if fault.kind is FaultKind.CRASH else site.stop
                maybeDeferred(end)
                undo = functools.partial(self._return, site)
        if undo is not None:
            network.clock.callLater(fault.seconds, undo)

    def _calm(self) -> None:
        self.network.storms -= 1

    def _widen(self) -> None:
        self.network.bottlenecks -= 1

    def _return(self, site: SimulatedSite) -> None:
        site.downs -= 1
        site.start()
        for talker in self.watch.talkers:
            if talker.agent is site:
                talker.start()
