"""Texts of peers: whatever they say, logs, terminals and errors get short and printable text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from p2pnet import reports
from p2pnet.errors import NotAuthorized
from p2pnet.identity import Role
from p2pnet.net.clock import utcnow
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.observe.eventlog import SUMMARY_INTERVAL
from p2pnet.observe.limit import BURST, RATE
from p2pnet.quic.connection import Connection
from p2pnet.quic.multiplexer import Multiplexer
from p2pnet.quic.profile import FAST, ConnectionProfile
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire import messages
from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.encoding import Message, encode_message
from p2pnet.wire.framing import add_length
from tests.sim.support import SimulationCase
from tests.wire import test_messages, test_path_messages
from tests.wire.encoding_cases import fields_of, pack

# A title for the terminal, a line that vanishes, a forged line, and marks that turn the others.
EVIL = "no\x1b]0;owned\x07\x1b[2K\r\n2026-01-01 all is well\u202e\x9b31m\u2028" + "x" * 200
SAFE = r"no\x1b]0;owned\x07\x1b[2K\r\n2026-01-01 all is well\u202e\x9b31m\u2028"
LONGEST = 300  # characters: a text of a peer with the words and names of ours around it
FREE = {"policy", "foundation"}  # fields of messages that reach no report


def texts(value: object) -> Iterator[str]:
    """All texts in the fields of a report or message."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name in value.keys() - FREE:
            yield from texts(value[name])


def lie(message: Message, **lies: Any) -> bytes:
    """The bytes of a message with other values than our own encoder would send."""
    return add_length(pack(fields_of(message) | lies))


class TextCase(SimulationCase):
    """A realm of which some member, or a stranger, has nothing good to say."""

    def say(self, simulation: Simulation, connection: Connection, data: bytes) -> None:
        """Send bytes on a control stream."""
        connection.send(messages.CONTROL_STREAM, data)
        for node in simulation.nodes:
            node.driver.wake()
        simulation.network.run(0.5)

    def control_of(self, node: Any) -> Connection:
        """The control connection of an Agent or Connector."""
        connection: Connection = node.core.links[0]._stream.connection
        return connection

    def assert_safe(self, simulation: Simulation, *quoting: reports.Report) -> None:
        """No report has a text that a terminal would obey; some quote what was said."""
        for node in simulation.nodes:
            for report in simulation.reports[node]:
                for text in texts(report.fields()):
                    self.assertTrue(text.isascii() and text.isprintable(), report)
                    self.assertLessEqual(len(text), LONGEST, report)
        self.assertNotEqual((), quoting)
        for report in quoting:
            self.assertIn(SAFE, str(report.fields()["reason"]))


class StrangerTests(TextCase):
    """Nobody asked for a certificate yet."""

    def close(self, simulation: Simulation, reason: str) -> None:
        """Connect to the Intermediate, and close with this reason before the handshake ends."""
        transport = simulation.network.transport("198.51.100.66")
        profile = ConnectionProfile(
            credentials=Realm("other").credentials(Role.AGENT, "nobody"),
            roles=frozenset([Role.INTERMEDIATE]),
            utcnow=utcnow, alpn=messages.ALPN, datagrams=True, engine=FAST,
        )  # fmt: skip
        mux = Multiplexer(entropy=simulation.network.entropy)
        now = simulation.network.clock.seconds()
        connection = mux.connect(profile, ("192.0.2.1", 4433), now)
        transport.start(lambda _: None)
        transport.send(mux.datagrams_to_send(now))
        simulation.network.run(0.1)
        connection.engine.close(error_code=0, frame_type=0, reason_phrase=reason)
        mux._touch(connection)
        transport.send(mux.datagrams_to_send(now))
        simulation.network.run(0.1)
        transport.stop()

    def test_regression_a_stranger_wrote_escape_sequences_into_the_log(self) -> None:
        """And new lines; any terminal that shows the log obeyed."""
        simulation = self.simulate()
        path = Path(self.mktemp())
        intermediate = simulation.intermediate(event_log=path)
        self.close(simulation, EVIL)
        simulation.network.run(1.0)
        (refused,) = simulation.reported(intermediate, reports.NodeRefused)
        self.assert_safe(simulation, refused)
        log = path.read_text()
        self.assertTrue(log.isascii() and log.replace("\n", "").isprintable())
        self.assertEqual(
            ["listening", "node_refused"], [json.loads(line)["event"] for line in log.splitlines()]
        )


class MemberTests(TextCase):
    """A node with a good certificate and a modified program."""

    def test_the_reason_of_an_agent_that_ends_its_session(self) -> None:
        """It reaches the Intermediate and the Connector."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        self.talk(simulation, agent)
        (session,) = agent.core.sessions
        closed = messages.SessionClosed(session.id, ErrorCode.SHUTDOWN, "")
        self.say(simulation, self.control_of(agent), lie(closed, reason=EVIL))
        (relay,) = simulation.reported(simulation.nodes[0], reports.RelayClosed)
        (lost,) = simulation.reported(connector, reports.RelayLost)
        self.assert_safe(simulation, relay, lost)

    def test_the_reason_of_a_connector_that_refuses(self) -> None:
        """It reaches the agent and, in an error, the program that asked."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)

        def refuse(_link: Any, message: Message, _now: float) -> None:
            if isinstance(message, messages.SessionOffer):
                answer = messages.SessionAnswer(message.session, ErrorCode.NOT_AUTHORIZED)
                data = lie(answer, reason=EVIL)
                self.control_of(connector).send(messages.CONTROL_STREAM, data)

        self.patch(connector.core, "take_message", refuse)
        error = self.refused(simulation, agent, NotAuthorized)
        self.assertIn(SAFE, str(error))
        self.assertTrue(str(error).isprintable())
        (refused,) = simulation.reported(agent, reports.SessionRefused)
        self.assert_safe(simulation, refused)

    def test_the_last_words_of_an_intermediate(self) -> None:
        """In a message, and in the frame that closes the connection."""
        for is_message in (True, False):
            simulation = self.simulate()
            agent, _, _ = self.trio(simulation)
            intermediate = simulation.nodes[0]
            assert isinstance(intermediate, IntermediateNode)
            node = next(node for node in intermediate.core.nodes if node.is_agent)
            if is_message:
                data = lie(messages.Goodbye(ErrorCode.SHUTDOWN, ""), reason=EVIL)
                self.say(simulation, node.connection, data)
            else:
                node.connection.engine.close(error_code=ErrorCode.SHUTDOWN, reason_phrase=EVIL)
                self.say(simulation, node.connection, b"")
            (lost,) = simulation.reported(agent, reports.ControlLost)
            self.assert_safe(simulation, lost)

    def test_a_text_in_any_field_of_any_message(self) -> None:
        """The message is refused, with an error that may quote it, or the text becomes safe."""
        for cases in (test_messages.ControlMessageTests, test_path_messages.PathMessageTests):
            for message in cases.golden:
                self.assert_safe_fields(message, cases.decode)

    def assert_safe_fields(self, message: Message, decode: Any) -> None:
        """Lie in each field."""
        for field in message.__struct_fields__:
            try:
                decoded = decode(lie(message, **{field: EVIL})[4:])
            except DecodeError as error:
                found = [str(error)]
            else:
                found = list(texts(msgspec.to_builtins(decoded)))
            for text in found:
                self.assertTrue(text.isascii() and text.isprintable(), (message, field))
                self.assertLessEqual(len(text), 200)


class FloodTests(TextCase):
    """Messages that cost their sender less than the reports about them."""

    def test_regression_messages_made_logs_of_twenty_times_their_size(self) -> None:
        """A member opens and closes sessions; the log says how many more there were."""
        simulation = self.simulate()
        path = Path(self.mktemp())
        intermediate = simulation.intermediate(event_log=path)
        self.serve(simulation)
        agent = simulation.agent()
        simulation.network.run(1.0)
        for number in range(500):
            session = number.to_bytes(16, "big")
            request = encode_message(messages.SessionRequest(number, session, "web"))
            closed = lie(messages.SessionClosed(session, 0, ""), reason="\x1b" * 500)
            for data in (request, closed):
                self.control_of(agent).send(messages.CONTROL_STREAM, data)
                agent.driver.wake()
                simulation.network.run(0.1)
        relayed = simulation.reported(intermediate, reports.RelayClosed)
        self.assertEqual(500, len(relayed))
        simulation.network.run(SUMMARY_INTERVAL)
        events = [json.loads(line) for line in path.read_text().splitlines()]
        written = sum(event["event"] == "relay_closed" for event in events)
        more = sum(e["count"] for e in events if e.get("kind") == "relay_closed")
        self.assertEqual((500, "alice"), (written + more, relayed[0].agent))
        seconds = simulation.network.clock.seconds()
        self.assertLess(path.stat().st_size, 2 * (BURST + RATE * seconds))
