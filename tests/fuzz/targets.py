"""What is fuzzed: a table of names, each with code that takes bytes and the errors it documents."""

import contextlib
import datetime
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509

from p2pnet import pki
from p2pnet.config.loading import load_config
from p2pnet.config.roles import AgentConfig, ConnectorConfig, IntermediateConfig, RoleConfig
from p2pnet.config.setting import ConfigError
from p2pnet.identity import (
    Credentials,
    CredentialsError,
    Identity,
    IdentityError,
    Role,
    load_pair,
    verify_peer,
)
from p2pnet.quic import packet
from p2pnet.quic.fast import frames
from p2pnet.quic.profile import FAST, STOCK
from p2pnet.wire import check, messages, path_messages, stream, stun, varint
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.demux import classify
from p2pnet.wire.encoding import MessageBuffer
from p2pnet.wire.relay_frame import decode_relay_frame
from p2pnet.wire.text import MAX_TEXT, printable
from p2pnet.wire.worker_messages import WorkerMessageBuffer, decode_worker_message
from tests.fuzz.engine import Target
from tests.fuzz.nodes import attacked_by_members, attacked_by_the_intermediate, pieces
from tests.hostile.test_frames import Attacker

THEN = datetime.datetime(2001, 2, 3, tzinfo=datetime.UTC)  # the corpus has certificates of this day


def buffered(make: Callable[[], Any]) -> Callable[[bytes], None]:
    """Takes a stream in pieces, whose size the first byte tells, and as a whole: all the same."""

    def taken(parts: list[bytes]) -> str | None:
        buffer = make()
        try:
            return repr([message for part in parts for message in buffer.feed(part)])
        except DecodeError:
            return None

    def run(data: bytes) -> None:
        size, data = 1 + int.from_bytes(data[:1]), data[1:]
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        assert taken(parts) == taken([data]), "in pieces a stream has other messages"

    return run


class Capsules(bytearray):
    """The datagrams on a stream, taken as from the buffers of messages."""

    def feed(self, data: bytes) -> list[bytes]:
        """The datagrams that `data` completes."""
        self += data
        return stream.decode_capsules(self)


def run_check(data: bytes) -> None:
    """Decode a check, and read all of it."""
    decoded = check.decode_check(data)
    decoded.is_authentic("p" * 24)
    str(decoded.mapped)


def run_sealed_check(data: bytes) -> None:
    """Give an input without length, cookie and FINGERPRINT those that are right, and decode it."""
    kind, transaction_id, body = int.from_bytes(data[:2]) & 0x3FFF, data[2:3] * 12, data[3:]
    header = stun.encode(kind, transaction_id.ljust(12), [])
    sealed = stun._announce(header + body + bytes(-len(body) % 4), 8)
    run_check(sealed + stun._fingerprint(sealed))


def run_varint(data: bytes) -> None:
    """Decode an integer, and encode it again."""
    value, end = varint.decode_varint(data)
    assert end <= len(data) and varint.decode_varint(varint.encode_varint(value))[0] == value


def run_packet_header(data: bytes) -> None:
    """Read the header of a datagram, and of a large one that begins alike."""
    for datagram in filter(None, (data, data.ljust(packet.SMALLEST_INITIAL, b"\0"))):
        classify(datagram)
        packet.destination_connection_id(datagram)
        packet.parse_initial(datagram)
        packet.version_negotiation(datagram)


def run_frame(data: bytes) -> None:
    """Parse each kind of frame at the first byte; each frame found lies within the data."""
    if data:
        found, span = frames.read_stream(data, 0), frames.read_datagram(data, 0)
        ack = frames.read_ack(data, 0)
        assert found is None or found[2] <= found[3] <= len(data)
        assert span is None or span[0] <= span[1] <= len(data)
        assert ack is None or (ack.end <= len(data) and all(ack.ranges))


def run_packets(data: bytes) -> None:
    """Packets of an authenticated peer, whose frames the input tells, for either engine."""
    attacker = Attacker((FAST, STOCK)[int.from_bytes(data[:1]) % 2])
    for plain in pieces(data[1:]):
        attacker.send(plain)
    attacker.pair.run(5.0)
    assert not attacker.pair.server.mux.failures, "the multiplexer caught an exception"


@functools.cache
def our_credentials() -> Credentials:
    """Those of an agent."""
    authority, key = pki.create_authority("example", now=THEN)
    certificate, private = pki.issue(authority, key, Role.AGENT, "alice", now=THEN)
    identity = Identity.from_certificate(certificate)
    return Credentials(identity, certificate, (), private, authority, b"")


def run_certificate(data: bytes) -> None:
    """Judge a certificate, which aioquic parses, as a peer's and as that of a CA above it."""
    try:
        certificate = x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion):
        return
    ours = our_credentials()
    for leaf in certificate, ours.certificate:
        with contextlib.suppress(IdentityError):
            verify_peer(leaf, [certificate], ours=ours, roles=list(Role), now=THEN)


def run_printable(data: bytes) -> None:
    """Make any text printable, once."""
    text = printable(data.decode(errors="surrogateescape"))
    assert text.isascii() and text.isprintable() and len(text) <= MAX_TEXT
    assert printable(text) == text


def in_file(run: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Takes the input as a file of the user."""

    def run_file(data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            run(Path(file.name))

    return run_file


def configuration(kind: type[RoleConfig]) -> Target:
    """The file of a role."""
    return Target(in_file(lambda path: load_config(kind, path, {})), (ConfigError,))


DECODERS: dict[str, Callable[[bytes], object]] = {
    "control-message": messages.decode_message,
    "control-stream": buffered(lambda: MessageBuffer(messages.decode_message)),
    "path-message": path_messages.decode_path_message,
    "paths-stream": buffered(path_messages.PathsBuffer),
    "worker-message": decode_worker_message,
    "worker-stream": buffered(WorkerMessageBuffer),
    "check": run_check,
    "sealed-check": run_sealed_check,
    "relay-frame": decode_relay_frame,
    "stream-header": stream.decode_stream_header,
    "flow-datagram": stream.decode_flow_datagram,
    "capsules": buffered(Capsules),
    "varint": run_varint,
}
TARGETS = {
    **{name: Target(decode, (DecodeError,)) for name, decode in DECODERS.items()},
    "packet-header": Target(run_packet_header),
    "frame": Target(run_frame),
    "packets": Target(run_packets, share=4.0),
    "certificate": Target(run_certificate),
    "key-file": Target(in_file(lambda path: load_pair(path, path)), (CredentialsError,)),
    "printable": Target(run_printable),
    "agent-config": configuration(AgentConfig),
    "connector-config": configuration(ConnectorConfig),
    "intermediate-config": configuration(IntermediateConfig),
    "bad-members": Target(attacked_by_members, share=8.0),
    "bad-intermediate": Target(attacked_by_the_intermediate, share=4.0),
}
