"""Real changes of a host's network, and what p2pnet.net.watch makes of the kernel's messages."""

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lab.namespaces import Lab, program
from p2pnet.net import watch
from p2pnet.net.watch import NetworkWatch
from tests.lab import PrivilegedLabTestCase

QUIET = 0.3  # seconds without a report after which there will be no more of the same change
PATIENCE = 30.0  # seconds that a report may take on a busy machine


class WatchTests(PrivilegedLabTestCase, TestCase):
    """A host with two uplinks."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.lab = stack.enter_context(Lab())
        self.host, other = self.lab.host("host"), self.lab.host("other")
        for index, name in enumerate(("wlan0", "wwan0"), 1):
            self.lab.link(self.host, name, other, name)
            other.ip(f"link set {name} up")
            self.host.ip(
                f"address add 11.0.{index}.2/24 dev {name}",
                f"address add 2a00:{index}::2/64 dev {name} nodad",
                f"link set {name} up",
            )
        self.host.ip("route add default via 11.0.1.1", "route add default via 2a00:1::1")
        self.reports: list[str] = []
        self.next: Deferred[None] = Deferred()

    def changed(self, reason: str) -> None:
        """Take a report."""
        self.reports.append(reason)
        if not self.next.called:
            self.next.callback(None)

    def start(self, **options: Any) -> Any:
        """Start a watch on the host; fires when what was before it will not be reported."""
        made = NetworkWatch(reactor, snapshot=self.look, **options)
        with self.host.enter():
            made.start(self.changed)
        self.addCleanup(made.stop)
        return self.quiet()

    def look(self) -> object:
        """The snapshot of the host."""
        with self.host.enter():
            return watch.take_snapshot()

    @inlineCallbacks
    def quiet(self) -> Any:
        """Let the reactor run until there are no more reports."""
        reports: list[str] | None = None
        while reports != self.reports:
            reports = list(self.reports)
            yield deferLater(reactor, QUIET, lambda: None)
        self.reports.clear()

    @inlineCallbacks
    def assert_reported(self, *commands: str, family: str = "-4") -> Any:
        """These commands of ip(8) are a change."""
        self.next = Deferred()
        self.host.run([program("ip"), family, "-batch", "-"], "\n".join([*commands, ""]))
        yield self.next.addTimeout(PATIENCE, reactor)
        self.assertEqual({"addresses"}, set(self.reports), commands)
        yield self.quiet()

    @inlineCallbacks
    def test_every_kind_of_change_is_reported(self) -> Any:
        """Addresses, routes, rules and interfaces, of IPv4 and IPv6, as they come and go."""
        yield self.start()
        for command in (
            "-4 address add 11.0.1.3/24 dev wlan0",
            "-4 address delete 11.0.1.3/24 dev wlan0",
            "-6 address add 2a00:1::3/64 dev wlan0 nodad",
            "-6 address delete 2a00:1::3/64 dev wlan0",
            "-6 address change 2a00:1::2/64 dev wlan0 preferred_lft 0",
            "-4 route change default via 11.0.2.1",
            "-4 route delete default",
            "-6 route change default via 2a00:2::1",
            "-6 route delete default",
            "-4 rule add from 11.0.1.2 table 7",
            "-6 rule add from 2a00:1::2 table 7",
            "-4 link add bridge0 type bridge",
            "-4 link delete bridge0",
            "-4 link set wlan0 down",
            "-4 link set wlan0 up",
            "-4 link delete wwan0",
        ):
            family, _, rest = command.partition(" ")
            yield self.assert_reported(rest, family=family)

    @inlineCallbacks
    def test_an_overrun_is_reported(self) -> Any:
        """More messages than a socket holds, while nobody reads; later ones are heard again."""
        opened: list[socket.socket] = []

        def open_small() -> socket.socket:
            opened.append(watch.open_messages())
            opened[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # as small as may be
            return opened[0]

        yield self.start(open_messages=open_small)
        lines = [f"address add 11.0.3.{number}/24 dev wlan0" for number in range(1, 100)]
        yield self.assert_reported(*lines)
        self.assertGreater(self.dropped(opened[0]), 0)
        yield self.assert_reported("address add 11.0.4.1/24 dev wlan0")

    def dropped(self, opened: socket.socket) -> int:
        """How many messages a netlink socket of the host lost."""
        with self.host.enter():
            table = Path("/proc/thread-self/net/netlink").read_text().splitlines()
        inode = str(os.fstat(opened.fileno()).st_ino)
        (drops,) = (int(row[-2]) for row in map(str.split, table) if row[-1] == inode)
        return drops

    @inlineCallbacks
    def test_other_hosts_do_not_matter(self) -> Any:
        """The messages are those of the namespace in which the watch was started."""
        yield self.start()
        self.lab.host("elsewhere").ip("link add bridge0 type bridge", "link set bridge0 up")
        yield self.assert_nothing()

    @inlineCallbacks
    def test_renewed_addresses_are_not_reported(self) -> Any:
        """Their lifetimes are, in the kernel's messages."""
        yield self.start()
        for address in ("11.0.1.2/24", "2a00:1::2/64"):
            lease = f"address change {address} dev wlan0 noprefixroute valid_lft 3600"
            self.host.ip(f"{lease} preferred_lft 3000")
            yield self.quiet()
            self.host.ip(f"{lease} preferred_lft 2000")
            yield self.assert_nothing()

    @inlineCallbacks
    def assert_nothing(self) -> Any:
        """There is no report."""
        yield deferLater(reactor, QUIET, lambda: None)
        self.assertEqual([], self.reports)

    def test_a_look_notices_addresses_and_default_routes(self) -> None:
        """Of IPv4 and IPv6, where the system does not tell."""
        seen = [self.look()]
        for command in (
            "address add 11.0.1.3/24 dev wlan0",
            "address add 2a00:1::3/64 dev wlan0 nodad",
            "route change default via 11.0.2.1",
            "route change default via 2a00:2::1",
            "link set wwan0 down",
        ):
            self.host.ip(command)
            seen.append(self.look())
            self.assertEqual(1, seen.count(seen[-1]), command)
        self.assertEqual(seen[-1], self.look())

    @inlineCallbacks
    def test_nothing_is_left_open(self) -> Any:
        """After many starts and stops."""
        yield self.start()  # the reactor has opened what it needs itself
        before = os.listdir("/proc/self/fd")
        for _ in range(10):
            made = NetworkWatch(reactor)
            made.start(self.changed)
            made.stop()
        self.assertEqual(before, os.listdir("/proc/self/fd"))
