"""The STUN codec: RFC 5769's vectors, malformed messages, and aioice as an independent codec."""

import aioice.stun
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import stun
from p2pnet.wire.address import canonical_address
from p2pnet.wire.codes import DecodeError
from tests.wire.stun_vectors import (
    PASSWORD,
    SAMPLE_IPV4_RESPONSE,
    SAMPLE_IPV6_RESPONSE,
    SAMPLE_REQUEST,
    SAMPLES,
    TRANSACTION,
    announce,
    authenticated,
    build,
    fingerprinted,
    seal,
)

REQUEST, INDICATION, SUCCESS, ERROR = 0x0001, 0x0011, 0x0101, 0x0111

types = st.sampled_from([REQUEST, INDICATION, SUCCESS, ERROR])
transactions = st.binary(min_size=12, max_size=12)
# Without the zero byte: HMAC pads short keys with it.
passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=64)
addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
error_codes = st.tuples(st.integers(300, 699), st.text(st.characters(codec="utf-8")))
# Values as aioice has them: each kind at most once, in any order.
named_values = st.fixed_dictionaries(
    {},
    optional={
        "USERNAME": st.text(st.characters(codec="utf-8")),
        "PRIORITY": st.integers(0, 2**32 - 1),
        "ICE-CONTROLLED": st.integers(0, 2**64 - 1),
        "ICE-CONTROLLING": st.integers(0, 2**64 - 1),
        "USE-CANDIDATE": st.none(),
        "XOR-MAPPED-ADDRESS": addresses,
        "ERROR-CODE": error_codes,
    },
).flatmap(lambda values: st.permutations(list(values.items())).map(dict))


def written(name: str, value: object, transaction_id: bytes) -> tuple[int, bytes]:
    """An attribute as our encoder wants it."""
    kind = getattr(stun, name.replace("-", "_"))
    match kind, value:
        case stun.XOR_MAPPED_ADDRESS, (str(host), int(port)):
            return kind, stun.encode_xor_address((host, port), transaction_id)
        case stun.ERROR_CODE, (int(code), str(reason)):
            return kind, stun.encode_error_code(code, reason)
        case _, str():
            return kind, value.encode()
        case _, int():
            return kind, value.to_bytes(4 if kind == stun.PRIORITY else 8)
    return kind, b""


def read(message: stun.Message) -> dict[str, object]:
    """All that our decoder reads, absent attributes included."""
    return {
        "USERNAME": message.username(),
        "PRIORITY": message.unsigned(stun.PRIORITY),
        "ICE-CONTROLLED": message.unsigned(stun.ICE_CONTROLLED),
        "ICE-CONTROLLING": message.unsigned(stun.ICE_CONTROLLING),
        "USE-CANDIDATE": stun.USE_CANDIDATE in message.attributes,
        "XOR-MAPPED-ADDRESS": message.xor_mapped_address(),
        "ERROR-CODE": message.error_code(),
    }


def read_by_aioice(message: aioice.stun.Message) -> dict[str, object]:
    """The same of aioice's decoder; it leaves IPv6-mapped IPv4 as it is."""
    found = message.attributes
    address = found.get("XOR-MAPPED-ADDRESS")
    if address is not None:
        address = canonical_address(*address)
    return {
        "USERNAME": found.get("USERNAME", ""),
        "PRIORITY": found.get("PRIORITY", 0),
        "ICE-CONTROLLED": found.get("ICE-CONTROLLED", 0),
        "ICE-CONTROLLING": found.get("ICE-CONTROLLING", 0),
        "USE-CANDIDATE": "USE-CANDIDATE" in found,
        "XOR-MAPPED-ADDRESS": address,
        "ERROR-CODE": found.get("ERROR-CODE", (0, ""))[0],
    }


def flipped(data: bytes, bit: int) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def is_believed(data: bytes, password: str = PASSWORD) -> bool:
    """Whether it decodes, all values included, and is authentic."""
    try:
        message = stun.decode(data)
        read(message)
    except DecodeError:
        return False
    return message.is_authentic(password)


class VectorTests(SynchronousTestCase):
    """RFC 5769 sections 2.1 to 2.3."""

    def test_the_sample_request(self) -> None:
        """Its SOFTWARE is unknown and optional, its padding not zero."""
        message = stun.decode(SAMPLE_REQUEST)
        self.assertEqual((REQUEST, TRANSACTION), (message.type, message.transaction_id))
        self.assertEqual("evtj:h6vY", message.username())
        self.assertEqual(0x6E0001FF, message.unsigned(stun.PRIORITY))
        self.assertEqual(0x932FF9B151263B36, message.unsigned(stun.ICE_CONTROLLED))
        self.assertTrue(message.is_authentic(PASSWORD))

    def test_the_sample_responses(self) -> None:
        """One address of each family."""
        for data, host in (
            (SAMPLE_IPV4_RESPONSE, "192.0.2.1"),
            (SAMPLE_IPV6_RESPONSE, "2001:db8:1234:5678:11:2233:4455:6677"),
        ):
            message = stun.decode(data)
            self.assertEqual((SUCCESS, TRANSACTION), (message.type, message.transaction_id))
            self.assertEqual((host, 32853), message.xor_mapped_address())
            self.assertTrue(message.is_authentic(PASSWORD))
            written_again = stun.encode_xor_address((host, 32853), TRANSACTION)
            self.assertEqual(message.attributes[stun.XOR_MAPPED_ADDRESS], written_again)

    def test_no_bit_of_a_sample_can_change_without_notice(self) -> None:
        """A change of FINGERPRINT's type alone leaves all that was authenticated as it was."""
        for sample in SAMPLES:
            self.assertTrue(is_believed(sample))
            for bit in range(8 * len(sample)):
                changed = flipped(sample, bit)
                if is_believed(changed):
                    self.assertEqual(sample[:-8] + sample[-6:], changed[:-8] + changed[-6:])
                    self.assertEqual(read(stun.decode(sample)), read(stun.decode(changed)))


class PropertyTests(SynchronousTestCase):
    """Generated messages, and aioice on the other side."""

    @given(types, transactions, named_values, passwords)
    def test_both_encoders_write_the_same_bytes(
        self, kind: int, transaction_id: bytes, values: dict[str, object], password: str
    ) -> None:
        """With and without integrity, and each decoder reads them alike."""
        theirs = aioice.stun.Message(
            aioice.stun.Method.BINDING, aioice.stun.Class(kind - 1), transaction_id, dict(values)
        )
        attributes = [written(name, value, transaction_id) for name, value in values.items()]
        self.assertEqual(bytes(theirs), stun.encode(kind, transaction_id, attributes))
        theirs.add_message_integrity(password.encode())
        data = stun.encode(kind, transaction_id, attributes, password)
        self.assertEqual(bytes(theirs), data)
        ours, parsed = stun.decode(data), aioice.stun.parse_message(data)
        self.assertEqual(read_by_aioice(parsed), read(ours))
        self.assertEqual((kind, transaction_id), (ours.type, ours.transaction_id))
        self.assertTrue(parsed.check_message_integrity(password.encode()))

    @given(types, named_values, passwords, passwords)
    def test_a_message_comes_back(
        self, kind: int, values: dict[str, object], password: str, other: str
    ) -> None:
        """Its attributes, authentic by the one password only."""
        attributes = [written(name, value, TRANSACTION) for name, value in values.items()]
        message = stun.decode(stun.encode(kind, TRANSACTION, attributes, password))
        self.assertEqual((kind, TRANSACTION), (message.type, message.transaction_id))
        self.assertEqual(attributes, list(message.attributes.items())[:-1])
        self.assertTrue(message.is_authentic(password))
        self.assertEqual(password == other, message.is_authentic(other))

    @given(types, named_values, st.data())
    def test_integrity_alone_notices_a_flipped_bit(
        self, kind: int, values: dict[str, object], data: st.DataObject
    ) -> None:
        """Without FINGERPRINT, and in the attribute itself too."""
        attributes = [written(name, value, TRANSACTION) for name, value in values.items()]
        plain = stun.encode(kind, TRANSACTION, attributes)
        message = authenticated(plain, PASSWORD)
        self.assertTrue(is_believed(message))
        bit = data.draw(st.integers(0, 8 * len(message) - 1))
        self.assertFalse(is_believed(flipped(message, bit)))

    @given(st.binary(max_size=200))
    def test_any_bytes_decode_or_raise_decode_error(self, data: bytes) -> None:
        """As a datagram, and as the attributes of a message."""
        self.assertFalse(is_believed(data))
        self.assertFalse(is_believed(announce(build(REQUEST, []) + data, 0)))

    @given(
        types,
        st.lists(
            st.tuples(
                st.sampled_from([*stun.LENGTHS]) | st.integers(0, 0xFFFF), st.binary(max_size=24)
            ),
            max_size=6,
        ),
    )
    def test_any_attributes_decode_or_raise_decode_error(
        self, kind: int, attributes: list[tuple[int, bytes]]
    ) -> None:
        """A message whose frame is right; it is authentic whenever it decodes."""
        message = build(kind, attributes)
        is_believed(message)
        is_believed(seal(message, PASSWORD))


class StrictnessTests(SynchronousTestCase):
    """What the decoder refuses and what it ignores."""

    def assert_refused(self, *messages: bytes) -> None:
        """DecodeError, by the decoder or by the reading of a value."""
        for data in messages:
            with self.assertRaises(DecodeError, msg=data.hex()):
                read(stun.decode(data))

    def test_a_wrong_header_is_refused(self) -> None:
        """Too short, not STUN, of another length than the datagram, or no multiple of four."""
        header = build(REQUEST, [])
        read(stun.decode(header))
        self.assert_refused(
            b"", header[:19], b"\x40" + header[1:], b"\x80" + header[1:], flipped(header, 8 * 4),
            announce(header, 4), header + bytes(4), announce(header + b"\x80\0", 0),
        )  # fmt: skip

    def test_a_cut_off_attribute_is_refused(self) -> None:
        """Its value, or no more than its padding, is not in the message."""
        padded = build(REQUEST, [(stun.USERNAME, b"12345")])
        self.assert_refused(
            announce(padded[:-3], 0), announce(padded[:-4], 0), announce(padded[:-8], 0)
        )

    def test_a_value_of_a_wrong_length_is_refused(self) -> None:
        """Each attribute with a fixed length has that one only."""
        for kind, right in (
            (stun.PRIORITY, 4), (stun.USE_CANDIDATE, 0), (stun.ICE_CONTROLLED, 8),
            (stun.ICE_CONTROLLING, 8), (stun.MESSAGE_INTEGRITY, 20),
        ):  # fmt: skip
            for length in range(40):
                data = build(REQUEST, [(kind, bytes(length))])
                if length == right:
                    self.assertIn(kind, stun.decode(data).attributes)
                else:
                    self.assert_refused(data)

    def test_an_ill_formed_value_is_refused(self) -> None:
        """Codes, addresses and texts."""
        for kind, value in (
            (stun.ERROR_CODE, "000004"), (stun.ERROR_CODE, "00000200"),
            (stun.ERROR_CODE, "00000700"), (stun.ERROR_CODE, "00000464"),
            (stun.XOR_MAPPED_ADDRESS, ""), (stun.XOR_MAPPED_ADDRESS, "00"),
            (stun.XOR_MAPPED_ADDRESS, "00010000"),
            (stun.XOR_MAPPED_ADDRESS, "0002000000000000"),
            (stun.XOR_MAPPED_ADDRESS, "0003000000000000"),
            (stun.XOR_MAPPED_ADDRESS, "00010000" + "00" * 16),
            (stun.USERNAME, "ff"),
        ):  # fmt: skip
            self.assert_refused(build(SUCCESS, [(kind, bytes.fromhex(value))]))

    def test_fingerprint_is_right_and_last_or_refused(self) -> None:
        """RFC 8489 section 14.7; other bytes after it are nothing that the sender meant."""
        genuine = fingerprinted(build(REQUEST, []))
        read(stun.decode(genuine))
        more = bytes.fromhex("80220000")
        self.assert_refused(
            flipped(genuine, 8 * 27),
            genuine[:-5] + b"\x03" + genuine[-4:],
            announce(genuine + more, 0),
            fingerprinted(announce(genuine, 8)),
            authenticated(genuine, PASSWORD),
        )

    def test_an_unknown_attribute_that_requires_comprehension_is_refused(self) -> None:
        """An optional one is ignored (RFC 8489 section 14)."""
        self.assert_refused(seal(build(REQUEST, [(0x7FFF, b"")]), PASSWORD))
        self.assertTrue(is_believed(seal(build(REQUEST, [(0x8000, b"ab")]), PASSWORD)))

    def test_attributes_after_integrity_are_ignored(self) -> None:
        """Whatever they are, as they are not authenticated; FINGERPRINT still counts."""
        genuine = authenticated(build(REQUEST, [(stun.PRIORITY, bytes(4))]), PASSWORD)
        for kind, value in (
            (stun.USE_CANDIDATE, b""), (stun.PRIORITY, b"\1\1\1\1"),
            (stun.PRIORITY, b"\1"), (stun.MESSAGE_INTEGRITY, bytes(20)),
            (0x001C, bytes(32)), (0x7FFF, b""),
        ):  # fmt: skip
            data = announce(genuine + build(REQUEST, [(kind, value)])[20:], 0)
            for message in (stun.decode(data), stun.decode(fingerprinted(data))):
                self.assertEqual(stun.decode(genuine).attributes, message.attributes)
                self.assertTrue(message.is_authentic(PASSWORD))
            self.assert_refused(flipped(fingerprinted(data), 8 * (len(data) + 7)))

    def test_the_first_of_two_attributes_of_a_type_counts(self) -> None:
        """RFC 8489 section 14."""
        names = [(stun.USERNAME, b"a:b"), (stun.USERNAME, b"c:d")]
        self.assertEqual("a:b", stun.decode(build(REQUEST, names)).username())

    def test_reserved_bits_of_values_are_ignored(self) -> None:
        """RFC 8489 sections 14.2 and 14.8."""
        values = [
            (stun.ERROR_CODE, b"\xff\xff\xfc\x57?"),
            (stun.XOR_MAPPED_ADDRESS, bytes.fromhex("ff01a147e112a643")),
        ]
        message = stun.decode(build(ERROR, values))
        self.assertEqual(487, message.error_code())
        self.assertEqual(("192.0.2.1", 32853), message.xor_mapped_address())

    def test_a_message_without_integrity_is_not_authentic(self) -> None:
        """Not by an empty password either."""
        message = stun.decode(fingerprinted(build(REQUEST, [])))
        self.assertFalse(message.is_authentic(PASSWORD) or message.is_authentic(""))

    def test_an_error_that_names_unknown_attributes_is_understood(self) -> None:
        """Error 420, as a foreign peer answers PADDING."""
        values = [(stun.ERROR_CODE, b"\0\0\4\x14"), (stun.UNKNOWN_ATTRIBUTES, b"\0\x26")]
        data = seal(build(ERROR, values), PASSWORD)
        self.assertTrue(is_believed(data))
        self.assertEqual(420, stun.decode(data).error_code())
