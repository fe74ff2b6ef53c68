"""How large the packets of a session may be, as `Paths` says."""

from __future__ import annotations

from p2pnet.reports import PacketSizeFound, PathSelected
from p2pnet.traversal.direct import DirectState
from p2pnet.traversal.path_events import PacketSizeChanged, WaysChanged
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire.packet_size import BASE
from tests.traversal.ends import SESSION
from tests.traversal.path_ends import PathsCase, PathsEnd

USUAL = 1452  # bytes of a packet on a path of Ethernet's MTU


class PacketSizeTests(PathsCase):
    """Only a healthy direct way carries more than BASE, and only for itself."""

    def sizes(self, end: PathsEnd, since: float = 0.0) -> list[int]:
        """The sizes that an end went through."""
        return [change.size for change in end.said(PacketSizeChanged, since)]

    def test_the_size_is_found_and_reported_once(self) -> None:
        """On each end for itself."""
        self.connect()
        for end in self.both:
            self.assertEqual(USUAL, end.machine.packet_size)
            self.assertEqual(USUAL, self.sizes(end)[-1])
            (found,) = end.said(PacketSizeFound)
            self.assertEqual((SESSION.hex(), USUAL), (found.session, found.size))
        self.assertEqual("198.51.100.1:5000", self.agent.said(PacketSizeFound)[0].address)

    def test_a_narrow_line_gives_a_small_size(self) -> None:
        """The largest of the usual sizes that it carries."""
        self.begin()
        self.world.direct.mtu = 1380
        self.world.run(20.0)
        self.assertEqual(1372, self.agent.machine.packet_size)

    def test_the_size_is_base_before_any_other_way_is_used(self) -> None:
        """A relay frame needs room; the size changes before the ways do."""
        self.connect()
        self.agent.talk()
        self.world.direct.is_cut = True
        cut = self.world.now
        self.world.run(3.0)
        self.assertEqual([BASE], self.sizes(self.agent, cut))
        kinds = [type(event) for at, event in self.agent.events if at >= cut]
        self.assertLess(kinds.index(PacketSizeChanged), kinds.index(WaysChanged))
        self.world.direct.is_cut = False
        self.world.run(5.0)
        self.assertEqual(USUAL, self.agent.machine.packet_size)
        self.assertEqual(1, len(self.agent.said(PacketSizeFound)))

    def test_after_a_black_hole_the_size_is_searched_again(self) -> None:
        """From BASE upwards; the result is reported if it is another."""
        self.connect()
        self.world.direct.mtu = 1240
        hole = self.world.now
        self.agent.do(self.agent.machine.black_hole)
        self.assertEqual(BASE, self.agent.machine.packet_size)
        self.world.run(30.0)
        self.assertEqual(1232, self.agent.machine.packet_size)
        self.assertEqual([1232], [found.size for found in self.agent.said(PacketSizeFound, hole)])
        self.assertTrue(self.agent.is_direct)

    def test_without_a_direct_way_a_black_hole_is_no_news(self) -> None:
        """Then QUIC's packets have BASE anyway."""
        self.begin(SELECTORS["relay-only"]())
        before = list(self.agent.events)
        self.agent.do(self.agent.machine.black_hole)
        self.assertEqual((BASE, before), (self.agent.machine.packet_size, self.agent.events))

    def test_a_way_that_does_not_carry_base_is_not_used(self) -> None:
        """Small checks pass, so that it is tried again."""
        self.begin()
        self.world.direct.mtu = 1000
        self.world.run(8.0)
        self.assert_ways("relayed")
        self.assertIn(f"packets of {BASE} bytes", self.agent.said(PathSelected)[-1].reason)
        self.assertIs(DirectState.SILENT, self.agent.machine.snapshot().direct.state)
        self.world.direct.mtu = 1500
        self.world.run(40.0)
        self.assert_ways("direct")
        self.assertEqual(USUAL, self.agent.machine.packet_size)
