"""Who may have a node send a packet where: a lying peer, a lying Intermediate, and nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2pnet import reports
from p2pnet.config.cores import intermediate_options
from p2pnet.config.roles import IntermediateConfig
from p2pnet.core.intermediate.control import ControlConnections
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.traversal.candidate import Candidate
from p2pnet.traversal.exchange import from_wire
from p2pnet.traversal.own_candidates import OwnCandidates
from p2pnet.wire import messages, path_messages
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind
from p2pnet.wire.encoding import Message, encode_message
from p2pnet.wire.path_messages import PATHS_STREAM
from tests.traversal.nodes import AGENT, CONNECTOR, LOST, RELAY, STUN_REQUEST, DirectCase

FORBIDDEN: list[Address] = [
    ("224.0.0.251", 5353),
    ("255.255.255.255", 4433),
    ("0.0.0.0", 4433),
    ("127.0.0.1", 6379),
    ("169.254.169.254", 8080),
    ("192.0.2.53", 53),
    ("ff02::1", 4433),
    ("::1", 6379),
    ("::ffff:127.0.0.1", 6379),
    ("fe80::1%eth0", 4433),
    ("localhost", 6379),
]


def infos(addresses: Sequence[Address]) -> tuple[path_messages.CandidateInfo, ...]:
    """Candidates of the best priority for these addresses."""
    return tuple(
        path_messages.CandidateInfo("host", *address, 2**31 - 1 - number, f"f{number}")
        for number, address in enumerate(addresses)
    )


class LyingCandidates(OwnCandidates):
    """Candidates of a node that adds others to its own.

    :ivar lies: the addresses.
    """

    lies: Sequence[Address] = ()

    def gather(self) -> list[Candidate]:
        """Return the lies first."""
        return from_wire(infos(self.lies)) + super().gather()


class LyingControl(ControlConnections):
    """An Intermediate that has more to say to nodes.

    :ivar greetings: what it says to every node that greets it.
    """

    greetings: Sequence[Message] = ()

    def _handle_message(self, node: ConnectedNode, message: Message, now: float) -> None:
        super()._handle_message(node, message, now)
        if isinstance(message, messages.Hello):
            for greeting in self.greetings:
                node.send(greeting)


class LiarTests(DirectCase):
    """A peer or an Intermediate that lies must not make nodes its instruments."""

    def lied_to(self, lies: Sequence[Address], *greetings: Message) -> None:
        """Two nodes that add candidates to their own, with an Intermediate that lies, talk."""
        simulation = self.realm()
        credentials = simulation.realm.credentials(Role.INTERMEDIATE, "relay1", hosts=[RELAY])
        options = intermediate_options(simulation.config(IntermediateConfig))
        core = IntermediateCore(
            credentials, MemoryDirectory(), options, utcnow=utcnow, entropy=self.net.entropy
        )
        control: Any = core._control
        control.__class__, control.greetings = LyingControl, greetings
        node = IntermediateNode(
            self.net.clock, core, self.net.transport(RELAY, 4433), drain_seconds=0.0
        )
        simulation.start(node)
        self.place()
        for liar in (self.agent, self.connector):
            own: Any = liar.core.own
            own.__class__, own.lies = LyingCandidates, lies
        self.talking = self.connecting(self.agent)
        self.net.run(20.0)

    def assert_direct(self) -> None:
        """The talk works, and directly."""
        talk = self.successResultOf(self.talking)
        talk.transport.write(b"hello")
        self.net.run(1.0)
        self.assertEqual(b"hello", talk.heard)
        self.assertTrue(self.is_direct())

    def assert_untouched(self, addresses: list[Address]) -> None:
        """No packet went to any of them, by no spelling of it."""
        sent_to = {packet.destination for packet in self.net.sent}
        self.assertEqual(set(), sent_to & set(addresses))
        hosts = {AGENT, CONNECTOR, RELAY}
        self.assertLessEqual({host for host, _ in sent_to}, hosts)

    def test_nothing_is_sent_to_multicast_loopback_or_well_known_ports(self) -> None:
        """Nor to broadcast, link-local, unspecified addresses or names; the true one is used."""
        self.lied_to(FORBIDDEN)
        self.assert_untouched(FORBIDDEN)
        self.assert_direct()

    def test_regression_loopback_is_not_opened_by_an_observed_address(self) -> None:
        """An Intermediate that said it saw a node at 127.0.0.1 could have it check any local
        port."""
        lies: list[Address] = [("127.0.0.1", 6379), ("127.0.0.1", 50002), ("::1", 6379)]
        self.lied_to(lies, messages.ObservedAddress(1000, "127.0.0.1", 50002))
        self.assert_untouched(lies)

    def test_a_hundred_candidates_are_not_even_taken(self) -> None:
        """The message is malformed: the session with such a peer ends."""
        lies = [(f"198.18.0.{number}", 5000) for number in range(100)]
        self.lied_to(lies)
        self.assert_untouched(lies)
        ended = self.simulation.reported(self.agent, reports.SessionClosed)
        self.assertEqual("protocol_error", ended[0].code)

    def test_true_looking_candidates_cost_few_small_packets(self) -> None:
        """Anybody can be made to get some: paced, at most 128 bytes, for eight seconds, and never
        a byte of data."""
        lies = [(f"198.18.0.{number}", 5000) for number in range(12)]
        self.lied_to(lies)
        self.assert_direct()
        for address in lies:
            packets = [packet for packet in self.net.sent if packet.destination == address]
            self.assertEqual({Kind.STUN}, {packet.kind for packet in packets})
            checks = [packet for packet in packets if packet.data[:2] == STUN_REQUEST]
            self.assertLessEqual(len(checks), 2 * 12)
            self.assertLessEqual(len(packets) - len(checks), 2 * 2)  # openers, which go nowhere
            self.assertLessEqual(max(len(packet.data) for packet in packets), 128)


class SpokenTests(DirectCase):
    """Who may say what of candidates and checks, and to whom."""

    def told(self) -> list[int]:
        """How often each end of the session was told anything of candidates or checks."""
        kinds = (reports.CandidatesExchanged, reports.ChecksStarted, reports.ChecksFailed)
        return [
            len(self.simulation.reported(node, kind))
            for node in (self.agent, self.connector)
            for kind in kinds
        ]

    def begin(self) -> None:
        """Begin a session that is relayed, and could be direct for all that the nodes know."""
        self.realm().intermediate()
        self.net.disturb(LOST)
        self.place()
        self.talk(self.simulation, self.agent)
        self.net.run(10.0)  # the first round of checks is over, the next one is not due

    def test_an_end_of_a_session_says_only_what_is_its_to_say(self) -> None:
        """The Agent offers, the Connector answers and starts, not the other way round."""
        self.begin()
        before = self.told()
        stray = "mallory+", "m" * 24, infos([("198.18.0.66", 5000)])
        for node, message in (
            (self.agent, path_messages.CandidateAnswer(*stray)),
            (self.agent, path_messages.StartPunching(0)),
            (self.connector, path_messages.CandidateOffer(*stray, "prefer-direct")),
        ):
            (session,) = node.core.sessions
            session.connection.send(PATHS_STREAM, encode_message(message))
            node.driver.wake()
        self.net.run(1.0)
        self.assertEqual(before, self.told())
        self.assertNotIn("198.18.0.66", {packet.destination[0] for packet in self.net.sent})

    def test_an_intermediate_neither_sees_nor_says_anything_of_candidates(self) -> None:
        """Such a message on its stream is of an unknown type; no candidate is in what it gets."""
        self.begin()
        before = self.told()
        offer = path_messages.CandidateOffer(
            "mallory+", "m" * 24, infos([("198.18.0.66", 5000)]), "prefer-direct"
        )
        relay = next(n for n in self.simulation.nodes if isinstance(n, IntermediateNode))
        for node in relay.core._control._nodes:
            node.send(offer)
        relay.driver.wake()
        self.net.run(1.0)
        self.assertEqual(before, self.told())
        self.assertEqual(set(), set(path_messages.TYPES) & set(messages.TYPES))


class StrangerTests(DirectCase):
    """Packets of somebody who is not in the realm at all."""

    def test_checks_of_a_stranger_are_dropped_without_an_answer(self) -> None:
        """Not authentic, for no session, or no STUN behind its first bytes; all are counted."""
        self.ready()
        self.talk(self.simulation, self.agent).transport.write(b"hello")
        self.until(self.is_direct)
        requests = [packet for packet in self.net.sent if packet.data[:2] == STUN_REQUEST]
        forged = bytearray(requests[0].data)
        forged[-40] ^= 1
        cut = requests[0].data[:20]
        before = self.connector.core.dropped["stun"] + self.agent.core.dropped["stun"]
        for data in (bytes(forged), cut, cut + bytes(40)):
            for node in (self.agent, self.connector):
                self.net.send(data, ("192.0.2.66", 5000), node.transport.get_address())
        self.net.run(1.0)
        after = self.connector.core.dropped["stun"] + self.agent.core.dropped["stun"]
        self.assertEqual(6, after - before)
        self.assertNotIn("192.0.2.66", {packet.destination[0] for packet in self.net.sent})
        self.assertTrue(self.is_direct())
