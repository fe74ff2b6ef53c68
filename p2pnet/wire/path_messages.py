"""Messages about the paths of a session, between Agent and Connector.

They travel on a stream of the end-to-end connection, so that no Intermediate sees or forges them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from p2pnet.wire.encoding import Message, MessageBuffer, by_tag, decoder_of
from p2pnet.wire.messages import Host, PolicyName, Port, Text

PATHS_STREAM = 0  # id of the stream of these messages, the first that the Agent opens
MAX_PATH_MESSAGE = 4096  # bytes; an offer with 16 candidates has half of that


class PathMessage(Message, frozen=True):
    """Base of the messages about paths."""


UsernameFragment = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{4,32}\Z")]
Password = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{22,64}\Z")]


class CandidateInfo(Struct, frozen=True, array_like=True):
    """One candidate address of a node (RFC 8445 section 5.1)."""

    type: Literal["host", "srflx", "prflx", "relay"]
    host: Host
    port: Port
    priority: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    foundation: Annotated[str, Meta(min_length=1, max_length=32)]


Candidates = Annotated[tuple[CandidateInfo, ...], Meta(max_length=16)]


class CandidateOffer(PathMessage, frozen=True, tag="candidate-offer"):
    """Agent to Connector: the agent's candidates and check credentials.

    A later offer in the same session asks for another round of checks (RFC 8445 section 9).

    :ivar policy: name of the agent's path policy, which the connector follows.
    """

    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates
    policy: PolicyName


class CandidateAnswer(PathMessage, frozen=True, tag="candidate-answer"):
    """Connector to Agent, in answer to an offer: the connector's candidates and credentials."""

    username_fragment: UsernameFragment
    password: Password
    candidates: Candidates


class CandidateUpdate(PathMessage, frozen=True, tag="candidate-update"):
    """Either end to the other: further candidates (RFC 8838), or new ones after a move."""

    candidates: Candidates


class StartPunching(PathMessage, frozen=True, tag="start-punching"):
    """Connector to Agent, after an answer: begin the checks.

    :ivar delay: milliseconds to wait first, so that both ends begin at the same time.
    """

    delay: Annotated[int, Meta(ge=0, le=10_000)]


class PunchingResult(PathMessage, frozen=True, tag="punching-result"):
    """Either end to the other: whether the sender has a direct path now, and if not, why."""

    direct: bool
    reason: Text


TYPES = by_tag((CandidateOffer, CandidateAnswer, CandidateUpdate, StartPunching, PunchingResult))
decode_path_message = decoder_of(TYPES)


class PathsBuffer(MessageBuffer[PathMessage]):
    """Cuts the paths stream into messages, holding at most one incomplete message."""

    def __init__(self) -> None:
        super().__init__(decode_path_message, MAX_PATH_MESSAGE)
