"""Who has a node send packets to somebody else: how many, to how many ports, and how fast."""

from __future__ import annotations

import base64
import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet import reports
from p2pnet.core import events
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.quic.events import StreamDataReceived
from p2pnet.timing import TOLERANCE
from p2pnet.traversal.budget import BURST, MAX_PORTS, MAX_UNPROVEN, MEMORY, PACING
from p2pnet.wire import messages, path_messages
from p2pnet.wire.address import Address
from p2pnet.wire.check import Check, CheckKind, encode_request
from p2pnet.wire.demux import Kind
from p2pnet.wire.encoding import encode_message
from p2pnet.wire.path_messages import PATHS_STREAM, CandidateInfo, PathMessage
from tests.core.peer.links import PeerConnection
from tests.core.peer.side import Side
from tests.sim.support import Echo, Talks
from tests.traversal.nodes import CONNECTOR, LOST, STUN_REQUEST, DirectCase, Packet

VICTIM = "198.18.0.99"
RUN = MEMORY + 30.0  # seconds of virtual time
SESSIONS = 128
CROWD = 16


def infos(addresses: Sequence[Address]) -> tuple[CandidateInfo, ...]:
    """Candidates for these addresses, of foundations of their own."""
    return tuple(
        CandidateInfo("host", *address, 2**31 - 1 - number, f"f{number}")
        for number, address in enumerate(addresses)
    )


def ports(first: int = 20000) -> list[Address]:
    """Sixteen ports of the victim."""
    return [(VICTIM, first + number) for number in range(16)]


class ThirdPartyCase(DirectCase):
    """An honest node, and others that lie to it."""

    def meet(self, policy: str = "relay-only") -> None:
        """An agent, which says nothing about paths of its own accord, talks to a connector."""
        self.ready(policy)
        self.talk(self.simulation, self.agent)

    def say(self, node: Node, message: PathMessage) -> None:
        """Have a node tell its peers something."""
        speaker: Any = node
        for session in speaker.core.sessions:
            session.connection.send(PATHS_STREAM, encode_message(message))
        speaker.driver.wake()

    def offer(self, addresses: Sequence[Address]) -> path_messages.CandidateOffer:
        """An offer with new credentials."""
        fragment, password = (base64.b64encode(self.net.entropy(n)).decode() for n in (6, 18))
        return path_messages.CandidateOffer(fragment, password, infos(addresses), "prefer-direct")

    def repeat(self, seconds: float, call: Callable[[], object], last: float = RUN) -> None:
        """Do something again and again while time passes."""
        loop = self.every(seconds, call)
        self.net.run(last)
        loop.stop()

    def sent_by(self, node: Node) -> list[Packet]:
        """What a node sent to anybody but the Intermediate."""
        source = node.transport.get_address()
        return [p for p in self.net.between_nodes() if p.source == source]

    def assert_spared(self, node: Node, least: int = 1) -> None:
        """The node sent the victim some packets, but not too many in any ten minutes."""
        sent = [(p.at, p.destination) for p in self.sent_by(node) if p.destination[0] == VICTIM]
        self.assertGreaterEqual(len(sent), least)
        assert_few(self, sent)

    def assert_paced(self, node: Node) -> None:
        """Whatever the node sent to anybody but the Intermediate was paced."""
        sent = [(p.at, p.destination) for p in self.sent_by(node) if p.kind is Kind.STUN]
        self.assertLessEqual(max(map(len, spans(sent, 1.0))), BURST + 1.0 / PACING + 1)


def spans(sent: Sequence[tuple[float, Address]], seconds: float) -> Iterator[list[Address]]:
    """The destinations of packets within so many seconds, for each packet that ends the span."""
    first = 0
    for last, (at, _) in enumerate(sent):
        while sent[first][0] <= at - seconds + TOLERANCE:
            first += 1
        yield [destination for _, destination in sent[first : last + 1]]


def assert_few(case: SynchronousTestCase, sent: Sequence[tuple[float, Address]]) -> None:
    """A victim got so many packets, at so many ports, within MEMORY at most."""
    for destinations in spans(sent, MEMORY):
        case.assertLessEqual(len(destinations), MAX_UNPROVEN)
        case.assertLessEqual(len(set(destinations)), MAX_PORTS)


class AgentTests(ThirdPartyCase):
    """A certified agent that lies to a Connector."""

    def test_regression_offers_without_end_do_not_flood_a_victim(self) -> None:
        """One offer of sixteen ports was 224 packets."""
        self.meet()
        self.repeat(0.5, lambda: self.say(self.agent, self.offer(ports())))
        self.assert_spared(self.connector, least=150)
        self.assert_paced(self.connector)

    def test_offers_do_not_find_open_ports(self) -> None:
        """Each has sixteen others."""
        self.meet()
        first = itertools.count(20000, 16)
        self.repeat(0.5, lambda: self.say(self.agent, self.offer(ports(next(first)))), 60.0)
        self.assert_spared(self.connector)

    def test_regression_updates_cost_no_openers(self) -> None:
        """Each of 500 empty ones had openers sent to every pair, as many as it liked."""
        self.meet()
        self.say(self.agent, self.offer(ports()))
        self.net.run(1.0)
        self.repeat(0.01, lambda: self.say(self.agent, path_messages.CandidateUpdate(())), 10.0)
        other = path_messages.CandidateUpdate(infos(ports(30000)))
        self.repeat(0.1, lambda: self.say(self.agent, other), 60.0)
        self.assert_spared(self.connector)
        openers = [p for p in self.sent_by(self.connector) if p.data[:2] != STUN_REQUEST]
        self.assertLessEqual(len(openers), 2 * MAX_PORTS)

    def test_regression_new_hosts_are_few_a_second(self) -> None:
        """Offers with sixteen new destinations each filled the tables of the router."""
        self.meet()
        numbers = itertools.count()

        def offer() -> None:
            start = 16 * next(numbers)
            hosts = [f"198.18.{n // 256}.{n % 256}" for n in range(start, start + 16)]
            self.say(self.agent, self.offer([(host, 20000) for host in hosts]))

        self.repeat(0.02, offer, 30.0)
        self.assert_paced(self.connector)
        reached = {packet.destination for packet in self.sent_by(self.connector)}
        self.assertLessEqual(len(reached), 16 * (3 + 30 + 1))

    def test_requests_in_the_name_of_a_victim_are_few_answers(self) -> None:
        """Who knows the password of a session can forge the source of an authentic request."""
        self.meet("prefer-direct")
        self.until(self.is_direct)
        (session,) = self.agent.core.sessions
        checks: Any = self.agent.core.paths_of(session)._rounds.checks

        def request() -> None:
            check = Check(
                CheckKind.REQUEST, self.net.entropy(12), priority=1,
                username=f"{checks.remote.username_fragment}:{checks.local.username_fragment}",
                controlling=True, tie_breaker=1,
            )  # fmt: skip
            data = encode_request(check, checks.remote.password)
            self.net.send(data, (VICTIM, 5000), self.connector.transport.get_address())

        self.repeat(1.0, request)
        self.assert_spared(self.connector)


class ManySessionsTests(SynchronousTestCase):
    """A Connector with many sessions, without the packets of their connections."""

    def setUp(self) -> None:
        """Established sessions; the agents say what they like."""
        self.now = 0.0
        self.side = Side(controlling=False, host=CONNECTOR)
        self.made = [
            self.side.begin("prefer-direct", number.to_bytes(16, "big"))
            for number in range(SESSIONS)
        ]
        for session in self.made:
            PeerConnection(session)
        self.sent: list[tuple[float, Address]] = []

    def offer(self, number: int, addresses: Sequence[Address]) -> None:
        """One of the agents offers candidates."""
        credentials = f"{number:08}", f"{number:024}"
        offer = path_messages.CandidateOffer(*credentials, infos(addresses), "prefer-direct")
        event = StreamDataReceived(PATHS_STREAM, encode_message(offer), False)
        self.side.sessions.receive_signals(self.made[number], event, self.now)
        self.send()

    def send(self) -> None:
        """Note what leaves."""
        out = [address for _, address in self.side.sessions.take_checks()]
        out += [e.address for e in self.side.events if isinstance(e, events.OpenerNeeded)]
        self.side.events.clear()
        self.sent += [(self.now, address) for address in out]

    def run_to(self, until: float) -> None:
        """Let time pass."""
        while (when := self.side.timers.get_timer()) is not None and when <= until:
            self.now = max(self.now, when)
            self.side.timers.handle_timer(self.now)
            self.send()
        self.now = until

    def test_regression_sessions_do_not_add_up(self) -> None:
        """128 of them were 4,224 packets a second."""
        for start in range(0, int(RUN), 60):
            for number in range(SESSIONS):
                self.offer(number, ports())
            self.run_to(start + 60.0)
        self.assertGreater(len(self.sent), 100)
        assert_few(self, self.sent)

    def test_sessions_take_turns(self) -> None:
        """Each gets its share of the pace of one, whoever came first."""
        for number in range(SESSIONS):
            self.offer(number, [(f"198.18.{number}.{n}", 20000) for n in range(16)])
        self.run_to(30.0)
        for destinations in spans(self.sent, 1.0):
            self.assertLessEqual(len(destinations), BURST + 1.0 / PACING + 1)
        late = [address for at, address in self.sent if at > 10.0]
        counts = collections.Counter(host.split(".")[2] for host, _ in late)
        self.assertEqual(SESSIONS, len(counts))
        self.assertLessEqual(max(counts.values()) - min(counts.values()), 2)


class CrowdTests(ThirdPartyCase):
    """An honest agent among many that keep its connector busy."""

    def test_an_honest_session_is_direct_among_them(self) -> None:
        """It waits for its turn, once each is checked."""
        self.realm().intermediate()
        self.connector = self.simulation.connector({"web": ["*"]})
        self.connector.serve_protocol("web", Talks(Echo))
        self.net.run(1.0)
        crowd = [self.join(number, policy="relay-only") for number in range(CROWD)]
        for number, agent in enumerate(crowd):
            hosts = [f"198.18.{number}.{n}" for n in range(16)]
            self.say(agent, self.offer([(host, 20000) for host in hosts]))
        self.net.run(1.0)
        self.agent, begun = self.join(CROWD), self.now
        (session,) = self.agent.core.sessions
        other: Any = self.connector.core.sessions.find(session.id)
        ends = (self.agent.core.paths_of(session), self.connector.core.paths_of(other))
        self.until(lambda: all(paths.is_direct for paths in ends))
        self.assertLess(self.now - begun, 1.0 + CROWD * PACING)
        self.assert_paced(self.connector)

    def join(self, number: int, **options: str) -> AgentNode:
        """One more agent, which talks to the connector."""
        agent = self.simulation.agent(f"203.0.113.{10 + number}", f"agent{number}", **options)
        self.until(lambda: agent.core.links[0].is_ready)
        self.talk(self.simulation, agent)
        return agent


class ConnectorTests(ThirdPartyCase):
    """A Connector that lies to an Agent."""

    def test_what_the_agent_did_not_ask_for_is_ignored(self) -> None:
        """Answers without an offer, and beginnings without an answer."""
        self.meet("prefer-direct")
        self.until(self.is_direct)
        self.net.disturb(LOST)
        offer = self.offer(ports())

        def lie() -> None:
            credentials = offer.username_fragment, offer.password
            for message in (
                path_messages.CandidateAnswer(*credentials, offer.candidates),
                path_messages.StartPunching(0),
                path_messages.CandidateUpdate(offer.candidates),
            ):
                self.say(self.connector, message)

        self.repeat(0.5, lie)
        self.assert_spared(self.agent)
        self.assert_paced(self.agent)


class IntermediateTests(ThirdPartyCase):
    """An Intermediate that says that it sees a node at the victim."""

    def test_regression_observed_addresses_do_not_flood_a_victim(self) -> None:
        """Neither packets to the victim, nor messages between the nodes, nor lines of the log."""
        self.ready("prefer-direct")
        self.net.disturb(LOST)
        self.talk(self.simulation, self.agent)
        relay = next(n for n in self.simulation.nodes if isinstance(n, IntermediateNode))
        numbers = itertools.count(1000)

        def lie() -> None:
            number = next(numbers)
            message = messages.ObservedAddress(number, VICTIM, 20000 + number % 40000)
            for node in relay.core._control._nodes:
                node.send(message)
            relay.driver.wake()

        began = self.now
        self.repeat(0.2, lie)
        for node in (self.agent, self.connector):
            self.assert_spared(node)
            self.assert_paced(node)
            seen = self.simulation.reported(node, reports.AddressObserved)
            self.assertLessEqual(len(seen), self.now - began + 5)
