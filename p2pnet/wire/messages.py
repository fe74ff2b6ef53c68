"""Messages of the control stream between a node and the Intermediate.

Each travels as a four-byte big-endian length and a MessagePack map whose ``t`` names its type.
Fields that this version does not know are ignored and so are types (a peer of a newer minor
version sends them); a known type with a missing or ill-typed field is a protocol error.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import StreamCutter, add_length
from p2pnet.wire.names import NAME_PATTERN

ALPN = "p2pnet/1"
CONTROL_STREAM = 0  # id of the one stream of a control connection, which the node opens
VERSION = (1, 0)

Name = Annotated[str, Meta(pattern=rf"^{NAME_PATTERN.pattern}\Z")]
Text = Annotated[str, Meta(max_length=512)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Channel = Annotated[bytes, Meta(min_length=8, max_length=8)]
Instance = Annotated[bytes, Meta(min_length=8, max_length=8)]
Code = Annotated[int, Meta(ge=0, le=0xFFFF)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Services = Annotated[tuple[Name, ...], Meta(max_length=256)]


class Message(Struct, frozen=True, tag_field="t"):
    """Base of the messages of the control stream; `t` names the type of each."""


class Hello(Message, frozen=True, tag="hello"):
    """Node to Intermediate, first: the version spoken and a number for this process's life."""

    version: tuple[int, int]
    instance: Instance


class Welcome(Message, frozen=True, tag="welcome"):
    """Intermediate to node, answer to Hello: the version to speak (the lower minor of the two)."""

    version: tuple[int, int]


class ObservedAddress(Message, frozen=True, tag="observed-address"):
    """Intermediate to node: the address its packets come from, again whenever that changes.

    The fields of OBSERVED_ADDRESS in draft-ietf-quic-address-discovery; `sequence` only grows.
    """

    sequence: Annotated[int, Meta(ge=0)]
    host: Annotated[str, Meta(max_length=45)]
    port: Port


class Register(Message, frozen=True, tag="register"):
    """Connector to Intermediate: the services it serves from now on (replaces earlier ones)."""

    services: Services


class Registered(Message, frozen=True, tag="registered"):
    """Intermediate to Connector: these are in the registry now."""

    services: Services


class RegistrationRefused(Message, frozen=True, tag="registration-refused"):
    """Intermediate to Connector: this service is not, and why."""

    service: Name
    code: Code
    reason: Text


class SessionRequest(Message, frozen=True, tag="session-request"):
    """Agent to Intermediate: join me with a connector of `service`.

    `session` is chosen by the Agent, at random. Asking again with the same one (and the
    connector's name) gives a living end-to-end connection a new path through this Intermediate.
    Services whose paths are chosen alike (`policy`, the Agent's own word) share a session.
    """

    request: Annotated[int, Meta(ge=0, le=2**53)]
    session: SessionId
    service: Name
    connector: Name | None = None
    policy: Annotated[str, Meta(max_length=32)] = ""


class SessionOffer(Message, frozen=True, tag="session-offer"):
    """Intermediate to Connector: an agent (its name as authenticated) asks for a session.

    `send_channel` goes into the relay frames that the receiver of this message sends,
    `receive_channel` is in those that it gets.
    """

    session: SessionId
    agent: Name
    instance: Instance
    service: Name
    send_channel: Channel
    receive_channel: Channel
    policy: Annotated[str, Meta(max_length=32)] = ""


class SessionAnswer(Message, frozen=True, tag="session-answer"):
    """Connector to Intermediate: taken (code 0) or refused."""

    session: SessionId
    code: Code = 0
    reason: Text = ""


class SessionOpened(Message, frozen=True, tag="session-opened"):
    """Intermediate to Agent: the session stands. It may be one that this agent already has.

    `peer_rtt` is the round-trip time between Intermediate and Connector in seconds, 0 if unknown.
    """

    request: Annotated[int, Meta(ge=0, le=2**53)]
    session: SessionId
    connector: Name
    instance: Instance
    send_channel: Channel
    receive_channel: Channel
    peer_rtt: Annotated[float, Meta(ge=0, le=60)] = 0.0


class SessionRefused(Message, frozen=True, tag="session-refused"):
    """Intermediate to Agent: no session for that request, and why."""

    request: Annotated[int, Meta(ge=0, le=2**53)]
    code: Code
    reason: Text


class SessionClosed(Message, frozen=True, tag="session-closed"):
    """Either way: this session is no longer relayed here."""

    session: SessionId
    code: Code
    reason: Text


class CandidateInfo(Struct, frozen=True, array_like=True):
    """One candidate: type, host, port, priority and foundation (RFC 8445 section 5.1)."""

    type: Literal["host", "srflx", "prflx", "relay"]
    host: Annotated[str, Meta(max_length=45)]
    port: Port
    priority: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    foundation: Annotated[str, Meta(min_length=1, max_length=32)]


Candidates = Annotated[tuple[CandidateInfo, ...], Meta(max_length=16)]
UsernameFragment = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{4,32}\Z")]
Password = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{22,64}\Z")]


class CandidateOffer(Message, frozen=True, tag="candidate-offer"):
    """Agent to Connector, through the Intermediate: how to reach and how to check me.

    A later offer in the same session asks for another round of checks.
    """

    session: SessionId
    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates


class CandidateAnswer(Message, frozen=True, tag="candidate-answer"):
    """Connector to Agent, through the Intermediate: the same from the other side."""

    session: SessionId
    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates


class CandidateUpdate(Message, frozen=True, tag="candidate-update"):
    """Either end to the other: more candidates (trickle), or other ones after a move."""

    session: SessionId
    candidates: Candidates


class StartPunching(Message, frozen=True, tag="start-punching"):
    """Intermediate to both ends: begin the checks in `delay` ms, so that both begin together."""

    session: SessionId
    delay: Annotated[int, Meta(ge=0, le=10_000)]


class PunchingResult(Message, frozen=True, tag="punching-result"):
    """Either end to the other: whether it has a direct path now, and why not."""

    session: SessionId
    direct: bool
    reason: Text


CandidateMessage = CandidateOffer | CandidateAnswer | CandidateUpdate | PunchingResult
SignalMessage = CandidateMessage | StartPunching


class Draining(Message, frozen=True, tag="draining"):
    """Intermediate to node: no new sessions here; the rest ends within `seconds`."""

    seconds: Annotated[float, Meta(ge=0, le=3600)]


class Goodbye(Message, frozen=True, tag="goodbye"):
    """Either way, last: why the connection is about to be closed."""

    code: Code
    reason: Text


TYPES: dict[str, type[Message]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        Hello, Welcome, ObservedAddress, Register, Registered, RegistrationRefused,
        SessionRequest, SessionOffer, SessionAnswer, SessionOpened, SessionRefused, SessionClosed,
        CandidateOffer, CandidateAnswer, CandidateUpdate, StartPunching, PunchingResult,
        Draining, Goodbye,
    )
}  # fmt: skip


class _Envelope(Struct):
    t: str


_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(_Envelope)
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    tag: msgspec.msgpack.Decoder(kind) for tag, kind in TYPES.items()
}


def encode_message(message: Message) -> bytes:
    """The message with its length before it. Raises ValueError above MAX_MESSAGE bytes."""
    return add_length(_encoder.encode(message))


def decode_message(body: bytes) -> Message | None:
    """The message in `body` (without its length), None for an unknown type. Raises DecodeError."""
    try:
        decoder = _decoders.get(_envelope.decode(body).t)
        message: Message | None = None if decoder is None else decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"control message: {error}") from None
    return message


class MessageBuffer:
    """Cuts the control stream into messages, holding at most one incomplete message."""

    def __init__(self) -> None:
        self._cutter = StreamCutter()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, unknown types left out. Raises DecodeError."""
        decoded = map(decode_message, self._cutter.feed(data))
        return [message for message in decoded if message is not None]
