"""Connectivity checks."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire.address import Address, canonical_address
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
from p2pnet.wire.demux import MAGIC_COOKIE, Kind, classify
from p2pnet.wire.errors import DecodeError

# RFC 5769 sections 2.1 and 2.2: a request and its answer by another implementation.
RFC_PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
RFC_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e7400240004"
    "6e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RFC_SUCCESS = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147"
    "e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RFC_TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")

passwords = st.from_regex("[A-Za-z0-9+/]{22,64}", fullmatch=True)
fragments = st.from_regex("[A-Za-z0-9+/]{4,8}", fullmatch=True)
transactions = st.binary(min_size=12, max_size=12)
addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
requests = st.builds(
    Check,
    st.just(CheckKind.REQUEST),
    transactions,
    username=st.tuples(fragments, fragments).map(":".join),
    priority=st.integers(0, 2**31 - 1),
    controlling=st.booleans(),
    tie_breaker=st.integers(0, 2**64 - 1),
    nominates=st.booleans(),
)


class CodecTests(SynchronousTestCase):
    """The three messages."""

    def test_the_examples_of_the_rfc(self) -> None:
        """What others write is read, and found authentic."""
        request = decode_check(RFC_REQUEST)
        expected = Check(
            CheckKind.REQUEST, RFC_TRANSACTION, "evtj:h6vY", 0x6E0001FF, False, 0x932FF9B151263B36
        )
        self.assertEqual(expected, request)
        success = decode_check(RFC_SUCCESS)
        mapped = ("192.0.2.1", 32853)
        self.assertEqual(Check(CheckKind.SUCCESS, RFC_TRANSACTION, mapped=mapped), success)
        for check in (request, success):
            self.assertTrue(check.is_authentic(RFC_PASSWORD))
            self.assertFalse(check.is_authentic(RFC_PASSWORD + "x"))

    def test_known_messages(self) -> None:
        """Their bytes, but for the password's digest and the checksum at the end."""
        check = Check(CheckKind.REQUEST, RFC_TRANSACTION, "b:a", 1, True, 2, True)
        header = "2112a442" + RFC_TRANSACTION.hex()
        for data, expected in (
            (
                encode_request(check, RFC_PASSWORD),
                "00010040" + header + "00060003623a6100" + "0024000400000001"
                "802a00080000000000000002" + "00250000",
            ),
            (
                encode_success(RFC_TRANSACTION, ("192.0.2.1", 32853), RFC_PASSWORD),
                "0101002c" + header + "002000080001a147e112a643",
            ),
            (
                encode_error(RFC_TRANSACTION, ROLE_CONFLICT, "Role", RFC_PASSWORD),
                "0111002c" + header + "0009000800000457526f6c65",
            ),
        ):
            self.assertEqual(bytes.fromhex(expected), data[:-32])

    @given(requests, passwords)
    def test_every_request_comes_back(self, request: Check, password: str) -> None:
        """Small, told from QUIC, and authentic with its password alone."""
        data = encode_request(request, password)
        self.assertLessEqual(len(data), MAX_CHECK)
        self.assertIs(Kind.STUN, classify(data))
        decoded = decode_check(data)
        self.assertEqual(request, decoded)
        self.assertTrue(decoded.is_authentic(password))
        self.assertFalse(decoded.is_authentic(password[:-1]))

    @given(transactions, addresses, passwords)
    def test_every_answer_comes_back(
        self, transaction: bytes, mapped: Address, password: str
    ) -> None:
        """With the address in canonical form."""
        data = encode_success(transaction, mapped, password)
        decoded = decode_check(data)
        expected = Check(CheckKind.SUCCESS, transaction, mapped=canonical_address(*mapped))
        self.assertEqual(expected, decoded)
        self.assertTrue(decoded.is_authentic(password))

    @given(transactions, passwords)
    def test_every_refusal_comes_back(self, transaction: bytes, password: str) -> None:
        """With its code."""
        decoded = decode_check(encode_error(transaction, ROLE_CONFLICT, "Role Conflict", password))
        self.assertEqual(Check(CheckKind.ERROR, transaction, error_code=ROLE_CONFLICT), decoded)
        self.assertTrue(decoded.is_authentic(password))


class HostileTests(SynchronousTestCase):
    """What anybody can send."""

    @given(st.binary(max_size=100), st.booleans())
    def test_any_bytes_decode_or_are_refused(self, data: bytes, is_stun: bool) -> None:
        """By DecodeError alone."""
        if is_stun:
            length = len(data).to_bytes(2, "big")
            data = b"\0\1" + length + MAGIC_COOKIE + bytes(12) + data
        self.decode_or_refuse(data)

    @given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=24)), max_size=4))
    def test_any_attributes_decode_or_are_refused(
        self, attributes: list[tuple[int, bytes]]
    ) -> None:
        """Of any length that such an attribute should not have."""
        self.decode_or_refuse(self.message(attributes))

    def test_each_attribute_with_each_length(self) -> None:
        """Those that are read, from nothing to more than there should be."""
        for kind in (
            0x0001,
            0x0006,
            0x0008,
            0x0009,
            0x0020,
            0x0024,
            0x0025,
            0x8028,
            0x8029,
            0x802A,
        ):
            for length in range(24):
                for filler in (b"\0", b"\1", b"\2", b"\xff"):
                    self.decode_or_refuse(self.message([(kind, filler * length)]))

    def message(self, attributes: list[tuple[int, bytes]]) -> bytes:
        """A binding request with these attributes."""
        body = b""
        for kind, value in attributes:
            body += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
            body += bytes(-len(value) % 4)
        return b"\0\1" + len(body).to_bytes(2, "big") + MAGIC_COOKIE + bytes(12) + body

    @given(st.sampled_from([RFC_REQUEST, RFC_SUCCESS]), st.data())
    def test_a_damaged_message_is_never_authentic(self, good: bytes, data: st.DataObject) -> None:
        """Any byte changed, or all behind it cut off; a checksum follows what is authentic."""
        at = data.draw(st.integers(0, len(good) - 9))
        byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
        for damaged in (good[:at] + bytes([byte]) + good[at + 1 :], good[:at]):
            check = self.decode_or_refuse(damaged)
            self.assertFalse(check is not None and check.is_authentic(RFC_PASSWORD))

    def decode_or_refuse(self, data: bytes) -> Any:
        """The message in `data`, None if it raises DecodeError."""
        try:
            check = decode_check(data)
        except DecodeError:
            return None
        self.assertIsInstance(check.is_authentic("password"), bool)
        return check
