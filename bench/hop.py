"""What a hop takes of a datagram that is alone: round trips to an echo, directly and through it.

Each end is a process of its own, and so is what stands between them, for on a quiet network most of
a hop is being woken. What a hop adds is half of what its round trip takes longer than the direct
one.
"""

import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from p2pnet.wire.address import Address

ROUNDS, TIMES = 150, 20  # round trips of each way, in turns
PATIENCE = 5.0  # seconds for an answer


def echo(udp: socket.socket, size: int, answers: Mapping[Address, bytes]) -> None:
    """Answer, for ever, datagrams of that size: with what is meant for their source, or with
    themselves."""
    udp.setblocking(True)
    while True:
        data, source = udp.recvfrom(65535)
        if len(data) == size:
            udp.sendto(answers.get(source, data), source)


def forward(udp: socket.socket, ways: Mapping[Address, Address]) -> None:
    """Send on what comes, for ever: as little as one can do in Python."""
    while True:
        data, source = udp.recvfrom(65535)
        udp.sendto(data, ways[source])


@contextlib.contextmanager
def beside(work: Callable[..., None], *args: Any) -> Iterator[None]:
    """Have a process of its own do that meanwhile, with this one's sockets."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def round_trips(udp: socket.socket, data: bytes, address: Address) -> list[float]:
    """Microseconds from sending `data` there to what comes back. Raises OSError."""
    times = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        udp.sendto(data, address)
        udp.recv(65535)
        times.append((time.perf_counter() - begun) * 1e6)
    return times


def added(
    one: socket.socket, other: socket.socket, out: bytes, back: bytes, relay: Address
) -> tuple[float, float]:
    """Microseconds that `relay` adds to one way between two sockets, and that a plain forwarder
    does.

    :param out: what the relay brings from one to the other, and `back` the other way.
    """
    ends: list[Address] = [udp.getsockname()[:2] for udp in (one, other)]
    plain = bytes(len(out))
    one.settimeout(PATIENCE)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as between:
            between.bind((ends[0][0], 0))
            ways = dict(zip(ends, reversed(ends), strict=True))
            with beside(echo, other, len(out), {relay: back}), beside(forward, between, ways):
                cases = [(plain, ends[1]), (out, relay), (plain, between.getsockname())]
                times: list[list[float]] = [[] for _ in cases]
                for _ in range(ROUNDS):
                    for found, case in zip(times, cases, strict=True):
                        found += round_trips(one, *case)
    finally:
        for udp in (one, other):
            udp.setblocking(False)
    direct, relayed, forwarded = map(statistics.median, times)
    return (relayed - direct) / 2, (forwarded - direct) / 2
