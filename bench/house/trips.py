"""The trips of datagrams through a node: files that a trip enters, moves between them, calls.

::

    PYTHONPATH=CHECKOUT python bench/house/trips.py

The nodes of that checkout run on its simulated network. sys.setprofile counts the calls while one
datagram is delivered, with all that the node does at once because of it: events, and what it
sends. A move is a call in another file than the call before. Of each trip the median by calls is
taken. The program prints one JSON object; it imports nothing but p2pnet and Twisted, so that it
measures other checkouts too.
"""

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol

NETWORKS = ("p2pnet.testing.network", "p2pnet.lab.simnet")
REALMS = ("p2pnet.testing.realm", "p2pnet.lab.simulation")
"""The modules of the simulation, today's and those of older checkouts."""
NOT_MEASURED = {"testing", "lab"}
ONCE = ("classify", "decode_relay_frame", "take_events")
"""Functions that one datagram has to enter at most once."""
INTERMEDIATE, CONNECTOR, AGENT = "192.0.2.1", "198.51.100.1", "203.0.113.1"
HOSTS = {INTERMEDIATE: "intermediate", CONNECTOR: "connector", AGENT: "agent"}
TRIPS = (
    "relayed data at the agent", "direct data at the agent", "direct data at the connector",
    "check at the agent", "byte out at the agent", "relay frame at the intermediate",
    "control packet at the intermediate",
)  # fmt: skip
WARM_UP, WRITES = 30, 20
PERIOD = 1.0  # seconds of the virtual clock between two writes
DATA = bytes(100)

Calls = list[tuple[str, str]]
"""File and function of each call."""


def home(names: tuple[str, ...]) -> Any:
    """Import the first of these modules that exists."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"no simulation: {', '.join(names)}")


network_module, realm_module = home(NETWORKS), home(REALMS)
PACKAGE = Path(importlib.import_module("p2pnet").__file__ or "").parent


class Echo(Protocol):
    """The target of the stream: an echo server."""

    def dataReceived(self, data: bytes) -> None:
        """Send the data back."""
        self.transport.write(data)  # type: ignore[union-attr]


def traced(action: Callable[[], Any]) -> Calls:
    """Return the calls of functions of p2pnet while `action` runs, in their order."""
    calls: Calls = []
    top = f"{PACKAGE}/"

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(top):
            file = frame.f_code.co_filename.removeprefix(top)
            if file.partition("/")[0] not in NOT_MEASURED:
                calls.append((file, frame.f_code.co_name))

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def kind(data: bytes) -> str:
    """Return what a datagram is by its first byte (RFC 9443): "packet", "check" or "frame"."""
    if data[0] & 0x40:
        return "packet"
    return "check" if data[0] < 4 else "frame"


class Trips:
    """A realm of three nodes, whose Agent takes the paths of `policy`, and an open stream."""

    def __init__(self, policy: str) -> None:
        self.found: dict[str, list[Calls]] = {}
        network = self.network = network_module.SimulatedNetwork(1, network_module.Link(delay=0.01))
        realm = realm_module.Simulation(network)
        realm.intermediate()
        connector = realm.connector({"web": ["*"]})
        agent = realm.agent(policy=policy)
        connector.serve_protocol("web", Factory.forProtocol(Echo))
        network.run(2.0)
        opened: list[Any] = []
        agent.connect("web").addCallback(opened.append)
        network.run(3.0)
        (self.stream,) = opened
        self.stream.connect(Protocol())

    def run(self) -> None:
        """Write some data, and keep the calls of each delivery."""
        for _ in range(WARM_UP):
            self.write()
        network_module.SimulatedTransport.gathers = True  # the driver sends within the delivery
        self._deliver, self.network.deliver = self.network.deliver, self.deliver
        for _ in range(WRITES):
            self.keep("byte out at the agent", traced(self.send))
            self.network.run(PERIOD)
        network_module.SimulatedTransport.gathers = False

    def send(self) -> None:
        """Write, and let the driver send, without any time passing."""
        self.stream.write(DATA)
        self.network.run(0.0)

    def write(self) -> None:
        """Write, and let time pass until the echo is back."""
        self.stream.write(DATA)
        self.network.run(PERIOD)

    def keep(self, name: str, calls: Calls) -> None:
        """Keep the calls of one trip."""
        self.found.setdefault(name, []).append(calls)

    def deliver(self, data: bytes, source: Any, destination: Any) -> None:
        """Deliver a datagram as the network does, and keep the calls."""
        calls = traced(lambda: self._deliver(data, source, destination))
        what, node = kind(data), HOSTS[destination[0]]
        relayed = INTERMEDIATE in (source[0], destination[0])
        if node == "intermediate" or (relayed and what == "packet"):
            name = "relay frame" if what == "frame" else "control packet"
        elif what == "check":
            name = "check"
        elif len(data) > len(DATA):
            name = "relayed data" if relayed else "direct data"
        else:
            return  # acknowledgements alone
        self.keep(f"{name} at the {node}", calls)


def describe(trips: list[Calls]) -> dict[str, Any]:
    """Return the figures of the trip with the median number of calls."""
    calls = sorted(trips, key=len)[len(trips) // 2]
    files = [file for file, _ in calls]
    entered = [file for file, before in zip(files, [None, *files], strict=False) if file != before]
    functions = Counter(function for _, function in calls)
    return {
        "calls": len(calls),
        "files": len(set(files)),
        "files_outside_quic": len({file for file in files if not file.startswith("quic/")}),
        "moves": len(entered),
        "once": {name: functions[name] for name in ONCE},
        "repeated_outside_quic": sorted(
            f"{file}:{function}"
            for (file, function), count in Counter(calls).items()
            if count > 1 and not file.startswith("quic/")
        ),
        "most_entered": Counter(entered).most_common(3),
    }


def main() -> None:
    """Print the trips over the relay and over a direct path."""
    found: dict[str, list[Calls]] = {}
    for policy in ("relay-only", "prefer-direct"):
        trips = Trips(policy)
        trips.run()
        for name, calls in trips.found.items():
            found.setdefault(name, calls)
    json.dump({name: describe(found[name]) for name in TRIPS}, sys.stdout)


if __name__ == "__main__":
    main()
