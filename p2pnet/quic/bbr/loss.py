"""Loss that is our own doing, told from loss that the path has anyway."""

import math

THRESHOLD = 0.02  # share of a round's bytes that a probe may lose
DEVIATIONS = 2.0  # standard deviations by which chance alone makes a round worse
MOST = 0.2  # of the path's own loss that is put up with
WEIGHT = 1 / 8  # of a round in the moving average
FEWEST = 2  # packets; a single one says nothing of a rate


class LossMeter:
    """The loss of each round, and that part of it which does not depend on how fast we send.

    The draft blames every loss above THRESHOLD on the sender, and reacts to any loss at all in the
    short term. On a path that loses 2 % at any rate, that ratchets the rate down: 30 of 100 Mbit/s
    in simulation, where this gets 88. What is lost while nothing was probed for is therefore not
    blamed on the next probe.

    :ivar rate: share of the last round's bytes that was lost, 0..1.
    :ivar events: packets lost in it.
    :ivar max_datagram_size: bytes of a packet, by which chance is judged.
    """

    def __init__(self, max_datagram_size: int) -> None:
        self.rate = 0.0
        self.events = 0
        self.baseline = 0.0
        self.max_datagram_size = max_datagram_size
        self._size = 0  # of the last round, in bytes
        self._counting = 0  # packets lost in this one
        self._lost = 0  # and their bytes
        self._delivered = 0  # bytes, when it began
        self._since = 0  # bytes delivered, before which what was sent does not count

    def threshold(self, size: float) -> float:
        """Share of `size` bytes above which loss is our doing: not the path's own, nor chance."""
        packets = max(size / self.max_datagram_size, 1.0)
        chance = math.sqrt(self.baseline * (1 - self.baseline) / packets)
        return THRESHOLD + min(self.baseline + DEVIATIONS * chance, MOST)

    @property
    def is_high(self) -> bool:
        """Whether the last round lost more than the path does by itself."""
        return self.events >= FEWEST and self.rate > self.threshold(self._size)

    def lost_one(self, prior: int, size: int) -> None:
        """A packet of `size` bytes is lost; `prior` were delivered when it was sent."""
        if prior >= self._since:
            self._counting += 1
            self._lost += size

    def restart(self, delivered: int) -> None:
        """Count from here: what was sent before is a probe's flight, judged by other means.

        Or the end of Startup, which loses what overflows, would take away 30 % of the rate that it
        found, until the next probe.
        """
        self._since = self._delivered = delivered
        self.events = self._counting = self._lost = 0
        self.rate = 0.0

    def end_round(self, delivered: int, *, calm: bool) -> None:
        """A round ended, with so many bytes delivered since the connection began.

        :param calm: nothing was probed for, so that the loss is the path's own. What is above the
            threshold is not learnt: it is a drop of bandwidth, a policer or a burst.
        """
        lost, self._lost = self._lost, 0
        delivered, self._delivered = delivered - self._delivered, delivered
        self._size = lost + delivered
        self.rate = lost / max(self._size, 1)
        self.events, self._counting = self._counting, 0
        if calm:
            seen = min(self.rate, self.threshold(self._size))
            self.baseline += WEIGHT * (seen - self.baseline)
