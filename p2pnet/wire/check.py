"""Connectivity checks: STUN binding requests and their answers (RFC 8489, RFC 8445 section 7).

The attributes in use, all of them standard, at most 128 bytes together without PADDING::

    request   USERNAME "<receiver's ufrag>:<sender's ufrag>", PRIORITY,
              ICE-CONTROLLING or ICE-CONTROLLED with the tie-breaker, USE-CANDIDATE to nominate,
              PADDING (RFC 5780 section 7.6) to see whether a datagram of that size gets through
    success   XOR-MAPPED-ADDRESS, where the request came from
    error     ERROR-CODE 487 for a role conflict (RFC 8445 section 7.3.1.1)
    opener    an indication without attributes; it is not meant to arrive
    others    MESSAGE-INTEGRITY with the receiver's password (its own in an answer), FINGERPRINT
"""

import dataclasses
import enum
import struct

from aioice import stun

from p2pnet.wire.address import Address, canonical_address
from p2pnet.wire.codes import DecodeError

MAX_CHECK = 128  # bytes of a request, so that checks are of no use as a weapon
PADDING = 0x0026  # a foreign peer may answer it with error 420: then nothing is known, as without
ROLE_CONFLICT = 487


class CheckKind(enum.Enum):
    """Which of the three messages it is."""

    REQUEST = enum.auto()
    SUCCESS = enum.auto()
    ERROR = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A decoded message. Believe nothing in it before is_authentic() said so."""

    kind: CheckKind
    transaction_id: bytes
    username: str = ""
    priority: int = 0
    controlling: bool = False
    tie_breaker: int = 0
    nominates: bool = False
    mapped: Address | None = None
    error_code: int = 0
    message: stun.Message | None = dataclasses.field(default=None, repr=False, compare=False)

    def is_authentic(self, password: str) -> bool:
        """Whether its MESSAGE-INTEGRITY was made with `password` (RFC 8489 section 14.5)."""
        return self.message is not None and self.message.check_message_integrity(password.encode())


class _Message(stun.Message):
    """With an attribute that aioice does not know: before the others, and so authenticated."""

    padding = b""

    def __bytes__(self) -> bytes:
        data = super().__bytes__()
        body = self.padding + data[stun.HEADER_LENGTH :]
        return stun.set_body_length(data[: stun.HEADER_LENGTH], len(body)) + body

    def pad(self, size: int) -> None:
        """Have it `size` bytes when it is complete."""
        trailer = stun.INTEGRITY_LENGTH + stun.FINGERPRINT_LENGTH
        room = size - len(bytes(self)) - trailer - 4
        self.padding = struct.pack("!HH", PADDING, room) + bytes(room)


def encode_request(check: Check, password: str, size: int = 0) -> bytes:
    """A binding request. `password` is the receiver's.

    :param size: bytes that it has with padding, a multiple of four and more than MAX_CHECK; 0 for
        none.
    """
    role = "ICE-CONTROLLING" if check.controlling else "ICE-CONTROLLED"
    attributes: dict[str, object] = {
        "USERNAME": check.username,
        "PRIORITY": check.priority,
        role: check.tie_breaker,
    }
    if check.nominates:
        attributes["USE-CANDIDATE"] = None
    return _encode(stun.Class.REQUEST, check.transaction_id, attributes, password, size)


def encode_success(transaction_id: bytes, mapped: Address, password: str) -> bytes:
    """The answer to an authentic request that came from `mapped`. `password` is our own."""
    attributes: dict[str, object] = {"XOR-MAPPED-ADDRESS": mapped}
    return _encode(stun.Class.RESPONSE, transaction_id, attributes, password)


def encode_error(transaction_id: bytes, code: int, reason: str, password: str) -> bytes:
    """The refusal of an authentic request. `password` is our own."""
    return _encode(stun.Class.ERROR, transaction_id, {"ERROR-CODE": (code, reason)}, password)


def encode_opener(transaction_id: bytes) -> bytes:
    """A binding indication: whoever it reaches has nothing to answer (RFC 8489 section 3)."""
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION, transaction_id))


def _encode(
    kind: stun.Class,
    transaction_id: bytes,
    attributes: dict[str, object],
    password: str,
    size: int = 0,
) -> bytes:
    message = _Message(stun.Method.BINDING, kind, transaction_id, attributes)
    if size:
        message.pad(size)
    message.add_message_integrity(password.encode())
    return bytes(message)


_KINDS = {
    stun.Class.REQUEST: CheckKind.REQUEST,
    stun.Class.RESPONSE: CheckKind.SUCCESS,
    stun.Class.ERROR: CheckKind.ERROR,
}


def decode_check(data: bytes) -> Check:
    """The message in `data`. Raises DecodeError for anything that is not a binding message."""
    try:
        message = stun.parse_message(data)
        kind = _KINDS.get(message.message_class)
        if message.message_method != stun.Method.BINDING or kind is None:
            raise DecodeError("not a binding request or its answer")
        attributes = message.attributes
        controlling = "ICE-CONTROLLING" in attributes
        role = "ICE-CONTROLLING" if controlling else "ICE-CONTROLLED"
        mapped = attributes.get("XOR-MAPPED-ADDRESS")
        return Check(
            kind,
            message.transaction_id,
            username=attributes.get("USERNAME", ""),
            priority=attributes.get("PRIORITY", 0),
            controlling=controlling,
            tie_breaker=attributes.get(role, 0),
            nominates="USE-CANDIDATE" in attributes,
            mapped=canonical_address(*mapped) if mapped is not None else None,
            error_code=message.error_code or 0,
            message=message,
        )
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise DecodeError(f"STUN message: {error}") from None
