"""Cases that load a forward: requests, connections, and transfers."""

import dataclasses
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import load
from bench.pair.case import Case, Effort, Figures, Sample
from bench.pair.site import Site, Way, cpu
from p2pnet.wire.address import Address

ONE_REQUEST = 100  # bytes, and as many of the answer
AWAKE = 2  # requests before those that count, for a connection that was idle meanwhile
CALIBRATION = 1.0  # megabytes
DIRECT_TIMEOUT = 30.0  # seconds for the direct path, and for its packet size


@dataclasses.dataclass
class OnWay(Case):
    """A case that loads one forward."""

    way: Callable[[Site], Way]

    def prepare(self, site: Site, effort: Effort) -> None:
        """Open the session; for a direct path, wait until both ends know its packet size."""
        way = self.way(site)
        exchange(way.address, 1)
        if self.way is direct:
            way.agent.wait_for("path_selected", DIRECT_TIMEOUT, path="direct")
            found = way.agent.wait_for("packet_size_found", DIRECT_TIMEOUT)
            site.connector.wait_for("packet_size_found", DIRECT_TIMEOUT, session=found["session"])


@dataclasses.dataclass
class Requests(OnWay):
    """Small requests on an open connection."""

    connections: dict[Site, socket.socket] = dataclasses.field(default_factory=dict)
    at_a_turn = 20

    def prepare(self, site: Site, effort: Effort) -> None:
        """Open the connection and send a batch that does not count."""
        super().prepare(site, effort)
        connection = self.connections[site] = load.connect(self.way(site).address)
        connection.sendall(load.ECHO)
        round_trips(connection, effort.requests)

    def turns(self, effort: Effort) -> int:
        """Spread the requests over turns of 20, so that both sites meet the same moments."""
        return -(-effort.requests // self.at_a_turn)

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Time some requests, each from its first byte to the end of the response."""
        connection, processes = self.connections[site], self.way(site).processes
        round_trips(connection, AWAKE)
        began = cpu(processes)
        times = round_trips(connection, min(self.at_a_turn, effort.requests))
        return Sample(times, cpu(processes) - began)

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return quantiles and processor time per request, in microseconds."""
        times = [seconds for sample in samples for seconds in sample.times]
        found = load.quantiles(times)
        used = sum(sample.cpu for sample in samples)
        return {
            "p50_us": found["p50_us"],
            "p99_us": found["p99_us"],
            "cpu_us": used / len(times) * 1e6,
        }


class Opening(OnWay):
    """A new TCP connection for each request, over an existing session."""

    at_a_turn = 2

    def turns(self, effort: Effort) -> int:
        """Spread the connections over turns of two."""
        return -(-effort.connections // self.at_a_turn)

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Time some connections, each from connect() to the end of the response."""
        way = self.way(site)
        began = cpu(way.processes)
        times = [exchange(way.address, ONE_REQUEST) for _ in range(self.at_a_turn)]
        return Sample(times, cpu(way.processes) - began)

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return the median and the processor time per connection, in milliseconds."""
        times = [seconds for sample in samples for seconds in sample.times]
        used = sum(sample.cpu for sample in samples)
        return {"p50_ms": statistics.median(times) * 1e3, "cpu_ms": used / len(times) * 1e3}


@dataclasses.dataclass
class Bulk(OnWay):
    """One transfer on one stream, of the same size for both sites.

    :ivar megabytes: the size; the first site's rate decides it.
    """

    transfer: Callable[[Address, float], Mapping[str, float]]
    megabytes: float = 0.0

    def prepare(self, site: Site, effort: Effort) -> None:
        """Let the windows grow, and choose the size."""
        super().prepare(site, effort)
        size = CALIBRATION
        for _ in range(2):
            rate = self.transfer(self.way(site).address, size)["megabytes_per_second"]
            size = rate * effort.seconds
        self.megabytes = self.megabytes or size

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Time one transfer on a new connection."""
        way = self.way(site)
        began = cpu(way.processes)
        done = self.transfer(way.address, self.megabytes)
        return Sample([done["seconds"]], cpu(way.processes) - began, int(done["bytes"]))

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return the rate, and processor time in seconds per gigabyte."""
        size = sum(sample.size for sample in samples)
        return {
            "MB/s": size / sum(sum(sample.times) for sample in samples) / 1e6,
            "cpu_s/GB": sum(sample.cpu for sample in samples) / size * 1e9,
        }


@dataclasses.dataclass
class ManyClients(OnWay):
    """Several clients at once, each of which opens a connection per request."""

    clients = 8

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Run all connections of a batch."""
        way = self.way(site)
        with ThreadPoolExecutor(self.clients) as pool:
            used, began = cpu(way.processes), time.perf_counter()
            count = self.clients * effort.connections
            done = pool.map(lambda _: exchange(way.address, ONE_REQUEST), range(count))
            times = list(done)
            elapsed, used = time.perf_counter() - began, cpu(way.processes) - used
        return Sample(times, used, found={"per_second": count / elapsed})

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return connections per second, and processor time per connection in milliseconds."""
        (sample,) = samples
        return {**sample.found, "cpu_ms": sample.cpu / len(sample.times) * 1e3}


def direct(site: Site) -> Way:
    """Return the site's forward over a direct path."""
    return site.direct


def relayed(site: Site) -> Way:
    """Return the site's forward over its Intermediate."""
    return site.relayed


def round_trips(connection: socket.socket, count: int) -> list[float]:
    """Send `count` requests one after the other; returns the seconds of each."""
    times, request = [], bytes(ONE_REQUEST)
    for _ in range(count):
        began = time.perf_counter()
        connection.sendall(request)
        load.receive_exactly(connection, ONE_REQUEST)
        times.append(time.perf_counter() - began)
    return times


def exchange(address: Address, size: int) -> float:
    """Return the seconds from connect() to the end of a response of `size` bytes."""
    began = time.perf_counter()
    with load.connect(address) as connection:
        connection.sendall(load.ECHO + bytes(size))
        load.receive_exactly(connection, size)
        return time.perf_counter() - began


def upload(address: Address, megabytes: float) -> Mapping[str, float]:
    """Send `megabytes` until the target confirms all of them."""
    return load.upload(address, 0.0, 1, megabytes)
