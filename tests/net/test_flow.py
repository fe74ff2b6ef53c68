"""Tests of p2pnet.net.flow: UDP through an agent and a connector."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.net import flow
from p2pnet.net.flow import (
    BUFFER_SIZE,
    IDLE_TIMEOUT,
    MAX_EARLY,
    MAX_PAUSE,
    PAUSE,
    FlowListener,
    open_port,
    parse_udp,
)
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.roles.connector import FlowForwarder, Targets
from p2pnet.testing.realm import Simulation
from p2pnet.wire.stream import StreamKind
from tests.sim.support import SimulationCase

Address = tuple[str, int]
LARGEST = 65507  # bytes of payload in an IPv4 packet


class MemoryPort:
    """A UDP socket that reaches the others of its reactor at once.

    :ivar socket: the port itself, for its options.
    :ivar options: what was set of them.
    """

    def __init__(
        self, reactor: MemoryReactor, address: Address, protocol: Any, longest: int
    ) -> None:
        self.socket = self
        self.options: dict[tuple[int, int], int] = {}
        self._longest = longest
        self._reactor = reactor
        self._address = address
        self._protocol = protocol
        self._peer: Address | None = None

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Note the option."""
        self.options[level, option] = value

    def receive(self, datagram: bytes, address: Address) -> None:
        """Deliver as much as Twisted reads."""
        self._protocol.datagramReceived(datagram[: self._longest], address)

    def connect(self, host: str, port: int) -> None:
        """Talk to one address only."""
        self._peer = (host, port)

    def write(self, datagram: bytes, addr: Address | None = None) -> None:
        """Send, with what can go wrong on a real one."""
        if len(datagram) > LARGEST:
            raise MessageLengthError("message too long")
        target = self._reactor.ports.get(self._peer or addr or ("", 0))
        if target is not None:
            self._reactor.callLater(0, target.receive, datagram, self._address)
        elif self._peer is not None:
            self._reactor.callLater(0, self._protocol.connectionRefused)

    def stopListening(self) -> None:
        """Close."""
        if self._reactor.ports.pop(self._address, None) is not None:
            self._protocol.stopProtocol()


class MemoryReactor:
    """UDP on one machine, by a given clock; and a resolver that knows no name."""

    def __init__(self, clock: Any) -> None:
        self.ports: dict[Address, MemoryPort] = {}
        self.seconds = clock.seconds
        self.callLater = clock.callLater
        self.nameResolver = self
        self.lookups: list[Any] = []
        self._next = 40000

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> MemoryPort:
        """Open a socket."""
        self._next += 1
        address = (interface, port or self._next)
        if address in self.ports:
            raise CannotListenError(interface, port, OSError("address already in use"))
        opened = self.ports[address] = MemoryPort(self, address, protocol, maxPacketSize)
        protocol.transport = opened
        return opened

    def resolveHostName(self, receiver: Any, hostName: str, *rest: Any) -> None:
        """The test completes it."""
        self.lookups.append(receiver)


class Collector(DatagramProtocol):
    """Keeps what it gets."""

    transport: Any

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Address]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Keep."""
        self.got.append((datagram, addr))


class Repeater(Collector):
    """Answers with the same, twice."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Keep and answer."""
        super().datagramReceived(datagram, addr)
        for _ in range(2):
            self.transport.write(datagram, addr)


class FlowTests(SimulationCase):
    """Local senders, an agent's port, a connector, and a target."""

    LISTEN: Address = ("127.0.0.1", 5353)
    TARGET: Address = ("10.0.0.1", 53)

    def setUp(self) -> None:
        """Everything but the target."""
        self.simulation: Simulation = self.simulate()
        self.agent: AgentNode
        self.connector: ConnectorNode
        self.agent, self.connector, _ = self.trio(self.simulation)
        self.reactor = MemoryReactor(self.simulation.network.clock)
        self.listener = FlowListener(
            lambda: self.agent.open_flow("web"), self.agent.driver.wake, self.reactor
        )
        self.port = open_port(self.reactor, self.LISTEN[1], self.listener, self.LISTEN[0])
        self.addCleanup(self.listener.close)
        self.forward_to(*self.TARGET)

    def forward_to(self, host: str, port: int, limit: int = 100) -> None:
        """Let the service lead to a target."""
        self.connector.unserve("web")
        targets, wake = Targets(100, limit), self.connector.driver.wake
        self.connector.serve("web", FlowForwarder(self.reactor, host, port, targets, wake).forward)

    def target(self) -> Repeater:
        """One that answers."""
        target = Repeater()
        open_port(self.reactor, self.TARGET[1], target, self.TARGET[0])
        return target

    def sender(self) -> Collector:
        """A local program."""
        sender = Collector()
        open_port(self.reactor, 0, sender, "127.0.0.1")
        return sender

    def send(self, sender: Collector, *datagrams: bytes, seconds: float = 1.0) -> None:
        """Send datagrams to the agent's port, and let time pass."""
        for datagram in datagrams:
            sender.transport.write(datagram, self.LISTEN)
        self.simulation.network.run(seconds)

    def streams(self) -> int:
        """Flows that the two ends know."""
        return sum(
            len(session.streams)
            for node in (self.agent, self.connector)
            for session in node.core.sessions
        )

    def finished(self) -> list[str]:
        """How flows ended, as the agent sees it."""
        kinds = (reports.StreamFinished, reports.StreamRefused)
        return [r.code for r in self.simulation.reports[self.agent] if isinstance(r, kinds)]

    def test_datagrams_go_there_and_back(self) -> None:
        """Those that arrive before there is a session, too."""
        target, sender = self.target(), self.sender()
        self.send(sender, b"one", b"two")
        self.send(sender, b"three")
        self.assertEqual([b"one", b"two", b"three"], [data for data, _ in target.got])
        self.assertEqual(
            [(data, self.LISTEN) for data in (b"one", b"one", b"two", b"two", b"three", b"three")],
            sender.got,
        )

    def test_each_sender_has_a_flow_of_its_own(self) -> None:
        """And hears only its own answers; the target sees an address for each."""
        target, senders = self.target(), [self.sender() for _ in range(3)]
        for number, sender in enumerate(senders):
            self.send(sender, b"%d" % number)
        for number, sender in enumerate(senders):
            self.assertEqual([b"%d" % number] * 2, [data for data, _ in sender.got])
        self.assertEqual(3, len({address for _, address in target.got}))
        self.assertEqual(2 * 3, self.streams())

    def test_datagrams_of_every_size_pass(self) -> None:
        """What does not fit a DATAGRAM frame goes over the stream; nothing is also something."""
        target, sender = self.target(), self.sender()
        self.send(sender, b"first")
        sizes = [0, 1, 1000, 1169, 1170, 1171, 1172, 1200, 1472, 9000, LARGEST]
        for size in sizes:
            sender.got.clear()
            data = self.simulation.network.random.randbytes(size)
            self.send(sender, data)
            self.assertTrue(data == target.got[-1][0])
            self.assertTrue([data, data] == [got for got, _ in sender.got], size)

    def test_silence_ends_a_flow_and_a_later_datagram_begins_another(self) -> None:
        """At both ends, and no earlier than said."""
        self.target()
        sender = self.sender()
        self.send(sender, b"one", seconds=IDLE_TIMEOUT / 2)
        self.send(sender, b"two", seconds=IDLE_TIMEOUT - 1)
        self.assertEqual(2, self.streams())
        self.simulation.network.run(3.0)
        self.assertEqual(0, self.streams())
        self.assertEqual(["no_error"], self.finished())
        self.assertEqual(3, len(self.reactor.ports))
        self.send(sender, b"three")
        self.assertEqual(6, len(sender.got))

    def fill(self) -> list[Collector]:
        """Three senders one after the other, of which the second is the one that spoke last."""
        self.target()
        senders = [self.sender() for _ in range(2)]
        for sender in senders:
            self.send(sender, b"hello")
        self.send(senders[0], b"again")
        senders.append(self.sender())
        self.send(senders[2], b"hello")
        return senders

    def check_second_gave_way(self, senders: list[Collector]) -> None:
        """Nobody was refused. The flow of the second is gone; its next datagram begins another."""
        self.assertEqual([4, 2, 2], [len(sender.got) for sender in senders])
        self.assertEqual((0, ["no_error"]), (self.listener.dropped, self.finished()))
        self.assertEqual(2 * 2, self.streams())
        self.send(senders[1], b"again")
        self.assertEqual(4, len(senders[1].got))

    def test_regression_a_full_listener_loses_its_longest_idle_flow(self) -> None:
        """As a NAT does. A newcomer was dropped."""
        self.patch(flow, "MAX_FLOWS", 2)
        self.check_second_gave_way(self.fill())

    def test_regression_an_agent_with_too_many_flows_loses_the_longest_idle(self) -> None:
        """At the Connector. A newcomer was refused."""
        self.forward_to(*self.TARGET, limit=2)
        self.check_second_gave_way(self.fill())

    def test_a_target_that_refuses_ends_the_flow(self) -> None:
        """And is asked anew by a datagram that comes a while later."""
        sender = self.sender()
        self.send(sender, b"anybody there?")
        self.assertEqual(["target_refused"], self.finished())
        self.assertEqual(0, self.streams())
        target = self.target()
        self.simulation.network.run(PAUSE)
        self.send(sender, b"and now?")
        self.assertEqual([b"and now?"], [data for data, _ in target.got])

    def test_regression_a_sender_that_goes_on_after_a_refusal_opens_few_flows(self) -> None:
        """Each of its datagrams opened one, and each end logged that."""
        sender, other = self.sender(), self.sender()
        for _ in range(400):
            self.send(sender, b"anybody there?", seconds=0.05)
        self.assertEqual(["target_refused"] * 5, self.finished())  # after 0, 1, 3, 7 and 15 s
        self.assertGreater(self.listener.dropped, 380)
        self.target()
        self.send(other, b"hello")
        self.assertEqual(2, len(other.got))
        self.send(sender, b"hello", seconds=MAX_PAUSE)
        self.send(sender, b"hello")
        self.assertEqual(2, len(sender.got))

    def test_regression_ports_take_whole_datagrams_and_many_at_once(self) -> None:
        """Twisted cuts off what is beyond 8192 bytes, and the system's buffer holds 200 KiB."""
        wanted = {(socket.SOL_SOCKET, socket.SO_RCVBUF): BUFFER_SIZE}
        self.assertEqual(wanted, self.port.options)
        self.target()
        self.send(self.sender(), b"hello")
        self.assertEqual([wanted] * 4, [port.options for port in self.reactor.ports.values()])

    def test_a_name_without_an_address_is_an_unreachable_target(self) -> None:
        """Once the resolver has said so."""
        self.forward_to("dns.example", 53)
        self.send(self.sender(), b"hello")
        (receiver,) = self.reactor.lookups
        receiver.resolutionComplete()
        self.simulation.network.run(1.0)
        self.assertEqual(["target_unreachable"], self.finished())

    def test_what_comes_while_the_name_is_looked_up_is_kept_within_reason(self) -> None:
        """The first few, as a queue in a kernel would."""
        self.forward_to("dns.example", 53)
        target, sender = self.target(), self.sender()
        self.send(sender, *(b"%d" % number for number in range(MAX_EARLY + 5)))
        (receiver,) = self.reactor.lookups
        receiver.hosts.append(self.TARGET[0])
        receiver.resolutionComplete()
        self.simulation.network.run(1.0)
        self.assertEqual([b"%d" % n for n in range(MAX_EARLY)], [data for data, _ in target.got])

    def test_a_flow_whose_name_is_found_too_late_opens_no_socket(self) -> None:
        """The agent had given up meanwhile."""
        self.forward_to("dns.example", 53)
        self.send(self.sender(), b"hello")
        (receiver,) = self.reactor.lookups
        self.listener.close()
        self.simulation.network.run(1.0)
        before = set(self.reactor.ports)
        receiver.hosts.append(self.TARGET[0])
        receiver.resolutionComplete()
        self.assertEqual(before, set(self.reactor.ports))

    def test_flows_and_byte_streams_are_not_mixed_up(self) -> None:
        """Each is refused where the other is served."""
        transport = self.agent.open("web")
        self.simulation.network.run(1.0)
        self.assertTrue(transport.stream.is_closed)
        self.connector.unserve("web")
        self.connector.serve_protocol("web", None)  # type: ignore[arg-type]
        self.send(self.sender(), b"hello")
        self.assertEqual(["target_refused"] * 2, self.finished())

    def test_regression_a_datagram_too_large_for_the_target_is_lost(self) -> None:
        """Twisted raises something that is no OSError; 65535 bytes fit a capsule."""
        target, sender = self.target(), self.sender()
        stream = self.agent.open_flow("web")
        self.simulation.network.run(1.0)
        stream.send_datagram(bytes(LARGEST + 1))
        stream.send_datagram(b"small")
        self.send(sender, b"hello")
        self.assertEqual([b"small", b"hello"], [data for data, _ in target.got])

    def test_regression_an_answer_too_large_for_the_sender_is_lost(self) -> None:
        """The same on the way back."""
        self.target()
        sender = self.sender()
        self.send(sender, b"hello")
        (session,) = self.connector.core.sessions
        (stream,) = session.streams.values()
        stream.send_datagram(bytes(LARGEST + 1))
        stream.send_datagram(b"small")
        self.connector.driver.wake()
        self.send(sender)
        self.assertEqual(b"small", sender.got[-1][0])
        self.assertEqual(1, self.listener.dropped)

    def test_a_full_queue_drops_datagrams_instead_of_growing(self) -> None:
        """As UDP does; what is not dropped arrives."""
        target, sender = self.target(), self.sender()
        self.send(sender, b"first")
        self.send(sender, *[bytes(1000)] * 2000, seconds=5.0)
        self.assertGreater(self.listener.dropped, 1000)
        self.assertEqual(2001 - self.listener.dropped, len(target.got))
        self.assertEqual(StreamKind.FLOW, self.agent.open_flow("web").kind)


class ParseTests(SynchronousTestCase):
    """udp: endpoint descriptions."""

    def test_a_port_an_interface_or_a_host(self) -> None:
        """In Twisted's notation, with a backslash before the colons of IPv6."""
        for description, expected in {
            "udp:53": ("", 53),
            "udp:53:interface=127.0.0.1": ("127.0.0.1", 53),
            "udp:interface=127.0.0.1:53": ("127.0.0.1", 53),
            "udp:127.0.0.1:53": ("127.0.0.1", 53),
            "udp:dns.example:0": ("dns.example", 0),
            r"udp:\:\:1:65535": ("::1", 65535),
            "udp:[::1]:53": ("::1", 53),
            r"udp:5353:interface=2001\:db8\:\:1": ("2001:db8::1", 5353),
        }.items():
            self.assertEqual(expected, parse_udp(description))

    def test_mistakes_are_named(self) -> None:
        """The whole description, and what it should look like."""
        for description in (
            "", "udp", "udp:", "udp:x", "udp:host:port", "tcp:1:2", "udp:::1:53", "udp:a:b:1",
            "udp:53:interfaces=::1", "udp:53:mode=0600", "udp:-1", "udp:1.5",
        ):  # fmt: skip
            with self.assertRaisesRegex(ValueError, r"is not udp:PORT, udp:PORT:interface=HOST"):
                parse_udp(description)
        with self.assertRaisesRegex(ValueError, "'udp:h:65536': 65536 is not a port"):
            parse_udp("udp:h:65536")

    @given(st.text(alphabet="udp:\\=.1aé²interface", max_size=20))
    def test_any_text_is_parsed_or_is_a_value_error(self, text: str) -> None:
        """Of which the port is one."""
        try:
            _, port = parse_udp("udp:" + text)
        except ValueError:
            return
        self.assertTrue(0 <= port <= 65535)
