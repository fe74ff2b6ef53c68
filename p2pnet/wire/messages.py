"""Messages of the control stream between a node and the Intermediate."""

from typing import Annotated, Literal

from msgspec import Meta

from p2pnet.wire.address import MAX_PORT
from p2pnet.wire.encoding import Message, by_tag, decoder_of
from p2pnet.wire.names import NAME_PATTERN
from p2pnet.wire.relay_frame import CHANNEL_LENGTH

ALPN = "p2pnet/2"
MAX_REASON = 512  # characters of a reason that a receiver takes; it keeps MAX_TEXT of them
MAX_TRIED = 8  # names of connectors in a request
CONTROL_STREAM = 0  # id of the one stream of a control connection, which the node opens
VERSION = (2, 0)

Name = Annotated[str, Meta(pattern=rf"^{NAME_PATTERN.pattern}\Z")]
Text = Annotated[str, Meta(max_length=MAX_REASON)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Channel = Annotated[bytes, Meta(min_length=CHANNEL_LENGTH, max_length=CHANNEL_LENGTH)]
Instance = Annotated[bytes, Meta(min_length=8, max_length=8)]
Code = Annotated[int, Meta(ge=0, le=0xFFFF)]
RequestId = Annotated[int, Meta(ge=0, le=2**53)]
PolicyName = Literal["prefer-direct", "lowest-rtt", "relay-only", "direct-only"]
# An IP literal, of at most 45 characters. Receivers check that; nothing else can be in a report.
Host = Annotated[str, Meta(pattern=r"^[!-~]{1,45}\Z")]
Port = Annotated[int, Meta(ge=0, le=MAX_PORT)]
Services = Annotated[tuple[Name, ...], Meta(max_length=256)]
Tried = Annotated[tuple[Name, ...], Meta(max_length=MAX_TRIED)]


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
    :ivar tried: connectors that do not answer the Agent; others are better.
    """

    request: RequestId
    session: SessionId
    service: Name
    connector: Name | None = None
    policy: PolicyName = "prefer-direct"
    tried: Tried = ()


class SessionOffer(Message, frozen=True, tag="session-offer"):
    """Intermediate to Connector: an agent asks for a session.

    :ivar agent: the name that the agent's certificate proved.
    :ivar instance: the instance in the agent's Hello.
    :ivar send_channel: the channel of the relay frames that the connector sends.
    :ivar receive_channel: the channel of the relay frames that the connector receives.
    """

    session: SessionId
    agent: Name
    instance: Instance
    service: Name
    send_channel: Channel
    receive_channel: Channel


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


class Draining(Message, frozen=True, tag="draining"):
    """Intermediate to node: no new sessions; the Intermediate ends all others in `seconds`."""

    seconds: Annotated[float, Meta(ge=0, le=3600)]


class Goodbye(Message, frozen=True, tag="goodbye"):
    """Either way, the last message: why the sender closes the connection."""

    code: Code
    reason: Text


TYPES = by_tag(
    (
        Hello, Welcome, ObservedAddress, Register, Registered, RegistrationRefused,
        SessionRequest, SessionOffer, SessionAnswer, SessionOpened, SessionRefused, SessionClosed,
        Draining, Goodbye,
    )
)  # fmt: skip
decode_message = decoder_of(TYPES)
