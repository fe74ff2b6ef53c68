"""A TCP forward over WebRTC data channels, one for each TCP connection (see base.Pair).

aiortc gives no tunnel; this is what one would look like. The offer and the answer go over a TCP
connection of their own, and the only candidate is the address that was given.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

SIZE = 1 << 14  # bytes of a message
HIGH, LOW = 1 << 20, 1 << 19  # bytes waiting in a channel at which reading stops, and goes on


def description(data: bytes) -> RTCSessionDescription:
    """What the peer sent."""
    return RTCSessionDescription(**json.loads(data))


def encode(peer: RTCPeerConnection) -> bytes:
    """What the peer is sent: one line."""
    local = peer.localDescription
    return json.dumps({"sdp": local.sdp, "type": local.type}).encode() + b"\n"


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: Any) -> None:
    """Until either side ends."""
    room = asyncio.Event()
    channel.bufferedAmountLowThreshold = LOW
    channel.on("bufferedamountlow", room.set)
    channel.on("close", writer.close)
    channel.on("message", writer.write)
    try:
        while data := await reader.read(SIZE):
            channel.send(data)
            if channel.bufferedAmount > HIGH:
                room.clear()
                await room.wait()
    except OSError:
        pass  # the local end is gone
    channel.close()
    writer.close()


async def far(host: str, port: str, peer: RTCPeerConnection, address: str) -> None:
    """Lead channels to the target."""
    tasks = set()

    async def forward(channel: Any) -> None:
        early: list[bytes] = []
        channel.on("message", early.append)
        reader, writer = await asyncio.open_connection(host, int(port))
        channel.remove_all_listeners("message")
        writer.writelines(early)
        await splice(reader, writer, channel)

    def opened(channel: Any) -> None:
        tasks.add(task := asyncio.create_task(forward(channel)))
        task.add_done_callback(tasks.discard)

    peer.on("datachannel", opened)

    async def signal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.setRemoteDescription(description(await reader.readline()))
        await peer.setLocalDescription(await peer.createAnswer())
        writer.write(encode(peer))

    server = await asyncio.start_server(signal, address, 0, limit=1 << 20)
    print("ready", f"{address}:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def near(there: str, peer: RTCPeerConnection, address: str) -> None:
    """Lead TCP connections to channels."""
    host, port = there.split(":")
    first = peer.createDataChannel("first")  # an offer must have one
    connected = asyncio.Event()
    first.on("open", connected.set)
    await peer.setLocalDescription(await peer.createOffer())
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.write(encode(peer))
    await peer.setRemoteDescription(description(await reader.readline()))
    await connected.wait()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = peer.createDataChannel("tcp")
        opened = asyncio.Event()
        channel.on("open", opened.set)
        await opened.wait()
        await splice(reader, writer, channel)

    server = await asyncio.start_server(forward, address, 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def main(role: str, address: str, *arguments: str) -> None:
    """Be either end."""
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [address]  # which omits loopback
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    roles: dict[str, Callable[..., Any]] = {"near": near, "far": far}
    await roles[role](*arguments, peer, address)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
