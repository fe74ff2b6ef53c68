"""The search for the packet size of a path, on paths that carry only so much."""

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.testing.network import Link
from p2pnet.traversal.mtu import (
    BASE_PROBES,
    ERROR_TIMER,
    FIRST_PAUSE,
    LOCAL_SIZES,
    MAX_PROBES,
    PROBE_TIMER,
    RAISE_TIMER,
    SIZES,
    USUAL,
    PathMtu,
    Phase,
    sizes_of,
)
from p2pnet.wire.packet_size import BASE
from tests.traversal.support import CheckListCase

FAR, LOCAL = ("198.51.100.1", 50000), ("192.168.7.2", 50000)
RTT = 0.04


class Prober:
    """One end of a path that answers probes of at most `mtu` bytes.

    :ivar sent: each probe, with its time.
    """

    def __init__(self, mtu: float, address: tuple[str, int] = FAR) -> None:
        self.carried = mtu
        self.now = 0.0
        self.sent: list[tuple[float, int]] = []
        self.mtu = PathMtu(address)
        self.mtu.restart(0.0)

    def step(self) -> None:
        """Do what is due next."""
        self.now = max(self.now, self.mtu.next_at)
        size = self.mtu.next_probe(self.now)
        if size is not None:
            self.sent.append((self.now, size))
            if size <= self.carried:
                self.now += RTT
                self.mtu.answered(size, self.now)

    def run_until(self, done: Callable[[], bool], steps: int = 100) -> None:
        """Go on until `done()`, which must be within so many steps."""
        while not done():
            steps -= 1
            assert steps, f"not within {self.now} s: {self.sent}"
            self.step()

    def settle(self) -> int:
        """Search to the end. Returns the size found."""
        self.run_until(lambda: self.mtu.phase is Phase.SEARCH_COMPLETE)
        return self.mtu.size

    @property
    def sizes(self) -> list[int]:
        """Those of the probes, in order."""
        return [size for _, size in self.sent]


class SearchTests(SynchronousTestCase):
    """RFC 8899 section 5.2."""

    def test_the_usual_path_is_known_in_two_round_trips(self) -> None:
        """The least first, then what most carry."""
        prober = Prober(1472)
        self.assertEqual(USUAL, prober.settle())
        self.assertEqual([BASE, USUAL], prober.sizes)
        self.assertAlmostEqual(2 * RTT, prober.now)

    def test_a_narrow_path_is_searched_from_below(self) -> None:
        """Each size that gets through is used while the next one is tried."""
        prober = Prober(1400)
        self.assertEqual(1372, prober.settle())
        steps = [BASE, *[USUAL] * MAX_PROBES, 1232, 1372, *[1412] * MAX_PROBES]
        self.assertEqual(steps, prober.sizes)

    def test_only_local_networks_are_asked_for_jumbo_frames(self) -> None:
        """RFC 1918, RFC 4193, link-local and loopback addresses, of either family."""
        self.assertEqual(USUAL, Prober(math.inf, FAR).settle())
        self.assertEqual(16000, Prober(math.inf, LOCAL).settle())
        for host in ("127.0.0.1", "10.1.2.3", "172.31.0.1", "::1", "fd00::1", "fe80::1"):
            self.assertEqual(LOCAL_SIZES, sizes_of((host, 1024)), host)
        for host in ("100.64.0.1", "172.32.0.1", "192.0.2.1", "2001:db8::1"):
            self.assertEqual(SIZES, sizes_of((host, 1024)), host)

    @given(st.integers(BASE, 20000), st.sampled_from([FAR, LOCAL]))
    def test_the_largest_size_that_gets_through_is_found(
        self, carried: int, address: tuple[str, int]
    ) -> None:
        """And none is used that does not."""
        prober = Prober(carried, address)
        used = []
        while prober.mtu.phase is not Phase.SEARCH_COMPLETE:
            prober.step()
            used.append(prober.mtu.size)
        fitting = [size for size in (BASE, *sizes_of(address)) if size <= carried]
        self.assertEqual(fitting[-1], prober.mtu.size)
        self.assertEqual(sorted(used), used)

    def test_sizes_are_multiples_of_four(self) -> None:
        """As STUN messages are."""
        self.assertEqual([], [size for size in (BASE, *LOCAL_SIZES) if size % 4])
        self.assertEqual(sorted(LOCAL_SIZES), list(LOCAL_SIZES))

    def test_larger_ones_are_tried_again_after_ten_minutes(self) -> None:
        """The path may have changed. The next one comes first."""
        prober = Prober(1372)
        prober.settle()
        settled, prober.carried = prober.now, 1472
        prober.step()
        self.assertEqual((settled + RAISE_TIMER, 1412), prober.sent[-1])
        self.assertEqual(USUAL, prober.settle())

    def test_a_path_that_carries_all_is_left_alone(self) -> None:
        """There is nothing more to look for."""
        prober = Prober(1472)
        prober.settle()
        self.assertEqual(math.inf, prober.mtu.next_at)

    def test_probes_may_get_lost(self) -> None:
        """Twice: a size is too large once it was not answered three times."""
        mtu = PathMtu(FAR)
        mtu.restart(0.0)
        times = [count * PROBE_TIMER for count in range(MAX_PROBES)]
        self.assertEqual([BASE] * MAX_PROBES, [mtu.next_probe(time) for time in times])
        mtu.answered(BASE, times[-1] + RTT)
        self.assertEqual((Phase.SEARCHING, BASE), (mtu.phase, mtu.size))

    def test_a_late_answer_proves_nothing(self) -> None:
        """It may have been sent before the path changed."""
        prober = Prober(1472)
        prober.settle()
        prober.mtu.restart(prober.now)
        prober.mtu.answered(USUAL, prober.now)
        self.assertEqual((Phase.BASE, BASE), (prober.mtu.phase, prober.mtu.size))


class ChangeTests(SynchronousTestCase):
    """Paths that are left and taken again, or carry less than before."""

    def test_a_known_path_is_asked_for_its_size_first(self) -> None:
        """It begins small nevertheless: another router may be on it now."""
        prober = Prober(1400)
        prober.settle()
        del prober.sent[:]
        prober.mtu.restart(prober.now)
        self.assertEqual(BASE, prober.mtu.size)
        prober.run_until(lambda: prober.mtu.size == 1372)
        self.assertEqual([BASE, 1372], prober.sizes)

    def test_a_black_hole_is_left_at_once_and_searched_after_a_pause(self) -> None:
        """Longer after each."""
        prober = Prober(1472)
        prober.settle()
        pause = FIRST_PAUSE
        for prober.carried in (1400, 1240, 1472, 1472):
            at = prober.now
            del prober.sent[:]
            prober.mtu.black_hole(at)
            self.assertEqual(BASE, prober.mtu.size)
            prober.run_until(lambda: len(prober.sent) > 1)
            self.assertAlmostEqual(at + pause, prober.sent[-1][0])
            prober.settle()
            pause *= 2
        self.assertEqual(USUAL, prober.mtu.size)

    def test_the_pause_ends_by_itself(self) -> None:
        """Black holes far apart are not counted, and no pause is longer than any other wait."""
        mtu = PathMtu(FAR)
        mtu.restart(0.0)
        for _ in range(20):
            mtu.black_hole(0.0)
        mtu.answered(BASE, 0.0)
        self.assertEqual(RAISE_TIMER, mtu.next_at)
        later = 3 * RAISE_TIMER
        mtu.black_hole(later)
        mtu.answered(BASE, later)
        self.assertEqual(later + FIRST_PAUSE, mtu.next_at)

    def test_a_path_that_does_not_carry_the_least_is_an_error(self) -> None:
        """Until it does, which is looked at now and then, however often it is taken."""
        prober = Prober(1100)
        prober.run_until(lambda: prober.mtu.phase is Phase.ERROR)
        self.assertEqual([BASE] * BASE_PROBES, prober.sizes)
        failed = prober.now
        prober.mtu.restart(prober.now)
        self.assertIs(Phase.ERROR, prober.mtu.phase)
        prober.carried = 1472
        self.assertEqual(USUAL, prober.settle())
        self.assertAlmostEqual(failed + ERROR_TIMER, prober.sent[-2][0])

    def test_regression_chance_does_not_make_it_one(self) -> None:
        """Five probes in a row may get lost, also of those that ask again."""
        prober = Prober(1100)
        prober.run_until(lambda: len(prober.sent) == BASE_PROBES - 1)
        self.assertIs(Phase.BASE, prober.mtu.phase)
        prober.run_until(lambda: len(prober.sent) == 2 * BASE_PROBES - 1)
        self.assertIs(Phase.ERROR, prober.mtu.phase)
        prober.carried = 1472
        self.assertEqual(USUAL, prober.settle())
        times = [time for time, _ in prober.sent]
        self.assertLess(times[2 * BASE_PROBES - 1] - times[BASE_PROBES], ERROR_TIMER)


class AnyOrderTests(SynchronousTestCase):
    """Whatever happens, in whatever order."""

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["probe", "answer", "stray", "restart", "black hole"]),
                st.floats(0, 700),
            ),
            max_size=60,
        )
    )
    def test_only_what_was_answered_is_used_and_time_goes_on(
        self, steps: list[tuple[str, float]]
    ) -> None:
        """A probe moves the timer; the size is the least or that of an answered probe."""
        mtu, now, probe = PathMtu(LOCAL), 0.0, BASE
        mtu.restart(now)
        proven = {BASE}
        for step, wait in steps:
            now += wait
            match step:
                case "probe":
                    probe = mtu.next_probe(now) or probe
                    self.assertGreater(mtu.next_at, now)
                case "answer":
                    proven.add(probe)
                    mtu.answered(probe, now)
                case "stray":
                    mtu.answered(0, now)  # to a check without padding
                case "restart":
                    mtu.restart(now)
                    self.assertEqual(BASE, mtu.size)
                case "black hole":
                    mtu.black_hole(now)
                    self.assertEqual(BASE, mtu.size)
            self.assertIn(mtu.size, proven)


class ProbeTests(CheckListCase):
    """Checks with padding."""

    def test_the_answer_says_what_got_through(self) -> None:
        """It is small; a probe that is lost says nothing."""
        one, other = self.connect(1, Link(mtu=1472))
        self.net.run(1.0)
        pair = one.checks.selected
        assert pair is not None
        pair.mtu.restart(self.net.clock.seconds())
        found = []
        for size in (pair.mtu.next_probe(self.net.clock.seconds()), USUAL, 1500):
            one.checks.check(pair, self.net.clock.seconds(), size or 0)
            one.pump()
            self.net.run(0.1)
            found.append(pair.mtu.size)
        self.assertEqual([BASE, USUAL, USUAL], found)
        self.assertEqual([BASE, USUAL, 1500], [len(sent.data) for sent in one.sent[-3:]])
        self.assertGreater(100, max(len(sent.data) for sent in other.sent[-2:]))
