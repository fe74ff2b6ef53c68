"""Two check lists under arbitrary events: what must hold whatever the network does to them."""

from __future__ import annotations

import itertools
import random
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

from p2pnet.traversal.budget import PACING
from p2pnet.traversal.checklist import GIVE_UP
from p2pnet.traversal.pair import CandidatePair, PairState
from p2pnet.traversal.pair_table import MAX_PAIRS
from p2pnet.wire.address import Address
from p2pnet.wire.check import encode_success
from tests.traversal.support import TOLERANCE, End, host

# Where each end may be, and addresses where nobody is.
PLACES: list[list[Address]] = [
    [("198.51.100.1", 5000), ("198.51.100.1", 5001), ("198.51.100.2", 5000)],
    [("203.0.113.1", 5000), ("203.0.113.1", 5001), ("203.0.113.2", 5000)],
]
NOWHERE: list[Address] = [("192.0.2.1", 5000), ("192.0.2.1", 5001), ("192.0.2.2", 5000)]
BOUND = 60.0 + GIVE_UP * len(PLACES[0] + NOWHERE)  # seconds: pairs of a foundation take turns

sides = st.integers(0, 1)
moments = st.one_of(st.sampled_from([0.0, 0.02, 0.05, 1.0]), st.floats(0.0, 12.0))


class CheckListMachine(RuleBasedStateMachine):
    """Two ends and the messages between them, each of which may go anywhere, any time."""

    @initialize(
        seed=st.integers(0, 9),
        roles=st.sampled_from([(True, False), (True, True), (False, False)]),
        started=st.booleans(),
    )
    def meet(self, seed: int, roles: tuple[bool, bool], started: bool) -> None:
        """Both know each other's credentials; they may disagree on who controls."""
        self.now = 0.0
        self.roles = roles
        self.flying: list[tuple[bytes, Address, Address]] = []  # data, source, destination
        self.at = [places[0] for places in PLACES]
        draw = random.Random(seed).randbytes
        self.ends = [
            End(host(address), role, draw) for address, role in zip(self.at, roles, strict=True)
        ]
        self.ends[0].meet(self.ends[1].credentials)
        self.ends[1].meet(self.ends[0].credentials)
        self.extra: set[bytes] = set()  # transactions that were asked for, and not paced
        if started:
            self.introduce()

    # -- what may happen -------------------------------------------------------------------------

    @rule(side=sides, addresses=st.sets(st.sampled_from(PLACES[0] + PLACES[1] + NOWHERE)))
    def learn(self, side: int, addresses: set[Address]) -> None:
        """Candidates of the peer arrive, true or not."""
        theirs = sorted(addresses - set(PLACES[side]))
        self.ends[side].checks.add_remote(map(host, theirs))
        self.pump(side)

    @rule(side=sides, delay=moments)
    def start(self, side: int, delay: float) -> None:
        """The word to start, or to start again."""
        self.ends[side].checks.start(self.now + delay)
        self.pump(side)

    @rule(seconds=moments)
    def wait(self, seconds: float) -> None:
        """Time passes and nothing arrives."""
        self.pass_time(seconds)

    @rule(seconds=moments)
    def work(self, seconds: float) -> None:
        """Time passes and everything arrives."""
        self.pass_time(seconds, deliver=True)

    @rule(data=st.data(), repeat=st.booleans())
    @precondition(lambda self: self.flying)
    def deliver(self, data: st.DataObject, repeat: bool) -> None:
        """Any message arrives, perhaps not for the last time."""
        index = data.draw(st.integers(0, len(self.flying) - 1))
        message = self.flying[index]
        if not repeat:
            del self.flying[index]
        self.arrive(*message)

    @rule(data=st.data())
    @precondition(lambda self: self.flying)
    def lose(self, data: st.DataObject) -> None:
        """Any message is lost."""
        del self.flying[data.draw(st.integers(0, len(self.flying) - 1))]

    @rule(data=st.data(), source=st.sampled_from(PLACES[0] + PLACES[1] + NOWHERE))
    @precondition(lambda self: self.flying)
    def replay(self, data: st.DataObject, source: Address) -> None:
        """Somebody sends a message once more, with another source."""
        message, _, destination = data.draw(st.sampled_from(self.flying))
        self.arrive(message, source, destination)

    @rule(data=st.data(), side=sides)
    def forge(self, data: st.DataObject, side: int) -> None:
        """Somebody who does not know the password answers a request."""
        requests = self.ends[side].requests
        if not requests:
            return
        sent = data.draw(st.sampled_from(requests))
        answer = encode_success(sent.check.transaction_id, self.at[side], "a guess")
        self.arrive(answer, sent.destination, self.at[side])

    @rule(side=sides, place=st.integers(0, 2))
    def move(self, side: int, place: int) -> None:
        """A NAT gives the end another address."""
        self.at[side] = PLACES[side][place]

    @rule(side=sides)
    def keep_alive(self, side: int) -> None:
        """The path in use is asked."""
        end = self.ends[side]
        pair = end.checks.best_valid()
        if pair is not None:
            before = len(end.sent)
            end.checks.check(pair, self.now)
            self.pump(side)
            self.extra.add(end.sent[before].check.transaction_id)

    @rule(side=sides)
    def give_up(self, side: int) -> None:
        """The path in use has been silent for too long."""
        pair = self.ends[side].checks.best_valid()
        if pair is not None:
            self.fail(side, pair)

    def fail(self, side: int, pair: CandidatePair) -> None:
        """A pair failed, and perhaps others with it."""
        end = self.ends[side]
        end.checks.fail(pair)
        valid = {other.address for other in end.checks.pairs.values() if other.is_valid}
        assert pair.address not in valid
        end.answered &= valid  # the others must prove themselves again
        self.pump(side)

    # -- how it happens --------------------------------------------------------------------------

    def introduce(self) -> None:
        """Both learn where the other is, and start."""
        for side in (0, 1):
            self.ends[side].checks.add_remote([host(self.at[1 - side])])
            self.ends[side].checks.start(self.now)
            self.pump(side)

    def pump(self, side: int) -> None:
        """What an end sends is on its way."""
        out = self.ends[side].take(self.now)
        self.flying += [(data, self.at[side], destination) for data, destination in out]

    def arrive(self, data: bytes, source: Address, destination: Address) -> None:
        """A message reaches whoever is at its destination now."""
        if destination in self.at:
            side = self.at.index(destination)
            self.ends[side].receive(data, source, self.now)
            self.pump(side)

    def pass_time(self, seconds: float, *, deliver: bool = False) -> None:
        """Let time pass. Every message arrives at once, or none does."""
        end = self.now + seconds
        while True:
            while deliver and self.flying:
                self.arrive(*self.flying.pop(0))
            due = [(self.timer(side), side) for side in (0, 1)]
            when, side = min(due)
            if when > end:
                break
            assert when > self.now - TOLERANCE
            self.now = max(self.now, when)
            self.pump(side)
        self.now = end

    def timer(self, side: int) -> float:
        """When an end has something to do."""
        timer = self.ends[side].checks.get_timer()
        return float("inf") if timer is None else timer

    def teardown(self) -> None:
        """Silence ends in quiet. Then a good network makes a path of whatever came before."""
        self.flying.clear()
        self.pass_time(BOUND)
        self.flying.clear()
        assert [self.timer(side) for side in (0, 1)] == [float("inf")] * 2, "it is not quiet"
        self.everything_holds()
        for side in (0, 1):
            for pair in list(self.ends[side].checks.pairs.values()):
                if pair.is_valid and pair.address != self.at[1 - side]:
                    self.fail(side, pair)
        self.introduce()
        for side in (0, 1, 0):  # the later of the two rounds settles it
            self.pass_time(BOUND, deliver=True)
            self.keep_alive(side)
        self.pass_time(BOUND, deliver=True)
        self.everything_holds()
        assert [self.timer(side) for side in (0, 1)] == [float("inf")] * 2, "it is not quiet"
        for side in (0, 1):
            selected = self.ends[side].checks.selected
            assert selected is not None, "nothing was nominated"
            assert selected.address == self.at[1 - side], "there was a way, and it was not found"

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        """At every end."""
        for end, role in zip(self.ends, self.roles, strict=True):
            pairs = end.checks.pairs.values()
            valid = {pair.address for pair in pairs if pair.is_valid}
            assert valid <= end.answered, "a pair is valid that did not answer"
            self.one_pair_is_used(end, valid)
            assert len(pairs) <= MAX_PAIRS
            if self.roles == (True, False):
                assert end.checks.controlling is role, "a role changed without a conflict"
            self.requests_are_proper(end)

    def one_pair_is_used(self, end: End, valid: set[Address]) -> None:
        """The selected one if there is one, and always one that works."""
        selected, best = end.checks.selected, end.checks.best_valid()
        if selected is not None:
            assert selected is best is end.checks.pairs[selected.address]
            assert selected.nominated
        if best is not None:
            assert best.address in valid
        assert (best is None) == (not valid), "a valid pair is not used"
        chosen = [p for p in end.checks.pairs.values() if p.is_valid and p.nominated]
        assert len(chosen) <= 1, "two pairs are selected"

    def requests_are_proper(self, end: End) -> None:
        """Paced, nominating only as the controlling side, and never beside what is paired."""
        paced = [sent for sent in end.requests if sent.check.transaction_id not in self.extra]
        for one, other in itertools.pairwise(paced):
            assert other.at - one.at >= PACING - TOLERANCE, "two checks too close together"
        assert not any(s.check.nominates and not s.check.controlling for s in end.requests)
        for pair in end.checks.pairs.values():
            assert pair.state is not PairState.IN_PROGRESS or pair.sends


class MachineTests(SynchronousTestCase):
    """The machine, run."""

    def run_machine(self, **options: Any) -> None:
        """Run it with the settings of the profile, and these."""
        run_state_machine_as_test(CheckListMachine, settings=settings(**options))

    def test_the_invariants_hold_whatever_happens(self) -> None:
        """Many short lives, and a few long ones."""
        self.run_machine(max_examples=100, stateful_step_count=30)
        self.run_machine(max_examples=10, stateful_step_count=100)
