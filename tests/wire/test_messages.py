"""Messages of the control stream."""

from typing import get_args

from p2pnet.traversal.selection import SELECTORS
from p2pnet.wire import messages
from p2pnet.wire.codes import DecodeError
from p2pnet.wire.encoding import encode_message
from tests.wire.encoding_cases import EncodingCases

SESSION = bytes(range(16))
CHANNELS = b"sendchan", b"recvchan"
INSTANCE = b"instance"
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
    messages.SessionRequest(7, SESSION, "web", None, "relay-only", ("office",)): (
        "0000006d87a174af73657373696f6e2d72657175657374a77265717565737407a773657373696f6ec4100001"
        "02030405060708090a0b0c0d0e0fa773657276696365a3776562a9636f6e6e6563746f72c0a6706f6c696379"
        "aa72656c61792d6f6e6c79a5747269656491a66f6666696365"
    ),
    messages.SessionOffer(SESSION, "alice", INSTANCE, "web", *CHANNELS): (
        "0000008787a174ad73657373696f6e2d6f66666572a773657373696f6ec410000102030405060708090a0b0c"
        "0d0e0fa56167656e74a5616c696365a8696e7374616e6365c408696e7374616e6365a773657276696365a377"
        "6562ac73656e645f6368616e6e656cc40873656e646368616eaf726563656976655f6368616e6e656cc40872"
        "6563766368616e"
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
    messages.Draining(30.0): (
        "0000001d82a174a8647261696e696e67a77365636f6e6473cb403e000000000000"
    ),
    messages.Goodbye(0, ""): "0000001983a174a7676f6f64627965a4636f646500a6726561736f6ea0",
}  # fmt: skip
REFUSED = (
    (messages.Register(()), {"services": ["Web"]}),
    (messages.Register(()), {"services": ["web\n"]}),
    (messages.Register(()), {"services": ["x"] * 257}),
    (messages.Hello((1, 0), INSTANCE), {"instance": b"short"}),
    (messages.Hello((1, 0), INSTANCE), {"version": [1, 0, 0]}),
    (messages.SessionRequest(7, SESSION, "web"), {"tried": ["x"] * 9}),
    (messages.SessionRequest(7, SESSION, "web"), {"tried": ["Office"]}),
    (messages.SessionClosed(SESSION, 0, ""), {"session": SESSION + b"x"}),
    (messages.ObservedAddress(1, "::1", 1), {"port": 65536}),
    (messages.ObservedAddress(1, "::1", 1), {"sequence": -1}),
    (messages.ObservedAddress(1, "::1", 1), {"host": "fe80::1%\x1b"}),
    (messages.Goodbye(0, ""), {"code": -1}),
    (messages.Goodbye(0, ""), {"reason": "x" * 513}),
    (messages.Draining(1.0), {"seconds": float("nan")}),
)


class ControlMessageTests(EncodingCases):
    """The messages between a node and an Intermediate."""

    types = messages.TYPES
    golden = GOLDEN
    refused = REFUSED
    decode = staticmethod(messages.decode_message)

    def test_the_policies_are_those_that_sessions_have(self) -> None:
        """A made-up one would make one more session of an agent with one connector."""
        self.assertEqual(set(SELECTORS), set(get_args(messages.PolicyName)))
        body = encode_message(messages.SessionRequest(1, SESSION, "web"))[4:]
        self.assertRaises(DecodeError, self.decode, body.replace(b"direct", b"diract"))


del EncodingCases  # no tests of this module
