"""What a datagram costs on the plain and on the batched UDP transport, side by side.

::

    python -m bench.udp --rounds 7 --seconds 2

One process sends to sockets of another one on loopback and keeps so many datagrams under way; both
are pumped by the driver of the nodes, and each time that the receiving one is, it answers with one
small datagram. The two transports take turns, and each round begins with the other one. Times are
of the whole process, the answers included, in microseconds of processor a datagram. Figures are
medians with the least and the most; compare them with each other, not with those of another machine
or day.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from bench.report import Figures, alternate, parser, show
from p2pnet import reports
from p2pnet.core import events
from p2pnet.net.batched import BatchedUDPTransport
from p2pnet.net.driver import Driver
from p2pnet.net.udp import UDPTransport
from p2pnet.wire.address import Address

TRANSPORTS: dict[str, Callable[..., Any]] = {"plain": UDPTransport, "batched": BatchedUDPTransport}
LOOPBACK = "127.0.0.1"
GRACE = 0.2  # seconds that the receiving process stays longer than the sending one
THE_END = b""


class Idle:
    """What both cores have in common: neither has a timer."""

    def next_event(self) -> events.Event | None:
        """None."""
        return None

    def get_timer(self) -> float | None:
        """Never."""
        return None

    def handle_timer(self, now: float) -> None:
        """Nothing is due."""


class Counter(Idle):
    """Answers with the number of datagrams so far."""

    def __init__(self) -> None:
        self.count = self.answers = 0
        self._asked_by: Address | None = None
        self._ended = False

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """One more, or the end."""
        if data == THE_END:
            self._ended = True
        else:
            self.count += 1
            self._asked_by = address

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The answer."""
        address, self._asked_by = self._asked_by, None
        if address is None:
            return []
        self.answers += 1
        return [(self.count.to_bytes(8, "big"), address)]

    def next_event(self) -> events.Event | None:
        """The end."""
        ended, self._ended = self._ended, False
        return reports.DrainFinished(0) if ended else None


class Filler(Idle):
    """Keeps the window full."""

    def __init__(self, window: list[tuple[bytes, Address]]) -> None:
        self.sent = 0
        self.running = True
        self._answered = 0
        self._window = window

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """So many arrived."""
        self._answered = max(self._answered, int.from_bytes(data, "big"))

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """As many as there is room for."""
        room = len(self._window) - (self.sent - self._answered)
        if room <= 0 or not self.running:
            return []
        self.sent += room
        return self._window[:room]


def the_reactor() -> Any:
    """That of this process."""
    from twisted.internet import reactor

    return reactor


def receive(pipe: Connection, kind: str, targets: int) -> None:
    """The receiving process."""
    reactor, core = the_reactor(), Counter()
    transports = [TRANSPORTS[kind](reactor, LOOPBACK, 0) for _ in range(targets)]
    for transport in transports:
        Driver(core, transport, reactor, lambda _: reactor.callLater(GRACE, reactor.stop)).start()
    pipe.send([transport.get_address() for transport in transports])
    used = time.process_time()
    reactor.run()
    pipe.send((core.count, core.answers, time.process_time() - used))


def send(pipe: Connection, kind: str, options: argparse.Namespace, targets: list[Address]) -> None:
    """The sending process."""
    reactor = the_reactor()
    window = [(bytes(options.size), target) for target in targets] * options.window
    core = Filler(window[: options.window])
    transport = TRANSPORTS[kind](reactor, LOOPBACK, 0)
    driver = Driver(core, transport, reactor, print)

    def finish() -> None:
        core.running = False
        transport.send([(THE_END, targets[0])])
        reactor.stop()

    driver.start()
    driver.wake()
    reactor.callLater(options.seconds, finish)
    used, began = time.process_time(), time.perf_counter()
    reactor.run()
    pipe.send((core.sent, time.process_time() - used, time.perf_counter() - began))


def measure(kind: str, options: argparse.Namespace) -> Figures:
    """The figures of one run."""
    context = multiprocessing.get_context("spawn")
    (ours, theirs), (receiving, receiver) = context.Pipe(), context.Pipe()
    arguments = (receiver, kind, options.targets)
    processes = [context.Process(target=receive, args=arguments)]
    processes[0].start()
    targets = receiving.recv()
    processes.append(context.Process(target=send, args=(theirs, kind, options, targets)))
    processes[1].start()
    sent, send_cpu, elapsed = ours.recv()
    count, answers, receive_cpu = receiving.recv()
    for process in processes:
        process.join()
    return {
        "packets_per_second": round(count / elapsed),
        "send_us": round(send_cpu / sent * 1e6, 3),
        "receive_us": round(receive_cpu / count * 1e6, 3),
        "datagrams_per_answer": round(count / answers, 1),
        "lost": sent - count,
    }


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=7, help="runs of each transport")
    options.add_argument("--seconds", type=float, default=2.0, help="how long a run sends")
    options.add_argument("--size", type=int, default=1200, help="bytes of a datagram")
    options.add_argument("--window", type=int, default=256, help="datagrams under way")
    options.add_argument("--targets", type=int, default=1, help="sockets sent to, in turn")
    arguments = options.parse_args()
    cases = {kind: partial(measure, kind, arguments) for kind in TRANSPORTS}
    found = alternate(cases, arguments.rounds)
    rows = [{"transport": kind, **figures} for kind, figures in found.items()]
    show({f"{arguments.size} bytes, {arguments.window} under way": rows}, arguments.json)


if __name__ == "__main__":
    main()
