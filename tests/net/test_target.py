"""Targets: which address of a host is tried, and when the next."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.net.target import SOON, TIMEOUT, HostEndpoint, target_endpoint

ADDRESSES = {"service": ["::1", "127.0.0.1"], "nowhere": []}


class Reactor(MemoryReactorClock):
    """One whose resolver knows ADDRESSES."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver: Any = self

    def resolveHostName(self, receiver: Any, hostName: str, *rest: Any) -> None:
        """Complete the look-up at once."""
        for host in ADDRESSES[hostName]:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


class TargetTests(SynchronousTestCase):
    """A service whose host has two addresses."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.endpoint = target_endpoint(self.reactor, "tcp:service:8080")

    def connect(self, endpoint: Any = None) -> Deferred[Any]:
        """Begin to connect."""
        connecting: Deferred[Any] = (endpoint or self.endpoint).connect(
            Factory.forProtocol(Protocol)
        )
        return connecting

    @property
    def tried(self) -> list[tuple[str, int, float]]:
        """The hosts, ports and timeouts of all attempts."""
        return [(host, port, wait) for host, port, _, wait, _ in self.reactor.tcpClients]

    def refuse(self) -> None:
        """The newest attempt is refused."""
        factory, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[-1]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))

    def accept(self) -> None:
        """The newest attempt succeeds."""
        protocol: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())

    def test_regression_the_next_address_is_tried_after_a_refusal(self) -> None:
        """At once: "localhost" finds a service on 127.0.0.1 alone, and one on ::1."""
        connecting = self.connect()
        self.refuse()
        self.accept()
        self.assertIsInstance(self.successResultOf(connecting), Protocol)
        self.assertEqual([("::1", 8080, SOON), ("127.0.0.1", 8080, TIMEOUT)], self.tried)

    def test_the_address_that_answered_is_the_first_next_time(self) -> None:
        """No connection waits for the dead one again."""
        self.connect()
        self.refuse()
        self.accept()
        self.connect()
        self.assertEqual(("127.0.0.1", 8080, SOON), self.tried[-1])

    def test_the_last_refusal_is_the_answer(self) -> None:
        """There is no third address."""
        connecting = self.connect()
        self.refuse()
        self.refuse()
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_a_name_without_an_address_is_named(self) -> None:
        """With what is wrong with it."""
        endpoint = target_endpoint(self.reactor, "tcp:nowhere:8080")
        failed = self.failureResultOf(self.connect(endpoint), DNSLookupError)
        self.assertIn("nowhere has no address", str(failed.value))

    def test_a_cancelled_connect_tries_no_other_address(self) -> None:
        """Its user has gone."""
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual(1, len(self.tried))

    def test_brackets_are_understood(self) -> None:
        """As everybody writes an IPv6 address and a port."""
        self.connect(target_endpoint(self.reactor, "tcp:[::1]:8080"))
        self.assertEqual([("::1", 8080, TIMEOUT)], self.tried)

    def test_whatever_else_twisted_knows_is_twisteds(self) -> None:
        """Options, and other kinds of endpoints."""
        endpoint = target_endpoint(self.reactor, "tcp:127.0.0.1:80:timeout=3")
        self.assertIsInstance(endpoint, TCP4ClientEndpoint)
        self.assertIsInstance(target_endpoint(self.reactor, "tcp:127.0.0.1:80"), HostEndpoint)
        with self.assertRaises((TypeError, ValueError)):
            target_endpoint(self.reactor, "tcp:[::1]")
