"""What the tests of the Twisted layer share."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer, IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from p2pnet import pki
from p2pnet.identity import Role
from p2pnet.net import batched

CHUNK = bytes(16 * 1024)


@implementer(IPushProducer, IPullProducer)
class Endless:
    """Writes for as long as it may."""

    def __init__(self, transport: Any, clock: Any, streaming: bool) -> None:
        self.transport = transport
        self.produced = 0
        self.paused = self.stopped = False
        self._clock = clock
        self._streaming = streaming
        transport.registerProducer(self, streaming)
        if streaming:
            self._push()

    def resumeProducing(self) -> None:
        """Write one chunk, or go on."""
        self.paused = False
        if self._streaming:
            self._push()
        else:
            self._write()

    def pauseProducing(self) -> None:
        """Wait."""
        self.paused = True

    def stopProducing(self) -> None:
        """The transport is gone."""
        self.stopped = True

    def _write(self) -> None:
        self.produced += len(CHUNK)
        self.transport.write(CHUNK)

    def _push(self) -> None:
        if not self.paused and not self.stopped:
            self._write()
            self._clock.callLater(0.001, self._push)


@implementer(IReactorFDSet)
class FakeReactor(Clock):
    """A clock that also keeps readers and writers, which read and write when told."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.writers: list[Any] = []
        self.writers_added = 0
        self.refuses = False

    def addReader(self, reader: Any) -> None:
        """Take a reader."""
        if self.refuses:
            raise OSError(errno.EPERM, "not this one")
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Give a reader up; as with every reactor it need not be there."""
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        """Take a writer, once."""
        self.writers_added += 1
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        """Give a writer up; it need not be there."""
        if writer in self.writers:
            self.writers.remove(writer)

    def removeAll(self) -> list[Any]:
        """Give every reader and writer up."""
        removed = self.readers + self.writers
        self.readers, self.writers = [], []
        return removed

    def getReaders(self) -> list[Any]:
        """The readers."""
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        """The writers."""
        return list(self.writers)


class EndpointCase(SynchronousTestCase):
    """A realm on disk, and a reactor in memory whose nodes have real sockets on the loopback.

    :ivar reactor: keeps readers and timers, and never reads: no packet arrives.
    """

    def setUp(self) -> None:
        """Certificates of alice, who is an agent, and of office, a connector granted "web"."""
        self.directory = Path(self.mktemp()).absolute()
        authority = pki.create_authority("example")
        pki.save(self.directory, pki.AUTHORITY, *authority)
        pki.save(self.directory, "alice", *pki.issue(*authority, Role.AGENT, "alice"))
        office = pki.issue(*authority, Role.CONNECTOR, "office", services=["web"])
        pki.save(self.directory, "office", *office)
        self.reactor: Any = MemoryReactorClock()
        if not batched.is_available(self.reactor):
            raise SkipTest("this system has no socket that a reactor in memory could hold")
        self.addCleanup(self.shut_down)

    def shut_down(self) -> None:
        """End the reactor, and with it the nodes of endpoint strings."""
        triggers = self.reactor.triggers.pop("before", {}).get("shutdown", ())
        for function, arguments, options in triggers:
            function(*arguments, **options)

    def write(self, name: str, table: str, rest: str = "", bind: str = "127.0.0.1:0") -> Path:
        """A configuration of `table` with the certificate `name`; its port is any of loopback."""
        path = self.directory / f"{name}.toml"
        path.write_text(
            f'[{table}]\nintermediates = ["127.0.0.1:9"]\nbind = "{bind}"\nca = "ca.pem"\n'
            f'cert = "{name}.pem"\nkey = "{name}.key"\n{rest}'
        )
        return path

    def take_port(self, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
        """A socket that holds a port of the loopback until the test ends."""
        taken = socket.socket(type=kind)
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        return taken
