"""Real processes on links that carry less than Ethernet does."""

from typing import Any

from lab.nat import BEHAVIORS
from lab.traffic import Direction, connect, listen
from lab.trial import BLOCK, RATE, TAIL, Cell, Conduct
from p2pnet.testing.processes import RoleProcess
from p2pnet.wire.address import parse_host_port
from tests.lab import PrivilegedLabTestCase

NAT = BEHAVIORS["port-restricted"]
HEADERS = 20 + 8  # bytes of IPv4 and UDP


class PacketSizeTests(PrivilegedLabTestCase):
    """A download through two NATs."""

    def found(self, node: RoleProcess, mtu: int) -> Any:
        """The size that packets of the node came to on links of that MTU."""
        return node.wait_for("packet_size_found", timeout=30.0, size=mtu - HEADERS)

    def test_packets_fit_the_path_also_when_it_becomes_narrower(self) -> None:
        """What was lost in the black hole comes again in small packets; nothing is missing."""
        with Cell(NAT, NAT, Conduct(mtu=1400)) as cell:
            listener = listen(cell.sites[1].host)
            self.addCleanup(listener.close)
            with cell.nodes(listener.getsockname()[1]) as (agent, connector):
                connector.wait_for("registered")
                forward = agent.wait_for("listening", what="source0")
                address = parse_host_port(forward["address"])
                near, far = connect(cell.sites[0].host, address, listener)
                for end in (near, far):
                    self.addCleanup(end.close)
                download = Direction(far, near, BLOCK, BLOCK / RATE)
                for node in (agent, connector):
                    self.found(node, 1400)
                for site in cell.sites:
                    site.routers[0].host.ip("link set wan mtu 1280")
                self.found(connector, 1260)
                download.end(TAIL)
                download.join()
                paths = [event["path"] for event in connector.find("path_selected")]
        self.assertEqual(("direct", ""), (paths[-1], download.problem))
        self.assertTrue(download.is_intact)
