"""A whole session under arbitrary events: what must hold whatever the network does to it."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.peer.session import Session
from p2pnet.traversal.pair_table import MAX_PAIRS
from p2pnet.traversal.transactions import MAX_TRANSACTIONS
from p2pnet.wire.address import Address
from p2pnet.wire.check import CheckKind, decode_check, encode_request, encode_success
from p2pnet.wire.demux import Kind, classify
from tests.core.machine import (
    AGENT,
    CONNECTOR,
    CUT,
    ELSEWHERE,
    FAIR,
    PLACES,
    RELAY,
    Datagram,
    Node,
    Talk,
    Weather,
    World,
)
from tests.sim.support import leftovers

RECOVERY = 60.0  # seconds: the longest wait of a node before it tries an Intermediate again, and 24
SETTLING = 180.0  # seconds: the longest wait before another offer of candidates, and a minute
MINUTE, BUSY = 60.0, 250  # seconds, datagrams: keepalives of three connections and one path
MAX_TIMERS = 200  # of one core; cancelled ones count until their time
MAX_TALKS = 8

sides = st.sampled_from([AGENT, CONNECTOR])
legs = st.sampled_from([(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
moments = st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 12.0, 40.0])
numbers = st.integers(0, 99)  # which of those that there are
sizes = st.sampled_from([1, 1000, 20_000])
shares = st.sampled_from([0.0, 0.1, 0.5])
manners = st.sampled_from(["ignore", "reflect", "pretend", "forward", "divert"])
weathers = st.builds(Weather, shares, shares, shares)


class SessionMachine(RuleBasedStateMachine):
    """An Agent, a Connector and an Intermediate; talks go on while everything happens to them."""

    @initialize(
        seed=st.integers(0, 9),
        policy=st.sampled_from(["prefer-direct"] * 3 + ["lowest-rtt", "direct-only", "relay-only"]),
        weather=st.sampled_from([FAIR, FAIR, CUT]),
        manner=manners,
        head_start=st.sampled_from([0.0, 0.5, 5.0, 20.0]),
    )
    def begin(
        self, seed: int, policy: str, weather: Weather, manner: str, head_start: float
    ) -> None:
        """The nodes connect, and there is a first talk, which may be direct by now."""
        self.world = World(seed, policy)
        self.cut(weather)
        self.meet(manner)
        self.world.pass_time(0.5)
        self.open(1000)
        self.world.pass_time(head_start)

    # -- use -------------------------------------------------------------------------------------

    @rule(size=sizes)
    @precondition(lambda self: len(self.world.agent.talks) < MAX_TALKS)
    def open(self, size: int) -> None:
        """The Agent begins a talk."""
        self.say(AGENT, self.world.agent.open(self.world.now), size)

    @rule(side=sides, which=numbers, size=sizes)
    def write(self, side: int, which: int, size: int) -> None:
        """Something is said."""
        talks = self.open_talks(side)
        if talks:
            self.say(side, talks[which % len(talks)], size)

    @rule(side=sides, which=numbers, breaks=st.booleans())
    def finish(self, side: int, which: int, breaks: bool) -> None:
        """One end has said everything, or does not want to go on."""
        talks = self.open_talks(side)
        if talks:
            stream = talks[which % len(talks)].stream
            if breaks:
                stream.reset()
            else:
                stream.write_end()
            self.world.pump(side)

    def open_talks(self, side: int) -> list[Talk]:
        """Those that are not over at that end."""
        return [talk for talk in self.world.nodes[side].talks.values() if talk.closed is None]

    def say(self, side: int, talk: Talk, size: int) -> None:
        """Say so many bytes that come a second time nowhere."""
        talk.write(self.world.random.randbytes(size))
        self.world.pump(side)

    # -- what happens to datagrams ---------------------------------------------------------------

    @rule(seconds=moments)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.pass_time(seconds)

    @rule(which=numbers)
    @precondition(lambda self: self.world.flying)
    def lose(self, which: int) -> None:
        """One is lost."""
        self.pick(which)

    @rule(which=numbers)
    @precondition(lambda self: self.world.flying)
    def hasten(self, which: int) -> None:
        """One overtakes the others."""
        self.world.arrive(self.pick(which))

    @rule(which=numbers, seconds=moments)
    @precondition(lambda self: self.world.flying)
    def delay(self, which: int, seconds: float) -> None:
        """One is late."""
        late = self.pick(which)
        self.world.send(late.data, late.source, late.destination, seconds)

    @rule(which=numbers, seconds=moments)
    @precondition(lambda self: self.world.history)
    def replay(self, which: int, seconds: float) -> None:
        """An old one comes again."""
        old = self.remember(which)
        self.world.send(old.data, old.source, old.destination, seconds)

    @rule(leg=legs, weather=st.one_of(st.just(CUT), st.just(FAIR), weathers))
    def turn(self, leg: tuple[int, int], weather: Weather) -> None:
        """The weather changes between two hosts, one way."""
        self.world.weather[leg] = weather

    @rule(weather=st.sampled_from([CUT, FAIR]))
    def cut(self, weather: Weather) -> None:
        """There is no direct way any more, or there is one again."""
        self.world.weather[0, 1] = self.world.weather[1, 0] = weather

    def pick(self, which: int) -> Datagram:
        """Take one out of the air."""
        flying = self.world.flying
        return flying.pop(which % len(flying))

    def remember(self, which: int) -> Datagram:
        """One of those that were sent."""
        return self.world.history[-1 - which % len(self.world.history)]

    # -- what others do --------------------------------------------------------------------------

    @rule(which=numbers, source=st.sampled_from(ELSEWHERE), damage=st.none() | numbers)
    @precondition(lambda self: self.world.history)
    def copy(self, which: int, source: Address, damage: int | None) -> None:
        """Somebody sends an old one from another address, perhaps a little different."""
        old = self.remember(which)
        content = bytearray(old.data)
        if damage is not None:
            content[damage % len(content)] ^= 1
        self.world.send(bytes(content), source, old.destination)

    @rule(which=numbers, source=st.none() | st.sampled_from(ELSEWHERE))
    def forge(self, which: int, source: Address | None) -> None:
        """Somebody who sees a check but knows no password sends one, and an answer to it."""
        requests = [d for d in self.world.history if d.data[:2] == b"\x00\x01"]
        if not requests:
            return
        seen = requests[-1 - which % len(requests)]
        check = decode_check(seen.data)
        assert check.kind is CheckKind.REQUEST
        answer = encode_success(check.transaction_id, seen.source, "a guess")
        self.world.send(answer, source or seen.destination, seen.source)
        check = dataclasses.replace(check, transaction_id=self.world.random.randbytes(12))
        self.world.send(encode_request(check, "a guess"), source or seen.source, seen.destination)

    @rule(manner=manners)
    def meet(self, manner: str) -> None:
        """Others listen where no host of ours is."""
        self.world.strangers = getattr(self.world, manner)

    # -- what happens to hosts -------------------------------------------------------------------

    @rule(side=sides, place=st.integers(0, 2))
    def move(self, side: int, place: int) -> None:
        """A NAT gives the node another address."""
        self.world.nodes[side].address = PLACES[side][place]

    @rule(side=sides, external=st.lists(st.sampled_from(ELSEWHERE), max_size=4, unique=True))
    def mistake(self, side: int, external: list[Address]) -> None:
        """The node believes that it can be reached at addresses, which may be others'."""
        self.world.tell_addresses(side, external)
        self.world.pump(side)

    @rule(goodbye=st.booleans())
    def restart(self, goodbye: bool) -> None:
        """The Intermediate starts anew."""
        self.world.restart(goodbye)

    # -- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        """On a good network everything comes right, comes to rest, and leaves nothing behind."""
        world = self.world
        world.heal()
        world.pass_time(RECOVERY)
        last = world.agent.open(world.now)
        self.say(AGENT, last, 1000)
        world.pass_time(SETTLING)
        assert not last.is_broken, f"no service on a good network: {last.closed}"
        self.everything_holds()
        self.everything_arrived()
        for side in (AGENT, CONNECTOR):
            for talk in self.open_talks(side):
                self.say(side, talk, 1000)
        world.pass_time(MINUTE)
        self.everything_arrived()
        self.sessions_are_well()
        sent = world.sent
        world.pass_time(MINUTE)
        assert world.sent - sent <= BUSY, f"{world.sent - sent} datagrams a minute for nothing"
        self.close()

    def everything_arrived(self) -> None:
        """What was not reported as broken is complete, and nobody waits for one who is gone."""
        for talk, other, _ in self.world.pairs():
            if talk.is_broken or (other is not None and other.is_broken):
                ends = [end for end in (talk, other) if end is not None]
                assert all(end.closed is not None for end in ends), "only one end knows of the end"
                continue
            assert other is not None, "nobody got it, and nobody was told"
            assert bytes(other.read) == bytes(talk.written), "bytes are missing"
            assert talk.stream.sending.ended == other.stream.receiving.ended

    def sessions_are_well(self) -> None:
        """Both ends have the same ones, and they are direct where they should be."""
        agent, connector = self.world.nodes
        ids = [{session.id for session in node.core.sessions} for node in self.world.nodes]
        assert ids[AGENT] == ids[CONNECTOR]
        assert agent.core.links[0].is_ready and connector.core.links[0].is_ready
        for node in self.world.nodes:
            for session in node.core.sessions:
                using = node.core.paths_of(session).using
                assert using, "a session without a way"
                if self.world.policy in ("prefer-direct", "direct-only"):
                    ways = [way.address for way in using]
                    assert ways == [node.peer.address], f"{ways}, not {node.peer.address}"

    def close(self) -> None:
        """The nodes stop: nothing is left of what they did."""
        for side in (AGENT, CONNECTOR):
            self.world.nodes[side].core.close(self.world.now)
            self.world.pump(side)
        self.world.pass_time(RECOVERY)
        for node in self.world.nodes:
            left = leftovers(node.core, "links", "_ended", "_flows", "dropped")
            assert not left, left
            assert all(talk.closed is not None for talk in node.talks.values())
        left = leftovers(self.world.hosts[RELAY].core, "_unknown")
        assert not left, left

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        """At every end."""
        for talk, other, _ in self.world.pairs():
            if other is not None:
                assert other.written.startswith(talk.read), "not what was written"
        for node in self.world.nodes:
            for session in node.core.sessions:
                self.paths_are_proper(node, session)
            self.tables_are_bounded(node)
        self.relay_is_bounded(self.world.hosts[RELAY].core)

    def paths_are_proper(self, node: Node, session: Session) -> None:
        """One path, or the direct one in doubt and the relay; and a direct one has answered."""
        paths = node.core.paths_of(session)
        kinds = [way.kind for way in paths.using]
        assert kinds in ([], ["direct"], ["relayed"], ["direct", "relayed"]), kinds
        assert len(kinds) < 2 or paths.is_direct_doubtful
        direct = paths.snapshot().direct
        if direct.address is not None:
            assert (paths.tag, direct.address) in node.proven, "it never answered"
        checks = paths._rounds.checks
        if checks is not None:
            pairs = checks.pairs.values()
            assert len([p for p in pairs if p.is_valid and p.nominated]) <= 1, "two are selected"
            assert len(pairs) <= MAX_PAIRS
            assert len(checks._transactions) <= MAX_TRANSACTIONS

    def tables_are_bounded(self, node: Node) -> None:
        """What a node keeps is of sessions that it has."""
        core = node.core
        sessions = set(core.sessions)
        assert set(core.sessions.table._tags.values()) == sessions
        assert set(core.sessions.table._channels.values()) <= sessions
        assert len(sessions) <= len(node.talks) + 1
        assert len(core.timers._heap) <= MAX_TIMERS
        assert core.dropped["failures"] == 0, "an exception was caught"

    def relay_is_bounded(self, core: IntermediateCore) -> None:
        """It has two channels for each session, and sessions of clients that it has."""
        assert len(core.forwarder) == 2 * len(core.introductions)
        assert core.dropped["failures"] == 0, "an exception was caught"


class MachineTests(SynchronousTestCase):
    """The machine, run."""

    def run_machine(self, **options: Any) -> None:
        """Run it with the settings of the profile, and these."""
        run_state_machine_as_test(SessionMachine, settings=settings(**options))

    def test_the_invariants_hold_whatever_happens(self) -> None:
        """Lives of some length, as a session needs a few steps to become direct."""
        self.run_machine(max_examples=25, stateful_step_count=30)

    def test_the_machine_gets_somewhere(self) -> None:
        """Undisturbed, the two talk directly, or it would prove nothing."""
        machine = SessionMachine()
        machine.begin(1, "prefer-direct", FAIR, "ignore", 5.0)
        for node in machine.world.nodes:
            (session,) = node.core.sessions
            self.assertEqual(["direct"], [way.kind for way in node.core.paths_of(session).using])
        kinds = {classify(datagram.data) for datagram in machine.world.history}
        self.assertEqual({Kind.STUN, Kind.RELAY, Kind.QUIC}, kinds)
        machine.teardown()
