"""Messages of the control stream."""

from typing import Any, get_args, get_type_hints

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire import messages
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.framing import MAX_MESSAGE
from p2pnet.wire.messages import (
    TYPES,
    Message,
    MessageBuffer,
    decode_message,
    encode_message,
)
from p2pnet.wire.names import NAME_PATTERN

SESSION = bytes(range(16))
CHANNELS = b"sendchan", b"recvchan"
INSTANCE = b"instance"
PASSWORD = "0123456789abcdefghijkl"
CANDIDATE = messages.CandidateInfo("host", "192.0.2.1", 50000, 2_130_706_431, "1")
# One of each type with its bytes: length, then a MessagePack map in the order of the fields.
GOLDEN = {
    messages.Hello((1, 0), INSTANCE): (
        "0000002783a174a568656c6c6fa776657273696f6e920100a8696e7374616e6365c408696e7374616e6365"
    ),
    messages.Welcome((1, 0)): "0000001682a174a777656c636f6d65a776657273696f6e920100",
    messages.ObservedAddress(1, "203.0.113.1", 50000): (
        "0000003784a174b06f627365727665642d61646472657373a873657175656e636501a4686f7374ab3230332e"
        "302e3131332e31a4706f7274cdc350"
    ),
    messages.Register(("web", "dns")): (
        "0000001e82a174a87265676973746572a8736572766963657392a3776562a3646e73"
    ),
    messages.Registered(("web",)): (
        "0000001c82a174aa72656769737465726564a8736572766963657391a3776562"
    ),
    messages.RegistrationRefused("dns", 0x15, "no"): (
        "0000003484a174b4726567697374726174696f6e2d72656675736564a773657276696365a3646e73a4636f64"
        "6515a6726561736f6ea26e6f"
    ),
    messages.SessionRequest(7, SESSION, "web", "office", "relay-only"): (
        "0000006586a174af73657373696f6e2d72657175657374a77265717565737407a773657373696f6ec4100001"
        "02030405060708090a0b0c0d0e0fa773657276696365a3776562a9636f6e6e6563746f72a66f6666696365a6"
        "706f6c696379aa72656c61792d6f6e6c79"
    ),
    messages.SessionOffer(SESSION, "alice", INSTANCE, "web", *CHANNELS, "direct-only"): (
        "0000009a88a174ad73657373696f6e2d6f66666572a773657373696f6ec410000102030405060708090a0b0c"
        "0d0e0fa56167656e74a5616c696365a8696e7374616e6365c408696e7374616e6365a773657276696365a377"
        "6562ac73656e645f6368616e6e656cc40873656e646368616eaf726563656976655f6368616e6e656cc40872"
        "6563766368616ea6706f6c696379ab6469726563742d6f6e6c79"
    ),
    messages.SessionAnswer(SESSION, 0x11, "no"): (
        "0000003c84a174ae73657373696f6e2d616e73776572a773657373696f6ec410000102030405060708090a0b"
        "0c0d0e0fa4636f646511a6726561736f6ea26e6f"
    ),
    messages.SessionOpened(7, SESSION, "office", INSTANCE, *CHANNELS): (
        "0000009c88a174ae73657373696f6e2d6f70656e6564a77265717565737407a773657373696f6ec4100001"
        "02030405060708090a0b0c0d0e0fa9636f6e6e6563746f72a66f6666696365a8696e7374616e6365c40869"
        "6e7374616e6365ac73656e645f6368616e6e656cc40873656e646368616eaf726563656976655f6368616e"
        "6e656cc408726563766368616ea8706565725f727474cb0000000000000000"
    ),
    messages.SessionRefused(7, 0x10, "none"): (
        "0000002e84a174af73657373696f6e2d72656675736564a77265717565737407a4636f646510a6726561736f"
        "6ea46e6f6e65"
    ),
    messages.SessionClosed(SESSION, 0x1D, "bye"): (
        "0000003d84a174ae73657373696f6e2d636c6f736564a773657373696f6ec410000102030405060708090a0b"
        "0c0d0e0fa4636f64651da6726561736f6ea3627965"
    ),
    messages.CandidateOffer(SESSION, "ufrg", PASSWORD, (CANDIDATE,)): (
        "0000008a85a174af63616e6469646174652d6f66666572a773657373696f6ec410000102030405060708090a"
        "0b0c0d0e0fb1757365726e616d655f667261676d656e74a475667267a870617373776f7264b6303132333435"
        "363738396162636465666768696a6b6caa63616e646964617465739195a4686f7374a93139322e302e322e31"
        "cdc350ce7effffffa131"
    ),
    messages.CandidateAnswer(SESSION, "ufrg", PASSWORD, ()): (
        "0000007185a174b063616e6469646174652d616e73776572a773657373696f6ec41000010203040506070809"
        "0a0b0c0d0e0fb1757365726e616d655f667261676d656e74a475667267a870617373776f7264b63031323334"
        "35363738396162636465666768696a6b6caa63616e6469646174657390"
    ),
    messages.CandidateUpdate(SESSION, (CANDIDATE,)): (
        "0000005483a174b063616e6469646174652d757064617465a773657373696f6ec41000010203040506070809"
        "0a0b0c0d0e0faa63616e646964617465739195a4686f7374a93139322e302e322e31cdc350ce7effffffa131"
    ),
    messages.StartPunching(SESSION, 500): (
        "0000003583a174ae73746172742d70756e6368696e67a773657373696f6ec410000102030405060708090a0b"
        "0c0d0e0fa564656c6179cd01f4"
    ),
    messages.PunchingResult(SESSION, False, "no"): (
        "0000003f84a174af70756e6368696e672d726573756c74a773657373696f6ec410000102030405060708090a"
        "0b0c0d0e0fa6646972656374c2a6726561736f6ea26e6f"
    ),
    messages.Draining(30.0): (
        "0000001d82a174a8647261696e696e67a77365636f6e6473cb403e000000000000"
    ),
    messages.Goodbye(0, ""): "0000001983a174a7676f6f64627965a4636f646500a6726561736f6ea0",
}  # fmt: skip


def fields_of(message: Message) -> dict[str, Any]:
    """The message as the map that travels."""
    fields: dict[str, Any] = msgspec.msgpack.decode(encode_message(message)[4:])
    return fields


def pack(value: Any) -> bytes:
    """Any value as MessagePack."""
    return msgspec.msgpack.encode(value)


candidates = st.builds(
    messages.CandidateInfo,
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.ip_addresses().map(str),
    st.integers(0, 65535),
    st.integers(0, 2**31 - 1),
    st.text(min_size=1, max_size=32),
)


def by_hypothesis(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of a kind, within the limits of its fields."""
    names = st.from_regex(NAME_PATTERN, fullmatch=True)
    strategies = {
        messages.Name: names,
        messages.Name | None: st.none() | names,
        messages.Text: st.text(max_size=512),
        messages.SessionId: st.binary(min_size=16, max_size=16),
        messages.Channel: st.binary(min_size=8, max_size=8),
        messages.Code: st.integers(0, 0xFFFF),
        messages.Port: st.integers(0, 65535),
        messages.Services: st.lists(names, max_size=256).map(tuple),
        messages.UsernameFragment: st.from_regex("[A-Za-z0-9+/]{4,32}", fullmatch=True),
        messages.Password: st.from_regex("[A-Za-z0-9+/]{22,64}", fullmatch=True),
        messages.Candidates: st.lists(candidates, max_size=16).map(tuple),
        bool: st.booleans(),
        tuple[int, int]: st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)),
    }
    special = {
        "sequence": st.integers(0, 2**63),
        "request": st.integers(0, 2**53),
        "host": st.ip_addresses().map(str),
        "seconds": st.floats(0, 3600),
        "policy": st.sampled_from(get_args(messages.PolicyName)),
        "delay": st.integers(0, 10_000),
        "peer_rtt": st.floats(0, 60),
    }
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(
        kind,
        **{
            field.name: (special | strategies)[
                field.name if field.name in special else hints[field.name]
            ]
            for field in msgspec.structs.fields(kind)
        },
    )


anything = st.one_of([by_hypothesis(kind) for kind in TYPES.values()])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary() | st.datetimes(timezones=st.timezones()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip


class CodecTests(SynchronousTestCase):
    """One message, to bytes and back."""

    def test_the_bytes_of_every_type_are_known(self) -> None:
        """Written and read; a change here is a change of the protocol."""
        self.assertEqual(set(TYPES.values()), {type(message) for message in GOLDEN})
        for message, encoded in GOLDEN.items():
            self.assertEqual(encoded, encode_message(message).hex())
            self.assertEqual(message, decode_message(bytes.fromhex(encoded)[4:]))

    @given(anything)
    def test_every_message_comes_back(self, message: Message) -> None:
        """Behind its length."""
        encoded = encode_message(message)
        self.assertEqual(len(encoded) - 4, int.from_bytes(encoded[:4], "big"))
        self.assertEqual(message, decode_message(encoded[4:]))

    def test_an_unknown_type_is_ignored(self) -> None:
        """A peer of a newer minor version sends it."""
        self.assertIsNone(decode_message(pack({"t": "from-the-future", "x": [1]})))

    def test_an_unknown_field_is_ignored(self) -> None:
        """For every type."""
        for message in GOLDEN:
            fields = fields_of(message) | {"from-the-future": {"x": [1]}}
            self.assertEqual(message, decode_message(pack(fields)))

    def test_a_missing_field_is_refused(self) -> None:
        """For every field that has no default."""
        for message in GOLDEN:
            for field in msgspec.structs.fields(message):
                fields = fields_of(message)
                del fields[field.name]
                if field.required:
                    self.assertRaises(DecodeError, decode_message, pack(fields))
                else:
                    self.assertEqual(type(message), type(decode_message(pack(fields))))

    def test_an_ill_typed_field_is_refused(self) -> None:
        """For every field: a map is right nowhere, and a boolean is no number."""
        for message in GOLDEN:
            for field in msgspec.structs.fields(message):
                wrong: Any
                for wrong in ({}, True):
                    fields = fields_of(message) | {field.name: wrong}
                    if field.type is not type(wrong):
                        self.assertRaises(DecodeError, decode_message, pack(fields))

    def test_the_policies_are_those_that_sessions_have(self) -> None:
        """A made-up one would make one more session of an agent with one connector."""
        self.assertEqual(set(SELECTORS), set(get_args(messages.PolicyName)))
        body = encode_message(messages.SessionRequest(1, SESSION, "web"))[4:]
        self.assertRaises(DecodeError, decode_message, body.replace(b"direct", b"diract"))

    def test_values_out_of_bounds_are_refused(self) -> None:
        """Names, ids, ports, codes, counts and times."""
        nan = float("nan")
        a_host = ["host", "192.0.2.1", 50000, 1, "1"]
        for message, wrong in (
            (messages.CandidateUpdate(SESSION, ()), {"candidates": [a_host] * 17}),
            (messages.CandidateUpdate(SESSION, ()), {"candidates": [["x", *a_host[1:]]]}),
            (messages.CandidateUpdate(SESSION, ()), {"candidates": [a_host[:4]]}),
            (messages.CandidateAnswer(SESSION, "ufrg", PASSWORD, ()), {"password": "short"}),
            (messages.StartPunching(SESSION, 0), {"delay": 10_001}),
            (messages.Register(()), {"services": ["Web"]}),
            (messages.Register(()), {"services": ["web\n"]}),
            (messages.Register(()), {"services": ["x"] * 257}),
            (messages.Hello((1, 0), INSTANCE), {"instance": b"short"}),
            (messages.Hello((1, 0), INSTANCE), {"version": [1, 0, 0]}),
            (messages.SessionClosed(SESSION, 0, ""), {"session": SESSION + b"x"}),
            (messages.ObservedAddress(1, "::1", 1), {"port": 65536}),
            (messages.ObservedAddress(1, "::1", 1), {"sequence": -1}),
            (messages.Goodbye(0, ""), {"code": -1}),
            (messages.Goodbye(0, ""), {"reason": "x" * 513}),
            (messages.Draining(1.0), {"seconds": nan}),
        ):
            fields = fields_of(message) | wrong
            self.assertRaises(DecodeError, decode_message, pack(fields))

    @given(st.binary(max_size=200))
    def test_any_bytes_decode_or_are_refused(self, body: bytes) -> None:
        """By DecodeError alone."""
        self.decode_or_refuse(body)

    @given(st.sampled_from(sorted(GOLDEN, key=repr)), st.data())
    def test_a_damaged_message_decodes_or_is_refused(
        self, message: Message, data: st.DataObject
    ) -> None:
        """Any byte of it changed, or all behind it cut off."""
        body = bytearray(encode_message(message)[4:])
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
        self.decode_or_refuse(bytes(body))
        self.decode_or_refuse(bytes(body[:at]))

    @given(st.sampled_from(sorted(GOLDEN, key=repr)), st.data())
    def test_any_value_in_any_field_decodes_or_is_refused(
        self, message: Message, data: st.DataObject
    ) -> None:
        """MessagePack's extension types among them."""
        fields = fields_of(message)
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
        self.decode_or_refuse(pack(fields))

    def test_deep_nesting_is_refused(self) -> None:
        """It overflows no stack."""
        self.decode_or_refuse(b"\x81\xa1t" + b"\x91" * (MAX_MESSAGE - 3))
        self.decode_or_refuse(b"\x82\xa1x" + b"\x91" * 60_000 + b"\xa1t\xa1x")

    def decode_or_refuse(self, body: bytes) -> None:
        """Fail unless `body` is a message, of an unknown type, or raises DecodeError."""
        try:
            message = decode_message(body)
        except DecodeError:
            return
        self.assertIsInstance(message, Message | None)


class MessageBufferTests(SynchronousTestCase):
    """The control stream, cut into messages."""

    @given(st.lists(anything, max_size=4), st.binary(max_size=3))
    def test_byte_by_byte_gives_the_same_as_whole(
        self, sent: list[Message], incomplete: bytes
    ) -> None:
        """QUIC cuts the stream anywhere."""
        data = b"".join(map(encode_message, sent)) + incomplete
        self.assertEqual(sent, MessageBuffer().feed(data))
        buffer = MessageBuffer()
        one_by_one = [message for byte in data for message in buffer.feed(bytes([byte]))]
        self.assertEqual(sent, one_by_one)

    def test_an_unknown_type_is_left_out(self) -> None:
        """What is around it arrives."""
        unknown = pack({"t": "from-the-future"})
        one, other = list(GOLDEN)[:2]
        data = encode_message(one) + len(unknown).to_bytes(4, "big") + unknown
        self.assertEqual([one, other], MessageBuffer().feed(data + encode_message(other)))

    def test_a_length_over_the_limit_is_refused_at_once(self) -> None:
        """When the four bytes are there, before anything is kept for it."""
        for length in (MAX_MESSAGE + 1, 2**32 - 1):
            buffer = MessageBuffer()
            head = length.to_bytes(4, "big")
            self.assertEqual([], buffer.feed(head[:3]))
            self.assertRaises(DecodeError, buffer.feed, head[3:])

    def test_the_longest_message_passes(self) -> None:
        """Exactly the limit, by a field that is ignored; one byte more is not sent."""
        fields = fields_of(messages.Goodbye(0, "")) | {"x": b""}
        # A longer byte string has two more bytes of length.
        fields["x"] = bytes(MAX_MESSAGE - len(pack(fields)) - 1)
        body = pack(fields)
        self.assertEqual(MAX_MESSAGE, len(body))
        data = len(body).to_bytes(4, "big") + body
        self.assertEqual([messages.Goodbye(0, "")], MessageBuffer().feed(data))

    def test_a_message_over_the_limit_is_not_sent(self) -> None:
        """encode_message() has no limits of fields, so this can happen."""
        too_long = messages.Goodbye(0, "x" * MAX_MESSAGE)
        self.assertRaises(ValueError, encode_message, too_long)

    @given(st.lists(st.binary(max_size=30), max_size=5))
    def test_any_bytes_are_cut_or_refused(self, chunks: list[bytes]) -> None:
        """By DecodeError alone."""
        buffer = MessageBuffer()
        try:
            for chunk in chunks:
                buffer.feed(chunk)
        except DecodeError:
            return
