"""When the 1-RTT keys of a connection are updated (RFC 9001 section 6)."""

EVERY = 1 << 22  # packets; half the AES-GCM limit of 2**23 packets, RFC 9001 section 6.6


class KeyUpdates:
    """Counts packets under the present keys.

    :ivar next_at: the packet number from which on the next update is due.
    """

    def __init__(self) -> None:
        self.next_at = EVERY
        # The present keys, and a packet that was sent under them: acknowledged, the peer has them.
        self._proof: tuple[bytes, int] | None = None

    def is_due(self, secret: bytes, number: int, largest_acked: int) -> bool:
        """Whether to start an update; said once, for packets from `next_at` on.

        Not before the peer acknowledged a packet under the present keys (section 6.1): a peer that
        does not have them yet could make nothing of the next ones, nor of any that follow.

        :param secret: of the present keys.
        :param number: of the next packet.
        :param largest_acked: the largest packet number that the peer acknowledged.
        """
        if self._proof is None or self._proof[0] != secret:
            self._proof = secret, number
            return False
        if largest_acked < self._proof[1]:
            return False
        self.next_at = number + EVERY
        return True
