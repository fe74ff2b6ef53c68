"""What a session tells QUIC of the paths that packets take."""

from collections.abc import Hashable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core.peer.session import Introduction, Session
from p2pnet.identity import Role
from p2pnet.quic import events as quic_events
from p2pnet.traversal.selection import PreferDirect
from p2pnet.traversal.way import DirectPath, RelayedPath
from p2pnet.wire.packet_size import BASE
from tests.core.support import credentials

RELAY = ("192.0.2.1", 4433)
OTHER_RELAY = ("192.0.2.2", 4433)
DIRECT = ("198.51.100.7", 50000)


class FakeConnection:
    """As much of a connection as a session's paths need; keeps what it is told."""

    smoothed_rtt = 0.05

    def __init__(self) -> None:
        self.owner: Any = None
        self.is_established = False
        self.size = BASE
        self.told: list[tuple[str, Hashable]] = []

    def name_path(self, path: Hashable) -> None:
        """Which path it is."""
        self.told.append(("name", path))

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = False) -> None:
        """Another one."""
        self.told.append(("lost" if lost else "changed", path))

    def set_max_datagram_size(self, size: int) -> None:
        """How large packets may be."""
        self.size = size


class PathNameTests(SynchronousTestCase):
    """Names are equal if and only if the ways are."""

    def setUp(self) -> None:
        self.session = Session(Introduction(bytes(16), "office", bytes(8)), 0.0, lambda _: None)
        self.session.selector = PreferDirect()
        self.connection = FakeConnection()
        self.session.set_connection(self.connection)  # type: ignore[arg-type]
        self.session.add_relay(RelayedPath(RELAY, b"channel1"), 0.05, "")
        self.connection.is_established = True
        peer = credentials(Role.CONNECTOR, "office").identity
        self.session.handle(quic_events.HandshakeCompleted(peer), 1.0)

    def test_the_first_path_has_a_name(self) -> None:
        """Known when the handshake is complete, or coming back to it would be new."""
        self.assertEqual([("name", (RELAY,))], self.connection.told)

    def test_direct_and_back(self) -> None:
        """The relay's name is the same as before."""
        self.session.set_direct(DirectPath(DIRECT), 0.01, "")
        self.session.set_direct(None, None, "")
        self.assertEqual([("changed", (DIRECT,)), ("changed", (RELAY,))], self.connection.told[1:])

    def test_a_doubtful_path_has_another_name(self) -> None:
        """Packets go both ways then, and the faster answer counts."""
        self.session.set_direct(DirectPath(DIRECT), 0.01, "")
        self.session.set_direct(DirectPath(DIRECT), 0.01, "", doubtful=True)
        self.session.set_direct(DirectPath(DIRECT), 0.01, "")
        names = [name for _, name in self.connection.told[1:]]
        self.assertEqual([(DIRECT,), (DIRECT, RELAY), (DIRECT,)], names)

    def test_a_relay_that_is_granted_anew_keeps_its_name(self) -> None:
        """Its channel is another, the way is not."""
        self.session.remove_relay(RELAY, "")
        self.session.add_relay(RelayedPath(RELAY, b"channel2"), 0.05, "")
        self.assertEqual(("lost", (RELAY,)), self.connection.told[-1])
        self.session.remove_relay(RELAY, "")
        self.session.add_relay(RelayedPath(OTHER_RELAY, b"channel3"), 0.05, "")
        self.assertEqual(("lost", (OTHER_RELAY,)), self.connection.told[-1])
