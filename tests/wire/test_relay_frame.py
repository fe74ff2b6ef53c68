"""Relay frames."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.demux import Kind, classify
from p2pnet.wire.relay_frame import RELAY_OVERHEAD, decode_relay_frame, encode_relay_frame

channels = st.binary(min_size=8, max_size=8)


class RelayFrameTests(SynchronousTestCase):
    """An opaque payload for a channel."""

    def test_a_known_frame(self) -> None:
        """Version 0, the channel, the payload; written and read."""
        channel, payload = bytes(range(8)), b"\x40QUIC"
        frame = encode_relay_frame(channel, payload)
        self.assertEqual("200001020304050607" + "4051554943", frame.hex())
        self.assertEqual((channel, payload), decode_relay_frame(frame))

    @given(channels, st.binary(min_size=1, max_size=1300))
    def test_every_frame_comes_back(self, channel: bytes, payload: bytes) -> None:
        """Nine bytes longer than its payload, and told from QUIC by its first byte."""
        frame = encode_relay_frame(channel, payload)
        self.assertEqual(RELAY_OVERHEAD + len(payload), len(frame))
        self.assertIs(Kind.RELAY, classify(frame))
        self.assertEqual((channel, payload), decode_relay_frame(frame))

    def test_a_frame_without_a_payload_is_refused(self) -> None:
        """There is nothing to forward in it."""
        self.assertRaises(DecodeError, decode_relay_frame, encode_relay_frame(bytes(8), b""))

    def test_other_versions_are_refused(self) -> None:
        """The low nibble of the first byte is the version."""
        for first in {*range(256)} - {0x20}:
            frame = bytes([first]) + bytes(20)
            self.assertRaises(DecodeError, decode_relay_frame, frame)

    @given(st.binary(max_size=32))
    def test_any_bytes_decode_or_are_refused(self, data: bytes) -> None:
        """By DecodeError alone; what decodes encodes to the same bytes."""
        try:
            channel, payload = decode_relay_frame(data)
        except DecodeError:
            return
        self.assertEqual(data, encode_relay_frame(channel, payload))
