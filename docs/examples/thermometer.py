"""A program of a user's: a thermometer behind a NAT, and the question how warm it is there.

python thermometer.py serve p2p:thermometer:config=cellar.toml
python thermometer.py ask p2p:thermometer:config=alice.toml

test_thermometer.py beside it tests it on a simulated network.
"""

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

TIMEOUT = 5.0  # seconds for the whole of a question


class Thermometer(LineOnlyReceiver):
    """Tells the temperature to everybody who connects, and hangs up.

    :param read: returns the temperature in degrees.
    """

    transport: ITCPTransport

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    def connectionMade(self) -> None:
        """Tell it."""
        self.sendLine(f"{self._read():.1f}".encode())
        self.transport.loseConnection()


class Question(LineOnlyReceiver):
    """Waits for the temperature.

    :ivar answer: fires with it in degrees; fails if the connection ends before.
    """

    transport: ITCPTransport

    def __init__(self) -> None:
        self.answer: Deferred[float] = Deferred(lambda _: self.transport.abortConnection())

    def lineReceived(self, line: bytes) -> None:
        """This is it."""
        self.answer.callback(float(line))
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more will come."""
        if not self.answer.called:
            self.answer.errback(reason)


def served(read: Callable[[], float]) -> Factory:
    """What a server endpoint listens with."""
    return Factory.forProtocol(lambda: Thermometer(read))


def ask(endpoint: IStreamClientEndpoint, clock: IReactorTime) -> Deferred[float]:
    """The temperature at `endpoint` in degrees.

    Fails with a ServiceError, or with twisted.internet.defer.TimeoutError after TIMEOUT seconds.
    """
    connected: Deferred[Question] = connectProtocol(endpoint, Question())
    return connected.addCallback(lambda question: question.answer).addTimeout(TIMEOUT, clock)


async def main(reactor: Any, what: str, endpoint: str) -> None:
    """Serve for ever, or ask once."""
    if what == "serve":
        await serverFromString(reactor, endpoint).listen(served(lambda: 21.5))
        await Deferred()
    print(await ask(clientFromString(reactor, endpoint), reactor))


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
