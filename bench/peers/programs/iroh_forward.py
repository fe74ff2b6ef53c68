"""A TCP forward over iroh: one connection, a stream for each TCP connection (see base.Pair).

With ``--fast-copy`` iroh's Python binding copies bytes as a block. As shipped its generated code
(UniFFI) writes each byte by a turn of a Python loop, which is most of what iroh costs here: without
that one function the figures are those of iroh's engine.
"""

import asyncio
import contextlib
import ctypes
import sys
from collections.abc import Callable
from typing import Any

import iroh
from iroh import iroh_ffi

ALPN = b"p2pnet-bench/1"
SIZE = 1 << 16  # bytes of a read


def copy_fast() -> None:
    """Replace the function that copies byte by byte."""

    def write(self: Any, value: bytes) -> None:
        with self._reserve(len(value)):
            start = ctypes.addressof(self.rbuf.data.contents) + self.rbuf.len
            ctypes.memmove(start, bytes(value), len(value))

    iroh_ffi._UniffiRustBufferBuilder.write = write


async def up(reader: asyncio.StreamReader, stream: Any) -> None:
    """From TCP to iroh."""
    while data := await reader.read(SIZE):
        await stream.write_all(data)
    await stream.finish()


async def down(stream: Any, writer: asyncio.StreamWriter) -> None:
    """From iroh to TCP."""
    while data := await stream.read(SIZE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: Any) -> None:
    """Until both directions are over, or one broke."""
    with contextlib.suppress(OSError, iroh.IrohError):
        await asyncio.gather(up(reader, both.send()), down(both.recv(), writer))
    writer.close()


async def bind(address: str) -> Any:
    """An endpoint without relays and discovery: the two find each other by their ticket."""
    return await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(), bind_addr=f"{address}:0", alpns=[ALPN],
            relay_mode=iroh.RelayMode.disabled(),
        )
    )  # fmt: skip


async def far(address: str, host: str, port: str) -> None:
    """Lead streams to the target."""
    endpoint = await bind(address)
    place = iroh.EndpointAddr(endpoint.id(), None, endpoint.bound_sockets())
    print("ready", iroh.EndpointTicket.from_addr(place), flush=True)
    tasks = set()

    async def stream_came(both: Any) -> None:
        await splice(*await asyncio.open_connection(host, int(port)), both)

    connection = await (await (await endpoint.accept_next()).accept()).connect()
    while True:
        tasks.add(task := asyncio.create_task(stream_came(await connection.accept_bi())))
        task.add_done_callback(tasks.discard)


async def near(address: str, ticket: str) -> None:
    """Lead TCP connections to the far end."""
    endpoint = await bind(address)
    there = iroh.EndpointTicket.from_string(ticket).endpoint_addr()
    connection = await endpoint.connect(there, ALPN)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await splice(reader, writer, await connection.open_bi())

    server = await asyncio.start_server(connected, address, 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--fast-copy":
        copy_fast()
        del arguments[0]
    roles: dict[str, Callable[..., Any]] = {"near": near, "far": far}
    asyncio.run(roles[arguments[0]](*arguments[1:]))
