"""Stream headers, flow datagrams and capsules."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.codes import DecodeError, ErrorCode
from p2pnet.wire.names import MAX_NAME
from p2pnet.wire.stream import (
    MAX_DATAGRAM,
    StreamHeader,
    StreamKind,
    decode_capsules,
    decode_flow_datagram,
    decode_stream_header,
    encode_capsule,
    encode_flow_datagram,
)
from p2pnet.wire.varint import MAX_VARINT

printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
headers = st.builds(
    StreamHeader,
    st.sampled_from(StreamKind),
    st.text(printable, min_size=1, max_size=MAX_NAME),
)


class StreamHeaderTests(SynchronousTestCase):
    """What opens a service stream."""

    def test_known_headers(self) -> None:
        """One of each kind, written and read."""
        for header, encoded in (
            (StreamHeader(StreamKind.BYTES, "web"), "0103776562"),
            (StreamHeader(StreamKind.FLOW, "dns"), "0203646e73"),
        ):
            self.assertEqual(encoded, header.encode().hex())
            self.assertEqual((header, 5), decode_stream_header(bytes.fromhex(encoded)))

    @given(headers, st.binary(max_size=20))
    def test_every_header_comes_back(self, header: StreamHeader, after: bytes) -> None:
        """With its length, so that the bytes behind it are found."""
        encoded = header.encode()
        self.assertEqual((header, len(encoded)), decode_stream_header(encoded + after))

    @given(headers)
    def test_an_incomplete_header_is_waited_for(self, header: StreamHeader) -> None:
        """However few bytes there are yet."""
        encoded = header.encode()
        for length in range(len(encoded)):
            self.assertIsNone(decode_stream_header(encoded[:length]))

    def test_names_that_do_not_fit_are_not_written(self) -> None:
        """Too short, too long, not ASCII."""
        for name in ("", "a" * (MAX_NAME + 1), "wéb"):
            self.assertRaises(ValueError, StreamHeader(StreamKind.BYTES, name).encode)

    def test_bad_headers_are_refused_at_once(self) -> None:
        """An unknown kind or a bad length before the name arrived, a bad name after it."""
        for data in (
            b"\x00\x03",
            b"\x03\x03",
            b"\x01\x00",
            b"\x01\x40",
            b"\x01\x02a\n",
            b"\x01\x01\xe9",
        ):
            self.assertRaises(DecodeError, decode_stream_header, data)

    @given(st.binary(max_size=80))
    def test_any_bytes_decode_or_are_refused(self, data: bytes) -> None:
        """By DecodeError alone; what decodes encodes to the same bytes."""
        try:
            decoded = decode_stream_header(data)
        except DecodeError:
            return
        if decoded is not None:
            header, length = decoded
            self.assertEqual(data[:length], header.encode())


class FlowDatagramTests(SynchronousTestCase):
    """The content of DATAGRAM frames."""

    def test_a_known_datagram(self) -> None:
        """The flow id is a varint."""
        self.assertEqual("03" + "706f6e67", encode_flow_datagram(3, b"pong").hex())
        self.assertEqual("7bbd" + "70", encode_flow_datagram(15_293, b"p").hex())

    @given(st.integers(0, MAX_VARINT), st.binary(max_size=1200))
    def test_every_datagram_comes_back(self, flow_id: int, payload: bytes) -> None:
        """An empty one, too."""
        encoded = encode_flow_datagram(flow_id, payload)
        self.assertEqual((flow_id, payload), decode_flow_datagram(encoded))

    @given(st.binary(max_size=20))
    def test_any_bytes_decode_or_are_refused(self, data: bytes) -> None:
        """By DecodeError alone."""
        try:
            _flow_id, payload = decode_flow_datagram(data)
        except DecodeError:
            return
        self.assertTrue(data.endswith(payload))


class CapsuleTests(SynchronousTestCase):
    """Datagrams on the flow's stream."""

    def test_known_capsules(self) -> None:
        """Two bytes of length, then the payload; read off the front of a buffer."""
        buffer = bytearray(encode_capsule(b"ping") + encode_capsule(b"") + b"\x00\x02x")
        self.assertEqual("0004" + "70696e67" + "0000" + "000278", buffer.hex())
        self.assertEqual([b"ping", b""], decode_capsules(buffer))
        self.assertEqual(b"\x00\x02x", buffer)

    def test_the_largest(self) -> None:
        """One byte more cannot be a UDP payload."""
        payload = bytes(MAX_DATAGRAM)
        self.assertEqual([payload], decode_capsules(bytearray(encode_capsule(payload))))
        self.assertRaises(ValueError, encode_capsule, payload + b"x")

    @given(st.lists(st.binary(max_size=300)), st.binary(max_size=40))
    def test_every_payload_comes_back_however_it_is_cut(
        self, payloads: list[bytes], rest: bytes
    ) -> None:
        """Fed byte by byte it gives the same as fed whole."""
        data = b"".join(map(encode_capsule, payloads)) + rest
        whole = bytearray(data)
        at_once = decode_capsules(whole)
        buffer, one_by_one = bytearray(), []
        for byte in data:
            buffer.append(byte)
            one_by_one += decode_capsules(buffer)
        self.assertEqual((at_once, whole), (one_by_one, buffer))
        self.assertEqual(payloads, at_once[: len(payloads)])

    @given(st.binary(max_size=400))
    def test_any_bytes_decode(self, data: bytes) -> None:
        """Nothing is raised, and nothing is lost or invented."""
        buffer = bytearray(data)
        payloads = decode_capsules(buffer)
        self.assertEqual(data, b"".join(map(encode_capsule, payloads)) + buffer)


class ErrorCodeTests(SynchronousTestCase):
    """The codes that travel."""

    def test_an_unknown_code_reads_as_cancelled(self) -> None:
        """A newer peer may have more of them."""
        self.assertIs(ErrorCode.OVER_LIMIT, ErrorCode.of(0x14))
        self.assertIs(ErrorCode.CANCELLED, ErrorCode.of(0x1234))
