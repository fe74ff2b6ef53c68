"""Messages of the control stream between a node and the Intermediate.

Each is a four-byte big-endian length and a MessagePack map whose ``t`` names the type. A receiver
ignores unknown fields and types, which a peer of a newer minor version sends; a known type with a
missing or ill-typed field is a protocol error.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from p2pnet.wire.address import MAX_PORT
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import StreamCutter, add_length
from p2pnet.wire.names import NAME_PATTERN
from p2pnet.wire.relay_frame import CHANNEL_LENGTH

ALPN = "p2pnet/1"
MAX_REASON = 512  # characters of a reason; a sender cuts longer ones
CONTROL_STREAM = 0  # id of the one stream of a control connection, which the node opens
VERSION = (1, 0)

Name = Annotated[str, Meta(pattern=rf"^{NAME_PATTERN.pattern}\Z")]
Text = Annotated[str, Meta(max_length=MAX_REASON)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Channel = Annotated[bytes, Meta(min_length=CHANNEL_LENGTH, max_length=CHANNEL_LENGTH)]
Instance = Annotated[bytes, Meta(min_length=8, max_length=8)]
Code = Annotated[int, Meta(ge=0, le=0xFFFF)]
RequestId = Annotated[int, Meta(ge=0, le=2**53)]
PolicyName = Literal["prefer-direct", "lowest-rtt", "relay-only", "direct-only"]
Host = Annotated[str, Meta(max_length=45)]  # the longest IPv6 literal
Port = Annotated[int, Meta(ge=0, le=MAX_PORT)]
Services = Annotated[tuple[Name, ...], Meta(max_length=256)]


class Message(Struct, frozen=True, tag_field="t"):
    """Base of the messages of the control stream."""


class Hello(Message, frozen=True, tag="hello"):
    """Node to Intermediate, the first message of a connection.

    :ivar version: major and minor version that the node speaks.
    :ivar instance: a random number that the node's process keeps for its life.
    """

    version: tuple[int, int]
    instance: Instance


class Welcome(Message, frozen=True, tag="welcome"):
    """Intermediate to node, the answer to Hello.

    :ivar version: the version that both speak from now on, with the lower minor of the two.
    """

    version: tuple[int, int]


class ObservedAddress(Message, frozen=True, tag="observed-address"):
    """Intermediate to node: the source address of the node's packets, sent on each change.

    The fields are those of OBSERVED_ADDRESS in draft-ietf-quic-address-discovery.

    :ivar sequence: grows with each message; a receiver ignores a lower number.
    """

    sequence: Annotated[int, Meta(ge=0)]
    host: Host
    port: Port


class Register(Message, frozen=True, tag="register"):
    """Connector to Intermediate: all services that the connector serves from now on."""

    services: Services


class Registered(Message, frozen=True, tag="registered"):
    """Intermediate to Connector: the registry now lists these services for the connector."""

    services: Services


class RegistrationRefused(Message, frozen=True, tag="registration-refused"):
    """Intermediate to Connector: the registry does not list this service, and why."""

    service: Name
    code: Code
    reason: Text


class SessionRequest(Message, frozen=True, tag="session-request"):
    """Agent to Intermediate: introduce me to a connector of `service`.

    :ivar request: the Agent's number for this request, which the answer repeats.
    :ivar session: a random id. A request that repeats the id of a session, with the connector's
        name, gives that end-to-end connection a new path through this Intermediate.
    :ivar connector: the only connector that will do, None for any that serves the service.
    :ivar policy: name of the path policy; services with the same policy share a session.
    """

    request: RequestId
    session: SessionId
    service: Name
    connector: Name | None = None
    policy: PolicyName = "prefer-direct"


class SessionOffer(Message, frozen=True, tag="session-offer"):
    """Intermediate to Connector: an agent asks for a session.

    :ivar agent: the name that the agent's certificate proved.
    :ivar instance: the instance in the agent's Hello.
    :ivar send_channel: the channel of the relay frames that the connector sends.
    :ivar receive_channel: the channel of the relay frames that the connector receives.
    :ivar policy: name of the agent's path policy.
    """

    session: SessionId
    agent: Name
    instance: Instance
    service: Name
    send_channel: Channel
    receive_channel: Channel
    policy: PolicyName = "prefer-direct"


class SessionAnswer(Message, frozen=True, tag="session-answer"):
    """Connector to Intermediate: the connector accepts (code 0) or refuses an offered session."""

    session: SessionId
    code: Code = 0
    reason: Text = ""


class SessionOpened(Message, frozen=True, tag="session-opened"):
    """Intermediate to Agent: the connector accepted the session.

    :ivar session: the id of the session, which may be one that the agent already has.
    :ivar instance: the instance in the connector's Hello.
    :ivar send_channel: the channel of the relay frames that the agent sends.
    :ivar receive_channel: the channel of the relay frames that the agent receives.
    :ivar peer_rtt: seconds of a round trip between Intermediate and Connector, 0 if unknown.
    """

    request: RequestId
    session: SessionId
    connector: Name
    instance: Instance
    send_channel: Channel
    receive_channel: Channel
    peer_rtt: Annotated[float, Meta(ge=0, le=60)] = 0.0


class SessionRefused(Message, frozen=True, tag="session-refused"):
    """Intermediate to Agent: the request gets no session, and why."""

    request: RequestId
    code: Code
    reason: Text


class SessionClosed(Message, frozen=True, tag="session-closed"):
    """Either way: the sender ended the session, and the Intermediate relays it no longer."""

    session: SessionId
    code: Code
    reason: Text


class CandidateInfo(Struct, frozen=True, array_like=True):
    """One candidate address of a node (RFC 8445 section 5.1)."""

    type: Literal["host", "srflx", "prflx", "relay"]
    host: Host
    port: Port
    priority: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    foundation: Annotated[str, Meta(min_length=1, max_length=32)]


Candidates = Annotated[tuple[CandidateInfo, ...], Meta(max_length=16)]
UsernameFragment = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{4,32}\Z")]
Password = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{22,64}\Z")]


class CandidateOffer(Message, frozen=True, tag="candidate-offer"):
    """Agent to Connector, through the Intermediate: the agent's candidates and check credentials.

    A later offer in the same session asks for another round of checks (RFC 8445 section 9).
    """

    session: SessionId
    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates


class CandidateAnswer(Message, frozen=True, tag="candidate-answer"):
    """Connector to Agent, through the Intermediate, in answer to an offer.

    It carries the connector's candidates and check credentials.
    """

    session: SessionId
    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates


class CandidateUpdate(Message, frozen=True, tag="candidate-update"):
    """Either end to the other: further candidates (RFC 8838), or new ones after a move."""

    session: SessionId
    candidates: Candidates


class StartPunching(Message, frozen=True, tag="start-punching"):
    """Intermediate to both ends: begin the checks.

    :ivar delay: milliseconds to wait first, so that both ends begin at the same time.
    """

    session: SessionId
    delay: Annotated[int, Meta(ge=0, le=10_000)]


class PunchingResult(Message, frozen=True, tag="punching-result"):
    """Either end to the other: whether the sender has a direct path now, and if not, why."""

    session: SessionId
    direct: bool
    reason: Text


CandidateMessage = CandidateOffer | CandidateAnswer | CandidateUpdate | PunchingResult
SignalMessage = CandidateMessage | StartPunching


class Draining(Message, frozen=True, tag="draining"):
    """Intermediate to node: no new sessions; the Intermediate ends all others in `seconds`."""

    seconds: Annotated[float, Meta(ge=0, le=3600)]


class Goodbye(Message, frozen=True, tag="goodbye"):
    """Either way, the last message: why the sender closes the connection."""

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
