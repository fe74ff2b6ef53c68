"""Links with delay, loss and a rate, in user space: packets between pairs of TUN devices.

Kernels without the netem queue have no other way to hold a packet back. The wires of a laboratory
run in a process of their own, for a busy interpreter would add milliseconds to every packet::

    python -m lab.wire '[[3, 4, {"delay": 0.025, "loss": 0.01}]]'

where each wire is two descriptors of TUN devices and its Conditions. Lines of the same form on
standard input change wires (the descriptors say which); its end ends the process.
"""

import ctypes
import dataclasses
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time

TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29
_BATCH = 32  # packets read from one device before the others have their turn


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a link does to packets, each way.

    :ivar delay: seconds. `loss`: the fraction lost, each packet by itself.
    :ivar rate: bytes/s, 0 for no limit; `buffer`: bytes that may wait, more are lost.
    """

    delay: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    buffer: int = 0


def open_tun(name: str) -> int:
    """The descriptor of a new TUN device in the calling thread's namespace. Raises OSError."""
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Way:
    """One direction of a wire, to the descriptor `target`."""

    def __init__(self, target: int, conditions: Conditions) -> None:
        self.target = target
        self._conditions = conditions
        self._free_at = 0.0  # when what waits will have been sent

    def pass_on(self, size: int, now: float) -> float | None:
        """When a packet of so many bytes arrives, None if it does not."""
        link = self._conditions
        if random.random() < link.loss:
            return None
        if not link.rate:
            return now + link.delay
        waiting = max(0.0, self._free_at - now)
        if waiting * link.rate > link.buffer:
            return None
        self._free_at = now + waiting + size / link.rate
        return self._free_at + link.delay


class Hub:
    """Carries the packets of all wires until standard input ends."""

    def __init__(self) -> None:
        self._ways: dict[int, Way] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._commands = b""

    def set_wires(self, wires: list[tuple[int, int, dict[str, float]]]) -> None:
        """Add or change wires: descriptor, descriptor, fields of Conditions."""
        for one, other, fields in wires:
            conditions = Conditions(**fields)  # type: ignore[arg-type]
            self._ways[one] = Way(other, conditions)
            self._ways[other] = Way(one, conditions)

    def run(self, control: int) -> None:
        """Carry packets; `control` is the descriptor of the commands."""
        while True:
            # select() takes microseconds, where poll() and epoll() round up to milliseconds.
            timeout = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            ready, _, _ = select.select([control, *self._ways], [], [], timeout)
            for descriptor in ready:
                if descriptor != control:
                    self._read(descriptor)
                elif not self._command(os.read(control, 1 << 16)):
                    return
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, descriptor, packet = heapq.heappop(self._queue)
                _write(descriptor, packet)

    def _command(self, data: bytes) -> bool:
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self.set_wires(json.loads(line))
        return bool(data)

    def _read(self, descriptor: int) -> None:
        way = self._ways[descriptor]
        now = time.monotonic()
        for _ in range(_BATCH):
            try:
                packet = os.read(descriptor, 1 << 16)
            except OSError:  # nothing more, or the device is down
                return
            due = way.pass_on(len(packet), now)
            if due is None:
                continue
            if due > now:
                self._count += 1  # packets of the same moment keep their order
                heapq.heappush(self._queue, (due, self._count, way.target, packet))
            else:
                _write(way.target, packet)


def _write(descriptor: int, packet: bytes) -> None:
    try:
        os.write(descriptor, packet)
    except OSError:
        pass  # a full queue or a device that is down loses packets, as a real link does


def main() -> None:
    """Run the wires of the command line."""
    # Ctrl-C is for the laboratory, which then closes standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Timers may otherwise be 50 us late.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    hub = Hub()
    hub.set_wires(json.loads(sys.argv[1]))
    hub.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
