"""What the pair is measured by: each case loads one site for a short batch and returns figures."""

import dataclasses
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from bench.pair.site import Site, Way, cpu
from p2pnet.lab import load
from p2pnet.wire.address import Address

Figures = Mapping[str, float]
ONE_REQUEST = 100  # bytes, and as many of the answer
CALIBRATION = 1.0  # megabytes
DIRECT_TIMEOUT = 30.0  # seconds
MTU_SEARCH = 2.0  # seconds within which a direct path has its packet size, on loopback


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a batch is.

    :ivar requests: one after the other on an open connection.
    :ivar connections: opened one after the other.
    :ivar seconds: that a bulk transfer lasts about, at the rate of the first site.
    """

    requests: int = 200
    connections: int = 10
    seconds: float = 0.4


class Case:
    """Base of the cases.

    :cvar every: a batch is measured in every such turn of the others.
    """

    every = 1

    def prepare(self, site: Site, effort: Effort) -> None:
        """Do what is done once for a site before its first batch."""

    def measure(self, site: Site, effort: Effort) -> Figures:
        """Run one batch. Raises LabError or OSError."""
        raise NotImplementedError


@dataclasses.dataclass
class OnWay(Case):
    """A case that loads one forward."""

    way: Callable[[Site], Way]

    def prepare(self, site: Site, effort: Effort) -> None:
        """Have the session, and the path that it stays on."""
        way = self.way(site)
        exchange(way.address, 1)
        if self.way is direct:
            way.agent.wait_for("path_selected", DIRECT_TIMEOUT, path="direct")
            time.sleep(MTU_SEARCH)


class Requests(OnWay):
    """Small requests on an open connection."""

    def measure(self, site: Site, effort: Effort) -> Figures:
        """Microseconds from request to response."""
        way = self.way(site)
        with load.connect(way.address) as connection:
            connection.sendall(load.ECHO)
            round_trips(connection, effort.requests // 4)
            began = cpu(way.processes)
            times = round_trips(connection, effort.requests)
            used = cpu(way.processes) - began
        return {**quantiles_us(times), "cpu_us": used / len(times) * 1e6}


class Opening(OnWay):
    """A new TCP connection for each request."""

    def measure(self, site: Site, effort: Effort) -> Figures:
        """Milliseconds from connecting to the whole answer."""
        way = self.way(site)
        began = cpu(way.processes)
        times = [exchange(way.address, ONE_REQUEST) for _ in range(effort.connections)]
        used = cpu(way.processes) - began
        return {
            "p50_ms": statistics.median(times) * 1e3,
            "cpu_ms": used / len(times) * 1e3,
        }


@dataclasses.dataclass
class Bulk(OnWay):
    """One stream, as much for either site as the first one carries in the time."""

    transfer: Callable[[Address, float], Mapping[str, float]]
    megabytes: float = 0.0

    def prepare(self, site: Site, effort: Effort) -> None:
        """Fill the windows, and choose the size."""
        super().prepare(site, effort)
        for _ in range(2):
            rate = self.transfer(self.way(site).address, CALIBRATION)["megabytes_per_second"]
            self.transfer(self.way(site).address, rate * effort.seconds)
        self.megabytes = self.megabytes or rate * effort.seconds

    def measure(self, site: Site, effort: Effort) -> Figures:
        """Megabytes a second, and processor seconds a gigabyte."""
        way = self.way(site)
        began = cpu(way.processes)
        done = self.transfer(way.address, self.megabytes)
        used = cpu(way.processes) - began
        return {"MB/s": done["megabytes_per_second"], "cpu_s/GB": used / done["bytes"] * 1e9}


def direct(site: Site) -> Way:
    """The site's forward over a direct path."""
    return site.direct


def relayed(site: Site) -> Way:
    """The site's forward over its Intermediate."""
    return site.relayed


def round_trips(connection: socket.socket, count: int) -> list[float]:
    """Seconds of each of so many requests."""
    times, request = [], bytes(ONE_REQUEST)
    for _ in range(count):
        began = time.perf_counter()
        connection.sendall(request)
        load.receive_exactly(connection, ONE_REQUEST)
        times.append(time.perf_counter() - began)
    return times


def exchange(address: Address, size: int) -> float:
    """Seconds from connecting to the end of an answer of `size` bytes."""
    began = time.perf_counter()
    with load.connect(address) as connection:
        connection.sendall(load.ECHO + bytes(size))
        load.receive_exactly(connection, size)
        return time.perf_counter() - began


def quantiles_us(times: Sequence[float]) -> Figures:
    """Median and 99th percentile in microseconds."""
    found = load.quantiles(list(times))
    return {"p50_us": found["p50_us"], "p99_us": found["p99_us"]}


def upload(address: Address, megabytes: float) -> Mapping[str, float]:
    """Send so much, until the target has all of it."""
    return load.upload(address, 0.0, 1, megabytes)


CASES: Mapping[str, Case] = {
    "requests": Requests(direct),
    "requests-relayed": Requests(relayed),
    "opening": Opening(direct),
    "opening-relayed": Opening(relayed),
    "up": Bulk(direct, upload),
    "down": Bulk(direct, load.download),
    "up-relayed": Bulk(relayed, upload),
    "down-relayed": Bulk(relayed, load.download),
}
"""In the order in which they are measured."""
SMALL_PACKETS = {f"{name}-1452": CASES[name] for name in ("up", "down")}
"""Those of the network namespace."""
