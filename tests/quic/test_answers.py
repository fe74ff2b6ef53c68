"""Requests and answers at the fast engine: no empty send pass, and bookkeeping after sending."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import events
from p2pnet.quic.fast.receive import ACK_ALONE, MAX_WAITING
from p2pnet.quic.profile import FAST
from tests.quic.harness import CLIENT, SERVER, Pair, client_settings, server_settings


class AnswerTests(SynchronousTestCase):
    """An established connection, whose datagrams are carried by hand."""

    def setUp(self) -> None:
        """A stream that both ends have used, and nothing in flight."""
        self.pair = Pair(client=client_settings(engine=FAST), server=server_settings(engine=FAST))
        self.one, self.other = self.pair.connect()
        self.client, self.server = self.pair.client.mux, self.pair.server.mux
        self.stream_id = self.one.open_stream()
        self.one.send(self.stream_id, b"hello")
        self.pair.run_until_quiet()
        self.other.send(self.stream_id, b"hello")
        self.pair.run_until_quiet()
        self.now = self.pair.now + 1.0
        self.engine: Any = self.other.engine

    def ask(self, data: bytes = b"question") -> None:
        """A request that arrives at once, a millisecond after what was before."""
        self.now += 0.001
        self.one.send(self.stream_id, data)
        self.to_server(self.client.datagrams_to_send(self.now))

    def to_server(self, datagrams: list[tuple[bytes, Any]]) -> list[events.Event]:
        """Deliver; returns the events."""
        for data, _ in datagrams:
            self.server.receive_datagram(data, CLIENT, self.now)
        return self.events(self.server)

    def to_client(self, datagrams: list[tuple[bytes, Any]]) -> list[events.Event]:
        """Deliver; returns the events."""
        for data, _ in datagrams:
            self.client.receive_datagram(data, SERVER, self.now)
        return self.events(self.client)

    def events(self, mux: Any) -> list[events.Event]:
        """What happened, every byte used."""
        found = []
        while (item := mux.next_event()) is not None:
            if isinstance(item[1], events.StreamDataReceived):
                item[0].consume(item[1].stream_id, len(item[1].data))
            found.append(item[1])
        return found

    def answer(self, data: bytes = b"answer") -> list[tuple[bytes, Any]]:
        """What the server sends."""
        self.other.send(self.stream_id, data)
        return self.server.datagrams_to_send(self.now)

    def test_a_request_is_followed_by_its_answer_alone(self) -> None:
        """Nothing is due before; the acknowledgement is, if there is no answer in time."""
        self.ask()
        self.assertEqual(self.now + ACK_ALONE, self.engine.answer_at(self.now))
        self.assertEqual([], self.server.datagrams_to_send(self.now))
        self.assertEqual(self.now + ACK_ALONE, self.server.get_timer())
        self.assertEqual(1, len(self.answer()))
        self.assertGreater(self.engine.get_timer(), self.now + ACK_ALONE)

    def test_an_acknowledgement_goes_alone_if_there_is_no_answer(self) -> None:
        """At its time."""
        self.ask()
        self.server.datagrams_to_send(self.now)
        self.now += ACK_ALONE
        self.server.handle_timer(self.now)
        self.to_client(self.server.datagrams_to_send(self.now))
        self.client.datagrams_to_send(self.now)
        self.assertEqual(0, self.one.engine.bytes_in_flight)

    def test_what_requests_acknowledge_is_processed_together_after_an_answer_is_sent(self) -> None:
        """By get_timer(), which the host calls last; all but the last packet are acknowledged."""
        self.ask()
        self.to_client(self.answer())
        size = self.engine.bytes_in_flight
        for _ in range(MAX_WAITING - 1):
            self.ask()
            self.to_client(self.answer())
            self.server.get_timer()
        self.assertEqual(size * MAX_WAITING, self.engine.bytes_in_flight)
        self.ask()
        self.answer()
        self.assertGreater(self.engine.bytes_in_flight, size * MAX_WAITING)
        self.server.get_timer()
        self.assertEqual(size, self.engine.bytes_in_flight)

    def test_what_the_last_request_acknowledges_waits_no_longer_than_an_acknowledgement(
        self,
    ) -> None:
        """Whether or not there is an answer."""
        self.ask()
        self.to_client(self.answer())
        self.assertGreater(self.engine.bytes_in_flight, 0)
        self.ask()
        self.server.datagrams_to_send(self.now)
        self.now += ACK_ALONE
        self.server.handle_timer(self.now)
        self.assertEqual(0, self.engine.bytes_in_flight)

    def test_a_large_answer_finds_the_window_that_a_request_opened(self) -> None:
        """Acknowledgements are processed first."""
        self.ask()
        self.to_client(self.answer())
        self.ask()
        before = self.engine.bytes_in_flight
        sent = self.answer(bytes(5000))
        self.assertEqual(sum(len(data) for data, _ in sent), self.engine.bytes_in_flight)
        self.assertGreater(before, 0)

    def test_a_mere_acknowledgement_is_processed_at_once(self) -> None:
        """Nothing will be sent that it could wait for."""
        self.ask()
        self.to_client(self.answer())
        self.client.datagrams_to_send(self.now)
        self.now += ACK_ALONE
        self.client.handle_timer(self.now)
        self.to_server(self.client.datagrams_to_send(self.now))
        self.assertEqual([], self.server.datagrams_to_send(self.now))
        self.assertEqual(0, self.engine.bytes_in_flight)

    def test_a_gap_in_what_is_acknowledged_is_looked_into_at_once(self) -> None:
        """What was lost goes with the answer."""
        self.ask()
        for _ in range(4):  # the first ones get lost
            sent = self.answer()
        self.to_client(sent)
        self.now += 0.01
        self.ask()
        self.assertEqual(self.now, self.engine.answer_at(self.now))
        self.assertGreater(len(self.server.datagrams_to_send(self.now)), 0)

    def test_many_acknowledgements_do_not_wait_for_ever(self) -> None:
        """They take memory."""
        for _ in range(20):
            self.ask()
            self.to_client(self.answer())
        self.server.get_timer()
        for _ in range(20):
            self.one.ping()
            self.to_server(self.client.datagrams_to_send(self.now))
            self.server.datagrams_to_send(self.now)
        self.assertLess(len(self.engine._acks), 10)

    def test_what_comes_to_light_after_sending_is_told_at_once(self) -> None:
        """The answer to a ping that came with a request."""
        self.other.ping()
        self.to_client(self.server.datagrams_to_send(self.now))
        for _ in range(MAX_WAITING):
            self.ask()
            self.to_client(self.answer())
        self.assertEqual(self.now, self.server.get_timer())
        self.server.handle_timer(self.now)
        self.assertEqual([events.PingAnswered()], self.events(self.server))
        self.server.datagrams_to_send(self.now)
        self.assertGreater(self.engine.get_timer(), self.now)

    def test_regression_a_probe_timeout_of_before_an_acknowledgement_made_a_probe(self) -> None:
        """Its time came while the acknowledgement waited, and again at once, for ever."""
        self.ask()
        self.to_client(self.answer())
        timeout = self.server.get_timer()
        assert timeout is not None
        self.ask()
        self.server.datagrams_to_send(self.now)
        self.server.handle_timer(timeout)
        self.assertEqual(0, self.engine.bytes_in_flight)
        self.assertEqual(0, self.engine._loss._pto_count)
        self.assertLessEqual(len(self.server.datagrams_to_send(timeout)), 1)
        self.assertGreater(self.server.get_timer() or 0.0, timeout)
