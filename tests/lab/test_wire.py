"""What a link does to packets, without any link."""

from twisted.trial.unittest import SynchronousTestCase

from lab.wire import Conditions, Way

SIZE = 1000  # bytes of a packet
NOW = 5.0


def arrivals(conditions: Conditions, packets: int) -> list[float | None]:
    """When packets that are sent together arrive, after they were sent."""
    way = Way(0, conditions)
    times = [way.pass_on(SIZE, NOW) for _ in range(packets)]
    return [None if time is None else round(time - NOW, 6) for time in times]


class WayTests(SynchronousTestCase):
    """One direction of a wire."""

    def test_nothing_is_done_without_conditions(self) -> None:
        """They arrive as they come."""
        self.assertEqual([0.0, 0.0], arrivals(Conditions(), 2))

    def test_delay_holds_all_back_alike(self) -> None:
        """And lets none wait for another."""
        self.assertEqual([0.02, 0.02], arrivals(Conditions(delay=0.02), 2))

    def test_loss(self) -> None:
        """All, none, or about as many as asked for."""
        self.assertEqual([None, None], arrivals(Conditions(loss=1.0), 2))
        lost = arrivals(Conditions(loss=0.2), 2000).count(None)
        self.assertTrue(300 < lost < 500, lost)  # six standard deviations

    def test_a_rate_lets_one_packet_after_the_other_pass(self) -> None:
        """Each takes its time, and the delay comes on top."""
        link = Conditions(delay=0.1, rate=100 * SIZE, buffer=10 * SIZE)
        self.assertEqual([0.11, 0.12, 0.13], arrivals(link, 3))

    def test_what_the_buffer_cannot_take_is_lost(self) -> None:
        """The last ones, and none any more when there is room again."""
        link = Conditions(rate=100 * SIZE, buffer=2 * SIZE)
        self.assertEqual([0.01, 0.02, 0.03, None, None], arrivals(link, 5))
        way = Way(0, link)
        for _ in range(5):
            way.pass_on(SIZE, NOW)
        self.assertIsNotNone(way.pass_on(SIZE, NOW + 0.02))

    def test_what_is_lost_takes_no_time_of_the_link(self) -> None:
        """It was lost before."""
        link = Conditions(loss=1.0, rate=SIZE, buffer=SIZE)
        way = Way(0, link)
        way.pass_on(SIZE, NOW)
        self.assertEqual(0.0, way._free_at)
