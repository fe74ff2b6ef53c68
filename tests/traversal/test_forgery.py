"""Checks that are forged, replayed, redirected or too many: they prove nothing and cost little."""

from __future__ import annotations

from p2pnet.interfaces import Datagrams
from p2pnet.testing.network import Link
from p2pnet.traversal.candidate import CandidatePolicy, CandidateType
from p2pnet.traversal.pair_table import MAX_PAIRS
from p2pnet.traversal.transactions import MAX_TRANSACTIONS
from p2pnet.wire.address import Address
from p2pnet.wire.check import (
    Check,
    CheckKind,
    decode_check,
    encode_error,
    encode_request,
    encode_success,
)
from tests.traversal.support import CheckListCase, Peer, begin, candidate

STRANGER: Address = ("192.0.2.66", 6000)
PASSWORD = "an attacker's own word"


class ForgeryCase(CheckListCase):
    """The two, and a stranger with a socket."""

    def meet(self, *arguments: object) -> tuple[Peer, Peer]:
        """The two and the stranger."""
        ends = super().meet(*arguments)  # type: ignore[arg-type]
        self.stranger = self.net.transport(*STRANGER)
        self.received: list[tuple[float, bytes]] = []
        self.stranger.start(self.hear)
        return ends

    def hear(self, datagrams: Datagrams) -> None:
        """Something was sent to the stranger."""
        self.received += [(self.net.clock.seconds(), data) for data, _ in datagrams]

    def request(
        self, victim: Peer, number: int = 1, password: str = "", controlling: bool = False
    ) -> bytes:
        """A nominating request to the victim; authentic unless there is a password given."""
        check = Check(
            CheckKind.REQUEST, number.to_bytes(12, "big"),
            username=f"{victim.credentials.username_fragment}:x", priority=1,
            controlling=controlling, tie_breaker=1, nominates=True,
        )  # fmt: skip
        return encode_request(check, password or victim.credentials.password)

    def send(self, data: bytes, victim: Peer) -> None:
        """Send from the stranger's address, and let it arrive."""
        self.stranger.send([(data, victim.local.address)])
        self.net.run(0.1)


class ForgedTests(ForgeryCase):
    """Without the password."""

    def test_a_request_with_a_wrong_password_is_ignored(self) -> None:
        """No answer, no pair, no check."""
        one, _ = self.meet()
        self.send(self.request(one, password=PASSWORD), one)
        self.assertEqual((1, [], {}), (one.refused, one.sent, one.checks.pairs))
        self.assertEqual([], self.received)

    def test_an_answer_with_a_wrong_password_is_ignored(self) -> None:
        """From the right address, for the right transaction; the genuine one still counts."""
        one, other = self.meet()
        one.learn(other.local)
        one.start()
        transaction = one.requests[0].check.transaction_id
        for forged in (
            encode_success(transaction, one.local.address, PASSWORD),
            encode_error(transaction, 487, "Role Conflict", PASSWORD),
        ):
            other.transport.send([(forged, one.local.address)])
        self.net.run(0.03)
        self.assertEqual(2, one.refused)
        self.assertTrue(one.checks.controlling)
        self.assertIsNone(one.checks.best_valid())
        self.net.run(1.0)
        self.assert_settled(one, other)

    def test_an_answer_from_another_address_is_ignored(self) -> None:
        """RFC 8445 section 7.2.5.2.1; the genuine one still counts."""
        one, other = self.meet()
        self.cut(one, other, link=Link(delay=0.2))
        one.learn(other.local)
        one.start()
        transaction = one.requests[0].check.transaction_id
        password = other.credentials.password
        self.send(encode_success(transaction, one.local.address, password), one)
        self.assertEqual(1, one.refused)
        self.assertIsNone(one.checks.best_valid())
        self.assertEqual([other.local.address], list(one.checks.pairs))
        self.net.run(1.0)
        self.assert_settled(one, other)

    def test_an_answer_to_no_transaction_of_ours_is_ignored(self) -> None:
        """However authentic it is; so is a second answer to one of them."""
        one, other = self.connect()
        self.net.run(1.0)
        password = other.credentials.password
        before = len(one.events)
        for transaction in (bytes(12), one.requests[0].check.transaction_id):
            answer = encode_success(transaction, one.local.address, password)
            other.transport.send([(answer, one.local.address)])
        self.net.run(1.0)
        self.assertEqual((2, before), (one.refused, len(one.events)))


class ReplayedTests(ForgeryCase):
    """Authentic, and sent again by somebody else."""

    def test_a_replayed_request_costs_one_answer_and_few_checks_and_proves_nothing(self) -> None:
        """It looks like a peer whose NAT moved it: STUN cannot tell. But who replays cannot answer,
        so no data goes there, and after eight seconds nothing does."""
        one, other = self.connect()
        self.net.run(1.0)
        (request,) = [sent.data for sent in one.requests if sent.check.nominates]
        self.send(request, other)
        self.net.run(20.0)
        kinds = [decode_check(data).kind for _, data in self.received]
        self.assertEqual(1, kinds.count(CheckKind.SUCCESS))
        self.assertLessEqual(kinds.count(CheckKind.REQUEST), 12)
        self.assertLess(self.received[-1][0], 10.0)
        self.assertFalse(other.checks.pairs[STRANGER].is_valid)
        self.assert_settled(one, other)
        self.assert_quiet(one, other)

    def test_many_replays_of_a_request_do_not_cost_more_checks(self) -> None:
        """Each is answered, shorter than it came, and none makes the paced checks denser."""
        one, other = self.connect()
        self.net.run(1.0)
        (request,) = [sent.data for sent in one.requests if sent.check.nominates]
        for _ in range(200):
            self.stranger.send([(request, other.local.address)])
        self.net.run(20.0)
        sizes = [len(data) for _, data in self.received]
        self.assertLessEqual(sum(sizes), 200 * len(request) + 13 * 128)
        self.assert_settled(one, other)


class PolicyTests(ForgeryCase):
    """Authentic, from where nothing may be sent to."""

    def test_regression_nothing_is_sent_to_a_disallowed_source(self) -> None:
        """No answer and no check; the refusal in a role conflict was sent."""
        disallowed = [("192.0.2.66", 53), ("127.0.0.1", 5000), ("224.0.0.1", 5000)]
        for controlling in (False, True):
            one, _ = self.meet()
            for number, source in enumerate(disallowed):
                request = self.request(one, number, controlling=controlling)
                self.net.send(request, source, one.local.address)
            self.net.run(1.0)
            self.assertEqual([], one.sent)
            self.assertEqual({}, one.checks.pairs)

    def test_the_policy_says_what_is_allowed(self) -> None:
        """With loopback allowed, the same request is answered and checked back."""
        one, _ = self.meet()
        one.policy = CandidatePolicy(loopback=True)
        one.meet(self.other.credentials)
        self.net.send(self.request(one), ("127.0.0.1", 5000), one.local.address)
        self.net.run(0.1)
        self.assertEqual([("127.0.0.1", 5000)], list(one.checks.pairs))


class LimitTests(ForgeryCase):
    """Everything that grows has a cap."""

    def test_there_are_never_more_pairs_than_the_limit(self) -> None:
        """From authentic checks of any number of addresses, and candidates of any number of
        updates."""
        one, _ = self.meet()
        one.start()
        for number in range(200):
            source = f"192.0.2.{100 + number % 100}", 2000 + number
            self.net.send(self.request(one, number), source, one.local.address)
            self.net.run(0.05)
            one.learn(
                *(
                    candidate(CandidateType.HOST, ("198.18.0.1", 2000 + 16 * number + n))
                    for n in range(16)
                )
            )
            self.assertLessEqual(len(one.checks.pairs), MAX_PAIRS)
        self.assertEqual(MAX_PAIRS, len(one.checks.pairs))

    def test_peer_reflexive_candidates_never_displace_a_pair(self) -> None:
        """A pair of NATs that show a new port each time would keep us busy for ever."""
        one, _ = self.meet()
        one.learn(*(candidate(CandidateType.HOST, ("198.18.0.1", 2000 + n)) for n in range(16)))
        one.start()
        for number in range(100):
            source = "192.0.2.100", 2000 + number
            self.net.send(self.request(one, number), source, one.local.address)
        self.net.run(60.0)
        self.assertEqual(MAX_PAIRS, len(one.checks.pairs))
        self.assert_quiet(one)

    def test_regression_a_peer_that_moves_often_is_still_found(self) -> None:
        """Pairs that had failed took all the room after some changes of network."""
        one, other = self.meet()
        begin(one, other)
        for move in range(3):
            gone = [(f"198.18.{move}.{n}", 2000) for n in range(16)]
            one.learn(*(candidate(CandidateType.HOST, address) for address in gone))
            self.net.run(20.0)
        self.assertEqual(MAX_PAIRS, len(one.checks.pairs))
        one.learn(other.local)
        self.net.run(1.0)
        self.assert_settled(one, other)

    def test_unanswered_transactions_are_forgotten(self) -> None:
        """After so many, an answer to the first comes too late."""
        one, _ = self.meet()
        for net in range(2):
            hosts = [f"198.18.{net}.{n}" for n in range(16)]
            one.learn(*(candidate(CandidateType.HOST, (name, 2000)) for name in hosts))
        one.start()
        self.net.run(20.0)
        self.assertGreater(len(one.requests), MAX_TRANSACTIONS)
        answered = []
        for request in (one.requests[0], one.requests[-1]):
            check = decode_check(
                encode_success(
                    request.check.transaction_id, request.destination, one.checks.remote.password
                )
            )
            answered.append(one.checks.receive(check, request.destination, request.at))
        self.assertEqual([False, True], answered)


class CredentialTests(CheckListCase):
    """Every session has its own."""

    def test_a_request_names_both_ends_and_is_sealed_for_the_receiver(self) -> None:
        """USERNAME is "theirs:ours" (RFC 8445 section 7.2.2)."""
        one, other = self.meet()
        one.learn(other.local)
        one.start()
        check = one.requests[0].check
        theirs, ours = other.credentials, one.credentials
        self.assertEqual(f"{theirs.username_fragment}:{ours.username_fragment}", check.username)
        self.assertTrue(check.is_authentic(theirs.password))
        self.assertFalse(check.is_authentic(ours.password))
