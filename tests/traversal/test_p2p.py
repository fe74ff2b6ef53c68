"""Datagrams to a peer by name, as a host of the Agent's core sends them."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.stream import Stream
from p2pnet.testing.network import SimulatedNetwork
from p2pnet.testing.realm import Simulation


class Flow:
    """The host's end of a flow: keeps what arrives, and sends it back if it is an echo."""

    def __init__(self, stream: Stream, *, echoes: bool) -> None:
        self.heard: list[bytes] = []
        self.codes: list[int] = []
        self._stream = stream
        self._echoes = echoes
        stream.owner = self

    def datagram(self, payload: bytes) -> None:
        """A datagram of the flow."""
        self.heard.append(payload)
        if self._echoes:
            self._stream.send_datagram(payload)

    def closed(self, code: int, reason: str) -> None:
        """The flow is over."""
        self.codes.append(code)


class PeerTests(SynchronousTestCase):
    """connect_p2p(), is_p2p_connected() and send_datagram_p2p()."""

    def setUp(self) -> None:
        """A connector that echoes datagrams, and an agent that prefers direct paths."""
        self.network = SimulatedNetwork(4)
        self.simulation = Simulation(self.network)
        self.addCleanup(self.simulation.stop)
        self.simulation.intermediate()
        office = self.simulation.connector({"echo": ["alice"]})

        def take(stream: Stream) -> None:
            Flow(stream, echoes=True)
            stream.accept()

        office.serve("echo", take)
        self.alice = self.simulation.agent(policy="prefer-direct")
        self.network.run(2)

    def test_datagrams_go_by_the_relay_and_then_directly(self) -> None:
        """From the first one on, and a second connect_p2p() is the same flow."""
        core, now = self.alice.core, self.network.clock.seconds
        self.assertFalse(core.is_p2p_connected("echo") or core.send_datagram_p2p(b"x", "echo"))
        stream = core.connect_p2p("echo", now())
        self.assertIs(stream, core.connect_p2p("echo", now()))
        flow = Flow(stream, echoes=False)
        self.assertTrue(core.send_datagram_p2p(b"early", "echo"))
        self.alice.driver.wake()
        self.assertTrue(self.network.run_until(lambda: core.is_p2p_connected("echo"), 10))
        self.assertTrue(core.send_datagram_p2p(b"direct", "echo"))
        self.alice.driver.wake()
        self.assertTrue(self.network.run_until(lambda: len(flow.heard) == 2, 10))
        self.assertEqual([b"early", b"direct"], flow.heard)

    def test_a_refused_peer_is_not_connected(self) -> None:
        """And its flow is told why."""
        flow = Flow(self.alice.core.connect_p2p("nope", self.network.clock.seconds()), echoes=False)
        self.alice.driver.wake()
        self.assertTrue(self.network.run_until(lambda: flow.codes, 15))
        self.assertFalse(self.alice.core.is_p2p_connected("nope"))
        self.assertFalse(self.alice.core.send_datagram_p2p(b"x", "nope"))
