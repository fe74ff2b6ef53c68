"""Connectivity checks as bytes: RFC 5769's vectors, sizes, integrity, and arbitrary input."""

import aioice.stun
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import stun
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
from tests.wire.stun_vectors import (
    HEADER,
    PASSWORD,
    SAMPLE_IPV4_RESPONSE,
    SAMPLE_IPV6_RESPONSE,
    SAMPLE_REQUEST,
    SAMPLES,
    TRANSACTION,
    build,
    seal,
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
        attributes = aioice.stun.parse_message(data).attributes
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
        self.assertEqual(
            (487, "Role Conflict"), aioice.stun.parse_message(data).attributes["ERROR-CODE"]
        )


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

    @given(
        st.sampled_from([0x0001, 0x0101, 0x0111]),
        st.lists(
            st.tuples(st.sampled_from([*stun.LENGTHS]), st.binary(max_size=24)),
            min_size=1,
            max_size=6,
        ),
    )
    def test_ill_formed_known_attributes_decode_or_are_refused(
        self, kind: int, attributes: list[tuple[int, bytes]]
    ) -> None:
        """Wrong lengths, families and texts in binding messages."""
        self.decode(build(kind, attributes))

    def test_each_known_attribute_with_each_length(self) -> None:
        """From nothing to more than there should be, whatever Hypothesis draws."""
        for number in stun.LENGTHS:
            for length in range(24):
                for filler in (b"\0", b"\1", b"\2", b"\xff"):
                    self.decode(build(0x0001, [(number, filler * length)]))

    @given(st.sampled_from(SAMPLES), st.data())
    def test_damaged_samples_decode_or_are_refused(
        self, sample: bytes, data: st.DataObject
    ) -> None:
        """A few bytes replaced, cut off or doubled."""
        start = data.draw(st.integers(0, len(sample)))
        end = data.draw(st.integers(start, min(len(sample), start + 8)))
        self.decode(sample[:start] + data.draw(st.binary(max_size=8)) + sample[end:])

    def test_other_methods_and_indications_are_refused(self) -> None:
        """An ALLOCATE request; a binding indication."""
        for kind in (0x0003, 0x0011):
            self.assertRaises(DecodeError, decode_check, build(kind, []))

    def test_a_message_without_integrity_is_not_authentic(self) -> None:
        """Nor by an empty password."""
        check = decode_check(build(0x0001, [(stun.USERNAME, b"evtj:h6vY")]))
        self.assertFalse(check.is_authentic(PASSWORD))
        self.assertFalse(check.is_authentic(""))
