"""Whole nodes on the simulated network, attacked as the bytes of an input say.

An input is a sequence of steps, each a byte that chooses it and its arguments.
"""

from __future__ import annotations

import collections
import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from p2pnet import reports
from p2pnet.endpoints import P2PClientEndpoint
from p2pnet.identity import Credentials, Role
from p2pnet.node.base import Node
from p2pnet.quic.connection import Connection
from p2pnet.testing.network import Link, SimulatedNetwork
from p2pnet.testing.realm import Realm, Simulation
from p2pnet.wire.address import Address, PeerAddress
from p2pnet.wire.framing import add_length
from tests.core.support import credentials
from tests.quic.harness import protected
from tests.sim.support import Echo, Talks, leftovers

STRANGER: Address = ("192.0.2.66", 6666)
WAITS = (0.001, 0.02, 0.3, 3.0)  # seconds
FORGETTING = 60.0  # seconds after which a node holds what it held before, but for SLACK entries
SLACK = 16
HONEST = 10.0  # seconds in which the answer of an honest talk comes
THE_SESSION = bytes(range(16))  # stands in an input for the id of a session that there is
COUNTERS = ("dropped", "_unknown", "_unwanted", "_forwarded")


def pieces(data: bytes) -> Iterator[bytes]:
    """The pieces of an input, each behind a byte with its length."""
    steps = io.BytesIO(data)
    while size := steps.read(1):
        yield steps.read(size[0])


class Voice(NamedTuple):
    """A connection on which an attacker sends what an input says, and a session that it knows."""

    node: Node
    connection: Connection
    session: bytes


class CachedRealm(Realm):
    """A realm whose certificates are made once a run."""

    def credentials(self, role: Role, name: str, **options: Any) -> Credentials:
        """Credentials of a node, for every service."""
        return credentials(role, name)


class Siege:
    """An Intermediate, the connectors office and annex, the agents alice and mallory.

    Alice talks with office and annex, mallory with office.

    :ivar voices: of mallory and annex; of the Intermediate instead if `from_above`.
    """

    def __init__(self, *, from_above: bool = False) -> None:
        self.network = SimulatedNetwork(1, Link(delay=0.005))
        self.seen: collections.deque[tuple[bytes, Address, Address]] = collections.deque(maxlen=999)
        self.network.tap = lambda *packet: self.seen.append(packet)
        self.simulation = simulation = Simulation(self.network, CachedRealm())
        relay = simulation.intermediate()
        office = simulation.connector({"web": ["alice", "mallory"]})
        annex = simulation.connector({"dns": ["alice"]}, "198.51.100.2", "annex")
        for connector, service in ((office, "web"), (annex, "dns")):
            connector.serve_protocol(service, Talks(Echo))
        self.wait_for(lambda: all(simulation.reported(node, reports.Registered)
                                  for node in (office, annex)))  # fmt: skip
        alice, mallory = simulation.agent(), simulation.agent("203.0.113.66", "mallory")
        wanted = ((alice, "web"), (alice, "dns"), (mallory, "web"))
        talks = [P2PClientEndpoint(agent, service).connect(Talks()) for agent, service in wanted]
        self.wait_for(lambda: all(talk.called for talk in talks))
        self.talk: Any = talks[0].result
        self.voices: list[Voice] = []
        for node in (mallory, annex):
            session, control = next(iter(node.core.sessions)), node.core.links[0]._stream
            assert control is not None
            if not from_above:
                self.voices += [Voice(node, each, session.id)
                                for each in (control.connection, session.connection)]  # fmt: skip
        if from_above:
            self.voices = [Voice(relay, each.connection, session.id) for each in relay.core.nodes]
        self.before = self.held()

    def wait_for(self, done: Callable[[], Any]) -> None:
        """Let time pass until `done()`, which must be within HONEST seconds."""
        assert self.network.run_until(done, HONEST), "the honest are not served"

    def held(self) -> dict[tuple[int, str], int]:
        """The sizes of the tables of each node."""
        return {
            (number, name): size
            for number, node in enumerate(self.simulation.nodes)
            for name, size in leftovers(node.core, *COUNTERS).items()
        }

    # -- steps -----------------------------------------------------------------------------------

    def wait(self, steps: io.BytesIO) -> None:
        """Let time pass."""
        self.network.run(WAITS[byte(steps) % len(WAITS)])

    def send(self, steps: io.BytesIO) -> None:
        """A datagram from the address of a node or a stranger to a node."""
        nodes = [node.transport.get_address() for node in self.simulation.nodes]
        source, target = choice(steps, [STRANGER, *nodes]), choice(steps, nodes)
        self.network.deliver(piece(steps), source, target)

    def repeat(self, steps: io.BytesIO) -> None:
        """A datagram that was sent before, damaged, or from another address, or cut."""
        seen, source, target = self.seen[int.from_bytes(steps.read(2)) % len(self.seen)]
        damaged, at = bytearray(seen), int.from_bytes(steps.read(2)) % len(seen)
        damaged[at] ^= byte(steps)
        how = byte(steps)
        if how & 1:
            source = STRANGER
        if how & 2:
            del damaged[at + 1 :]
        self.network.deliver(bytes(damaged), source, target)

    def say(self, steps: io.BytesIO) -> None:
        """A message on the control stream, or on that of the paths of a session."""
        voice = choice(steps, self.voices)
        message = add_length(piece(steps).replace(THE_SESSION, voice.session))
        voice.connection.send(0, message)
        voice.node.driver.wake()

    def write(self, steps: io.BytesIO) -> None:
        """Bytes on a stream, also a new one."""
        voice, stream_id = choice(steps, self.voices), 4 * (byte(steps) % 8)
        if voice.connection.takes(stream_id):
            voice.connection.send(stream_id, piece(steps))
            voice.node.driver.wake()

    def frames(self, steps: io.BytesIO) -> None:
        """A packet with any frames."""
        voice = choice(steps, self.voices)
        address = voice.connection.peer_address
        if not voice.connection.is_open:
            return
        datagrams = [(protected(voice.connection.engine, piece(steps)), address)]
        if isinstance(address, PeerAddress):
            packets = [packet for packet, _ in datagrams]
            sessions: Any = voice.node.core.sessions
            datagrams = sessions.along_ways(address, packets, voice.node.driver.now)
        voice.node.transport.send(datagrams)

    # -- the end ---------------------------------------------------------------------------------

    def assert_harmless(self) -> None:
        """No node caught an exception, and each forgets the attack."""
        for node in self.simulation.nodes:
            assert not node.driver.errors, f"{node}: {dict(node.driver.errors)}"
            assert not node.core.dropped["failures"], f"{node}: the multiplexer caught an exception"
        self.network.run(FORGETTING)
        after = self.held()
        grown = {k: n for k, n in after.items() if n > self.before.get(k, 0) + SLACK}
        assert not grown, f"tables grew: {grown}, before {self.before}"

    def assert_served(self) -> None:
        """The talk of alice with office goes on."""
        self.talk.transport.write(b"still there?")
        self.wait_for(lambda: self.talk.heard == b"still there?")


def byte(steps: io.BytesIO) -> int:
    """The next byte, 0 behind the end."""
    return int.from_bytes(steps.read(1))


def piece(steps: io.BytesIO) -> bytes:
    """As many bytes as the next one says."""
    return steps.read(byte(steps))


def choice(steps: io.BytesIO, among: list[Any]) -> Any:
    """What the next byte chooses."""
    return among[byte(steps) % len(among)]


STEPS = (Siege.wait, Siege.send, Siege.repeat, Siege.say, Siege.write, Siege.frames)


def run(siege: Siege, data: bytes) -> None:
    """Take all steps of an input."""
    steps = io.BytesIO(data)
    while step := steps.read(1):
        STEPS[step[0] % len(STEPS)](siege, steps)
    siege.network.run(1.0)


def attacked_by_members(data: bytes) -> None:
    """Strangers, an agent and a connector attack; alice is served all the same."""
    siege = Siege()
    run(siege, data)
    siege.assert_served()
    siege.assert_harmless()
    siege.simulation.stop()


def attacked_by_the_intermediate(data: bytes) -> None:
    """Strangers and the Intermediate attack, which may refuse to serve but breaks no node."""
    siege = Siege(from_above=True)
    run(siege, data)
    siege.assert_harmless()
    siege.simulation.stop()
