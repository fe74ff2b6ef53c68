"""What the tests of check lists share: ends that keep a record, and a network for two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.interfaces import Datagrams
from p2pnet.testing.nat import NATBox
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.traversal import checklist
from p2pnet.traversal.budget import SendBudget
from p2pnet.traversal.candidate import (
    Candidate,
    CandidatePolicy,
    CandidateType,
    calculate_priority,
    gather_host_candidates,
    gather_reflexive_candidate,
)
from p2pnet.traversal.checklist import CheckList, IceCredentials
from p2pnet.traversal.pace import Pace
from p2pnet.wire.address import Address
from p2pnet.wire.check import Check, CheckKind, decode_check
from p2pnet.wire.codes import DecodeError

OBSERVER: Address = ("192.0.2.1", 4433)
TOLERANCE = 1e-6
LOST = Link(loss=1.0)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A message that an end sent."""

    at: float
    check: Check
    destination: Address
    data: bytes


def credentials(entropy: Callable[[int], bytes]) -> IceCredentials:
    """Fresh ones."""
    return IceCredentials(entropy(4).hex(), entropy(12).hex())


def host(address: Address) -> Candidate:
    """The host candidate of an address."""
    return gather_host_candidates([address[0]], address[1])[0]


def addresses(candidates: Iterable[Candidate]) -> list[Address]:
    """Their addresses, in order."""
    return [candidate.address for candidate in candidates]


def candidate(kind: CandidateType, address: Address, preference: int = 0) -> Candidate:
    """A candidate with a foundation of its own."""
    priority = calculate_priority(kind, preference)
    return Candidate(kind, address, priority, f"{kind} {address[0]} {address[1]}")


class End:
    """One end of a session: its check list, and a record that is kept beside it.

    :ivar sent: all that it sent. `requests`: what of it were requests.
    :ivar events: all that it reported.
    :ivar answered: where authentic answers to its own transactions came from.
    :ivar refused: how many messages it did not take.
    :ivar budget: of its node. `name`: of its session there.
    """

    def __init__(
        self,
        local: Candidate,
        controlling: bool,
        entropy: Callable[[int], bytes],
        policy: CandidatePolicy | None = None,
    ) -> None:
        self.local = local
        self.controlling = controlling
        self.policy = policy or CandidatePolicy()
        self.credentials = credentials(entropy)
        self.sent: list[Sent] = []
        self.events: list[checklist.Event] = []
        self.answered: set[Address] = set()
        self.refused = 0
        self.budget = SendBudget()
        self.name = b"session"
        self.checks: CheckList
        self._entropy = entropy
        self._asked: dict[bytes, Address] = {}

    def meet(self, remote: IceCredentials) -> None:
        """Make the check list of a session with somebody who has those credentials."""
        self.checks = CheckList(
            controlling=self.controlling,
            local=self.credentials,
            remote=remote,
            bases=[self.local],
            policy=self.policy,
            pace=Pace(self.budget, self.name),
            entropy=self._entropy,
        )

    @property
    def requests(self) -> list[Sent]:
        """The requests that it sent."""
        return [one for one in self.sent if one.check.kind is CheckKind.REQUEST]

    def happened(self, kind: type[Any]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """Take a message, and note whether it proves `source`."""
        try:
            check = decode_check(data)
        except DecodeError:
            self.refused += 1
            return
        ours = self._asked.get(check.transaction_id) == source
        authentic = check.is_authentic(self.checks.remote.password)
        if check.kind is CheckKind.SUCCESS and ours and authentic:
            self.answered.add(source)
            del self._asked[check.transaction_id]
        self.refused += not self.checks.receive(check, source, now)

    def take(self, now: float) -> list[tuple[bytes, Address]]:
        """What is to be sent at `now`; what is due is done."""
        out: list[tuple[bytes, Address]] = []
        for _ in range(10):
            out += self.checks.datagrams_to_send()
            timer = self.checks.get_timer()
            if timer is None or timer > now:
                break
            self.checks.handle_timer(now)
        else:
            raise AssertionError(f"time stands still at {now}")
        for data, to in out:
            check = decode_check(data)
            self.sent.append(Sent(now, check, to, data))
            if check.kind is CheckKind.REQUEST:
                self._asked[check.transaction_id] = to
        while (event := self.checks.next_event()) is not None:
            self.events.append(event)
        return out


class Internet(SimulatedNetwork):
    """A simulated network with somebody who says what address a packet came from."""

    def __init__(self, seed: int = 1, link: Link | None = None) -> None:
        super().__init__(seed, link)
        self.observed: Address | None = None
        self.bind(OBSERVER, self._observe)

    def _observe(self, data: bytes, source: Address) -> None:
        self.observed = source


class Peer(End):
    """An end with a socket on the network.

    :param box: the NAT box that its host is behind, if it is behind one.
    """

    def __init__(
        self,
        network: Internet,
        name: str,
        *,
        controlling: bool = False,
        box: NATBox | None = None,
        policy: CandidatePolicy | None = None,
    ) -> None:
        if box is not None:
            network.behind(name, box)
        network.connect(box.address if box else name, OBSERVER[0], Link())
        self.network = network
        self.transport = network.transport(name)
        self.transport.start(self._receive)
        address = self.transport.get_address()
        super().__init__(host(address), controlling, network.entropy, policy)
        self._call: IDelayedCall | None = None

    def observe(self) -> Candidate:
        """Its server-reflexive candidate."""
        self.network.observed = None
        self.transport.send([(b"who am I?", OBSERVER)])
        self.network.run(0.1)
        assert self.network.observed is not None
        return gather_reflexive_candidate(
            self.network.observed, "observer", base=self.local.address
        )

    def learn(self, *candidates: Candidate) -> None:
        """The other end's candidates, or more of them."""
        self.checks.add_remote(candidates)
        self.pump()

    def start(self, after: float = 0.0) -> None:
        """Begin with the checks."""
        self.checks.start(self.network.clock.seconds() + after)
        self.pump()

    def _receive(self, datagrams: Datagrams) -> None:
        if hasattr(self, "checks"):
            for data, source in datagrams:
                self.receive(data, source, self.network.clock.seconds())
            self.pump()

    def pump(self, at: float = 0.0) -> None:
        """Do what is due, and come back when more is. `at` is the time that was waited for."""
        # A delay and the time it leads to may differ by a rounding error.
        self.transport.send(self.take(max(at, self.network.clock.seconds())))
        if self._call is not None and self._call.active():
            self._call.cancel()
        timer = self.checks.get_timer()
        if timer is not None:
            delay = max(0.0, timer - self.network.clock.seconds())
            self._call = self.network.clock.callLater(delay, self.pump, timer)


def introduce(one: Peer, other: Peer) -> None:
    """Let each know the other's candidates, host and server-reflexive."""
    known = [[peer.local, peer.observe()] for peer in (one, other)]
    one.meet(other.credentials)
    other.meet(one.credentials)
    one.learn(*known[1])
    other.learn(*known[0])


def begin(*peers: Peer) -> None:
    """Have them start together."""
    for peer in peers:
        peer.start()


class CheckListCase(SynchronousTestCase):
    """Two peers with public addresses: `one` controls, `other` does not."""

    def meet(
        self, seed: int = 1, link: Link | None = None, roles: tuple[bool, bool] = (True, False)
    ) -> tuple[Peer, Peer]:
        """The two, who know each other's credentials, but no candidates."""
        self.net = Internet(seed, link or Link(delay=0.02))
        names = ("198.51.100.1", "203.0.113.1")
        self.one, self.other = (
            Peer(self.net, name, controlling=role) for name, role in zip(names, roles, strict=True)
        )
        self.one.meet(self.other.credentials)
        self.other.meet(self.one.credentials)
        return self.one, self.other

    def connect(self, *arguments: object) -> tuple[Peer, Peer]:
        """The two, with each other's candidates, and started."""
        one, other = self.meet(*arguments)  # type: ignore[arg-type]
        introduce(one, other)
        begin(one, other)
        return one, other

    def cut(self, *ends: Peer, link: Link = LOST) -> None:
        """From now on packets from the first to the second meet another link."""
        source, destination = (peer.local.address[0] for peer in ends)
        self.net.links[source, destination] = link

    def assert_settled(self, one: Peer, other: Peer) -> None:
        """Both selected the pair with each other, and one of them controls."""
        for peer, remote in ((one, other), (other, one)):
            selected = peer.checks.selected
            assert selected is not None, "nothing is selected"
            self.assertEqual(remote.local.address, selected.address)
            self.assertTrue(selected.is_valid and selected.nominated)
            self.assertIs(selected, peer.checks.best_valid())
        self.assertNotEqual(one.checks.controlling, other.checks.controlling)

    def assert_quiet(self, *peers: Peer) -> None:
        """Nothing is due any more."""
        self.assertEqual([None] * len(peers), [peer.checks.get_timer() for peer in peers])
        self.assertEqual([], self.net.clock.getDelayedCalls())
