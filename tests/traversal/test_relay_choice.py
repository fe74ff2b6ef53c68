"""Which relay of a session is used: the rules one by one, and whatever happens."""

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.relay_choice import ASK_AFTER, ASK_AGAIN, DOUBT_AFTER, ONE_SIDED, RelayChoice
from p2pnet.wire.address import Address

A: Address = ("192.0.2.1", 4433)
B: Address = ("192.0.2.2", 4433)
C: Address = ("192.0.2.3", 4433)
RTT = 0.02
MOMENT = 0.001


def relays(**costs: float) -> RelayChoice:
    """RelayChoice of these costs, all known from 0.0 on."""
    made = RelayChoice()
    made.rtt = RTT
    for name, cost in costs.items():
        made.add({"a": A, "b": B, "c": C}[name], cost, 0.0)
    return made


class ChoiceTests(SynchronousTestCase):
    """Which one is used as long as all are well."""

    def test_without_a_relay_there_is_nothing_to_send_through(self) -> None:
        """And nothing to wait for."""
        empty = RelayChoice()
        empty.rtt = RTT
        self.assertEqual((None, []), (empty.current, list(empty)))
        self.assertEqual(math.inf, empty.get_timer())

    def test_the_cheapest_is_used_if_it_is_clearly_cheaper(self) -> None:
        """By 5 ms and 10 %."""
        for costs, expected in (
            ({"a": 0.1, "b": 0.05}, B),
            ({"a": 0.1, "b": 0.095}, A),
            ({"a": 0.01, "b": 0.006}, A),
            ({"a": 0.01, "b": 0.004}, B),
        ):
            self.assertEqual(expected, relays(**costs).current, costs)

    def test_one_that_retires_is_left_if_there_is_another(self) -> None:
        """Whatever that costs; and it may come back."""
        two = relays(a=0.01, b=0.5)
        two.retire(A, 1.0)
        self.assertEqual([B], list(two))
        two.retire(B, 2.0)
        self.assertEqual([B], list(two))
        two.add(A, 0.01, 3.0)
        self.assertEqual([A], list(two))

    def test_the_next_best_follows_one_that_is_gone(self) -> None:
        """Until there is none."""
        three = relays(a=0.01, b=0.2, c=0.1)
        for expected in (C, B, None):
            assert three.current is not None
            three.remove(three.current, 1.0)
            self.assertEqual(expected, three.current)


class DoubtTests(SynchronousTestCase):
    """What happens in silence."""

    def silent(self, made: RelayChoice, *, traffic: bool = True, unanswered: bool = True) -> float:
        """Send a packet that is not answered. Returns when."""
        if traffic:
            for moment in (9.98, 9.99):
                made.heard(made.current, moment)
        made.sent(10.0, unanswered=unanswered)
        return 10.0

    def test_amid_traffic_the_intermediate_is_asked_soon_and_once(self) -> None:
        """A NAT may have moved this node, which then hears nothing until it shows where it is."""
        one = relays(a=0.01)
        since = self.silent(one, unanswered=False)
        self.assertAlmostEqual(since + ASK_AFTER, one.get_timer())
        self.assertFalse(one.look(since + ASK_AFTER - MOMENT))
        self.assertTrue(one.look(since + ASK_AFTER))
        self.assertFalse(one.look(since + 9.0))
        self.assertEqual(math.inf, one.get_timer())

    def test_regression_a_question_in_a_lull_does_not_stand_for_later_ones(self) -> None:
        """What is unanswered then has it asked again, and again."""
        one = relays(a=0.01)
        since = self.silent(one, unanswered=False)
        self.assertTrue(one.look(since + 1.0))
        one.sent(20.0, unanswered=True)
        self.assertTrue(one.look(20.0 + DOUBT_AFTER))
        self.assertFalse(one.look(20.0 + DOUBT_AFTER + ASK_AGAIN - MOMENT))
        self.assertTrue(one.look(20.0 + DOUBT_AFTER + ASK_AGAIN))

    def test_a_lull_is_no_reason_to_ask(self) -> None:
        """An acknowledgement that is sent now and then is not answered by anybody."""
        one = relays(a=0.01)
        self.silent(one, traffic=False, unanswered=False)
        self.assertEqual(math.inf, one.get_timer())

    def test_what_stays_unanswered_goes_by_all_relays(self) -> None:
        """Until the peer is heard through one of them, which goes on."""
        for heard, expected in ((A, A), (B, B)):
            two = relays(a=0.01, b=0.5)
            since = self.silent(two)
            two.look(since + DOUBT_AFTER - MOMENT)
            self.assertEqual([A], list(two))
            two.look(since + DOUBT_AFTER)
            self.assertEqual([A, B], list(two))
            two.heard(heard, since + 0.5)
            self.assertEqual([expected], list(two))

    def test_a_long_way_is_given_more_time(self) -> None:
        """Two round trips."""
        two = relays(a=0.01, b=0.5)
        since = self.silent(two, traffic=False)
        two.rtt = 1.0
        self.assertAlmostEqual(since + 2.1, two.get_timer())

    def test_a_packet_that_came_directly_answers_too(self) -> None:
        """There is no silence then."""
        two = relays(a=0.01, b=0.5)
        self.silent(two)
        two.heard(None, 10.1)
        self.assertEqual(math.inf, two.get_timer())

    def test_the_other_end_is_followed(self) -> None:
        """When it has been heard by another relay alone for longer than packets take."""
        two = relays(a=0.01, b=0.5)
        two.heard(A, 10.0)
        two.heard(B, 10.0 + ONE_SIDED)
        self.assertEqual([A], list(two))
        two.heard(B, 10.0 + ONE_SIDED + MOMENT)
        self.assertEqual([A, B], list(two))
        two.heard(B, 10.0 + ONE_SIDED + 2 * MOMENT)
        self.assertEqual([B], list(two))


ADDRESSES = st.sampled_from([A, B, C])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "retire", "remove", "sent", "asked", "heard", "direct", "look"]),
        ADDRESSES,
        st.floats(0.0, 0.5),
    ),
    max_size=60,
)


class AnythingTests(SynchronousTestCase):
    """Whatever happens in whatever order."""

    @given(STEPS)
    def test_there_is_one_relay_or_all_of_those_known(
        self, steps: list[tuple[str, Address, float]]
    ) -> None:
        """None only if there is none; and no time is asked for again and again."""
        made, known, now = RelayChoice(), set(), 100.0
        made.rtt = RTT
        for what, address, figure in steps:
            now += figure
            match what:
                case "add":
                    made.add(address, figure, now)
                    known.add(address)
                case "retire":
                    made.retire(address, now)
                case "remove":
                    made.remove(address, now)
                    known.discard(address)
                case "sent" | "asked":
                    made.sent(now, unanswered=what == "sent")
                case "heard":
                    made.heard(address, now)
                case "direct":
                    made.heard(None, now)
            due = made.get_timer()
            if due <= now:
                made.look(now)
                later = made.get_timer()
                assert later > now
            used = list(made)
            assert set(used) <= known and len(used) == len(set(used))
            assert bool(used) == bool(known)
            assert len(used) == (len(known) if made.is_doubtful else min(1, len(known)))
