"""Compare the QUIC engines: both ends in one process, without a network, on one core.

::

    python -m bench.quic [--rounds N] [--megabytes N] [--case NAME ...] [--json]

Each case runs with either engine in turn, the order turned round each time, and the median over the
rounds is told. Only the ratio of two engines in the same run means something; machines differ, and
this one does from minute to minute. Time is the computer's, and what would be spent waiting is
skipped.
"""

import argparse
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived

from bench.report import Figures, Row, alternate, parser, ratio, show
from p2pnet.identity import Credentials, Role
from p2pnet.quic.profile import ENGINES, FAST, STOCK, ConnectionProfile
from p2pnet.testing.realm import Realm

CLIENT, SERVER = ("192.0.2.1", 1), ("192.0.2.2", 2)
PAYLOAD = 1000  # bytes of a DATAGRAM frame
AHEAD = 1 << 20  # bytes that the sender has before the receiver
CHUNK = bytes(os.urandom(1 << 16))


class Case(NamedTuple):
    """What is sent.

    :ivar size: of a packet, in bytes.
    :ivar idle: streams that are open beside the one in use.
    """

    size: int = 1200
    idle: int = 0
    datagrams: bool = False


CASES = {
    "stream-1200": Case(),
    "stream-1452": Case(1452),
    "stream-16000": Case(16000),
    "datagram-1200": Case(datagrams=True),
    "idle-10": Case(idle=10),
    "idle-100": Case(idle=100),
    "idle-500": Case(idle=500),
}


class Pair:
    """Two engines joined to each other."""

    def __init__(self, engine: str, case: Case, credentials: dict[Role, Credentials]) -> None:
        self._skipped = 0.0
        self.packets = self.received = self.frames = 0
        self.sender_time = self.receiver_time = 0.0
        self.client = self._make(engine, case, credentials[Role.AGENT], Role.CONNECTOR)
        self.client.connect(SERVER, self.now())
        self.server = self._make(
            engine, case, credentials[Role.CONNECTOR], Role.AGENT,
            original_destination_connection_id=self.client.original_destination_connection_id,
        )  # fmt: skip
        while not (self.client._handshake_confirmed and self.server._handshake_confirmed):
            self.step()

    def _make(self, engine: str, case: Case, ours: Credentials, peer: Role, **options: Any) -> Any:
        settings = ConnectionProfile(
            ours, frozenset({peer}), lambda: datetime.now(UTC), "bench/1", engine, datagrams=True
        )
        configuration = settings.configuration(is_client=peer is Role.CONNECTOR)
        configuration.max_datagram_size = case.size
        return ENGINES[engine](
            configuration=configuration, verify=settings.verify, max_streams=1000, **options
        )

    def now(self) -> float:
        """Seconds, without those that were spent waiting."""
        return time.perf_counter() + self._skipped

    def step(self) -> None:
        """Let either end send what it has, or wait if neither has anything."""
        start = time.perf_counter()
        there = self.client.datagrams_to_send(self.now())
        self.packets += len(there)
        middle = time.perf_counter()
        now = self.now()
        for data, _ in there:
            self.server.receive_datagram(data, CLIENT, now)
        for event in events(self.server):
            if isinstance(event, StreamDataReceived | DatagramFrameReceived):
                self.received += len(event.data)
                self.frames += 1
        back = self.server.datagrams_to_send(self.now()) if self.server._network_paths else []
        end = time.perf_counter()
        now = self.now()
        for data, _ in back:
            self.client.receive_datagram(data, SERVER, now)
        for _ in events(self.client):
            pass
        self.receiver_time += end - middle
        self.sender_time += middle - start + time.perf_counter() - end
        if not there and not back:
            self._wait()

    def _wait(self) -> None:
        timers = [self.client.get_timer(), self.server.get_timer()]
        self._skipped += max(0.0, min(t for t in timers if t is not None) - self.now()) + 1e-6
        for engine in (self.client, self.server):
            timer = engine.get_timer()
            if timer is not None and timer <= self.now():
                engine.handle_timer(self.now())


def events(engine: Any) -> Iterator[Any]:
    """What happened at an engine since it was asked last."""
    while (event := engine.next_event()) is not None:
        yield event


def run(pair: Pair, case: Case, total: int) -> Figures:
    """Send so many bytes from the client to the server. Microseconds are for a packet with data."""
    for _ in range(case.idle):
        pair.client.send_stream_data(pair.client.get_next_available_stream_id(), b"x")
    while pair.received < case.idle:
        pair.step()
    pair.packets = pair.received = pair.frames = 0
    pair.sender_time = pair.receiver_time = 0.0
    stream_id = pair.client.get_next_available_stream_id()
    queued, payload = 0, CHUNK[:PAYLOAD]
    start = time.process_time()
    while pair.received < total:
        if case.datagrams:  # which may get lost; this loses none
            for _ in range(64 - pair.client.queued_datagrams):
                pair.client.send_datagram_frame(payload)
        elif queued - pair.received < AHEAD:
            pair.client.send_stream_data(stream_id, CHUNK)
            queued += len(CHUNK)
        pair.step()
    seconds = time.process_time() - start
    return {
        "MB/s": pair.received / seconds / 1e6,
        "frames/s": pair.frames / seconds,
        "send_us": pair.sender_time / pair.packets * 1e6,
        "receive_us": pair.receiver_time / pair.packets * 1e6,
    }


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """The medians of either engine, and how many times the fast one is the other."""
    realm = Realm()
    credentials = {role: realm.credentials(role, "bench") for role in (Role.AGENT, Role.CONNECTOR)}
    total = int(options.megabytes * 1e6)
    for name in options.case or CASES:
        case = CASES[name]
        found = alternate(
            {
                engine: lambda engine=engine, case=case: run(  # type: ignore[misc]
                    Pair(engine, case, credentials), case, total
                )
                for engine in (STOCK, FAST)
            },
            options.rounds,
        )
        rates = {engine: rate.median for engine, f in found.items() if (rate := f["MB/s"])}
        for engine, figures in found.items():
            yield {
                "case": name, "engine": engine, **figures,
                "times_stock": ratio(rates.get(engine), rates.get(STOCK)),
            }  # fmt: skip


def main() -> None:
    """Run the cases."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--megabytes", type=float, default=16.0, help="that each run sends")
    options.add_argument("--case", choices=list(CASES), action="append", help="may be repeated")
    arguments = options.parse_args()
    show({"Engines, both ends in one process": rows(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
