"""All nodes come back at once to an Intermediate that restarted with little of a processor."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.address import Address
from tests.hostile.storm import HANDSHAKE, Processor, Storm

NODES = 300
SHARE = 0.2  # of a core; half of the nodes get half of it
SOON = 3.0  # times the time that the processor needs for all handshakes
DEARER = 1.5  # times the processor's time for an undisturbed node
PATIENCE = 120.0  # seconds


def scattered(number: int) -> Address:
    """The address of a node in a /16 of its own."""
    return f"10.{number % 200}.0.{number // 200}", 4433


class StormTests(SynchronousTestCase):
    """How soon all nodes are back, and what the storm costs."""

    def undisturbed(self) -> float:
        """Seconds of a core for a node that comes alone."""
        processor = Processor(SHARE)
        Storm(processor, [scattered(0)]).run(PATIENCE)
        return processor.used

    def check(self, addresses: list[Address], *, has_sessions: bool = False) -> None:
        """Have nodes at these addresses come back."""
        nodes, share = len(addresses), SHARE * len(addresses) / NODES
        processor = Processor(share)
        ups = Storm(processor, addresses, has_sessions=has_sessions).run(PATIENCE)
        self.assertEqual(nodes, len(ups))
        self.assertLess(ups[-1], SOON * nodes * HANDSHAKE / share)
        self.assertLess(processor.used / nodes, DEARER * self.undisturbed())
        begun = processor.mux.admission.half_open.begun
        self.assertLess(begun, 1.25 * nodes, "handshakes were begun that did not finish")

    def test_regression_nodes_from_everywhere_are_back_soon(self) -> None:
        """Handshakes that cannot finish in time are not begun, so that all finish that are."""
        self.check([scattered(number) for number in range(NODES // 2)])

    def test_regression_nodes_behind_one_address_are_back_soon(self) -> None:
        """A source has all the room that no other source wants."""
        self.check([("198.51.100.1", 1024 + number) for number in range(NODES)])

    def test_nodes_with_sessions_are_back_as_soon(self) -> None:
        """They are in a hurry, but a try that was answered is not given up for another one."""
        addresses = [scattered(number) for number in range(NODES // 2)]
        self.check(addresses, has_sessions=True)
