"""What must hold on the simulated network at any time, whatever is broken."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.task import LoopingCall

from lab.scenario import Scenario
from lab.site import ConnectorSite, IntermediateSite, NodeSite, SimulatedSite, Weather
from p2pnet import reports
from p2pnet.config.roles import ConnectorConfig, IntermediateConfig
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.shares import MAX_OFFERS
from p2pnet.core.peer.connector import MAX_AGENT_SESSIONS, MAX_UNPROVEN, ConnectorCore
from p2pnet.core.peer.ends import HEADER_TIMEOUT
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.stream import StreamState
from p2pnet.errors import ServiceError
from p2pnet.node.base import Node
from p2pnet.traversal import budget

if TYPE_CHECKING:
    from lab.talker import Conversation, Talker


def default_of(config: type[msgspec.Struct], setting: str) -> Any:
    """The shipped default of a setting."""
    return next(f.default for f in msgspec.structs.fields(config) if f.name == setting)


SILENT_FOR = 30.0  # seconds without a byte at most, while there is a way
DIRECT_WITHIN = 60.0  # seconds, where a direct way is possible
BLAMED_FOR = 45.0  # seconds after a fault in which a stream may break because of it
NOTICED_WITHIN = 30.0  # seconds after a fault in which a control connection may be lost over it
FRESH = 2.0  # seconds
# Seconds until a new stream is answered where no packet is lost and nothing broke lately: a
# connector that leaves the offer alone costs 2, one that never shakes hands 1.
ANSWERED_WITHIN = 10.0
MAX_STREAMS = default_of(ConnectorConfig, "max_streams")
MAX_SESSIONS = default_of(IntermediateConfig, "max_sessions_per_node")
VICTIM_PACKETS = budget.MAX_UNPROVEN  # that a host without a node gets of a node in a run
# Tables that may keep something: what ended lately, what is tidied lazily, and counts of hosts.
KEPT = {"_ended", "_heap", "_timers", "_by_id", "_buckets", "_hosts"}


def sizes(thing: Any, name: str = "", depth: int = 3) -> dict[str, int]:
    """How many entries there are in each table of a core and of its parts."""
    found: dict[str, int] = {}
    for key, value in getattr(thing, "__dict__", {}).items():
        if key in KEPT or isinstance(value, str | bytes | tuple | collections.Counter):
            continue
        if hasattr(value, "__len__"):
            found[f"{name}{key}"] = len(value)
        if depth and type(value).__module__.startswith("p2pnet.") and key.strip("_") != "node":
            found.update(sizes(value, f"{name}{key}.", depth - 1))
    return found


def excesses(core: Any, now: float) -> Iterator[str]:
    """The tables of a core that hold more than their caps (docs/limits.md), for people."""
    if isinstance(core, ConnectorCore):
        unproven = collections.Counter(s.peer_name for s in core.sessions if not s.is_proven)
        proven = collections.Counter(s.peer_name for s in core.sessions if s.is_proven)
        streams = [(session, s) for session in core.sessions for s in session.streams.values()]
        opened = collections.Counter(session.peer_name for session, _ in streams)
        late = [s for _, s in streams if now - s.created > HEADER_TIMEOUT + FRESH]
        waiting = sum(stream.state is StreamState.WAITING for stream in late)
        yield from _over("sessions without handshake", unproven, MAX_UNPROVEN * len(core.links))
        yield from _over("sessions", proven, MAX_AGENT_SESSIONS)
        yield from _over("streams", opened, MAX_STREAMS)
        yield from _over("headers", {"all agents": waiting}, 0)
    elif isinstance(core, IntermediateCore):
        introductions = list(core.introductions._introductions.values())
        agents = collections.Counter(each.agent.identity.name for each in introductions)
        offers = collections.Counter(
            (each.agent.identity.name, each.connector.identity.name)
            for each in introductions
            if not each.answered
        )
        yield from _over("sessions", agents, MAX_SESSIONS)
        yield from _over("unanswered offers", offers, MAX_OFFERS)


def _over(what: str, counts: Mapping[Any, int], cap: int) -> Iterator[str]:
    return (f"{n} {what} of {who}, the cap is {cap}" for who, n in counts.items() if n > cap)


class Watch:
    """Looks on, once a second.

    :ivar problems: what should not have been.
    :ivar talkers, conversations: whom to look at.
    """

    def __init__(
        self,
        scenario: Scenario,
        network: Weather,
        sites: Mapping[str, SimulatedSite],
    ) -> None:
        self.problems: list[str] = []
        self.talkers: list[Talker] = []
        self.conversations: list[Conversation] = []
        self._scenario = scenario
        self._network = network
        self._sites = sites
        self._relays = [s.name for s in sites.values() if isinstance(s, IntermediateSite)]
        self._losses: collections.Counter[Node] = collections.Counter()  # seen so far
        self._loop = LoopingCall(self._look)
        self._loop.clock = network.clock

    def start(self) -> None:
        """Look on from now on."""
        self._loop.start(1.0, now=False)

    def stop(self) -> None:
        """Look away."""
        self._loop.stop()

    @property
    def now(self) -> float:
        """Virtual time."""
        return self._network.clock.seconds()

    def problem(self, text: str) -> None:
        """Something should not have been."""
        self.problems.append(f"{self.now:.2f} s: {text}")

    def _look(self) -> None:
        for site in self._sites.values():
            if isinstance(site, NodeSite) and site.node is not None:
                self._look_at_links(site, site.node)
                for session in site.node.core.sessions:
                    self._look_at_paths(site, session)
            if site.node is not None:
                for text in excesses(site.node.core, self.now):
                    self.problem(f"{site.name}: {text}")
        self._look_at_victims()
        for talker in self.talkers:
            if talker.agent.node is not None:
                self._look_for_silence(talker)
                self._look_for_direct(talker)
                self._look_for_answer(talker)
        self.verify()

    # -- each of them ----------------------------------------------------------------------------

    def _look_at_paths(self, site: SimulatedSite, session: Session) -> None:
        # Two or more carry the same packets, so only for as long as one of them is in doubt.
        assert site.node is not None
        paths = site.node.core.paths_of(session)
        if len(paths.using) > 1 and not paths.is_doubtful:
            self.problem(f"{site.name} sends on {len(paths.using)} ways without a doubt")

    def _look_at_links(self, site: NodeSite, node: Node) -> None:
        """No node loses an Intermediate that it can reach."""
        losses = site.reported(reports.ControlLost)
        news, self._losses[node] = losses[self._losses[node] :], len(losses)
        if self.now - self._calm_since(site.name, *self._relays) > NOTICED_WITHIN:
            for lost in news:
                self.problem(f"{site.name} lost {lost.intermediate} without a cause: {lost.reason}")

    def _look_for_silence(self, talker: Talker) -> None:
        """Bytes flow, or a stream breaks and the next one has them flow."""
        since = max(min(talker.heard_at), self._way_since(talker))
        if self.now - since > SILENT_FOR:
            where = "agent" if talker.heard_at[0] < talker.heard_at[1] else "connector"
            self.problem(f"{talker}: the {where} has heard nothing for {self.now - since:.1f} s")

    def _look_for_answer(self, talker: Talker) -> None:
        """No connector that leaves offers or handshakes alone keeps an agent from a good one."""
        conversation = talker.current
        if self._scenario.link.loss or conversation is None or conversation.is_answered:
            return
        since = max(conversation.began, self._trouble_since(talker) + BLAMED_FOR)
        if self.now - since > ANSWERED_WITHIN:
            self.problem(f"{talker}: no answer within {ANSWERED_WITHIN:.0f} s")

    def _look_at_victims(self) -> None:
        """Hosts that have no part in it get few packets."""
        for (host, sender), count in self._network.struck.items():
            if count > VICTIM_PACKETS:
                self.problem(f"{host} got {count} packets of {sender} that it never answered")
        for host, size in self._network.owed.items():
            if size > 0:
                self.problem(f"{host} got {size} bytes more than three times those in its name")

    def _connectors(self, talker: Talker) -> list[ConnectorSite]:
        """Whom the talker talks to, or all whom it may come to talk to."""
        sites = [s for s in self._sites.values() if isinstance(s, ConnectorSite)]
        serving = [s for s in sites if talker.service in s.peer.services]
        session = talker.current.session if talker.current is not None else None
        return [
            s for s in serving if session is not None and s.name == session.peer_name
        ] or serving

    def _calm_since(self, *names: str) -> float:
        return self._scenario.calm_since(self.now, names)

    def _way_since(self, talker: Talker) -> float:
        """Since when there is a way all the time: through one of the Intermediates, or directly,
        where a session is direct; then it matters to nobody whether an Intermediate is there, but
        one had to be for the session to begin."""
        agent, connectors = talker.agent, [site.name for site in self._connectors(talker)]
        times = [
            self._calm_since(agent.name, connector, relay)
            for connector in connectors
            for relay in self._relays
        ]
        if agent.node is not None:
            times += [
                max(session.created, self._calm_since(agent.name, session.peer_name))
                for session in agent.node.core.sessions
                if session.peer_name in connectors and agent.node.core.paths_of(session).is_direct
            ]
        return min(times)

    def _trouble_since(self, talker: Talker) -> float:
        """When there last was any trouble that could matter to the talker."""
        names = [connector.name for connector in self._connectors(talker)]
        return self._calm_since(talker.agent.name, *names, *self._relays)

    def _look_for_direct(self, talker: Talker) -> None:
        session = talker.current.session if talker.current is not None else None
        if session is None or self._is_direct(talker):
            return
        if self.now - max(session.created, self._trouble_since(talker)) > DIRECT_WITHIN:
            self.problem(f"{talker}: not direct within {DIRECT_WITHIN:.0f} s")

    def _is_direct(self, talker: Talker) -> bool:
        """Whether both ends send directly, or need not."""
        session = talker.current.session if talker.current is not None else None
        if session is None:
            return False
        site = self._sites.get(session.peer_name)
        if site is None:
            return False  # a hostile connector's: no stream stays there
        if not self._scenario.can_be_direct(talker.agent.name, site.name):
            return True
        theirs = site.node.core.sessions.find(session.id) if site.node is not None else None
        if site.node is None or theirs is None or talker.agent.node is None:
            return False
        ends = talker.agent.node.core.paths_of(session), site.node.core.paths_of(theirs)
        return all(paths.is_direct for paths in ends)

    # -- streams ---------------------------------------------------------------------------------

    def broke(self, talker: Talker, conversation: Conversation) -> None:
        """A stream failed. That must have a cause and a reason."""
        failure = conversation.speaker.why
        assert failure is not None
        reason = failure.getErrorMessage()
        if failure.check(ServiceError) is None or not reason:
            self.problem(f"{talker}: failed without a clear reason: {failure!r}")
        elif self.now - self._trouble_since(talker) > BLAMED_FOR:
            self.problem(f"{talker}: failed without a cause: {reason}")

    def verify(self) -> None:
        """Compare what was said and heard."""
        for conversation in self.conversations:
            wrong = conversation.verify()
            if wrong:
                self.problem(f"stream {conversation.speaker.number}: {wrong}")

    def is_settled(self, since: float) -> bool:
        """Whether all talk again, on the path that they should, a while after that time."""
        return all(
            talker.current is not None
            and min(talker.heard_at) > since + FRESH
            and self._is_direct(talker)
            for talker in self.talkers
        )
