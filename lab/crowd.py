"""A crowd of Agents in one process that come, transfer, stay a while, and leave or vanish.

``python -m lab.crowd ORDER`` where ORDER is JSON, see Order. Prints one line with the port
of the target that all services lead to, and after the end one with the Tally.
"""

import dataclasses
import json
import random
import struct
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from p2pnet.assembly import agent_node
from p2pnet.config.roles import AgentConfig
from p2pnet.endpoints import P2PClientEndpoint
from p2pnet.node.agent import AgentNode

reactor: Any = _reactor
REQUEST = struct.Struct(">II")  # seed and size of the answer
MAX_SIZE = 256 * 1024  # bytes of one transfer
TRANSFERS = 3  # at most, in one stay
TIMEOUT = 60.0  # seconds for one transfer
STAY, AWAY = 60.0, 30.0  # seconds at most
VANISHING = 0.3  # share of the stays that end without a word


@dataclasses.dataclass(frozen=True)
class Order:
    """What the crowd is to do.

    :ivar certs: directory of the certificates of `agents` (names) and of the CA.
    :ivar seconds: how long they keep coming.
    """

    certs: str
    agents: list[str]
    services: list[str]
    intermediate: str
    seconds: float
    seed: int


@dataclasses.dataclass
class Tally:
    """What the crowd did."""

    stays: int = 0
    vanished: int = 0
    transfers: int = 0
    bytes: int = 0
    wrong: int = 0
    direct: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)


def _answer(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Target(Protocol):
    """Answers requests; behind every service."""

    def __init__(self) -> None:
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        self._buffer += data
        if len(self._buffer) >= REQUEST.size:
            assert self.transport is not None
            self.transport.write(_answer(*REQUEST.unpack(self._buffer[: REQUEST.size])))
            self.transport.loseConnection()


class Fetch(Protocol):
    """One transfer; `done` fires with what came."""

    def __init__(self, request: bytes) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._request = request
        self._parts: list[bytes] = []

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Keep."""
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        if reason.check(ConnectionDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


class _Fetches(Factory):
    noisy = False

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def buildProtocol(self, addr: Any) -> Fetch:
        return self._fetch


class Crowd:
    """All the agents of an order."""

    def __init__(self, order: Order) -> None:
        self.tally = Tally()
        self._order = order
        self._random = random.Random(order.seed)
        self._end = reactor.seconds() + order.seconds

    def run(self) -> Deferred[Any]:
        """Fires when everybody has gone for good."""
        return DeferredList([self._live(name) for name in self._order.agents])

    @inlineCallbacks
    def _live(self, name: str) -> Generator[Deferred[Any], Any, None]:
        while True:
            yield deferLater(reactor, self._random.uniform(0.0, AWAY))
            if reactor.seconds() >= self._end:
                return
            node = self._node(name)
            node.startService()
            self.tally.stays += 1
            for _ in range(self._random.randint(1, TRANSFERS)):
                yield self._transfer(node)
            yield deferLater(reactor, self._random.uniform(0.0, STAY))
            self.tally.direct += any(
                node.core.paths_of(session).is_direct for session in node.core.sessions
            )
            yield self._leave(node)

    def _node(self, name: str) -> AgentNode:
        certs = Path(self._order.certs)
        config = AgentConfig(
            cert=certs / f"{name}.pem", key=certs / f"{name}.key", ca=certs / "ca.pem",
            intermediates=(self._order.intermediate,), bind="127.0.0.1:0",
            path=self._random.choice(["prefer-direct", "relay-only"]),
        )  # fmt: skip
        return agent_node(reactor, config)

    @inlineCallbacks
    def _transfer(self, node: AgentNode) -> Generator[Deferred[Any], Any, None]:
        seed, size = self._random.getrandbits(32), self._random.randrange(1, MAX_SIZE)
        fetch = Fetch(REQUEST.pack(seed, size))
        endpoint = P2PClientEndpoint(node, self._random.choice(self._order.services))
        try:
            yield endpoint.connect(_Fetches(fetch)).addTimeout(TIMEOUT, reactor)
            data = yield fetch.done.addTimeout(TIMEOUT, reactor)
        except Exception as error:
            reason = str(error) or type(error).__name__
            self.tally.failures[reason] = self.tally.failures.get(reason, 0) + 1
            return
        self.tally.transfers += 1
        self.tally.bytes += len(data)
        self.tally.wrong += data != _answer(seed, size)

    @inlineCallbacks
    def _leave(self, node: AgentNode) -> Generator[Deferred[Any], Any, None]:
        if self._random.random() < VANISHING:
            self.tally.vanished += 1
            if node.locality.watch is not None:
                node.locality.watch.stop()
            yield maybeDeferred(node.transport.stop)  # its last words find no way out
        yield node.stopService()


def main() -> None:
    """Run the crowd of the order on the command line."""
    crowd = Crowd(Order(**json.loads(sys.argv[1])))
    target = reactor.listenTCP(0, Factory.forProtocol(Target), interface="127.0.0.1")
    print(target.getHost().port, flush=True)

    def start() -> None:
        crowd.run().addBoth(lambda _: reactor.stop())

    sys.stdin.readline()  # the services are there
    reactor.callWhenRunning(start)
    reactor.run()
    print(json.dumps(dataclasses.asdict(crowd.tally)), flush=True)


if __name__ == "__main__":
    main()
