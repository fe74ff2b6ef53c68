"""Connectivity checks as bytes: RFC 5769's vectors, sizes, integrity, and arbitrary input."""

import binascii
import hmac
import struct

from aioice import stun
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.address import Address
from p2pnet.wire.check import (
    MAX_CHECK,
    ROLE_CONFLICT,
    Check,
    CheckKind,
    decode_check,
    encode_error,
    encode_request,
    encode_success,
)
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.demux import Kind, classify

# RFC 5769 sections 2.1 to 2.3: all three have one transaction and one password.
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
HEADER = f"2112a442{TRANSACTION.hex()}"
SAMPLE_REQUEST = bytes.fromhex(
    f"00010058{HEADER}"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
SAMPLE_IPV4_RESPONSE = bytes.fromhex(
    f"0101003c{HEADER}"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
SAMPLE_IPV6_RESPONSE = bytes.fromhex(
    f"01010048{HEADER}"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)

ice_characters = st.sampled_from("ABCXYZabcxyz0189+/")
fragments = st.text(ice_characters, min_size=4, max_size=32)
passwords = st.text(ice_characters, min_size=22, max_size=64)
mapped_addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


def request(nominates: bool = False, controlling: bool = True, username: str = "them:us") -> Check:
    """A request, whatever is in it."""
    return Check(
        CheckKind.REQUEST, TRANSACTION, username=username, priority=1862270975,
        controlling=controlling, tie_breaker=2**64 - 1, nominates=nominates,
    )  # fmt: skip


def seal(message: bytes, password: str) -> bytes:
    """Add MESSAGE-INTEGRITY and FINGERPRINT by RFC 8489 sections 14.5 and 14.7, on our own."""

    def announcing(more: int) -> bytes:
        return message[:2] + struct.pack("!H", len(message) - 20 + more) + message[4:]

    digest = hmac.digest(password.encode(), announcing(24), "sha1")
    message += struct.pack("!HH", 0x0008, 20) + digest
    crc = binascii.crc32(announcing(8)) ^ 0x5354554E
    return announcing(8) + struct.pack("!HHI", 0x8028, 4, crc)


class VectorTests(SynchronousTestCase):
    """RFC 5769."""

    def test_the_sample_request_is_understood(self) -> None:
        """With its SOFTWARE attribute, of which we have no use, and padding that is not zero."""
        check = decode_check(SAMPLE_REQUEST)
        self.assertIs(CheckKind.REQUEST, check.kind)
        self.assertEqual(TRANSACTION, check.transaction_id)
        self.assertEqual(("evtj:h6vY", 0x6E0001FF), (check.username, check.priority))
        self.assertEqual((False, 0x932FF9B151263B36), (check.controlling, check.tie_breaker))
        self.assertFalse(check.nominates)
        self.assertTrue(check.is_authentic(PASSWORD))

    def test_the_sample_responses_are_understood(self) -> None:
        """The mapped address is that of the RFC, IPv4 and IPv6."""
        for data, address in (
            (SAMPLE_IPV4_RESPONSE, "192.0.2.1"),
            (SAMPLE_IPV6_RESPONSE, "2001:db8:1234:5678:11:2233:4455:6677"),
        ):
            check = decode_check(data)
            self.assertEqual((CheckKind.SUCCESS, (address, 32853)), (check.kind, check.mapped))
            self.assertTrue(check.is_authentic(PASSWORD))

    def test_a_request_is_these_bytes(self) -> None:
        """The attributes in order, and the seal computed independently."""
        body = "000600077468656d3a757300002400046effffff802a0008ffffffffffffffff00250000"
        plain = bytes.fromhex(f"00010020{HEADER}{body}")
        self.assertEqual(seal(plain, PASSWORD), encode_request(request(nominates=True), PASSWORD))

    def test_a_success_is_these_bytes(self) -> None:
        """The address of the RFC's sample is written as there."""
        plain = bytes.fromhex(f"0101000c{HEADER}002000080001a147e112a643")
        encoded = encode_success(TRANSACTION, ("192.0.2.1", 32853), PASSWORD)
        self.assertEqual(seal(plain, PASSWORD), encoded)

    def test_a_refusal_is_these_bytes(self) -> None:
        """Class and number of the code apart (RFC 8489 section 14.8)."""
        plain = bytes.fromhex(f"0111000c{HEADER}0009000800000457526f6c65")
        encoded = encode_error(TRANSACTION, ROLE_CONFLICT, "Role", PASSWORD)
        self.assertEqual(seal(plain, PASSWORD), encoded)

    def test_a_changed_byte_of_the_sample_request_is_noticed(self) -> None:
        """By the decoder or by the integrity, which covers all but the fingerprint behind it."""
        genuine = decode_check(SAMPLE_REQUEST)
        for position in range(len(SAMPLE_REQUEST)):
            changed = bytearray(SAMPLE_REQUEST)
            changed[position] ^= 0x01
            try:
                check = decode_check(bytes(changed))
            except DecodeError:
                continue
            if check.is_authentic(PASSWORD):
                self.assertEqual(genuine, check)
                self.assertGreaterEqual(position, len(SAMPLE_REQUEST) - 8)


class EncodingTests(SynchronousTestCase):
    """Messages that we write."""

    @given(st.booleans(), st.booleans(), fragments, fragments, passwords)
    def test_every_request_comes_back(
        self, nominates: bool, controlling: bool, theirs: str, ours: str, password: str
    ) -> None:
        """From aioice's parser too, and from no other password."""
        check = request(nominates, controlling, f"{theirs}:{ours}")
        data = encode_request(check, password)
        self.assertEqual(check, decode_check(data))
        self.assertIs(Kind.STUN, classify(data))
        self.assertTrue(decode_check(data).is_authentic(password))
        self.assertFalse(decode_check(data).is_authentic(password + "x"))
        attributes = stun.parse_message(data).attributes
        role = "ICE-CONTROLLING" if controlling else "ICE-CONTROLLED"
        names = ["USERNAME", "PRIORITY", role] + ["USE-CANDIDATE"] * nominates
        self.assertEqual([*names, "MESSAGE-INTEGRITY", "FINGERPRINT"], list(attributes))

    @given(fragments)
    def test_no_request_is_longer_than_128_bytes(self, theirs: str) -> None:
        """For every fragment that a peer may name; ours have eight characters."""
        data = encode_request(request(nominates=True, username=f"{theirs}:12345678"), PASSWORD)
        self.assertLessEqual(len(data), MAX_CHECK)

    @given(fragments, passwords, st.integers(128 // 4, 65504 // 4), st.booleans())
    def test_a_padded_request_is_as_long_as_asked_for(
        self, theirs: str, password: str, words: int, nominates: bool
    ) -> None:
        """The padding changes nothing else."""
        check = request(nominates, username=f"{theirs}:us")
        data = encode_request(check, password, 4 * words)
        self.assertEqual(4 * words, len(data))
        decoded = decode_check(data)
        self.assertEqual(check, decoded)
        self.assertTrue(decoded.is_authentic(password))

    @given(mapped_addresses)
    def test_an_answer_is_no_longer_than_its_request(self, mapped: Address) -> None:
        """Whoever forges the source of a request gains nothing by it."""
        least = len(encode_request(request(username="them:12345678"), PASSWORD))
        self.assertLessEqual(len(encode_success(TRANSACTION, mapped, PASSWORD)), least)
        refusal = encode_error(TRANSACTION, ROLE_CONFLICT, "Role Conflict", PASSWORD)
        self.assertLessEqual(len(refusal), least)

    @given(mapped_addresses)
    def test_every_mapped_address_comes_back(self, mapped: Address) -> None:
        """In canonical form: an IPv6-mapped one as plain IPv4."""
        check = decode_check(encode_success(TRANSACTION, mapped, PASSWORD))
        host = mapped[0].lower()
        if not host.startswith("::ffff:"):
            self.assertEqual(mapped, check.mapped)
        self.assertIs(CheckKind.SUCCESS, check.kind)
        self.assertTrue(check.is_authentic(PASSWORD))

    def test_a_v4_mapped_address_becomes_plain(self) -> None:
        """As a dual-stack socket of the peer's reports it."""
        data = encode_success(TRANSACTION, ("::ffff:192.0.2.1", 32853), PASSWORD)
        self.assertEqual(("192.0.2.1", 32853), decode_check(data).mapped)

    def test_a_role_conflict_is_told_by_its_code(self) -> None:
        """RFC 8445 section 7.3.1.1."""
        data = encode_error(TRANSACTION, ROLE_CONFLICT, "Role Conflict", PASSWORD)
        check = decode_check(data)
        self.assertEqual((CheckKind.ERROR, 487), (check.kind, check.error_code))
        self.assertEqual(TRANSACTION, check.transaction_id)
        self.assertTrue(check.is_authentic(PASSWORD))
        self.assertEqual((487, "Role Conflict"), stun.parse_message(data).attributes["ERROR-CODE"])


class DecodingTests(SynchronousTestCase):
    """Bytes from anywhere."""

    def decode(self, data: bytes) -> None:
        """Decode and check: nothing but DecodeError may be raised."""
        try:
            decode_check(data).is_authentic(PASSWORD)
        except DecodeError:
            pass

    @given(st.binary(max_size=200))
    def test_any_bytes_decode_or_are_refused(self, data: bytes) -> None:
        """By DecodeError alone."""
        self.decode(data)

    @given(st.integers(0, 0xFFFF), st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary())))
    def test_any_attributes_decode_or_are_refused(
        self, kind: int, attributes: list[tuple[int, bytes]]
    ) -> None:
        """In a message whose frame is right, known types and unknown ones."""
        self.decode(self.message(kind, attributes))

    @given(
        st.sampled_from([0x0001, 0x0101, 0x0111]),
        st.lists(
            st.tuples(st.sampled_from([*stun.ATTRIBUTES_BY_TYPE]), st.binary(max_size=24)),
            min_size=1,
            max_size=6,
        ),
    )
    def test_ill_formed_known_attributes_decode_or_are_refused(
        self, kind: int, attributes: list[tuple[int, bytes]]
    ) -> None:
        """Wrong lengths, families and texts in binding messages."""
        self.decode(self.message(kind, attributes))

    def test_each_known_attribute_with_each_length(self) -> None:
        """From nothing to more than there should be, whatever Hypothesis draws."""
        for number in stun.ATTRIBUTES_BY_TYPE:
            for length in range(24):
                for filler in (b"\0", b"\1", b"\2", b"\xff"):
                    self.decode(self.message(0x0001, [(number, filler * length)]))

    @given(st.sampled_from([SAMPLE_REQUEST, SAMPLE_IPV4_RESPONSE, SAMPLE_IPV6_RESPONSE]), st.data())
    def test_damaged_samples_decode_or_are_refused(
        self, sample: bytes, data: st.DataObject
    ) -> None:
        """A few bytes replaced, cut off or doubled."""
        start = data.draw(st.integers(0, len(sample)))
        end = data.draw(st.integers(start, min(len(sample), start + 8)))
        self.decode(sample[:start] + data.draw(st.binary(max_size=8)) + sample[end:])

    def message(self, kind: int, attributes: list[tuple[int, bytes]]) -> bytes:
        """A STUN message by hand."""
        body = b"".join(
            struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
            for number, value in attributes
        )
        return struct.pack("!HH", kind, len(body)) + bytes.fromhex(HEADER) + body

    def test_other_methods_and_indications_are_refused(self) -> None:
        """An ALLOCATE request; a binding indication."""
        for kind in (0x0003, 0x0011):
            self.assertRaises(DecodeError, decode_check, self.message(kind, []))

    def test_a_message_without_integrity_is_not_authentic(self) -> None:
        """Nor is one whose integrity is empty."""
        username = (0x0006, b"evtj:h6vY")
        for attributes in ([username], [username, (0x0008, b"")]):
            check = decode_check(self.message(0x0001, attributes))
            self.assertFalse(check.is_authentic(PASSWORD))
            self.assertFalse(check.is_authentic(""))
