"""Tests that nothing from the network raises, in any of the three cores, or changes what matters.

Datagrams of any kind, real ones that were damaged on the way, and control messages that are
well-formed but come at the wrong time, from the wrong node, or with absurd content.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.identity import Role
from p2pnet.node.base import Node
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from p2pnet.wire.demux import MAGIC_COOKIE
from p2pnet.wire.encoding import encode_message
from tests.core.support import make_agent, make_connector, make_intermediate
from tests.sim.support import SimulationCase, leftovers

ADDRESSES = st.sampled_from([("192.0.2.1", 4433), ("198.51.100.66", 1), ("2001:db8::1", 65535)])


def begins(prefix: bytes, max_size: int = 60) -> SearchStrategy[bytes]:
    """Bytes behind a prefix that lets them in a little further."""
    return st.binary(max_size=max_size).map(lambda rest: prefix + rest)


DATAGRAMS = st.one_of(
    st.binary(max_size=60),
    begins(b"\x20"),  # a relay frame
    begins(b"\x00\x01\x00\x00" + MAGIC_COOKIE),  # a STUN request
    begins(b"\x40"),  # a QUIC short header
    begins(b"\xc0\x00\x00\x00\x01"),  # a QUIC Initial, too small
    begins(b"\xc0\x00\x00\x00\x01").map(lambda data: data.ljust(1200, b"\x00")),
    begins(b"\xff\x0a\x0a\x0a\x0a").map(lambda data: data.ljust(1200, b"\x00")),
)


def make_cores() -> list[Any]:
    """One of each kind, the nodes with an Intermediate that is not there."""
    nodes = [make_agent(["192.0.2.1:4433"]), make_connector(["192.0.2.1:4433"])]
    for node in nodes:
        node.connect(0.0)
    return [*nodes, make_intermediate()]


class DatagramTests(SynchronousTestCase):
    """Bytes from anywhere, to cores that know nobody."""

    @settings(max_examples=60)
    @given(st.lists(st.tuples(DATAGRAMS, ADDRESSES), max_size=8))
    def test_no_datagram_raises_or_leaves_a_trace(
        self, datagrams: list[tuple[bytes, Address]]
    ) -> None:
        """No connection, no session, no event; each is counted as dropped."""
        for core in make_cores():
            before = leftovers(core)
            for number, (data, address) in enumerate(datagrams):
                core.receive_datagram(data, address, number * 0.01)
                for answer, target in core.datagrams_to_send(number * 0.01):
                    # What strangers get is no larger than what they sent.
                    self.assertTrue(target == ("192.0.2.1", 4433) or len(answer) <= len(data))
                self.assertIsNone(core.next_event())
            counters = ("dropped", "_unknown", "_unwanted", "_forwarded")
            after = {name: n for name, n in leftovers(core).items() if name not in counters}
            self.assertEqual({n: v for n, v in before.items() if n not in counters}, after)
            self.assertEqual(len(datagrams), sum(core.dropped.values()))


class DamageTests(SimulationCase):
    """Real packets, damaged."""

    def test_damaged_replayed_and_misdirected_packets_do_no_harm(self) -> None:
        """A talk that is under way goes on, and so do all connections."""
        simulation = self.simulate()
        seen: list[tuple[bytes, Address, Address]] = []
        simulation.network.tap = lambda *packet: seen.append(packet)
        agent, _, _ = self.trio(simulation)
        talk = self.talk(simulation, agent)
        talk.transport.write(b"hello")
        simulation.network.run(1.0)
        simulation.network.tap = None
        rng = random.Random(1)
        nodes = {node.transport.get_address(): node for node in simulation.nodes}
        for _ in range(600):
            data, source, target = rng.choice(seen)
            damaged = bytearray(data)
            for _ in range(rng.choice([0, 1, 1, 8])):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            del damaged[rng.choice([len(damaged), rng.randrange(len(damaged))]) :]
            source = rng.choice([source, source, ("198.51.100.66", 4433)])
            target = rng.choice([target, target, *nodes])
            simulation.network.send(bytes(damaged), source, target)
            simulation.network.run(0.001)
        talk.transport.write(b" again")
        self.run_until(simulation, lambda: talk.heard == b"hello again", 10.0)
        for node in simulation.nodes[1:]:
            self.assertTrue(node.core.links[0].is_ready)
            self.assertEqual(1, len(node.core.sessions))


def values(kind: Any) -> SearchStrategy[Any]:
    """Values that pass as a type of a message, as far as msgspec looks."""
    match kind:
        case msgspec.inspect.StrType(pattern=None):
            return st.one_of(
                st.text(max_size=40), st.sampled_from(["192.0.2.9", "::1", "web", "office"])
            )
        case msgspec.inspect.StrType():
            return st.sampled_from(["web", "dns", "office", "alice", "bob"])
        case msgspec.inspect.BytesType():
            size = kind.min_length or 0
            return st.one_of(
                st.just(bytes(size)), st.binary(min_size=size, max_size=kind.max_length or 40)
            )
        case msgspec.inspect.IntType():
            return st.integers(kind.ge or 0, min(kind.le or 2**53, 2**53))
        case msgspec.inspect.FloatType():
            return st.floats(kind.ge or 0, kind.le or 1e9)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType():
            return st.one_of(*map(values, kind.types))
        case msgspec.inspect.TupleType():
            return st.tuples(*map(values, kind.item_types))
        case msgspec.inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=4).map(tuple)
        case msgspec.inspect.StructType():
            fields = {field.name: values(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
    raise AssertionError(f"no values for {kind}")


MESSAGES = st.sampled_from(list(messages.TYPES.values())).flatmap(
    lambda kind: values(msgspec.inspect.type_info(kind))
)
CONTROL = st.one_of(
    MESSAGES.map(encode_message),
    MESSAGES.map(encode_message),
    MESSAGES.map(encode_message).flatmap(
        lambda data: st.integers(0, len(data)).map(lambda end: data[:end])
    ),
    st.binary(max_size=80),
    begins(b"\x00\x00\x00\x05"),
    st.just(b"\xff\xff\xff\xff"),
)


class ControlStreamTests(SimulationCase):
    """Bytes on a control stream that is otherwise in order."""

    def attack(self, writes: list[bytes], choose: Callable[[list[Node]], Any]) -> None:
        """Write to the control stream of a connection, and see that the realm lives on."""
        simulation = self.simulate()
        agent, _, served = self.trio(simulation)
        simulation.connector({"dns": ["alice"]}, name="annex", host="198.51.100.2")
        simulation.network.run(0.5)
        self.talk(simulation, agent)
        writer, connection = choose(simulation.nodes)
        for data in writes:
            connection.send(messages.CONTROL_STREAM, data)
            writer.driver.wake()
            simulation.network.run(0.05)
        connection.close(0, "half a message would spoil what comes after it")
        writer.driver.wake()
        # Whoever was cut off, or told to wait, is back after the longest delay.
        simulation.network.run(40.0)
        intermediate = simulation.nodes[0]
        self.assertEqual(3, len(intermediate.core.nodes))
        before = len(served.made)
        talk = self.talk(simulation, simulation.agent(host="203.0.113.2"))
        talk.transport.write(b"hello")
        self.run_until(simulation, lambda: talk.heard == b"hello", 5.0)
        self.assertEqual(before + 1, len(served.made))
        for node in simulation.nodes:
            self.assertEqual({}, dict(node.driver.errors))

    SETTINGS = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])

    @SETTINGS
    @given(st.lists(CONTROL, min_size=1, max_size=4))
    def test_whatever_an_agent_says_to_the_intermediate(self, writes: list[bytes]) -> None:
        """It can only cut itself off."""
        self.attack(writes, lambda nodes: (nodes[2], connection_of(nodes[2])))

    @SETTINGS
    @given(st.lists(CONTROL, min_size=1, max_size=4))
    def test_whatever_a_connector_says_to_the_intermediate(self, writes: list[bytes]) -> None:
        """The same."""
        self.attack(writes, lambda nodes: (nodes[3], connection_of(nodes[3])))

    @SETTINGS
    @given(st.lists(CONTROL, min_size=1, max_size=4))
    def test_whatever_the_intermediate_says_to_an_agent(self, writes: list[bytes]) -> None:
        """It can refuse to serve, but not break it."""
        self.attack(writes, lambda nodes: (nodes[0], control_of(nodes[0], Role.AGENT)))

    @SETTINGS
    @given(st.lists(CONTROL, min_size=1, max_size=4))
    def test_whatever_the_intermediate_says_to_a_connector(self, writes: list[bytes]) -> None:
        """The same."""
        self.attack(writes, lambda nodes: (nodes[0], control_of(nodes[0], Role.CONNECTOR)))


def connection_of(node: Node) -> Any:
    """The node's control connection."""
    stream = node.core.links[0]._stream
    assert stream is not None
    return stream.connection


def control_of(intermediate: Node, role: Role) -> Any:
    """The connection of the first node of a role."""
    nodes = intermediate.core.nodes
    return next(node.connection for node in nodes if node.identity.role is role)
