"""Real processes on links that carry less than Ethernet does."""

from typing import Any

from lab.nat import BEHAVIORS
from lab.trial import Cell, Conduct, Download, Source
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
            source = Source(cell.sites[1].host)
            source.start()
            with cell.nodes(source.port) as (agent, connector):
                connector.wait_for("registered")
                forward = agent.wait_for("listening", what="source0")
                download = Download(cell.sites[0].host, parse_host_port(forward["address"]))
                download.start()
                for node in (agent, connector):
                    self.found(node, 1400)
                for site in cell.sites:
                    site.routers[0].host.ip("link set wan mtu 1280")
                self.found(connector, 1260)
                source.hurry()
                download.join()
                paths = [event["path"] for event in connector.find("path_selected")]
        self.assertEqual(("direct", ""), (paths[-1], download.problem))
        self.assertEqual(source.hash.digest(), download.hash.digest())
