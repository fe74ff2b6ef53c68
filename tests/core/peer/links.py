"""Links without a network: fakes of what is around a link, and of links for those around them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core import events
from p2pnet.core.peer.link import ControlLink, LinkState
from p2pnet.core.peer.session import Session
from p2pnet.core.timers import Timers
from p2pnet.identity import Role
from p2pnet.quic import events as quic_events
from p2pnet.quic.engine import Engine
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.encoding import Message, MessageBuffer, encode_message
from p2pnet.wire.path_messages import PATHS_STREAM, PathMessage, decode_path_message
from tests.core.support import FakeConnection, credentials

LITERAL, RELAY = "192.0.2.1:4433", "relay.example:4433"
INSTANCE = b"instance"
OBSERVED = messages.ObservedAddress(0, "203.0.113.1", 50000)


class FakeNode:
    """A LinkOwner; it keeps what the link tells it.

    :ivar calls: the name and the arguments of each call, without link and time.
    :ivar hosts: the name that the certificate must bear, for each connection.
    """

    def __init__(self) -> None:
        self.is_needed = False
        self.in_use = False
        self.last_relayed: float | None = None
        self.events: list[events.Event] = []
        self.calls: list[tuple[Any, ...]] = []
        self.connections: list[FakeConnection] = []
        self.hosts: list[str] = []

    def relays_streams(self, link: ControlLink) -> bool:
        """As the test chose."""
        return self.in_use

    def relayed_at(self, link: ControlLink) -> float | None:
        """As the test chose."""
        return self.last_relayed

    def connect_control(self, host: str, address: Address, now: float) -> FakeConnection:
        """A new connection."""
        self.hosts.append(host)
        self.connections.append(FakeConnection(address))
        return self.connections[-1]

    def emit(self, event: events.Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def link_ready(self, link: ControlLink, address: Address, seconds: float, now: float) -> None:
        """Keep the call."""
        self.calls.append(("ready", address, seconds))

    def link_failed(self, link: ControlLink, now: float) -> None:
        """Keep the call, and why."""
        self.calls.append(("failed", link.last_error))

    def link_draining(self, link: ControlLink, seconds: float, now: float) -> None:
        """Keep the call."""
        self.calls.append(("draining", seconds))

    def address_observed(self, link: ControlLink, address: Address, now: float) -> None:
        """Keep the call."""
        self.calls.append(("observed", address))

    def take_message(self, link: ControlLink, message: Message, now: float) -> None:
        """Keep the call."""
        self.calls.append(("message", message))


class LinkCase(SynchronousTestCase):
    """A link whose packets nobody answers, driven by hand from one timer to the next."""

    def start(self, intermediate: str = LITERAL, seed: int = 1) -> None:
        """Connect to an Intermediate that is not there."""
        self.node = FakeNode()
        self.timers = Timers()
        self.link = ControlLink(
            intermediate, self.node, self.timers,
            instance=INSTANCE, random=random.Random(seed).random,
        )  # fmt: skip
        self.now = 0.0
        self.link.start(self.now)

    @property
    def connection(self) -> FakeConnection:
        """The latest connection."""
        return self.node.connections[-1]

    def run_to(self, time: float) -> None:
        """Let time pass."""
        while (when := self.timers.get_timer()) is not None and when <= time:
            self.now = max(self.now, when)
            self.timers.handle_timer(self.now)
        self.now = time

    def losses(self) -> Iterator[tuple[float, reports.ControlLost]]:
        """Each failure to connect, with its time."""
        while True:
            before = len(self.node.events)
            while len(self.node.events) == before:
                when = self.timers.get_timer()
                assert when is not None
                self.run_to(when)
            (lost,) = self.node.events[before:]
            assert isinstance(lost, reports.ControlLost)
            yield self.now, lost

    def handle(self, event: quic_events.Event) -> None:
        """Let something happen on the latest connection."""
        self.link.handle(self.connection, event, self.now)

    def say(self, *said: Message) -> None:
        """Let the Intermediate send messages, all of them in one packet."""
        data = b"".join(map(encode_message, said))
        self.handle(quic_events.StreamDataReceived(messages.CONTROL_STREAM, data, False))

    def prove(self) -> None:
        """Let the handshake succeed."""
        peer = credentials(Role.INTERMEDIATE, "relay1").identity
        self.handle(quic_events.HandshakeCompleted(peer))

    def come_up(self, seconds: float = 0.1) -> None:
        """Let the Intermediate greet, so many seconds later."""
        self.run_to(self.now + seconds)
        self.prove()
        self.say(OBSERVED, messages.Welcome(messages.VERSION))


class FakeLink(ControlLink):
    """A link that is ready and leads nowhere.

    :ivar sent: the messages that it was to send.
    :ivar probes: how often it was to ask for an answer.
    """

    def __init__(self, host: str = "192.0.2.1", rtt: float = 0.05) -> None:
        super().__init__(
            f"{host}:4433", FakeNode(), Timers(), instance=INSTANCE, random=lambda: 0.5
        )
        self.address = (host, 4433)
        self.sent: list[Message] = []
        self.probes = 0
        self._liveness.answered(rtt, 0.0)
        self.bring_up()

    def bring_up(self, *, draining: bool = False) -> None:
        """The Intermediate takes requests, unless it is about to stop."""
        self.state, self.draining, self.last_error = LinkState.READY, draining, ""

    def bring_down(self, error: str) -> None:
        """The connection is lost."""
        self.state, self.last_error = LinkState.WAITING, error

    def send(self, message: Message) -> None:
        """Keep the message."""
        self.sent.append(message)

    def take_sent(self) -> list[Any]:
        """The messages since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def probe(self, now: float) -> None:
        """Count the call."""
        self.probes += 1

    def network_changed(self, now: float) -> None:
        """Probe, as a link that is ready does."""
        self.probe(now)


class PeerConnection(FakeConnection):
    """An end-to-end connection that leads nowhere; it keeps what is done with it.

    :ivar established: whether the handshake is over.
    :ivar answer_due: whether the peer owes an acknowledgement.
    :ivar sizes: the packet sizes that were set.
    :ivar moves: for each other way that it was told of, whether packets on the last one are lost.
    :ivar signals: messages about paths; `only`: the only stream that may send, None for all.
    """

    def __init__(self, session: Session, *, established: bool = True) -> None:
        super().__init__(("", 0))
        self.established = established
        self.answer_due = False
        self.sizes: list[int] = []
        self.moves: list[bool] = []
        self.signals: list[PathMessage] = []
        self.only: int | None = None
        session.set_connection(self)
        session.is_proven = established

    @property
    def is_established(self) -> bool:
        """As the test chose, until it is closed."""
        return self.established and self.is_open

    @property
    def is_answer_due(self) -> bool:
        """As the test chose."""
        return self.answer_due

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = True) -> None:
        """Keep whether what was sent is lost."""
        self.moves.append(lost)

    def set_max_datagram_size(self, size: int) -> None:
        """Keep the size."""
        self.sizes.append(size)

    def name_path(self, path: Hashable) -> None:
        """Do nothing."""

    def send_only(self, stream_id: int | None) -> None:
        """Keep the stream."""
        self.only = stream_id

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> bool:
        """Keep the message."""
        assert stream_id == PATHS_STREAM and not end
        self.signals += MessageBuffer(decode_path_message).feed(data)
        return True


class FakeAgent:
    """A FinderOwner; it keeps what is emitted and prepared.

    :ivar silent: the connectors that do not answer, as the test chose.
    """

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.prepared: list[bytes] = []
        self.silent: tuple[str, ...] = ()
        self._sessions = 0

    def new_session_id(self) -> bytes:
        """Numbers."""
        self._sessions += 1
        return self._sessions.to_bytes(16, "big")

    def tried(self, now: float) -> tuple[str, ...]:
        """As the test chose."""
        return self.silent

    def prepare(self, session_id: bytes, now: float) -> Engine:
        """Anything will do, for nobody looks into it."""
        self.prepared.append(session_id)
        return cast("Engine", object())

    def emit(self, event: events.Event) -> None:
        """Keep the event."""
        self.events.append(event)
