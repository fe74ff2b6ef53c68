"""The sessions of one node, on fake links and connections; the paths are real."""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.core import events
from p2pnet.core.peer.link import ControlLink
from p2pnet.core.peer.session import Announcement, Session
from p2pnet.core.peer.sessions import Sessions
from p2pnet.core.timers import Timers
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode
from tests.core.peer.links import FakeLink, PeerConnection

ID, OTHER_ID = bytes(16), bytes(15) + b"\x01"
STRANGER: Address = ("192.0.2.66", 1)
PACKETS = [b"\x40one", b"\x40two"]


class Side:
    """The sessions of one node, and the SessionsOwner.

    :ivar links: two Intermediates, both ready.
    :ivar events: what was emitted.
    :ivar lost: the sessions that have no way, each time they lost it.
    :ivar ended: the sessions that ended, with code and reason.
    """

    def __init__(self, *, controlling: bool, host: str, entropy: Any = None) -> None:
        self.address: Address = (host, 5000)
        self.links = [FakeLink("192.0.2.1"), FakeLink("192.0.2.2")]
        self.timers = Timers()
        self.events: list[events.Event] = []
        self.lost: list[Session] = []
        self.ended: list[tuple[Session, ErrorCode, str]] = []
        own = OwnCandidates(self.links, tell_observed=False)
        own.set_addresses([host], 5000)
        self.own = own
        links: list[ControlLink] = [*self.links]
        self.sessions = Sessions(
            self, links, self.timers, controlling=controlling, own=own,
            entropy=entropy or random.Random(controlling).randbytes,
        )  # fmt: skip

    def emit(self, event: events.Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def ways_changed(self, session: Session, now: float) -> None:
        """Keep the session if it has no way any more."""
        if not self.sessions.paths_of(session).using:
            self.lost.append(session)

    def session_ended(self, session: Session, code: ErrorCode, reason: str, now: float) -> None:
        """Keep the call."""
        self.ended.append((session, code, reason))

    def begin(self, policy: str = "relay-only", session_id: bytes = ID) -> Session:
        """A session without a relay or a connection."""
        session = Session(Announcement(session_id, "office", b"instance"), 0.0, self.emit)
        self.sessions.add(session, SELECTORS[policy]())
        return session

    def relay(self, session: Session, link: int = 0, channel: int = 0) -> None:
        """An Intermediate relays the session: in channel 2 n + 1, and 2 n + 2 the other way."""
        number = channel or link
        offer = messages.SessionOffer(
            session.id, "alice", b"instance", "web",
            send_channel=bytes([2 * number + 1] * 8), receive_channel=bytes([2 * number + 2] * 8),
        )  # fmt: skip
        self.sessions.add_relay(session, self.links[link], offer, 0.05 * (link + 1), 0.0)

    def reported(self, kind: type[Any]) -> list[Any]:
        """The reports of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class SessionsCase(SynchronousTestCase):
    """One side, whose session has a relay and a connection."""

    def setUp(self) -> None:
        """Packets go through the first Intermediate."""
        self.side = Side(controlling=True, host="203.0.113.1")
        self.sessions, self.links = self.side.sessions, self.side.links
        self.first, self.second = (link.address for link in self.links)
        self.session = self.side.begin()
        self.connection = PeerConnection(self.session)
        self.side.relay(self.session)

    def ways(self, now: float = 0.0) -> list[Address]:
        """Where a packet of the session goes."""
        sent = self.sessions.along_ways(self.session.address, PACKETS[:1], now)
        return [address for _, address in sent]

    def run_to(self, time: float) -> None:
        """Let time pass."""
        while (when := self.side.timers.get_timer()) is not None and when <= time:
            self.side.timers.handle_timer(when)
