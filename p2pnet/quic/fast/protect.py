"""Protecting 1-RTT packets (RFC 9001 section 5), one by one or in rows."""

from aioquic.quic.packet import QuicPacketType

from p2pnet.quic.fast.receive import FastReceiver

NUMBER_SIZE = 2  # bytes of a packet number that is sent, as aioquic does
TAG_SIZE = 16  # bytes, RFC 9001 section 5.3
PACKET_TYPE = QuicPacketType.ONE_RTT  # looked up once: a member of an Enum costs what a frame does
SHORT_HEADER = 0x40 | (NUMBER_SIZE - 1)


class PacketSender(FastReceiver):
    """What whoever makes packets needs."""

    def _protect(self, plain: bytes, number: int) -> bytes:
        """The packet of that number with these frames (RFC 9001 section 5)."""
        pair, destination = self._pair, self._peer_cid.cid
        crypto = pair.send
        first = SHORT_HEADER | (self._spin_bit << 5) | (pair.key_phase << 2)
        truncated = number & 0xFFFF
        header = b"%c%b%b" % (first, destination, truncated.to_bytes(NUMBER_SIZE, "big"))
        body = crypto.aead.encrypt(plain, header, number)
        mask = crypto.hp._mask(body[2:18])  # the sample begins 4 bytes behind the number's start
        return b"%c%b%c%c%b" % (
            first ^ (mask[0] & 0x1F),
            destination,
            (truncated >> 8) ^ mask[1],
            (truncated & 0xFF) ^ mask[2],
            body,
        )

    def _elicited(self, now: float) -> None:
        """Something was sent that the peer acknowledges: the idle timer, RFC 9000 section 10.1."""
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
