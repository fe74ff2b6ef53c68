"""STUN messages with a short-term credential (RFC 8489): frame, integrity, values of attributes.

::

    +-------------------------------+-------------------------------+
    |  message type, 14 bits        |  bytes of all attributes      |
    +-------------------------------+-------------------------------+
    |  magic cookie 0x2112A442                                      |
    +---------------------------------------------------------------+
    |  transaction id, 96 bits                                      |
    +-------------------------------+-------------------------------+
    |  attribute type               |  bytes of the value           |  for each attribute
    +-------------------------------+-------------------------------+
    |  value, padded to a multiple of four bytes                    |
    +---------------------------------------------------------------+
"""

import binascii
import dataclasses
import hmac
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping

from p2pnet.wire.address import Address, canonical_address
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.demux import MAGIC_COOKIE

FINGERPRINT_XOR = 0x5354554E
_COMPREHENSION_OPTIONAL = 0x8000  # a receiver ignores an unknown attribute type from here on
_HEADER = struct.Struct("!HH4s12s")
_ATTRIBUTE = struct.Struct("!HH")
_FAMILIES = {4: 1, 16: 2}  # bytes of an IP address: number of its family

# Attribute types: RFC 8489 section 18.3, RFC 8445 section 20.1, RFC 5780 section 7.6.
USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A  # part of error 420; p2pnet does not read the value
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
PADDING = 0x0026
FINGERPRINT = 0x8028
ICE_CONTROLLED = 0x8029
ICE_CONTROLLING = 0x802A

LENGTHS = {
    USERNAME: None,
    MESSAGE_INTEGRITY: 20,
    ERROR_CODE: None,
    UNKNOWN_ATTRIBUTES: None,
    XOR_MAPPED_ADDRESS: None,
    PRIORITY: 4,
    USE_CANDIDATE: 0,
    PADDING: None,
    FINGERPRINT: 4,
    ICE_CONTROLLED: 8,
    ICE_CONTROLLING: 8,
}
"""The known attribute types and the bytes of their values, None for a variable length."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A decoded message.

    :ivar type: method and class (RFC 8489 section 5), for example 0x0001 for a binding request.
    :ivar attributes: the first value of each known type up to MESSAGE-INTEGRITY. FINGERPRINT is
        not among them: the decoder checked it.
    :ivar covered: the bytes before MESSAGE-INTEGRITY, empty without that attribute.
    """

    type: int
    transaction_id: bytes
    attributes: Mapping[int, bytes]
    covered: bytes

    def is_authentic(self, password: str) -> bool:
        """Whether a holder of `password` made MESSAGE-INTEGRITY (RFC 8489 section 14.5)."""
        digest = self.attributes.get(MESSAGE_INTEGRITY)
        return digest is not None and hmac.compare_digest(
            digest, _integrity(self.covered, password)
        )

    def unsigned(self, attribute: int) -> int:
        """The number in an attribute of fixed length, 0 without the attribute."""
        return int.from_bytes(self.attributes.get(attribute, b""))

    def username(self) -> str:
        """The text of USERNAME, empty without it. Raises DecodeError unless it is UTF-8."""
        try:
            return self.attributes.get(USERNAME, b"").decode()
        except UnicodeDecodeError:
            raise DecodeError("STUN: USERNAME is not UTF-8") from None

    def error_code(self) -> int:
        """The number of ERROR-CODE, 0 without it. Raises DecodeError unless it is 300 to 699."""
        value = self.attributes.get(ERROR_CODE)
        if value is None:
            return 0
        if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
            raise DecodeError("STUN: ERROR-CODE is not from 300 to 699")
        return 100 * (value[2] & 7) + value[3]  # a receiver ignores the other bits

    def xor_mapped_address(self) -> Address | None:
        """The address in XOR-MAPPED-ADDRESS. Raises DecodeError unless it is IPv4 or IPv6."""
        value = self.attributes.get(XOR_MAPPED_ADDRESS)
        if value is None:
            return None
        if len(value) < 4 or value[1] != _FAMILIES.get(len(value) - 4):
            raise DecodeError("STUN: XOR-MAPPED-ADDRESS is neither IPv4 nor IPv6")
        host = ipaddress.ip_address(_xor(value[4:], self.transaction_id))
        port = int.from_bytes(_xor(value[2:4], self.transaction_id))
        return canonical_address(str(host), port)


def encode_xor_address(address: Address, transaction_id: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (RFC 8489 section 14.2)."""
    host, port = ipaddress.ip_address(address[0]).packed, address[1].to_bytes(2)
    family = bytes((0, _FAMILIES[len(host)]))
    return family + _xor(port, transaction_id) + _xor(host, transaction_id)


def encode_error_code(code: int, reason: str) -> bytes:
    """The value of ERROR-CODE (RFC 8489 section 14.8). `code` is from 300 to 699."""
    return bytes((0, 0, *divmod(code, 100))) + reason.encode()


def encode(
    message_type: int,
    transaction_id: bytes,
    attributes: Iterable[tuple[int, bytes]] = (),
    password: str | None = None,
) -> bytes:
    """A message of `attributes`, in order; a password adds MESSAGE-INTEGRITY and FINGERPRINT."""
    body = b"".join(_attribute(kind, value) for kind, value in attributes)
    message = _HEADER.pack(message_type, len(body), MAGIC_COOKIE, transaction_id) + body
    if password is None:
        return message
    message += _attribute(MESSAGE_INTEGRITY, _integrity(message, password))
    message = _announce(message, 8)
    return message + _fingerprint(message)


def decode(data: bytes) -> Message:
    """The message in `data`. Raises DecodeError for every violation of RFC 8489.

    That includes an unknown attribute with required comprehension. A server should answer such a
    request with error 420 (section 6.3.1); p2pnet sends none, as no peer would act on the error.
    """
    if len(data) < _HEADER.size:
        raise DecodeError("STUN: shorter than a header")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if message_type > 0x3FFF or cookie != MAGIC_COOKIE:
        raise DecodeError("STUN: no magic cookie after a message type")
    if length % 4 or length != len(data) - _HEADER.size:
        raise DecodeError(f"STUN: length {length} in a datagram of {len(data)} bytes")
    attributes: dict[int, bytes] = {}
    covered = b""
    for position, kind, value in _split(data):
        if kind == FINGERPRINT:
            if data[position:] != _fingerprint(data[:position]):
                raise DecodeError("STUN: FINGERPRINT is wrong or not the last attribute")
        elif MESSAGE_INTEGRITY in attributes:
            continue  # RFC 8489 section 14.5: an attribute behind it is not authenticated
        elif kind in LENGTHS:
            if LENGTHS[kind] not in (None, len(value)):
                raise DecodeError(f"STUN: attribute {kind:#06x} has {len(value)} bytes")
            attributes.setdefault(kind, value)
            if kind == MESSAGE_INTEGRITY:
                covered = data[:position]
        elif kind < _COMPREHENSION_OPTIONAL:
            raise DecodeError(f"STUN: unknown attribute {kind:#06x} requires comprehension")
    return Message(message_type, transaction_id, attributes, covered)


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, type and value of each attribute; the length of `data` is a multiple of four."""
    position = _HEADER.size
    while position < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        end = position + _ATTRIBUTE.size + length
        if end > len(data):
            raise DecodeError(f"STUN: attribute {kind:#06x} is cut off")
        yield position, kind, data[position + _ATTRIBUTE.size : end]
        position = end + -length % 4


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _announce(message: bytes, more: int) -> bytes:
    """`message` with a header that counts `more` bytes behind it."""
    return message[:2] + (len(message) - _HEADER.size + more).to_bytes(2) + message[4:]


def _integrity(message: bytes, password: str) -> bytes:
    """The value of MESSAGE-INTEGRITY behind `message`, a header and attributes."""
    return hmac.digest(password.encode(), _announce(message, 24), "sha1")


def _fingerprint(message: bytes) -> bytes:
    """FINGERPRINT behind `message`, whose header counts it already (RFC 8489 section 14.7)."""
    crc = binascii.crc32(message) ^ FINGERPRINT_XOR
    return _attribute(FINGERPRINT, crc.to_bytes(4))


def _xor(data: bytes, transaction_id: bytes) -> bytes:
    """`data` by XOR with as much of the magic cookie and the transaction id."""
    mask = (MAGIC_COOKIE + transaction_id)[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(len(data))
