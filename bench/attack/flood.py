"""A stranger that floods an Intermediate with first packets, from many addresses of loopback.

::

    python -m bench.attack.flood padding 127.0.0.1:4433 --rate 2000

The program prints "ready", sends until SIGTERM, and then prints what it did as one JSON object.
"""

import argparse
import itertools
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from p2pnet.wire import messages
from p2pnet.wire.address import Address, parse_host_port
from tests.quic import initials
from tests.quic.initials import close, crypto

POOL = 4000  # datagrams, each with a connection id of its own
TICK = 0.005  # seconds
BURST = 64  # datagrams of a tick at most
CYCLE = 3.0  # seconds
EVERYWHERE = [f"127.{network}.{subnet}.1" for network in range(1, 64) for subnet in range(4)]
FOUR = [f"127.{network}.0.{host}" for host in range(1, 64) for network in range(1, 5)]
NEIGHBOR = [f"127.0.0.{host}" for host in range(2, 6)]  # of the nodes at 127.0.0.1


def initial(frames: bytes, **fields: object) -> bytes:
    """An Initial of a client that speaks p2pnet."""
    return initials.initial(frames, alpn=messages.ALPN, **fields)  # type: ignore[arg-type]


def is_on(duty: float, now: float) -> bool:
    """Whether to attack now, in `duty` of each CYCLE, which all attackers begin at once."""
    return now % CYCLE < duty * CYCLE


def damaged() -> bytes:
    """An Initial that cannot be decrypted."""
    data = hello()
    return data[:-1] + bytes([data[-1] ^ 1])


def hello() -> bytes:
    """The beginning of a handshake."""
    return initial(crypto(0, initials.hello(messages.ALPN)))


def closing() -> bytes:
    """A ClientHello with CONNECTION_CLOSE."""
    return initial(crypto(0, initials.hello(messages.ALPN)) + close(b""))


KINDS: dict[str, Callable[[], bytes]] = {
    "junk": damaged,
    "padding": lambda: initial(b""),
    "close": closing,
    "far": lambda: initial(crypto(500_000, b"x")),
    "hellos": hello,
    "proven": hello,
    "neighbor": hello,
    "botnet": hello,
}
"""What each kind of flood sends."""
PROVEN = {"proven": FOUR, "neighbor": NEIGHBOR, "botnet": EVERYWHERE}
"""Where the kinds come from that answer Retry, so that their addresses are proven."""


class Flood:
    """Sends datagrams of a kind.

    :ivar sent: datagrams so far. `bytes_sent`, `bytes_received`: of UDP payload.
    """

    def __init__(self, kind: str, target: Address, pool: int = POOL) -> None:
        self.sent = self.bytes_sent = self.bytes_received = 0
        self._target = target
        self._answers_retry = kind in PROVEN
        self._pool = itertools.cycle([KINDS[kind]() for _ in range(pool)])
        self._sockets: dict[int, socket.socket] = {}
        self._readable = select.epoll()
        for host in PROVEN.get(kind, EVERYWHERE):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((host, 0))
            udp.setblocking(False)
            self._sockets[udp.fileno()] = udp
            self._readable.register(udp, select.EPOLLIN)
        self._turns = itertools.cycle(self._sockets.values())

    def run(self, rate: float, duty: float, is_over: Callable[[], bool]) -> dict[str, float]:
        """Send until it is over; returns what was done.

        :param rate: datagrams a second while it sends.
        :param duty: the part of each CYCLE in which it sends.
        """
        began, used, credit, last = time.monotonic(), time.process_time(), 0.0, self.sent
        before = began
        while not is_over():
            self._receive()
            now = time.monotonic()
            if is_on(duty, now):
                credit = min(BURST, credit + rate * (now - before) - (self.sent - last))
                last = self.sent
                for _ in range(int(credit)):
                    self._send(next(self._turns), next(self._pool))
            before = now
            time.sleep(TICK)
        elapsed = time.monotonic() - began
        return {
            "seconds": elapsed, "cpu": time.process_time() - used, "sent": self.sent,
            "bytes_sent": self.bytes_sent, "bytes_received": self.bytes_received,
        }  # fmt: skip

    def close(self) -> None:
        """Close the sockets."""
        self._readable.close()
        for udp in self._sockets.values():
            udp.close()

    def _send(self, udp: socket.socket, data: bytes) -> None:
        try:
            self.bytes_sent += udp.sendto(data, self._target)
            self.sent += 1
        except BlockingIOError:
            pass

    def _receive(self) -> None:
        for descriptor, _ in self._readable.poll(0):
            udp = self._sockets[descriptor]
            for _ in range(BURST):
                try:
                    data = udp.recv(2048)
                except BlockingIOError:
                    break
                self.bytes_received += len(data)
                if self._answers_retry:
                    self._prove(udp, data)

    def _prove(self, udp: socket.socket, data: bytes) -> None:
        header = pull_quic_header(Buffer(data=data), host_cid_length=8)
        if header.packet_type is QuicPacketType.RETRY:
            frames = crypto(0, initials.hello(messages.ALPN))
            self._send(
                udp, initial(frames, destination=header.source_cid, token=header.token, number=1)
            )


def main() -> None:
    """Flood until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--rate", type=float, default=2000.0, help="datagrams a second at most")
    parser.add_argument("--duty", type=float, default=1.0, help="part of the time")
    options = parser.parse_args()
    flood = Flood(options.kind, parse_host_port(options.address))
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    print("ready", os.getpid(), flush=True)
    print(json.dumps(flood.run(options.rate, options.duty, lambda: bool(over))), flush=True)


if __name__ == "__main__":
    main()
