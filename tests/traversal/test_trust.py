"""Who may have a node send a packet where: a lying Intermediate, a foreign node, and nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from p2pnet import reports
from p2pnet.config.cores import intermediate_options
from p2pnet.config.roles import IntermediateConfig
from p2pnet.core.intermediate.control import ControlConnections
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.nodes import ConnectedNode
from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.errors import ServiceError
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind
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


def infos(addresses: Sequence[Address]) -> tuple[messages.CandidateInfo, ...]:
    """Candidates of the best priority for these addresses."""
    return tuple(
        messages.CandidateInfo("host", *address, 2**31 - 1 - number, f"f{number}")
        for number, address in enumerate(addresses)
    )


class LyingControl(ControlConnections):
    """An Intermediate that adds candidates to what nodes tell each other.

    :ivar lies: the addresses.
    :ivar greetings: what else it tells every node that greets it.
    """

    lies: Sequence[Address] = ()
    greetings: Sequence[messages.Message] = ()

    def _take(self, node: ConnectedNode, message: messages.Message, now: float) -> None:
        if isinstance(message, messages.CandidateOffer | messages.CandidateAnswer):
            candidates = infos(self.lies) + message.candidates
            message = msgspec.structs.replace(message, candidates=candidates)
        super()._take(node, message, now)
        if isinstance(message, messages.Hello):
            for greeting in self.greetings:
                node.send(greeting)


class LyingIntermediateTests(DirectCase):
    """It is untrusted; that must not make nodes its instruments."""

    def lied_to(self, lies: Sequence[Address], *greetings: messages.Message) -> None:
        """Two nodes whose Intermediate lies, and who try to talk."""
        simulation = self.realm()
        credentials = simulation.realm.credentials(Role.INTERMEDIATE, "relay1", hosts=[RELAY])
        options = intermediate_options(simulation.config(IntermediateConfig))
        core = IntermediateCore(
            credentials, MemoryDirectory(), options, utcnow=utcnow, entropy=self.net.entropy
        )
        control: Any = core._control
        control.__class__ = LyingControl
        control.lies, control.greetings = lies, greetings
        node = IntermediateNode(
            self.net.clock, core, self.net.transport(RELAY, 4433), drain_seconds=0.0
        )
        simulation.start(node)
        self.place()
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

    def test_what_is_said_of_no_session_is_ignored(self) -> None:
        """Candidates and starts out of the blue."""
        stray = infos([("198.18.0.66", 5000)])
        self.lied_to(
            [],
            *(
                kind(bytes(16), "mallory+", "m" * 24, stray)
                for kind in (messages.CandidateOffer, messages.CandidateAnswer)
            ),
            messages.CandidateUpdate(bytes(16), stray),
            messages.StartPunching(bytes(16), 0),
        )
        self.assert_direct()
        self.assert_untouched([("198.18.0.66", 5000)])
        for node in (self.agent, self.connector):
            sessions = {e.session for e in self.simulation.reported(node, reports.ChecksStarted)}
            self.assertEqual(1, len(sessions))

    def test_a_hundred_candidates_are_not_even_taken(self) -> None:
        """The message is malformed: the connection to such an Intermediate is closed. It could as
        well have passed nothing on."""
        lies = [(f"198.18.0.{number}", 5000) for number in range(100)]
        self.lied_to(lies)
        self.assert_untouched(lies)
        self.failureResultOf(self.talking, ServiceError)
        lost = self.simulation.reported(self.connector, reports.ControlLost)
        self.assertIn("candidates", lost[0].reason)

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


class ForeignNodeTests(DirectCase):
    """A node of the realm that speaks about a session of others."""

    def meddle(self, *spoken: messages.Message) -> None:
        """Have a third node, well connected, say that; nothing may change."""
        mallory = self.simulation.agent(host="192.0.2.66", name="mallory", policy="relay-only")
        self.until(lambda: mallory.core.links[0].is_ready)
        before = self.told()
        for message in spoken:
            mallory.core.links[0].send(message)
        mallory.driver.wake()
        self.net.run(1.0)
        self.assertEqual(before, self.told())
        self.assertNotIn("198.18.0.66", {packet.destination[0] for packet in self.net.sent})

    def told(self) -> list[int]:
        """How often each end of the session was told anything of candidates or checks."""
        kinds = (reports.CandidatesExchanged, reports.ChecksStarted, reports.ChecksFailed)
        return [
            len(self.simulation.reported(node, kind))
            for node in (self.agent, self.connector)
            for kind in kinds
        ]

    def session(self) -> bytes:
        """The id of a session that is relayed, and could be direct for all that the nodes know."""
        self.realm().intermediate()
        self.net.disturb(LOST)
        self.place()
        self.talk(self.simulation, self.agent)
        self.net.run(10.0)  # the first round of checks is over, the next one is not due
        (session,) = self.agent.core.sessions
        return bytes(session.id)

    def candidates(self, kind: Any, session: bytes) -> messages.Message:
        """An offer or an answer with an address of the stranger's."""
        message: messages.Message = kind(
            session, "mallory+", "m" * 24, infos([("198.18.0.66", 5000)])
        )
        return message

    def test_what_another_connection_says_of_a_session_is_not_passed_on(self) -> None:
        """Offer, answer, update and result, by a node that is no end of it."""
        session = self.session()
        self.meddle(
            self.candidates(messages.CandidateOffer, session),
            self.candidates(messages.CandidateAnswer, session),
            messages.CandidateUpdate(session, infos([("198.18.0.66", 5000)])),
            messages.PunchingResult(session, False, "no"),
        )

    def test_a_node_cannot_start_the_checks(self) -> None:
        """Only the Intermediate says so; a node that does is cut off."""
        session = self.session()
        self.meddle(messages.StartPunching(session, 0))
        mallory = self.simulation.nodes[-1]
        self.assertTrue(self.simulation.reported(mallory, reports.ControlLost))

    def test_an_end_of_a_session_says_only_what_is_its_to_say(self) -> None:
        """The Agent offers and the Connector answers, not the other way round."""
        session = self.session()
        before = self.told()
        for node, kind in (
            (self.agent, messages.CandidateAnswer),
            (self.connector, messages.CandidateOffer),
        ):
            node.core.links[0].send(self.candidates(kind, session))
            node.driver.wake()
        self.net.run(1.0)
        self.assertEqual(before, self.told())


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
