"""Two `Paths` under arbitrary events: what must hold whatever the network does to them."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.direct import DirectState
from p2pnet.traversal.exchange import EXCHANGE_TIMEOUT, RETRIES
from p2pnet.traversal.health import ASK_AFTER
from p2pnet.traversal.path_events import PacketSizeChanged, PeerGone, WaysChanged
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.packet_size import BASE
from tests.traversal.ends import AGENT, CONNECTOR, OTHER_RELAY, RELAY, World
from tests.traversal.path_ends import PathsEnd, describe

TOLERANCE = 1e-6
PLACES: list[list[Address]] = [
    [AGENT, ("203.0.113.1", 6000)],
    [CONNECTOR, ("198.51.100.1", 6000), ("198.51.100.9", 5000)],
]

sides = st.integers(0, 1)
relays = st.sampled_from([RELAY, OTHER_RELAY])
moments = st.one_of(st.sampled_from([0.0, 0.05, 0.3, 2.0, 12.0]), st.floats(0.0, 30.0))


class PathsMachine(RuleBasedStateMachine):
    """Two ends, their packets, and lines that fail."""

    @initialize(seed=st.integers(0, 9), policy=st.sampled_from(sorted(SELECTORS)))
    def meet(self, seed: int, policy: str) -> None:
        """Both ends have the Agent's policy, and one relay."""
        self.world = World(seed)
        self.policy = policy
        self.ends = [
            PathsEnd(self.world, places[0], controlling=controls, selector=SELECTORS[policy]())
            for places, controls in zip(PLACES, (True, False), strict=True)
        ]
        for end in self.ends[::-1]:
            end.add_relay()
        self.ends[0].do(self.ends[0].machine.begin)

    # -- what may happen -------------------------------------------------------------------------

    @rule(seconds=moments)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.run(seconds)

    @rule(side=sides, seconds=moments, every=st.sampled_from([0.05, 0.5]))
    def talk(self, side: int, seconds: float, every: float) -> None:
        """Packets go out for so long, while other things happen."""
        if self.is_living(self.ends[side]):
            self.ends[side].talk(every, seconds)

    @rule(cut=st.booleans(), loss=st.sampled_from([0.0, 0.3]), delay=st.floats(0.001, 0.4))
    def change_direct(self, cut: bool, loss: float, delay: float) -> None:
        """The direct line fails, or works in another way."""
        line = self.world.direct
        line.is_cut, line.loss, line.delay = cut, loss, delay

    @rule(mtu=st.sampled_from([1000, 1240, 1500]))
    def resize(self, mtu: int) -> None:
        """The direct line carries larger datagrams, or only smaller ones."""
        self.world.direct.mtu = mtu

    @rule(relay=relays, cut=st.booleans(), loss=st.sampled_from([0.0, 0.3]))
    def change_relay(self, relay: Address, cut: bool, loss: float) -> None:
        """A relay's line fails, or works again."""
        self.world.relays[relay].is_cut, self.world.relays[relay].loss = cut, loss

    @rule(cut=st.booleans())
    def change_signals(self, cut: bool) -> None:
        """Signals are lost, or arrive again."""
        self.world.signals.is_cut = cut

    @rule(side=sides, relay=relays, cost=st.floats(0.001, 0.3))
    def add_relay(self, side: int, relay: Address, cost: float) -> None:
        """An Intermediate relays the session, perhaps again."""
        if self.is_living(self.ends[side]):
            self.ends[side].add_relay(relay, cost)

    @rule(side=sides, relay=relays, retires=st.booleans())
    def leave_relay(self, side: int, relay: Address, retires: bool) -> None:
        """An Intermediate is about to stop, or is gone."""
        end = self.ends[side]
        if self.is_living(end):
            machine = end.machine
            end.do(machine.retire_relay if retires else machine.remove_relay, relay, "it stops")

    @rule(side=sides, place=st.integers(0, 2))
    def move(self, side: int, place: int) -> None:
        """A NAT gives the end another address."""
        end = self.ends[side]
        end.move(PLACES[side][place % len(PLACES[side])])

    @rule(side=sides, what=st.sampled_from(["candidates_changed", "network_changed", "black_hole"]))
    def change(self, side: int, what: str) -> None:
        """Something of this end changed."""
        end = self.ends[side]
        if self.is_living(end):
            end.do(getattr(end.machine, what))

    @rule(side=sides)
    def bid_farewell(self, side: int) -> None:
        """Somebody says that the peer ended the session."""
        end = self.ends[side]
        if self.is_living(end):
            end.do(lambda now: end.machine.farewell(ErrorCode.NO_ERROR, "it ended", now))

    @rule(side=sides)
    def renew(self, side: int) -> None:
        """Frames were dropped until now."""
        end = self.ends[side]
        if self.is_living(end):
            end.do(lambda now: end.machine.renew())

    # -- what must hold --------------------------------------------------------------------------

    def is_living(self, end: PathsEnd) -> bool:
        """Whether the end was not told that the peer is gone, and believed it."""
        return not end.said(PeerGone)

    @invariant()
    def everything_holds(self) -> None:
        """At every end that lives."""
        for end in self.ends:
            if self.is_living(end):
                self.ways_are_proper(end)
                self.size_is_proper(end)
                self.nothing_is_missed(end)

    def ways_are_proper(self, end: PathsEnd) -> None:
        """One way, or the direct one in doubt and relays, or relays in doubt; as announced."""
        machine, ways = end.machine, describe(end.machine.using)
        assert ways != "both" or machine.is_direct_doubtful
        assert end.kinds == sorted(end.kinds), "a relay stands before the direct way"
        assert len(set(machine.using)) == len(machine.using)
        changes = end.said(WaysChanged)
        assert machine.using == (changes[-1].ways if changes else ())
        for way in machine.using:
            if way.header:
                assert machine.relays[way.address] == way
            else:
                assert way.address in end.proven, "it never answered"
        if self.policy == "relay-only":
            assert set(end.kinds) <= {"relayed"}
        relayed = "relayed" in end.kinds
        assert machine.carry_data == (self.policy != "direct-only" or not relayed)

    def size_is_proper(self, end: PathsEnd) -> None:
        """BASE unless the session has nothing but a healthy direct way; as announced."""
        size = end.machine.packet_size
        healthy = end.machine.snapshot().direct.state is DirectState.GOOD
        assert size == BASE or (end.is_direct and healthy)
        changes = end.said(PacketSizeChanged)
        assert size == (changes[-1].size if changes else BASE)

    def nothing_is_missed(self, end: PathsEnd) -> None:
        """Before its time the timer has nothing to do, and no earlier time to name.

        A packet that ends idleness may make a keepalive due at once; that keepalive waits as long
        as the check that follows an unanswered packet.
        """
        promised = end.due
        if promised > self.world.now + ASK_AFTER + TOLERANCE:
            end.machine.handle_timer(self.world.now)
            assert end.machine.next_event() is None, "an event was missed"
            assert end.machine.datagrams_to_send() == [], "a datagram was missed"
            end.due = end.machine.get_timer()
            assert end.due >= promised - TOLERANCE, "an earlier timer was missed"

    def teardown(self) -> None:
        """A good network makes the best of whatever came before."""
        if not hasattr(self, "ends") or not all(map(self.is_living, self.ends)):
            return
        world = self.world
        for line in (world.direct, world.signals, *world.relays.values()):
            line.is_cut, line.loss, line.mtu, line.delay = False, 0.0, 1500, 0.02
        for end in self.ends:
            end.add_relay()
            end.talk(0.9)
        world.run(RETRIES[-1] + 4 * EXCHANGE_TIMEOUT + 40.0)
        self.everything_holds()
        if not all(map(self.is_living, self.ends)):
            return
        for end in self.ends:
            latest = [at for at, _, _ in end.received][-1]
            assert latest > world.now - 2.0, "packets do not arrive"
            if self.policy in ("prefer-direct", "direct-only"):
                assert end.is_direct, "there was a way, and it was not used"


class MachineTests(SynchronousTestCase):
    """The machine, run."""

    def run_machine(self, **options: Any) -> None:
        """Run it with the settings of the profile, and these."""
        run_state_machine_as_test(PathsMachine, settings=settings(**options))

    def test_the_invariants_hold_whatever_happens(self) -> None:
        """Many short lives, and a few long ones."""
        self.run_machine(max_examples=60, stateful_step_count=25)
        self.run_machine(max_examples=8, stateful_step_count=80)
