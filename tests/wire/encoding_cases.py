"""Tests that every kind of message has to pass, and messages made by Hypothesis."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args, get_type_hints

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.wire import messages as control
from p2pnet.wire import path_messages as paths
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.encoding import Message, encode_message
from p2pnet.wire.framing import MAX_MESSAGE
from p2pnet.wire.names import NAME_PATTERN


def fields_of(message: Message) -> dict[str, Any]:
    """The message as the map that travels."""
    fields: dict[str, Any] = msgspec.msgpack.decode(encode_message(message)[4:])
    return fields


def pack(value: Any) -> bytes:
    """Any value as MessagePack."""
    return msgspec.msgpack.encode(value)


candidates = st.builds(
    paths.CandidateInfo,
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
        control.Name: names,
        control.Name | None: st.none() | names,
        control.Text: st.text(max_size=512),
        control.SessionId: st.binary(min_size=16, max_size=16),
        control.Channel: st.binary(min_size=8, max_size=8),
        control.Code: st.integers(0, 0xFFFF),
        control.Port: st.integers(0, 65535),
        control.Services: st.lists(names, max_size=256).map(tuple),
        control.Tried: st.lists(names, max_size=8).map(tuple),
        paths.UsernameFragment: st.from_regex("[A-Za-z0-9+/]{4,32}", fullmatch=True),
        paths.Password: st.from_regex("[A-Za-z0-9+/]{22,64}", fullmatch=True),
        paths.Candidates: st.lists(candidates, max_size=16).map(tuple),
        bool: st.booleans(),
        tuple[int, int]: st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)),
    }
    special = {
        "sequence": st.integers(0, 2**63),
        "request": st.integers(0, 2**53),
        "host": st.ip_addresses().map(str),
        "seconds": st.floats(0, 3600),
        "policy": st.sampled_from(get_args(control.PolicyName)),
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


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary() | st.datetimes(timezones=st.timezones()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip


# Each subclass runs these tests with messages of its own, which is what this check warns of.
_for_subclasses = settings(suppress_health_check=[HealthCheck.differing_executors])


class EncodingCases(SynchronousTestCase):
    """One message, to bytes and back, for a class of tests that says which messages there are.

    :cvar types: the types of messages by tag.
    :cvar golden: a message of each type with its bytes, hexadecimal.
    :cvar refused: a message, and a field of it with a value that the decoder refuses.
    :cvar decode: the decoder.
    """

    types: ClassVar[Mapping[str, type[Message]]]
    golden: ClassVar[Mapping[Any, str]]
    refused: ClassVar[Sequence[tuple[Any, dict[str, Any]]]]
    decode: ClassVar[Any]

    def a_message(self, data: st.DataObject) -> Message:
        """A message of any type."""
        return data.draw(st.one_of([by_hypothesis(kind) for kind in self.types.values()]))

    def test_the_bytes_of_every_type_are_known(self) -> None:
        """Written and read; a change here is a change of the protocol."""
        self.assertEqual(set(self.types.values()), {type(message) for message in self.golden})
        for message, encoded in self.golden.items():
            self.assertEqual(encoded, encode_message(message).hex())
            self.assertEqual(message, self.decode(bytes.fromhex(encoded)[4:]))

    @_for_subclasses
    @given(st.data())
    def test_every_message_comes_back(self, data: st.DataObject) -> None:
        """Behind its length."""
        message = self.a_message(data)
        encoded = encode_message(message)
        self.assertEqual(len(encoded) - 4, int.from_bytes(encoded[:4], "big"))
        self.assertEqual(message, self.decode(encoded[4:]))

    def test_an_unknown_type_is_ignored(self) -> None:
        """A peer of a newer minor version sends it."""
        self.assertIsNone(self.decode(pack({"t": "from-the-future", "x": [1]})))

    def test_an_unknown_field_is_ignored(self) -> None:
        """For every type."""
        for message in self.golden:
            fields = fields_of(message) | {"from-the-future": {"x": [1]}}
            self.assertEqual(message, self.decode(pack(fields)))

    def test_a_missing_field_is_refused(self) -> None:
        """For every field that has no default."""
        for message in self.golden:
            for field in msgspec.structs.fields(message):
                fields = fields_of(message)
                del fields[field.name]
                if field.required:
                    self.assertRaises(DecodeError, self.decode, pack(fields))
                else:
                    self.assertEqual(type(message), type(self.decode(pack(fields))))

    def test_an_ill_typed_field_is_refused(self) -> None:
        """For every field: a map is right nowhere, and a boolean is no number."""
        for message in self.golden:
            for field in msgspec.structs.fields(message):
                wrong: Any
                for wrong in ({}, True):
                    fields = fields_of(message) | {field.name: wrong}
                    if field.type is not type(wrong):
                        self.assertRaises(DecodeError, self.decode, pack(fields))

    def test_values_out_of_bounds_are_refused(self) -> None:
        """Names, ids, ports, codes, counts and times."""
        for message, wrong in self.refused:
            fields = fields_of(message) | wrong
            self.assertRaises(DecodeError, self.decode, pack(fields))

    def test_a_reason_is_printable(self) -> None:
        """Of every message that has one, as its sender made it and as the receiver takes it."""
        with_reason = [message for message in self.golden if hasattr(message, "reason")]
        self.assertGreater(len(with_reason), 0)
        for message in with_reason:
            fields = fields_of(message) | {"reason": "\x1b[2J\n" + "\u202e" * 500}
            decoded: Any = self.decode(pack(fields))
            self.assertEqual(r"\x1b[2J\n\u202e", decoded.reason[:15])
            self.assertEqual(200, len(decoded.reason))
            self.assertEqual(decoded, type(message)(**msgspec.structs.asdict(decoded)))

    @_for_subclasses
    @given(st.binary(max_size=200))
    def test_any_bytes_decode_or_are_refused(self, body: bytes) -> None:
        """By DecodeError alone."""
        self.decode_or_refuse(body)

    @_for_subclasses
    @given(st.data())
    def test_a_damaged_message_decodes_or_is_refused(self, data: st.DataObject) -> None:
        """Any byte of it changed, or all behind it cut off."""
        message = data.draw(st.sampled_from(sorted(self.golden, key=repr)))
        body = bytearray(encode_message(message)[4:])
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
        self.decode_or_refuse(bytes(body))
        self.decode_or_refuse(bytes(body[:at]))

    @_for_subclasses
    @given(st.data())
    def test_any_value_in_any_field_decodes_or_is_refused(self, data: st.DataObject) -> None:
        """MessagePack's extension types among them."""
        fields = fields_of(data.draw(st.sampled_from(sorted(self.golden, key=repr))))
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
        self.decode_or_refuse(pack(fields))

    def test_deep_nesting_is_refused(self) -> None:
        """It overflows no stack."""
        self.decode_or_refuse(b"\x81\xa1t" + b"\x91" * (MAX_MESSAGE - 3))
        self.decode_or_refuse(b"\x82\xa1x" + b"\x91" * 60_000 + b"\xa1t\xa1x")

    def decode_or_refuse(self, body: bytes) -> None:
        """Fail unless `body` is a message, of an unknown type, or raises DecodeError."""
        try:
            message = self.decode(body)
        except DecodeError:
            return
        self.assertIsInstance(message, Message | None)
