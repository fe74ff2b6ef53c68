"""Messages about the paths of a session."""

from p2pnet.wire import path_messages as paths
from tests.wire.encoding_cases import EncodingCases

PASSWORD = "0123456789abcdefghijkl"
CANDIDATE = paths.CandidateInfo("host", "192.0.2.1", 50000, 2_130_706_431, "1")
A_HOST = ["host", "192.0.2.1", 50000, 1, "1"]
# One of each type with its bytes: length, then a MessagePack map in the order of the fields.
GOLDEN = {
    paths.CandidateOffer("ufrg", PASSWORD, (CANDIDATE,), "direct-only"): (
        "0000008385a174af63616e6469646174652d6f66666572b1757365726e616d655f667261676d656e74a47566"
        "7267a870617373776f7264b6303132333435363738396162636465666768696a6b6caa63616e646964617465"
        "739195a4686f7374a93139322e302e322e31cdc350ce7effffffa131a6706f6c696379ab6469726563742d6f"
        "6e6c79"
    ),
    paths.CandidateAnswer("ufrg", PASSWORD, ()): (
        "0000005784a174b063616e6469646174652d616e73776572b1757365726e616d655f667261676d656e74a475"
        "667267a870617373776f7264b6303132333435363738396162636465666768696a6b6caa63616e6469646174"
        "657390"
    ),
    paths.CandidateUpdate((CANDIDATE,)): (
        "0000003a82a174b063616e6469646174652d757064617465aa63616e646964617465739195a4686f7374a931"
        "39322e302e322e31cdc350ce7effffffa131"
    ),
    paths.StartPunching(500): (
        "0000001b82a174ae73746172742d70756e6368696e67a564656c6179cd01f4"
    ),
    paths.PunchingResult(False, "no"): (
        "0000002583a174af70756e6368696e672d726573756c74a6646972656374c2a6726561736f6ea26e6f"
    ),
}  # fmt: skip
REFUSED = (
    (paths.CandidateUpdate(()), {"candidates": [A_HOST] * 17}),
    (paths.CandidateUpdate(()), {"candidates": [["x", *A_HOST[1:]]]}),
    (paths.CandidateUpdate(()), {"candidates": [A_HOST[:4]]}),
    (paths.CandidateUpdate(()), {"candidates": [["host", "\n", 5, 1, "1"]]}),
    (paths.CandidateAnswer("ufrg", PASSWORD, ()), {"password": "short"}),
    (paths.StartPunching(0), {"delay": 10_001}),
)


class PathMessageTests(EncodingCases):
    """The messages between the ends of a session."""

    types = paths.TYPES
    golden = GOLDEN
    refused = REFUSED
    decode = staticmethod(paths.decode_path_message)


del EncodingCases  # no tests of this module
