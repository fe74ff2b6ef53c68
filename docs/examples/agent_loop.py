"""An Agent in a plain loop, without Twisted: fetch a page from a service and print it.

python agent_loop.py CERTS NAME INTERMEDIATE SERVICE, e.g. certs alice 127.0.0.1:4433 web
"""

import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from p2pnet import (
    AgentConfig,
    StreamClosed,
    StreamData,
    agent_core,
    load_credentials,
    reports,
)

certs, name, intermediate, service = sys.argv[1:]
config = AgentConfig(
    ca=Path(certs, "ca.pem"),
    cert=Path(certs, f"{name}.pem"),
    key=Path(certs, f"{name}.key"),
    intermediates=(intermediate,),
)
core = agent_core(config, load_credentials(config), utcnow=lambda: datetime.now(UTC))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
core.connect(time.monotonic())
stream = core.open_stream(service, time.monotonic())
stream.write(b"GET / HTTP/1.0\r\nHost: " + service.encode() + b"\r\n\r\n")

running = True
while running:
    while (event := core.next_event()) is not None:
        if isinstance(event, StreamData):
            sys.stdout.buffer.write(event.data)
            stream.consume(len(event.data))  # only now may the service send as much again
            if event.end:
                stream.write_end()
        elif isinstance(event, StreamClosed):
            running = False
            if event.code:
                print(f"{service}: {event.reason}", file=sys.stderr)
        elif isinstance(event, reports.AddressObserved):
            print(f"this node is seen as {event.address}", file=sys.stderr)
    for data, address in (waiting := core.datagrams_to_send(time.monotonic())):
        udp.sendto(data, address)
    if waiting:
        continue  # sending may have caused events
    udp.settimeout(max(0.001, (core.get_timer() or 0) - time.monotonic()))
    try:
        core.receive_datagram(*udp.recvfrom(65535), now=time.monotonic())
    except TimeoutError:
        core.handle_timer(time.monotonic())

core.close(time.monotonic())
for data, address in core.datagrams_to_send(time.monotonic()):
    udp.sendto(data, address)
