"""The driver and both UDP transports on real reactors, each in a process of its own."""

import importlib.util
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.testing.processes import run_to_end

TIMEOUT = 60.0  # seconds of a Deadline

# One core asks when its timer is due, 200 datagrams at once, and again with all that came back
# until 1,000 did; the other one returns what it gets. Both stop in the middle of a batch.
EXCHANGE = """
import sys

name, kind = sys.argv[1:]
if name == "uvloop":
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())
else:
    from twisted.application.reactors import installReactor

    installReactor(name)

from twisted.internet import reactor
from p2pnet.reports import DrainFinished
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.driver import Driver
from p2pnet.net.udp import UDPTransport

TOTAL, WINDOW = 1000, 200


class Echo:
    def __init__(self):
        self.out, self.events, self.timer, self.heard = [], [], None, []

    def receive_datagram(self, data, address, now):
        self.heard.append(data)
        self.out.append((data, address))

    def datagrams_to_send(self, now):
        out, self.out = self.out, []
        return out

    def next_event(self):
        return self.events.pop() if self.events else None

    def get_timer(self):
        return self.timer

    def handle_timer(self, now):
        self.timer = None


class Asker(Echo):
    sent = 0

    def handle_timer(self, now):
        super().handle_timer(now)
        self.ask(WINDOW)

    def receive_datagram(self, data, address, now):
        self.heard.append(data)
        if len(self.heard) == TOTAL:
            self.events.append(DrainFinished(TOTAL))
        else:
            self.ask(1)

    def ask(self, number):
        for _ in range(min(number, TOTAL - self.sent)):
            self.out.append((b"%1200d" % self.sent, echo_transport.get_address()))
            self.sent += 1


def finished(event):
    for driver in drivers:
        driver.stop()
    reactor.callLater(0.05, reactor.stop)


transport = {"plain": UDPTransport, "batched": BatchedUDPTransport}[kind]
echo, asker = Echo(), Asker()
echo_transport = transport(reactor, "127.0.0.1", 0)
drivers = [
    Driver(echo, echo_transport, reactor, finished),
    Driver(asker, transport(reactor, "127.0.0.1", 0), reactor, finished),
]
for driver in drivers:
    driver.start()
asker.timer = drivers[1].now + 0.01
drivers[1].wake()
reactor.callLater(600, reactor.stop)
reactor.run()
in_order = asker.heard == [b"%1200d" % number for number in range(TOTAL)]
print(type(reactor).__name__, len(asker.heard), in_order, *(dict(d.errors) for d in drivers))
"""


class ReactorTests(SynchronousTestCase):
    """A thousand datagrams there and back, none lost, in order."""

    def assert_exchange(self, name: str, reactor: str, kind: str) -> None:
        """They come back on the reactor of that name."""
        command = [sys.executable, "-c", EXCHANGE, name, kind]
        done = run_to_end(command, TIMEOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(f"{reactor} 1000 True {{}} {{}}\n", done.stdout)

    def test_plain_on_the_portable_reactors(self) -> None:
        """What every system has."""
        self.assert_exchange("select", "SelectReactor", "plain")
        self.assert_exchange("asyncio", "AsyncioSelectorReactor", "plain")

    def test_batched_on_epoll(self) -> None:
        """What Twisted takes on Linux."""
        self.need_linux()
        self.assert_exchange("epoll", "EPollReactor", "batched")
        self.assert_exchange("epoll", "EPollReactor", "plain")

    def test_batched_on_asyncio(self) -> None:
        """``twistd --reactor=asyncio``."""
        self.need_linux()
        self.assert_exchange("asyncio", "AsyncioSelectorReactor", "batched")

    def test_batched_on_uvloop(self) -> None:
        """Where it is installed."""
        self.need_linux()
        if importlib.util.find_spec("uvloop") is None:
            raise SkipTest("uvloop is not installed")
        self.assert_exchange("uvloop", "AsyncioSelectorReactor", "batched")

    def need_linux(self) -> None:
        """Skip the test elsewhere."""
        if sys.platform != "linux":
            raise SkipTest("only Linux has it")
