"""TCP load and what it takes: a target, and clients that measure through whatever leads to it.

::

    python -m bench.load target 127.0.0.1:0            prints "ready" and its port
    python -m bench.load upload 127.0.0.1:8081 --seconds 3 --streams 10
    python -m bench.load echo 127.0.0.1:8081 --count 1000 --size 100
    python -m bench.load connect 127.0.0.1:8081 --count 40

Each client prints one JSON object. They are programs of their own, so that they can run in a
network namespace and share no interpreter with what they measure. Only the standard library is
imported, which keeps their start short.

The first byte of a connection says what it is for. An upload is a row of blocks whose first byte
tells whether another one follows; the answer to the last is the number of bytes that came, so that
no way needs to carry a half-close.
"""

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ECHO, UPLOAD, DOWNLOAD = b"E", b"U", b"D"
BLOCK = 1 << 16  # bytes
MORE, LAST = b"\1", b"\0"
TOTAL = 8  # bytes of the answer to an upload, and of the size of a download
WARM_UP = 50  # echoes that do not count
CONNECT_TIMEOUT = 30.0  # seconds; nothing else has one, who starts these programs ends them


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises ConnectionError if it ends before."""
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionError(f"{len(data)} of {size} bytes, then the end")
    return data


# -- the target ----------------------------------------------------------------------------------


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(BLOCK):
        connection.sendall(data)


def _sink(connection: socket.socket) -> None:
    block, total, goes_on = bytearray(BLOCK), 0, True
    while goes_on:
        if connection.recv_into(block, BLOCK, socket.MSG_WAITALL) < BLOCK:
            return
        total += BLOCK
        goes_on = block[:1] == MORE
    connection.sendall(total.to_bytes(TOTAL, "big"))
    connection.recv(1)  # the client ends it, when it has the answer


def _source(connection: socket.socket) -> None:
    left, block = int.from_bytes(receive_exactly(connection, TOTAL), "big"), bytes(BLOCK)
    while left > 0:
        connection.sendall(block[:left])
        left -= BLOCK
    connection.recv(1)


def _serve(connection: socket.socket) -> None:
    with connection:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve = {UPLOAD: _sink, DOWNLOAD: _source}.get(connection.recv(1), _echo)
            serve(connection)
        except OSError:
            pass  # a client that is gone, or a tunnel that was stopped


def serve(address: tuple[str, int]) -> None:
    """Be the target, for ever; prints "ready" and the port."""
    with socket.create_server(address, backlog=1024) as listener:
        print("ready", listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


# -- the clients ---------------------------------------------------------------------------------


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection without Nagle's algorithm, as interactive programs have it."""
    connection = socket.create_connection(address, CONNECT_TIMEOUT)
    connection.settimeout(None)  # with one, MSG_WAITALL would not wait for all
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def upload(
    address: tuple[str, int], seconds: float, streams: int, megabytes: float | None = None
) -> dict[str, Any]:
    """Send for so long, or so much, on so many connections at once.

    The time is until the last answer. With many connections, what waits in their buffers when the
    time is up takes longer than that; so much in all is the better measure then.
    """
    ready = threading.Barrier(streams + 1)
    most = float("inf") if megabytes is None else megabytes * 1e6 / streams

    def send(_: int) -> int:
        block = bytearray(BLOCK)
        block[:1] = MORE
        with connect(address) as connection:
            connection.sendall(UPLOAD)
            ready.wait()
            sent = BLOCK
            end = time.monotonic() + seconds if megabytes is None else float("inf")
            while sent < most and time.monotonic() < end:
                connection.sendall(block)
                sent += BLOCK
            block[:1] = LAST
            connection.sendall(block)
            total = int.from_bytes(receive_exactly(connection, TOTAL), "big")
        if total != sent:
            raise ConnectionError(f"{total} of {sent} bytes arrived")
        return total

    with ThreadPoolExecutor(streams) as pool:
        totals = pool.map(send, range(streams))
        ready.wait()
        began = time.perf_counter()
        size = sum(totals)
        elapsed = time.perf_counter() - began
    return {"bytes": size, "seconds": elapsed, "megabytes_per_second": size / elapsed / 1e6}


def download(address: tuple[str, int], megabytes: float) -> dict[str, Any]:
    """Receive so much on one connection; the time is from the request for it."""
    left = size = int(megabytes * 1e6)
    block = bytearray(BLOCK)
    with connect(address) as connection:
        began = time.perf_counter()
        connection.sendall(DOWNLOAD + size.to_bytes(TOTAL, "big"))
        while left:
            received = connection.recv_into(block, min(left, BLOCK))
            if not received:
                raise ConnectionError(f"{size - left} of {size} bytes, then the end")
            left -= received
        elapsed = time.perf_counter() - began
    return {"bytes": size, "seconds": elapsed, "megabytes_per_second": size / elapsed / 1e6}


def echo(address: tuple[str, int], count: int, size: int) -> dict[str, Any]:
    """Request and response on one connection, one after the other."""
    times, request = [], bytes(size)
    with connect(address) as connection:
        connection.sendall(ECHO)
        for _ in range(WARM_UP + count):
            began = time.perf_counter()
            connection.sendall(request)
            receive_exactly(connection, size)
            times.append(time.perf_counter() - began)
    return quantiles(times[WARM_UP:])


def open_connections(address: tuple[str, int], count: int) -> dict[str, Any]:
    """From connecting to the first byte of an answer, one connection after the other."""
    times = []
    socket.getaddrinfo(*address)  # the first time Python imports what takes longer than connecting
    for _ in range(count):
        began = time.perf_counter()
        with connect(address) as connection:
            connection.sendall(ECHO + b"x")
            receive_exactly(connection, 1)
            times.append(time.perf_counter() - began)
    return {**quantiles(times), "seconds": times}


def quantiles(times: list[float]) -> dict[str, Any]:
    """Median and 99th percentile of times in seconds, in microseconds."""
    if len(times) == 1:
        times = times * 2
    return {
        "count": len(times),
        "p50_us": statistics.median(times) * 1e6,
        "p99_us": statistics.quantiles(times, n=100, method="inclusive")[-1] * 1e6,
    }


def main() -> None:
    """Be what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("target", "upload", "echo", "connect"))
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--seconds", type=float, default=3.0, help="that an upload sends")
    parser.add_argument("--megabytes", type=float, help="that it sends, instead")
    parser.add_argument("--streams", type=int, default=1, help="connections of an upload")
    parser.add_argument("--count", type=int, default=1000, help="echoes or connections")
    parser.add_argument("--size", type=int, default=100, help="bytes of an echo")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    address = (host, int(port))
    match options.what:
        case "target":
            serve(address)
        case "upload":
            figures = upload(address, options.seconds, options.streams, options.megabytes)
        case "echo":
            figures = echo(address, options.count, options.size)
        case _:
            figures = open_connections(address, options.count)
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
