"""Streams that say known bytes both ways, and notice every byte that is not the next one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

NUMBER_LENGTH = 4  # bytes, with which the Agent's end begins: which conversation it is
SIZES = (1, 40, 40, 300, 300, 300, 300, 1_100, 1_100, 6_000)  # bytes said at once
PAUSES: tuple[float, ...] = (0.02, 2.0, 4.0, 6.0, 8.0, 10.0)  # seconds between that
HARDLY_ANY: tuple[float, ...] = (0.1,)
_PERIOD = 65_521  # bytes; no part of the text occurs twice in one
_TEXT = random.Random(0).randbytes(_PERIOD) * 2


def text(number: int, from_agent: bool, offset: int, size: int) -> bytes:
    """What one end of a conversation says there."""
    start = (number * 4_099 + from_agent * 32_003 + offset) % _PERIOD
    known = _TEXT if size <= _PERIOD else _TEXT * (1 + size // _PERIOD)
    return known[start : start + size]


@implementer(IHalfCloseableProtocol)
class Voice(Protocol):
    """One end of a conversation.

    :ivar said, heard: bytes. `heard_at`: when it last heard some.
    :ivar wrong: what was wrong with what it heard, "" for nothing.
    :ivar pauses: one of which it makes before it goes on.
    :ivar why: how the stream ended, None before.
    """

    transport: Any
    number = -1
    from_agent = True
    pauses = PAUSES

    def __init__(self, clock: IReactorTime, draw: random.Random) -> None:
        self.said = self.heard = 0
        self.heard_at = 0.0
        self.wrong = ""
        self.why: Failure | None = None
        self.over: Callable[[Voice], Any] | None = None
        self._clock = clock
        self._draw = draw
        self._finished = False

    @property
    def is_done(self) -> bool:
        """Whether the stream ended properly."""
        return self.why is not None and self.why.check(ConnectionDone) is not None

    def begin(self) -> None:
        """Speak from now on."""
        self._speak()

    def _speak(self) -> None:
        if self._finished or self.why is not None:
            return
        size = self._draw.choice(SIZES)
        self.transport.write(text(self.number, self.from_agent, self.said, size))
        self.said += size
        self._clock.callLater(self._draw.choice(self.pauses), self._speak)

    def finish(self) -> None:
        """Say nothing more."""
        if not self._finished:
            self._finished = True
            self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Compare it with what the other end says there."""
        if text(self.number, not self.from_agent, self.heard, len(data)) != data:
            self.wrong = self.wrong or f"heard something else at byte {self.heard}"
        self.heard += len(data)
        self.heard_at = self._clock.seconds()

    def readConnectionLost(self) -> None:
        """The other end has said everything; whoever is asked has not more to say then."""
        self.finish()

    def writeConnectionLost(self) -> None:
        """We have."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.why = reason
        if self.over is not None:
            self.over(self)


class Listener(Voice):
    """The Connector's end. It learns from the first bytes which conversation it is in."""

    from_agent = False

    def __init__(
        self, clock: IReactorTime, draw: random.Random, joined: Callable[[Listener], Any]
    ) -> None:
        super().__init__(clock, draw)
        self._joined = joined
        self._introduction = b""

    def dataReceived(self, data: bytes) -> None:
        """Also who is speaking."""
        if self.number < 0:
            data = self._introduction + data
            self._introduction, data = data[:NUMBER_LENGTH], data[NUMBER_LENGTH:]
            if len(self._introduction) < NUMBER_LENGTH:
                return
            self.number = int.from_bytes(self._introduction, "big")
            self._joined(self)
            self.begin()
        super().dataReceived(data)


class Speaker(Voice):
    """The Agent's end."""

    def __init__(self, clock: IReactorTime, draw: random.Random, number: int) -> None:
        super().__init__(clock, draw)
        self.number = number

    def begin(self) -> None:
        """Say who speaks, and go on."""
        self.transport.write(self.number.to_bytes(NUMBER_LENGTH, "big"))
        super().begin()


class Listeners(Factory):
    """Makes the ends of a Connector."""

    noisy = False

    def __init__(self, make: Callable[[], Listener]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Listener:
        """One more."""
        return self._make()
