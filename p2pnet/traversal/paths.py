"""Every way of one session: which there are, which are used, how large packets may be, and why.

`Paths` is the one place that knows. Its caller passes in what was sent, what arrived by which way,
and the messages of the peer's `Paths`; it says where packets go now. It does not know the
connection whose packets these are, and which also carries the messages.
"""

from __future__ import annotations

import collections
import math

from p2pnet.interfaces import IPathSelector
from p2pnet.reports import CandidatesExchanged, ChecksFailed, ChecksStarted, PacketSizeFound
from p2pnet.reports import PathSelected as PathSelectedReport
from p2pnet.timing import TOLERANCE
from p2pnet.traversal.direct import DirectChanged, DirectSearch, DirectState
from p2pnet.traversal.exchange import CandidateExchange, Outgoing
from p2pnet.traversal.mtu import Phase
from p2pnet.traversal.path_events import (
    AskRelay,
    Event,
    PacketSizeChanged,
    PathsStatus,
    PeerGone,
    Signal,
    WaysChanged,
)
from p2pnet.traversal.relay_choice import ASK_AFTER, RelayChoice
from p2pnet.traversal.selection import DIRECT, NONE, RELAYED, SELECTORS, Choices
from p2pnet.traversal.way import Way, WayKind, relayed_way
from p2pnet.wire.address import Address, format_address
from p2pnet.wire.check import Check, CheckKind
from p2pnet.wire.codes import ErrorCode
from p2pnet.wire.packet_size import BASE
from p2pnet.wire.path_messages import CandidateOffer, PathMessage

FAREWELL = 2.0  # seconds of silence on the direct way that confirm a report of the peer's end


class Paths:
    """The ways of one session.

    All times are seconds of the caller's clock. After any call that returns nothing, `has_news`
    says whether there are events, datagrams or an earlier timer.

    :param rounds: the rounds of candidates of the session.
    :param selector: the policy.
    :ivar using: where each packet goes. None of them: drop it, QUIC sends its content again.
    :ivar relays: the ways through Intermediates, by address.
    :ivar has_news: see above; get_timer() ends it.
    """

    def __init__(self, rounds: CandidateExchange, selector: IPathSelector) -> None:
        self.using: tuple[Way, ...] = ()
        self.relays: dict[Address, Way] = {}
        self.has_news = False
        self._rounds = rounds
        self._selector = selector
        self._choice = RelayChoice()
        self._direct = DirectSearch(rounds)
        self._relay_rtt: float | None = None
        self._farewell: PeerGone | None = None
        self._sizes = BASE, BASE  # of packets now, and as last reported for the direct way
        self._due = math.inf
        self._events: collections.deque[Event] = collections.deque()

    # -- what there is ---------------------------------------------------------------------------

    @property
    def tag(self) -> bytes:
        """The first bytes of the transaction ids of this session's checks."""
        return self._rounds.tag

    @property
    def policy(self) -> str:
        """The name of the path selector."""
        return str(self._selector.name)

    @property
    def packet_size(self) -> int:
        """Bytes of the largest packet that `using` carries."""
        return self._sizes[0]

    @property
    def is_relayed(self) -> bool:
        """Whether packets go through relays only."""
        return bool(self.using) and self.using[0].kind is WayKind.RELAYED

    @property
    def is_direct(self) -> bool:
        """Whether packets go straight to the peer, also while relays repeat them."""
        return bool(self.using) and self.using[0].kind is WayKind.DIRECT

    @property
    def relay(self) -> Address | None:
        """The Intermediate of choice, None if there is none."""
        return self._choice.current

    @property
    def is_direct_doubtful(self) -> bool:
        """Whether the direct way is in doubt or silent."""
        return self._direct.state in (DirectState.DOUBTFUL, DirectState.SILENT)

    @property
    def is_doubtful(self) -> bool:
        """Whether a way in use may not work, so that other ways repeat its packets."""
        return self.is_direct_doubtful or self._choice.is_doubtful

    @property
    def carry_data(self) -> bool:
        """Whether the ways in use may carry data of services, not only messages about paths."""
        return self._may_carry(self.using)

    def _may_carry(self, ways: tuple[Way, ...]) -> bool:
        return self._selector.relays or all(way.kind is WayKind.DIRECT for way in ways)

    def leads_to(self, source: Address) -> bool:
        """Whether the direct way, proven by a check, leads to `source`."""
        path = self._direct.path
        return path is not None and path.pair.address == source

    # -- relays ----------------------------------------------------------------------------------

    def add_relay(
        self, address: Address, channel: bytes, cost: float, reason: str, now: float
    ) -> None:
        """Use the Intermediate at `address`, which relays the session in frames for `channel`.

        :param cost: the round-trip time of that way in seconds, as far as this end judges.
        :param reason: for people.
        """
        is_first = not self.relays
        self.relays[address] = relayed_way(address, channel)
        self._choice.add(address, cost, now)
        self._select(reason)
        if is_first and self._rounds.has_begun and self._selector.searches:
            self._direct.begin(now)
        self._follow(now)

    def retire_relay(self, address: Address, reason: str, now: float) -> None:
        """Use another Intermediate, if there is another: the one at `address` is about to stop."""
        if address in self.relays:
            self._choice.retire(address, now)
            self._select(reason, planned=True)

    def remove_relay(self, address: Address, reason: str, now: float) -> None:
        """Stop using the Intermediate at `address`: it relays the session no more."""
        if self.relays.pop(address, None) is not None:
            self._choice.remove(address, now)
            self._select(reason)

    def renew(self) -> None:
        """Have the connection repair at once: packets were lost on the ways in use.

        Amid doubt everything sent since is lost. Otherwise most of what is unacknowledged may have
        arrived, and would stand before what did not.
        """
        lost = self.is_direct_doubtful
        self._emit(WaysChanged(self.using, lost=lost, carry_data=self.carry_data))

    # -- candidates and checks -------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Search for a direct way: the other end proved who it is, and messages reach it."""
        if self._selector.searches:
            self._direct.begin(now)
        self._follow(now)

    def take_signal(self, message: PathMessage, rtt: float, now: float) -> None:
        """Take a message of the peer's Paths. An offer decides the policy of the controlled end.

        :param rtt: round-trip time of the connection in seconds, 0 if unknown.
        """
        if isinstance(message, CandidateOffer) and not self._rounds.controlling:
            before, self._selector = self.carry_data, SELECTORS[message.policy]()
            if self.carry_data != before:  # by the same ways
                self._emit(WaysChanged(self.using, False, planned=True, carry_data=not before))
        self._direct.take_signal(message, rtt, now)
        self._follow(now)

    def receive_check(self, check: Check, source: Address, now: float) -> bool:
        """Take a check that came from `source`. Returns False for one that is not authentic."""
        if not self._direct.receive_check(check, source, now):
            return False
        if self._farewell is not None and check.kind is CheckKind.SUCCESS and self.leads_to(source):
            self._farewell = None  # the peer is there, whoever denied it
        if self._direct.has_news:
            self._follow(now)
        return True

    def candidates_changed(self, now: float) -> None:
        """Send the new candidates of this node; without a direct way, begin a round."""
        self._direct.candidates_changed(now)
        self._follow(now)

    def network_changed(self, now: float) -> None:
        """Check the direct way, or look for one: this node may be in another network."""
        self._direct.network_changed(now)
        self._follow(now)

    # -- packets ---------------------------------------------------------------------------------

    def sent(self, now: float, *, answer_due: bool, rtt: float | None) -> None:
        """Packets of the session left by the ways in use.

        :param answer_due: whether the peer owes an acknowledgement.
        :param rtt: round-trip time in seconds as the connection measures it, None if unknown.
        """
        if self.is_direct:
            due = self._direct.sent(now)
            if due is not None:
                self._bring_forward(due)
        else:
            self._relay_rtt = rtt or self._relay_rtt
        if self.using[-1].kind is WayKind.RELAYED and self._choice.sent(now, unanswered=answer_due):
            self._bring_forward(now + ASK_AFTER)

    def heard(self, source: Address, now: float) -> None:
        """An authentic packet, newer than all before, arrived directly from `source`."""
        self._direct.heard(source, now)
        self._choice.heard(None, now)

    def heard_relayed(self, relay: Address, now: float) -> None:
        """An authentic packet, newer than all before, arrived through the relay at `relay`."""
        choice = self._choice
        before, was_overdue = choice.in_use, choice.is_overdue(now)
        choice.heard(relay, now)
        if choice.in_use != before:
            self._select("the peer was heard there")
        elif was_overdue and self.is_relayed:  # it is back; QUIC's next probe may be far off
            self.renew()
        if self._direct.path is not None and self._direct.heard_relayed(now, choice.rtt):
            self._follow(now)

    def black_hole(self, now: float) -> None:
        """Large packets get lost on the direct way while small ones pass."""
        self._direct.black_hole(now)
        self._follow(now)

    def farewell(self, code: ErrorCode, reason: str, now: float) -> None:
        """An Intermediate says that the peer ended the session: believed if no way contradicts."""
        self._farewell = PeerGone(code, reason)
        if not self.using:
            self._emit(self._farewell)
        elif self._direct.doubt(now):
            self._follow(now)

    # -- time ------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """Return the time to call handle_timer() at, at the latest; math.inf for never."""
        self.has_news = False
        return self._due

    def handle_timer(self, now: float) -> None:
        """Do everything that is due, and plan the next call."""
        choice = self._choice
        if choice.look(now):
            self._ask_relays()
        if choice.is_doubtful:
            self._select("the relay is silent")
        self._direct.handle_timer(now)
        self._follow(now)
        self._due = self._next_due()
        self.has_news = True

    def _next_due(self) -> float:
        relay_due = self._choice.get_timer()
        return min(self._direct.get_timer(), relay_due, self._farewell_at())

    def _farewell_at(self) -> float:
        """When silence confirms the report of the peer's end; math.inf without both."""
        path = self._direct.path
        if self._farewell is None or path is None:
            return math.inf
        return path.health.silent_at(FAREWELL)

    def _bring_forward(self, due: float) -> None:
        """Something is due at that time, perhaps earlier than everything else."""
        if due < self._due:
            self._due = due
            self.has_news = True

    # -- out -------------------------------------------------------------------------------------

    def datagrams_to_send(self) -> list[Outgoing]:
        """Return the checks, the answers to checks and the openers that are due."""
        return self._direct.datagrams_to_send()

    def next_event(self) -> Event | None:
        """Return the next event, None if there is none."""
        return self._events.popleft() if self._events else None

    def snapshot(self) -> PathsStatus:
        """Return the present state as a frozen value, for people and metrics."""
        session, policy = self._rounds.session.hex(), self.policy
        relays, direct = self._choice.snapshot(), self._direct.snapshot()
        size, rtt = self.packet_size, self._relay_rtt
        return PathsStatus(session, policy, self.using, size, relays, rtt, direct)

    def _ask_relays(self) -> None:
        for address in self.relays:
            self._emit(AskRelay(address))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self.has_news = True

    def _follow(self, now: float) -> None:
        """Pass on what the direct search says, and use what it found."""
        while (event := self._direct.next_event()) is not None:
            match event:
                case DirectChanged(reason, arrives):
                    self._select(reason, planned=arrives)
                    if self._direct.state is DirectState.DOUBTFUL:
                        # A NAT may have moved this node. Then Intermediates drop its relay frames
                        # until a packet of the control connection shows them its address.
                        self._ask_relays()
                case CandidatesExchanged() | ChecksStarted() | ChecksFailed():
                    self._emit(event)
                case _:
                    self._emit(Signal(event))
        self._fit_packets()
        if self._farewell is not None and now >= self._farewell_at() - TOLERANCE:
            self._emit(self._farewell)
            self._farewell = None
        self._bring_forward(self._next_due())
        self.has_news = True

    def _select(self, reason: str, *, planned: bool = False) -> None:
        """Ask the policy, and use the way that it names.

        :param planned: packets sent the other way still arrive.
        """
        path, relayed = self._direct.path, tuple(self.relays[address] for address in self._choice)
        rtt, relay_rtt = path.pair.rtt if path is not None else None, self._relay_rtt
        self._choice.rtt = relay_rtt or 0.0
        choices = Choices(path is not None, bool(self.relays), rtt, relay_rtt)
        decision = self._selector.select(choices)
        ways: tuple[Way, ...] = ()
        if decision.path == DIRECT and path is not None:
            ways = self._direct_ways(path.way, relayed)
        elif decision.path == RELAYED:
            ways = relayed
        lost = self.is_doubtful or not self.using
        before, self.using = self.using, ways
        self._fit_packets()  # before anything goes the other way
        if ways == before:
            return
        carry_data = self._may_carry(ways)
        self._emit(WaysChanged(ways, lost=lost, planned=planned, carry_data=carry_data))
        # The policy knows no doubt: it took the direct way to be healthy.
        grounds = "" if self.is_direct_doubtful else decision.reason
        session, kind = self._rounds.session.hex(), NONE
        if ways and (carry_data or ways[0].kind is WayKind.DIRECT):
            kind = ways[0].kind.value
        text = "; ".join(filter(None, (reason, grounds)))
        address = " and ".join(format_address(way.address) for way in ways)
        self._emit(PathSelectedReport(session, kind, text, address, rtt, relay_rtt))

    def _direct_ways(self, way: Way, relayed: tuple[Way, ...]) -> tuple[Way, ...]:
        """The ways for a session that shall be direct, by the state of the direct way."""
        if self._direct.state is DirectState.GOOD:
            return (way,)
        if self._direct.state is DirectState.SILENT and relayed:
            return relayed
        return (way, *relayed)

    def _fit_packets(self) -> None:
        """Only a healthy direct way carries more than BASE, and only for itself."""
        path, (size, reported), fits = self._direct.path, self._sizes, BASE
        if path is not None and self._direct.state is DirectState.GOOD:
            fits = path.pair.mtu.size if self.using == (path.way,) else BASE
        if fits != size:
            self._emit(PacketSizeChanged(fits))
        is_final = path is not None and path.pair.mtu.phase is Phase.SEARCH_COMPLETE
        if path is not None and is_final and path.pair.mtu.size != reported:
            reported = path.pair.mtu.size
            session, address = self._rounds.session.hex(), format_address(path.pair.address)
            self._emit(PacketSizeFound(session, address, reported))
        self._sizes = fits, reported
