"""What is read of a packet before its connection is known, and what is answered without one."""

from typing import Any

from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic import packet as quic_packet
from aioquic.quic.retry import QuicRetryTokenHandler
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.packet import (
    SMALLEST_INITIAL,
    destination_connection_id,
    parse_initial,
    version_negotiation,
)
from tests.quic.harness import CLIENT, Pair

ids = st.binary(max_size=20)


def first_datagram() -> bytes:
    """A client's first datagram, with its Initial."""
    pair = Pair()
    pair.dial()
    ((data, _address),) = pair.client.mux.datagrams_to_send(0.0)
    return data


def long_header(version: int, destination: bytes, source: bytes, size: int) -> bytes:
    """A datagram of `size` bytes that begins with a long header (RFC 8999 section 5.1)."""
    header = b"\xc0" + version.to_bytes(4, "big")
    for connection_id in (destination, source):
        header += bytes([len(connection_id)]) + connection_id
    return header.ljust(size, b"\0")


class ParsingTests(SynchronousTestCase):
    """Three functions that look at a datagram."""

    @given(ids, ids, st.integers(0, 2**32 - 1))
    def test_the_destination_of_a_long_header_is_found(
        self, destination: bytes, source: bytes, version: int
    ) -> None:
        """Of any version and any length (RFC 8999)."""
        data = long_header(version, destination, source, 60)
        self.assertEqual(destination, destination_connection_id(data))

    def test_the_destination_of_a_short_header_is_found(self) -> None:
        """Our ids are all of one length; what is too short for one has none."""
        self.assertEqual(b"12345678", destination_connection_id(b"\x4012345678x"))
        self.assertEqual(b"12345678", destination_connection_id(b"\x4012345678"))
        self.assertIsNone(destination_connection_id(b"\x401234567"))

    @given(st.binary(max_size=40) | st.binary(min_size=1200, max_size=1240))
    @example(b"")
    @example(b"\x80")
    def test_any_bytes_can_be_looked_at(self, data: bytes) -> None:
        """None of the three raises; the other two see only what has a destination."""
        if destination_connection_id(data) is not None:
            parse_initial(data)
            version_negotiation(data)

    def test_an_initial_is_parsed(self) -> None:
        """If the datagram is as large as RFC 9000 demands, and of our version."""
        data = first_datagram()
        self.assertGreaterEqual(len(data), SMALLEST_INITIAL)
        header = parse_initial(data)
        assert header is not None
        self.assertEqual(destination_connection_id(data), header.destination_connection_id)
        self.assertEqual((1, b""), (header.version, header.token))
        self.assertIsNone(parse_initial(data[: SMALLEST_INITIAL - 1]))
        self.assertIsNone(parse_initial(data[:1] + b"\x6b\x33\x43\xcf" + data[5:]))
        self.assertIsNone(parse_initial(bytes([data[0] | 0x20]) + data[1:]))

    @given(ids, ids, st.integers(2, 2**32 - 1))
    def test_an_unknown_version_is_answered(
        self, destination: bytes, source: bytes, version: int
    ) -> None:
        """Ids exchanged; and shorter than what it answers."""
        data = long_header(version, destination, source, SMALLEST_INITIAL)
        answer = version_negotiation(data)
        assert answer is not None
        expected = long_header(0, source, destination, 0)[1:] + b"\0\0\0\x01"
        self.assertEqual(expected, answer[1:])

    def test_what_is_not_answered(self) -> None:
        """Our own version, a version negotiation, anything small, ids that are too long."""
        for version, size in ((1, 1200), (0, 1200), (2, 1199)):
            self.assertIsNone(version_negotiation(long_header(version, b"12345678", b"", size)))
        for destination, source in ((bytes(21), b""), (b"", bytes(21))):
            self.assertIsNone(version_negotiation(long_header(2, destination, source, 1200)))


class AioquicTests(SynchronousTestCase):
    """The functions of aioquic that packet.py and admission.py stand on."""

    def test_pull_quic_header(self) -> None:
        """It reads an Initial; what is malformed raises ValueError or BufferReadError."""
        message = "pull_quic_header: packet.parse_initial"
        data = first_datagram()
        header = quic_packet.pull_quic_header(Buffer(data=data), host_cid_length=8)
        self.assertIs(quic_packet.QuicPacketType.INITIAL, header.packet_type, message)
        self.assertEqual((1, b""), (header.version, header.token), message)
        self.assertEqual(data[6:14], header.destination_cid, message)
        self.assertEqual(data[15 : 15 + data[14]], header.source_cid, message)
        for length in range(header.packet_length):
            with self.assertRaises((ValueError, BufferReadError), msg=message):
                quic_packet.pull_quic_header(Buffer(data=data[:length]), host_cid_length=8)

    def test_encode_quic_version_negotiation(self) -> None:
        """A long header of version 0, the ids exchanged, the versions."""
        message = "encode_quic_version_negotiation: packet.version_negotiation"
        encoded = quic_packet.encode_quic_version_negotiation(
            source_cid=b"source", destination_cid=b"dest", supported_versions=[1]
        )
        self.assertEqual(b"\0\0\0\0\x04dest\x06source\0\0\0\x01", encoded[1:], message)
        self.assertTrue(encoded[0] & 0x80, message)

    def test_retry_tokens(self) -> None:
        """Bound to the address, to the id in the Retry, and to the time; ValueError otherwise."""
        message = "QuicRetryTokenHandler, encode_quic_retry: admission.Admission"
        tokens = QuicRetryTokenHandler()
        token = tokens.create_token(
            address=CLIENT, original_destination_connection_id=b"original",
            retry_source_connection_id=b"retry", now=1000.0,
        )  # fmt: skip
        good: dict[str, Any] = {
            "address": CLIENT,
            "destination_cid": b"retry",
            "token": token,
            "now": 1029.0,
        }
        self.assertEqual(b"original", tokens.validate_token(**good), message)
        for wrong in (
            {"address": (CLIENT[0], 1)}, {"destination_cid": b"other"}, {"token": token[:-1]},
            {"token": b"x"}, {"now": 1031.0},
        ):  # fmt: skip
            with self.assertRaises(ValueError, msg=f"{wrong}: {message}"):
                tokens.validate_token(**(good | wrong))
        retry = quic_packet.encode_quic_retry(
            version=1, source_cid=b"retry", destination_cid=b"client",
            original_destination_cid=b"original", retry_token=token,
        )  # fmt: skip
        header = quic_packet.pull_quic_header(Buffer(data=retry), host_cid_length=8)
        self.assertIs(quic_packet.QuicPacketType.RETRY, header.packet_type, message)
        self.assertEqual((b"retry", token), (header.source_cid, header.token), message)
