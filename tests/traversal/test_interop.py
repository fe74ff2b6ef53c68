"""aioice, an ICE implementation that is not ours, and a check list of ours find each other."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import aioice
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.testing.processes import Deadline
from p2pnet.traversal.candidate import Candidate, CandidatePolicy, CandidateType
from p2pnet.traversal.checklist import IceCredentials
from p2pnet.wire.address import Address
from p2pnet.wire.demux import Kind, classify
from tests.traversal.support import End, host

LOOPBACK = "127.0.0.1"
PATIENCE = 15.0  # seconds of a Deadline for anything; a fraction of one is what it takes


class Loop:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Have a coroutine run there."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, PATIENCE), self._loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have it run there, and wait for its result."""
        return self.begin(work).result(PATIENCE + 1)

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Socket:
    """An end of ours on a real socket, driven by real time."""

    def __init__(self, controlling: bool) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((LOOPBACK, 0))
        self.address: Address = self.socket.getsockname()
        policy = CandidatePolicy(loopback=True)
        self.end = End(host(self.address), controlling, random.Random().randbytes, policy)
        self.heard: list[tuple[bytes, Address]] = []  # what was not STUN

    def drive(self, done: Callable[[], Any]) -> None:
        """Check and answer until `done()`."""
        deadline = Deadline(PATIENCE)
        while not done():
            now = time.monotonic()
            assert not deadline.passed, "not in time"
            for data, address in self.end.take(now):
                self.socket.sendto(data, address)
            timer = self.end.checks.get_timer()
            wait = 0.02 if timer is None else min(0.02, max(0.0, timer - time.monotonic()))
            if select.select([self.socket], [], [], wait)[0]:
                data, source = self.socket.recvfrom(2048)
                if classify(data) is Kind.STUN:
                    self.end.receive(data, source, time.monotonic())
                else:
                    self.heard.append((data, source))


class InteropTests(SynchronousTestCase):
    """Over real sockets of this machine's loopback."""

    def setUp(self) -> None:
        """A loop for aioice, which leaves loopback out when it gathers."""
        self.patch(aioice.ice, "get_host_addresses", lambda **_: [LOOPBACK])
        self.loop = Loop()
        self.addCleanup(self.loop.stop)

    async def gather(self, controlling: bool) -> aioice.Connection:
        """aioice's side, with its candidates."""
        connection = aioice.Connection(ice_controlling=controlling, components=1)
        await connection.gather_candidates()
        return connection

    async def introduce(self, ours: Socket, known: bool) -> None:
        """Tell aioice of our credentials, and of our candidate if it is to know it."""
        credentials = ours.end.credentials
        self.theirs.remote_username = credentials.username_fragment
        self.theirs.remote_password = credentials.password
        if known:
            mine = ours.end.local
            await self.theirs.add_remote_candidate(
                aioice.Candidate(
                    mine.foundation, 1, "udp", mine.priority, *mine.address, mine.type.value
                )
            )
            await self.theirs.add_remote_candidate(None)

    async def talk(self) -> bytes:
        """aioice's part: connect, say something, hear the answer."""
        await self.theirs.connect()
        await self.theirs.send(b"\xffhello")
        answer: bytes = await self.theirs.recv()
        return answer

    def meet(self, ours: bool, theirs: bool, known: bool = True) -> Socket:
        """The two, with these roles, until both have selected a pair and used it."""
        mine = Socket(ours)
        self.addCleanup(mine.socket.close)
        connection = self.theirs = self.loop.run(self.gather(theirs))
        self.addCleanup(lambda: self.loop.run(connection.close()))
        self.loop.run(self.introduce(mine, known))
        mine.end.meet(IceCredentials(self.theirs.local_username, self.theirs.local_password))
        mine.end.checks.add_remote(
            [
                Candidate(
                    CandidateType(one.type), (one.host, one.port), one.priority, one.foundation
                )
                for one in self.theirs.local_candidates
            ]
        )
        talk = self.loop.begin(self.talk())
        mine.end.checks.start(time.monotonic())
        mine.drive(lambda: mine.end.checks.selected and mine.heard)
        (data, source) = mine.heard[0]
        self.assertEqual(b"\xffhello", data)
        mine.socket.sendto(b"\xffhello to you", source)
        mine.drive(talk.done)
        self.assertEqual(b"\xffhello to you", talk.result())
        return mine

    def assert_settled(self, mine: Socket) -> None:
        """On the pair of the two sockets, which answered us; one side controls."""
        (theirs,) = self.theirs.local_candidates
        selected = mine.end.checks.selected
        assert selected is not None
        self.assertEqual((theirs.host, theirs.port), selected.address)
        self.assertEqual({selected.address}, mine.end.answered)
        self.assertEqual(0, mine.end.refused)
        self.assertNotEqual(mine.end.checks.controlling, self.theirs.ice_controlling)

    def test_we_control(self) -> None:
        """And nominate; aioice takes it."""
        self.assert_settled(self.meet(ours=True, theirs=False))

    def test_aioice_controls(self) -> None:
        """And nominates; we take it."""
        mine = self.meet(ours=False, theirs=True)
        self.assert_settled(mine)
        self.assertFalse(any(sent.check.nominates for sent in mine.end.requests))

    def test_a_role_conflict_with_aioice_is_resolved(self) -> None:
        """Both control, or both are controlled, at first."""
        for both in (True, False):
            self.assert_settled(self.meet(ours=both, theirs=both))

    def test_aioice_learns_of_us_by_our_check_alone(self) -> None:
        """We are a peer-reflexive candidate to it."""
        self.assert_settled(self.meet(ours=True, theirs=False, known=False))
