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

from p2pnet.wire import stun
from p2pnet.wire.address import Address
from p2pnet.wire.codes import DecodeError

MAX_CHECK = 128  # bytes of a request, so that checks are of no use as a weapon
ROLE_CONFLICT = 487
_INDICATION = 0x0011


class CheckKind(enum.IntEnum):
    """The message types of a check: the binding method with a class (RFC 8489 section 5)."""

    REQUEST = 0x0001
    SUCCESS = 0x0101
    ERROR = 0x0111


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
    error_code: int = 0
    message: stun.Message | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def mapped(self) -> Address | None:
        """The XOR-MAPPED-ADDRESS of an answer, None if there is none. Raises DecodeError."""
        return self.message.xor_mapped_address() if self.message is not None else None

    def is_authentic(self, password: str) -> bool:
        """Whether its MESSAGE-INTEGRITY was made with `password` (RFC 8489 section 14.5)."""
        return self.message is not None and self.message.is_authentic(password)


def encode_request(check: Check, password: str, size: int = 0) -> bytes:
    """A binding request. `password` is the receiver's.

    :param size: bytes that it has with padding, a multiple of four and more than MAX_CHECK; 0 for
        none.
    """
    role = stun.ICE_CONTROLLING if check.controlling else stun.ICE_CONTROLLED
    attributes = [
        (stun.USERNAME, check.username.encode()),
        (stun.PRIORITY, check.priority.to_bytes(4)),
        (role, check.tie_breaker.to_bytes(8)),
    ]
    if check.nominates:
        attributes.append((stun.USE_CANDIDATE, b""))
    request = stun.encode(CheckKind.REQUEST, check.transaction_id, attributes, password)
    if size:
        # A foreign peer may answer PADDING with error 420: then nothing is known, as without.
        attributes.insert(0, (stun.PADDING, bytes(size - len(request) - 4)))
        request = stun.encode(CheckKind.REQUEST, check.transaction_id, attributes, password)
    return request


def encode_success(transaction_id: bytes, mapped: Address, password: str) -> bytes:
    """The answer to an authentic request that came from `mapped`. `password` is our own."""
    value = stun.encode_xor_address(mapped, transaction_id)
    attributes = [(stun.XOR_MAPPED_ADDRESS, value)]
    return stun.encode(CheckKind.SUCCESS, transaction_id, attributes, password)


def encode_error(transaction_id: bytes, code: int, reason: str, password: str) -> bytes:
    """The refusal of an authentic request. `password` is our own."""
    attributes = [(stun.ERROR_CODE, stun.encode_error_code(code, reason))]
    return stun.encode(CheckKind.ERROR, transaction_id, attributes, password)


def encode_opener(transaction_id: bytes) -> bytes:
    """A binding indication: whoever it reaches has nothing to answer (RFC 8489 section 3)."""
    return stun.encode(_INDICATION, transaction_id)


def decode_check(data: bytes) -> Check:
    """The message in `data`. Raises DecodeError for anything that is not a binding message."""
    message = stun.decode(data)
    try:
        kind = CheckKind(message.type)
    except ValueError:
        raise DecodeError(f"STUN: type {message.type:#06x} is no check's") from None
    controlling = stun.ICE_CONTROLLING in message.attributes
    role = stun.ICE_CONTROLLING if controlling else stun.ICE_CONTROLLED
    return Check(
        kind,
        message.transaction_id,
        username=message.username(),
        priority=message.unsigned(stun.PRIORITY),
        controlling=controlling,
        tie_breaker=message.unsigned(role),
        nominates=stun.USE_CANDIDATE in message.attributes,
        error_code=message.error_code(),
        message=message,
    )
