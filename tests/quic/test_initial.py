"""Tests of p2pnet.quic.initial, with the vectors of RFC 9001 appendix A."""

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.initial import MAX_FRAMES, Opening, client_keys, decrypt, read_opening
from p2pnet.quic.memory import MAX_CRYPTO
from p2pnet.quic.packet import InitialHeader, parse_initial
from tests.quic.initials import close, crypto, hello, initial

CONNECTION_ID = bytes.fromhex("8394c8f03e515708")
KEY = bytes.fromhex("1f369613dd76d5467730efcbe3b1a22d")
IV = bytes.fromhex("fa044b2f42a3fd3b46fb255c")
HEADER_PROTECTION = bytes.fromhex("9f50449e04a0e810283a1e9933adedd2")
FRAMES = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868"
    "04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578"
    "616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fba"
    "baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400"
    "0d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075"
    "300901100f088394c8f03e51570806048000ffff"
).ljust(1162, b"\0")
HEADER = bytes.fromhex("c300000001088394c8f03e5157080000449e00000002")
PROTECTED_HEADER = bytes.fromhex("c000000001088394c8f03e5157080000449e7b9aec34")
SAMPLE = bytes.fromhex("d1b1c98dd7689fb8ec11d242b123dc9b")
TAG = bytes.fromhex("e221af44860018ab0856972e194cd934")


def rfc_packet() -> bytes:
    """The client's Initial of appendix A.2."""
    nonce = (int.from_bytes(IV, "big") ^ 2).to_bytes(12, "big")
    return PROTECTED_HEADER + AESGCM(KEY).encrypt(nonce, FRAMES, HEADER)


def header_of(datagram: bytes) -> InitialHeader:
    """The header of a datagram's Initial."""
    header = parse_initial(datagram)
    assert header is not None
    return header


def opening(frames: bytes) -> Opening:
    """What an Initial with these frames is good for."""
    datagram = initial(frames)
    return read_opening(datagram, header_of(datagram))


class VectorTests(SynchronousTestCase):
    """RFC 9001 appendix A."""

    def test_the_keys_are_those_of_appendix_a_1(self) -> None:
        """Key, IV and header protection key of the client."""
        self.assertEqual((KEY, IV, HEADER_PROTECTION), client_keys(CONNECTION_ID))

    def test_the_packet_of_appendix_a_2_is_decrypted(self) -> None:
        """It begins and ends as the RFC prints it, and begins a handshake."""
        packet = rfc_packet()
        self.assertEqual((1200, SAMPLE, TAG), (len(packet), packet[22:38], packet[-16:]))
        self.assertEqual(FRAMES, decrypt(packet, header_of(packet)))
        self.assertIs(Opening.HELLO, read_opening(packet, header_of(packet)))


class OpeningTests(SynchronousTestCase):
    """What begins a handshake, and what does not."""

    def test_a_client_hello_begins_a_handshake(self) -> None:
        """Also after PING and PADDING, and with the rest of it out of order."""
        message = hello()
        self.assertIs(Opening.HELLO, opening(crypto(0, message)))
        self.assertIs(Opening.HELLO, opening(b"\1\0\0" + crypto(0, message) + b"\1"))
        self.assertIs(Opening.HELLO, opening(crypto(99, message[99:]) + crypto(0, message[:99])))

    def test_anything_else_does_not(self) -> None:
        """No ClientHello, one that is elsewhere, data far ahead, other or broken frames."""
        message = crypto(0, hello())
        for frames in (
            b"", b"\1", crypto(1, b"\1"), crypto(0, b"\2"), crypto(0, b""), b"\6", b"\6\0\x50",
            message + crypto(MAX_CRYPTO, b"x"), message + b"\x02\0\0\0\0", message + b"\x1d\0\0",
            message + b"\x40\0", b"\1\0" * MAX_FRAMES + message,
        ):  # fmt: skip
            self.assertIs(Opening.NOTHING, opening(frames), frames[:20])

    def test_a_close_begins_nothing_whatever_else_is_there(self) -> None:
        """It ends the handshake of a client that waits."""
        self.assertIs(Opening.CLOSE, opening(close(b"bye")))
        self.assertIs(Opening.CLOSE, opening(crypto(0, hello()) + close(b"")))

    @given(st.integers(0, 1199), st.integers(1, 255))
    def test_a_damaged_packet_is_no_opening(self, at: int, change: int) -> None:
        """Wherever it is damaged."""
        packet = bytearray(rfc_packet())
        packet[at] ^= change
        header = parse_initial(bytes(packet))
        if header is not None:
            self.assertIs(Opening.NOTHING, read_opening(bytes(packet), header))

    @given(st.binary(max_size=60))
    def test_no_frames_raise(self, frames: bytes) -> None:
        """Whatever they contain."""
        self.assertIsInstance(opening(frames), Opening)
