"""A QUIC server that takes nodes in like an Intermediate, of aioquic as it comes and Twisted's UDP.

::

    python -m bench.stock_server CERTS NAME       prints "ready" and its port

For bench/handshakes.py. After each datagram whatever is due is sent, and each connection has a
timer of its own, as in aioquic's own asyncio code. aioquic's server does not ask for client
certificates, but has a switch for its tests, which is used here; the chain is then checked as its
client does.
"""

import sys
from pathlib import Path
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import DatagramProtocol

from p2pnet.wire import messages
from p2pnet.wire.encoding import encode_message

reactor: Any = _reactor
CONNECTION_ID = 8  # bytes
WELCOME = encode_message(messages.Welcome(messages.VERSION))


class Connection(QuicConnection):
    """Asks for the client's certificate."""

    timer: Any = None

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = True


class Server(DatagramProtocol):
    """Takes connections, and answers a greeting."""

    transport: Any

    def __init__(self, configuration: QuicConfiguration, ca: bytes) -> None:
        self._configuration = configuration
        self._ca = ca
        self._connections: dict[bytes, Connection] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Find the connection, or make it."""
        header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID)
        connection = self._connections.get(header.destination_cid)
        if connection is None:
            if header.packet_type is not QuicPacketType.INITIAL:
                return
            connection = Connection(
                configuration=self._configuration,
                original_destination_connection_id=header.destination_cid,
            )
            self._connections[header.destination_cid] = connection
            self._connections[connection.host_cid] = connection
        connection.receive_datagram(datagram, addr, now=reactor.seconds())
        self._flush(connection)

    def _expire(self, connection: Connection) -> None:
        connection.timer = None
        connection.handle_timer(now=max(reactor.seconds(), connection.get_timer() or 0.0))
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        while (event := connection.next_event()) is not None:
            self._handle(connection, event)
        for datagram, address in connection.datagrams_to_send(now=reactor.seconds()):
            self.transport.write(datagram, address)
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        when = connection.get_timer()
        if when is not None:
            delay = max(0.0, when - reactor.seconds())
            connection.timer = reactor.callLater(delay, self._expire, connection)

    def _handle(self, connection: Connection, event: events.QuicEvent) -> None:
        match event:
            case events.HandshakeCompleted():
                context = connection.tls
                assert context._peer_certificate is not None
                tls.verify_certificate(
                    context._peer_certificate, context._peer_certificate_chain, cadata=self._ca
                )
            case events.StreamDataReceived():
                connection.send_stream_data(event.stream_id, WELCOME)
            case events.ConnectionIdIssued():
                self._connections[event.connection_id] = connection
            case events.ConnectionIdRetired():
                self._connections.pop(event.connection_id, None)


def main() -> None:
    """Listen on loopback."""
    certs, name = Path(sys.argv[1]), sys.argv[2]
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=[messages.ALPN], connection_id_length=CONNECTION_ID
    )
    configuration.load_cert_chain(certs / f"{name}.pem", certs / f"{name}.key")
    server = Server(configuration, (certs / "ca.pem").read_bytes())
    port = reactor.listenUDP(0, server, interface="127.0.0.1")
    print("ready", port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
