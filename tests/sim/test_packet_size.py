"""Packets as large as the direct path carries, on paths that change."""

from __future__ import annotations

from typing import Any

from p2pnet import reports
from p2pnet.testing.network import Link
from p2pnet.traversal.mtu import ERROR_TIMER, USUAL
from p2pnet.wire.packet_size import BASE
from p2pnet.wire.relay_frame import encode_relay_frame
from tests.sim.support import SimulationCase, Talk

AGENT, CONNECTOR, INTERMEDIATE = "203.0.113.1", "198.51.100.1", "192.0.2.1"
RELAYED = len(encode_relay_frame(bytes(8), bytes(BASE)))
MEBIBYTE = 1 << 20
RATE = 2 * MEBIBYTE  # bytes a second, so that a transfer takes a while


class PacketSizeTests(SimulationCase):
    """An agent that sends to a connector's service, with a relay beside the direct path."""

    def begin(self, there: int = 1472, back: int = 1472, hosts: tuple[str, str] = ("", "")) -> None:
        """Set up a session over a direct path that carries so much, each way."""
        self.simulation = self.simulate(keep_trace=True)
        self.net = self.simulation.network
        self.hosts = hosts[0] or AGENT, hosts[1] or CONNECTOR
        self.narrow(there, back)
        self.simulation.intermediate(INTERMEDIATE)
        self.connector, self.served = self.serve(self.simulation, Talk, host=self.hosts[1])
        self.agent = self.simulation.agent(self.hosts[0], policy="prefer-direct")
        self.run_until(self.simulation, lambda: self.agent.core.links[0].is_ready)
        self.talk_ = self.talk(self.simulation, self.agent)
        self.session: Any = next(iter(self.agent.core.sessions))
        self.paths = self.agent.core.paths_of(self.session)
        self.sent = b""

    def narrow(self, there: int, back: int = 1472, loss: float = 0.0) -> None:
        """The direct path carries that much from now on, the relay as much as ever."""
        agent, connector = self.hosts
        self.net.links[agent, connector] = Link(mtu=there, loss=loss, rate=RATE)
        self.net.links[connector, agent] = Link(mtu=back, loss=loss, rate=RATE)

    def send(self, size: int) -> None:
        """Have the agent send that many bytes."""
        data = self.net.random.randbytes(size)
        self.talk_.transport.write(data)
        self.sent += data

    def finish(self, within: float = 20.0) -> None:
        """All bytes must arrive within so many seconds, once each and in order."""
        self.run_until(
            self.simulation, lambda: len(self.served.made[0].heard) >= len(self.sent), within
        )
        self.assertEqual(self.sent, bytes(self.served.made[0].heard))

    def until_size(self, size: int, within: float = 20.0) -> None:
        """The agent's packets must come to that size within so many seconds."""
        self.run_until(self.simulation, lambda: self.paths.packet_size == size, within)

    def found(self, node: Any) -> list[int]:
        """The sizes that the node told of."""
        return [report.size for report in self.simulation.reported(node, reports.PacketSizeFound)]

    def largest(self, since: float, *destinations: str) -> int:
        """Bytes of the largest datagram that went to one of these hosts since then."""
        trace = self.net.trace
        return max(p.size for p in trace if p.at >= since and p.destination[0] in destinations)

    def test_packets_become_as_large_as_the_path_carries(self) -> None:
        """On Ethernet soon after it is direct, and both ends tell."""
        self.begin()
        self.until_size(USUAL, 2.0)
        now = self.net.clock.seconds()
        self.send(MEBIBYTE)
        self.finish()
        self.assertEqual(USUAL, self.largest(now, CONNECTOR))
        self.assertEqual([[USUAL]] * 2, [self.found(n) for n in (self.agent, self.connector)])

    def test_each_direction_has_its_own_size(self) -> None:
        """Searched by the end that sends."""
        self.begin(there=1472, back=1300)
        self.net.run(20.0)
        self.assertEqual([[USUAL], [1232]], [self.found(n) for n in (self.agent, self.connector)])

    def test_jumbo_frames_are_used_where_a_local_network_has_them(self) -> None:
        """And only there."""
        self.begin(9000, 9000, ("192.168.1.2", "192.168.1.3"))
        self.net.run(10.0)
        self.assertEqual([8952], self.found(self.agent))
        self.send(MEBIBYTE)
        self.finish()

    def test_nothing_larger_than_every_path_carries_is_relayed(self) -> None:
        """From direct to the relay and back amid a transfer, no byte is lost."""
        self.begin()
        self.until_size(USUAL)
        began = self.net.clock.seconds()
        self.send(4 * MEBIBYTE)
        self.net.run(0.5)
        self.narrow(1472, loss=1.0)
        self.run_until(self.simulation, lambda: self.paths.is_relayed, 10.0)
        self.assertEqual(BASE, self.session.connection.engine._max_datagram_size)
        self.net.run(1.0)
        self.narrow(1472)
        self.finish(60.0)
        self.until_size(USUAL)
        self.assertEqual(RELAYED, self.largest(began, INTERMEDIATE))

    def test_a_black_hole_holds_a_transfer_up_for_a_moment(self) -> None:
        """Small packets pass, so that nobody doubts the path. The size that fits is found later."""
        self.begin()
        self.until_size(USUAL)
        self.send(4 * MEBIBYTE)
        self.net.run(0.5)
        self.narrow(1400)
        self.until_size(BASE, 3.0)
        self.assertTrue(self.paths.is_direct)
        self.finish(60.0)
        self.until_size(1372)
        self.net.run(10.0)
        self.assertEqual([USUAL, 1372], self.found(self.agent))

    def test_a_path_for_checks_alone_is_not_used(self) -> None:
        """The relay carries the session until the path carries what QUIC needs."""
        self.begin(there=1100)  # the other way it is well
        self.send(MEBIBYTE)
        self.finish()
        self.assertTrue(self.paths.is_relayed)
        for _ in range(60):
            self.send(1000)
            self.net.run(1.0)
        # The other end's path is well: relayed packets make it look less and less often.
        paths = self.simulation.reported(self.connector, reports.PathSelected)
        self.assertLess(len(paths), 20)
        self.assertTrue(self.paths.is_relayed)
        self.narrow(1472)
        self.until_size(USUAL, ERROR_TIMER + 5.0)
        self.assertTrue(self.paths.is_direct)
        self.send(MEBIBYTE)
        self.finish()
