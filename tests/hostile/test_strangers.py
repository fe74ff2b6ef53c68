"""Strangers at the Intermediate: what their packets cost, and who is locked out for them."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterable
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.admission import BEGUN_A_TURN
from p2pnet.quic.half_open import LIFE, PATIENCE, START
from p2pnet.quic.memory import MAX_CRYPTO
from p2pnet.quic.profile import ConnectionProfile
from p2pnet.wire import messages
from p2pnet.wire.address import Address
from tests.core.support import make_intermediate
from tests.quic import initials
from tests.quic.initials import close, crypto

RETRY_ABOVE = 32  # the setting's default
MALFORMED = crypto(0, b"\x01\0\0\1\0")  # a ClientHello that ends too early
NEWCOMER: Address = ("172.16.9.9", 9999)


def initial(frames: bytes | None = None, **fields: object) -> bytes:
    """An Initial of a stranger who speaks p2pnet; with a ClientHello unless it has other frames."""
    if frames is None:
        frames = crypto(0, initials.hello(messages.ALPN))
    return initials.initial(frames, alpn=messages.ALPN, **fields)  # type: ignore[arg-type]


def stranger(number: int, networks: int = 250) -> Address:
    """The address of a stranger, in one of several /16."""
    return f"10.{number % networks}.0.{number // networks % 250}", 1024 + number % 60_000


class StrangersCase(SynchronousTestCase):
    """An Intermediate on virtual time, and datagrams from anywhere.

    :ivar begun: the number of connections that the Intermediate made.
    :ivar sent: bytes that it sent to each address.
    """

    def setUp(self) -> None:
        self.core = make_intermediate()
        self.admission = self.core._mux.admission
        self.now = 1.0
        self.begun = 0
        self.sent: dict[Address, int] = {}
        make = ConnectionProfile.make_engine

        def count(*arguments: object, **options: object) -> object:
            self.begun += 1
            return make(*arguments, **options)  # type: ignore[arg-type]

        self.patch(ConnectionProfile, "make_engine", count)

    def pass_time(self, seconds: float) -> list[tuple[bytes, Address]]:
        """Let time pass. Returns what the Intermediate sent."""
        end, sent = self.now + seconds, self.drain()
        while (timer := self.core.get_timer()) is not None and timer <= end:
            self.now = max(self.now, timer)
            self.core.handle_timer(self.now)
            sent += self.drain()
        self.now = end
        return sent

    def drain(self) -> list[tuple[bytes, Address]]:
        """What the Intermediate sends now."""
        sent = []
        while datagrams := self.core.datagrams_to_send(self.now):
            sent += datagrams
        while self.core.next_event() is not None:
            pass
        for data, address in sent:
            self.sent[address] = self.sent.get(address, 0) + len(data)
        return sent

    def say(self, data: bytes, address: Address = NEWCOMER, wait: float = 0.0) -> list[bytes]:
        """Send a datagram. Returns the answers that come within some seconds."""
        self.core.receive_datagram(data, address, self.now)
        return [answer for answer, to in self.pass_time(wait) if to == address]

    def come(self, address: Address, wait: float = 0.0) -> bool:
        """Try a handshake, and prove the address if asked to. Returns whether it was begun."""
        for answer in self.say(initial(), address):
            header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
            if header.packet_type is not QuicPacketType.RETRY:
                return True
            proven = initial(destination=header.source_cid, token=header.token, number=1)
            return bool(self.say(proven, address, wait))
        return False


class FirstPacketTests(StrangersCase):
    """Initials that lead to nothing cost a decryption."""

    def flood(self, datagrams: Iterable[bytes]) -> None:
        """Send datagrams from everywhere within a second."""
        for number, data in enumerate(datagrams):
            self.say(data, stranger(number))
            self.now += 0.001
        self.pass_time(0.1)

    def check_nothing(self, frames: bytes) -> None:
        """Flood the Intermediate with Initials of these frames, which leave nothing."""
        self.flood(initial(frames) for _ in range(200))
        self.assertEqual((0, {}, 0), (self.begun, self.sent, len(self.core._mux)))
        self.assertEqual(200, self.core.dropped["quic"])

    def test_regression_an_undecryptable_initial_makes_no_connection(self) -> None:
        """And does not count towards Retry."""
        genuine = (initial() for _ in range(200))
        self.flood(data[:-1] + bytes([data[-1] ^ 1]) for data in genuine)
        self.assertEqual((0, 0), (self.begun, self.core.retries_sent))

    def test_regression_padding_makes_no_connection(self) -> None:
        """Nor does PING."""
        self.check_nothing(b"\x01")

    def test_regression_crypto_far_ahead_makes_no_connection(self) -> None:
        """It took half a MiB each."""
        self.check_nothing(crypto(500_000, b"x"))

    def test_regression_a_client_hello_with_a_close_makes_no_connection(self) -> None:
        """It cost a whole handshake, and did not count as half-open."""
        self.check_nothing(crypto(0, initials.hello(messages.ALPN)) + close(b""))

    def test_a_handshake_keeps_16_kib_at_most(self) -> None:
        """Also when the bytes come in order, or each within the limit of a packet."""
        first = os.urandom(8)
        self.say(initial(destination=first))
        at = len(initials.hello(messages.ALPN))
        message = b"\x0b\xff\xff\xff"  # a TLS message of 16 MiB
        for number in range(1, 40):
            self.say(
                initial(crypto(at, message.ljust(1000, b"\0")), destination=first, number=number)
            )
            at += 1000
            if at + 1000 > MAX_CRYPTO:
                break
        (connection,) = self.core._mux._connections
        self.assertIsNone(connection.engine.closing)
        self.say(initial(crypto(at, bytes(1000)), destination=first, number=50))
        self.assertIsNotNone(connection.engine.closing)


class FloodTests(StrangersCase):
    """Handshakes that are begun and never finished."""

    def test_regression_unproven_handshakes_are_limited_by_their_rate(self) -> None:
        """Those that fail at once are never half-open for long; Retry is demanded nevertheless."""
        for number in range(400):
            self.say(
                initial(crypto(0, b"\x01\0\0\1\0")), stranger(number)
            )  # a malformed ClientHello
            self.now += 0.01
        self.assertLessEqual(self.begun, RETRY_ABOVE + 4.0 * RETRY_ABOVE)
        self.assertGreaterEqual(self.core.retries_sent, 400 - 5 * RETRY_ABOVE)

    def test_regression_four_networks_lock_nobody_out(self) -> None:
        """103 proven handshakes a second filled the table for everybody."""
        for number in range(400):
            self.come(stranger(number, networks=4))
            self.pass_time(1 / 103)
            self.assertLessEqual(len(self.admission.half_open), START)
            if number % 50 == 49:
                self.assertTrue(self.come((f"172.16.{number % 250}.9", number), 0.1), number)

    def test_regression_a_host_locks_its_network_not_out(self) -> None:
        """26 proven handshakes a second locked their /24 out."""
        for number in range(200):
            self.come(("10.0.0.66", 1024 + number))
            self.pass_time(1 / 26)
            if number % 50 == 49:
                self.assertTrue(self.come(("10.0.0.7", number), 0.1), number)

    def test_a_network_that_many_strangers_share_is_not_locked_out(self) -> None:
        """Where only the port tells the newcomer from strangers, their silence does."""
        for number in range(150):
            self.come(("10.0.0.66", 1024 + number))
            self.pass_time(1 / 50)
        self.assertTrue(self.come(("10.0.0.66", 99), PATIENCE + 0.1))

    def test_every_network_has_its_turn_in_a_flood_of_proven_strangers(self) -> None:
        """2000 a second: more than the processor could serve."""
        for number in range(400):
            self.come(stranger(number, networks=4))
            self.now += 0.0005
        self.assertTrue(self.come(NEWCOMER, 0.05))

    def test_regression_a_botnet_that_finishes_nothing_leaves_a_turn_a_second(self) -> None:
        """The table had room for what finished, and shrank: 64 networks had 8 turns a second."""
        for number in range(4000):
            if number == 2000:
                before, begun = self.now, self.begun
            self.come(stranger(number, networks=63))
            if number % 5 == 4:
                self.pass_time(0.01)
        self.assertGreater((self.begun - begun) / (self.now - before), 64)

    def test_a_half_open_connection_lives_3_seconds(self) -> None:
        """And is forgotten without a word: a stranger gets no more than the flight."""
        for number in range(RETRY_ABOVE):
            self.say(initial(), stranger(number))
        self.assertEqual(RETRY_ABOVE, len(self.admission.half_open))
        self.pass_time(LIFE + 0.1)
        self.assertEqual((0, 0), (len(self.admission.half_open), len(self.core._mux)))
        self.assertIsNone(self.core.get_timer())

    def test_regression_a_handshake_that_is_given_up_leaves_no_garbage(self) -> None:
        """Of a flood's connections some 100 MiB waited for the garbage collector."""
        self.say(initial())
        (connection,) = self.admission.half_open._entries
        engine: Any = connection.engine
        parts = [
            weakref.ref(part) for part in (engine.tls, engine._loss, *engine._cryptos.values())
        ]
        del connection, engine
        self.addCleanup(gc.enable)
        gc.disable()
        self.pass_time(LIFE + 0.1)
        self.assertEqual([None] * len(parts), [part() for part in parts])

    def test_regression_an_unproven_address_gets_three_times_what_it_sent(self) -> None:
        """Whatever the connection sends again, and when it is closed: it was 3.12 times."""
        for number, frames in enumerate((None, MALFORMED)):
            address = stranger(number)
            data = initial(frames)
            self.say(data, address, 20.0)
            self.assertTrue(0 < self.sent[address] <= 3 * len(data))

    def test_a_closed_connection_adds_nothing_to_a_used_up_budget(self) -> None:
        """aioquic sends CONNECTION_CLOSE without looking at it."""
        self.say(initial())
        (connection,) = self.core._mux._connections
        path = connection.engine._network_paths[0]
        path.bytes_sent = 3 * path.bytes_received - 10
        connection.close(0, "over")
        self.assertEqual([], self.drain())


class TurnTests(StrangersCase):
    """Newcomers and the rest of the Intermediate's work."""

    def test_newcomers_take_half_of_the_time(self) -> None:
        """A turn that leaves some over is followed by a pause that is as long."""
        for number in range(RETRY_ABOVE):
            self.core.receive_datagram(initial(), stranger(number), self.now)
        while self.begun < RETRY_ABOVE - BEGUN_A_TURN:
            began_at = self.now
            self.drain()
            begun, self.now = self.begun, self.now + 0.006  # the turn took that long
            self.core.handle_timer(self.now)
            self.drain()
            self.assertEqual(begun, self.begun, "a newcomer was served in the pause")
            timer = self.core.get_timer()
            assert timer is not None
            self.assertAlmostEqual(0.5, 0.006 / (timer - began_at))
            self.now = timer
            self.core.handle_timer(self.now)
        self.drain()
        self.assertEqual(RETRY_ABOVE, self.begun)
